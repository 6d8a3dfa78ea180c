"""A cluster on one machine: controllers and nodes, each in a network namespace of its own, and a
network between them that can lose packets. Runs inside namespaces of its own (see CMakeLists.txt);
examples/demo/cluster uses it as well."""
import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import unittest

from node import BUILD, Agent, run, until

ADMIN = "192.0.2.250"  # the network's own address: administrators, and what nodes call upstream
SANITIZERS = ("AddressSanitizer", "runtime error", "LeakSanitizer")


class Host:
    """A machine on the network: a namespace with one address, and one program."""

    def __init__(self, cluster, name, number, netns=None):
        self.cluster, self.name, self.netns = cluster, name, netns or name
        self.address = f"192.0.2.{number}"
        self.dir = cluster.dir / name
        self.dir.mkdir()
        self.port = f"to-{name}"  # of the bridge
        run("ip", "netns", "add", self.netns)
        run("ip", "link", "add", self.port, "type", "veth", "peer", "name", "up0", "netns",
            self.netns)
        run("ip", "link", "set", self.port, "master", "lan", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "up0")
        self.run("ip", "link", "set", "up0", "up")
        self.process = None

    def inside(self, *argv):
        return ["nsenter", f"--net=/run/netns/{self.netns}", *map(str, argv)]

    def run(self, *argv, **options):
        return run(*self.inside(*argv), **options)

    @property
    def log(self):
        return self.dir / "log"

    def launch(self, *argv):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.inside(*argv), stdout=log, stderr=log)

    def ended(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}: "
                                 + self.log.read_text()[-2000:])
        return False

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        self.process = None

    def close(self):
        if self.process:
            self.kill()


class Controller(Host):
    def __init__(self, cluster, name, number, more):
        super().__init__(cluster, name, number, f"at-{name}")  # a container may be called so
        self.endpoint = f"{self.address}:7443"
        self.store = self.dir / "dir"
        self.config = self.dir / "controller.yaml"
        self.config.write_text(
            f"dir: {self.store}\nname: {name}\nlisten: {self.endpoint}\n"
            f"join_listen: {self.address}:7444\n" + more)

    def start(self):
        self.launch(BUILD / "mesh-controller", "--config", self.config)
        until(lambda: self.ctl("status", check=False).returncode != 3 or self.ended(),
              f"{self.name} answers")

    def ctl(self, *argv, **options):
        return self.cluster.ctl(*argv, at=self.endpoint, **options)


class Machine(Host):
    """A node."""

    def __init__(self, cluster, name, number, more=""):
        super().__init__(cluster, name, number)
        self.run_dir, self.state_dir = self.dir / "run", self.dir / "state"
        self.ticket = self.dir / "ticket"
        for path in (self.run_dir, self.state_dir):
            path.mkdir()
        self.config = self.dir / "meshd.yaml"
        self.config.write_text(
            f"node: {{name: {name}}}\nrun_dir: {self.run_dir}\nstate_dir: {self.state_dir}\n"
            f"controller: {{join_file: {self.ticket}}}\n"
            f'dns: {{upstreams: ["{ADMIN}"]}}\n' + more)
        self.agents = {}
        self.facts = {}

    def start(self):
        if not self.ticket.exists():
            shutil.copy(self.cluster.controllers[0].store / "join.ticket", self.ticket)
        self.launch(BUILD / "meshd", "--config", self.config)
        until(lambda: self.ctl("status", check=False).returncode == 0 or self.ended(),
              lambda: f"{self.name} is healthy: {self.ctl('status', check=False).stdout}")

    def ctl(self, *argv, **options):
        return self.run(BUILD / "meshctl", "--run-dir", self.run_dir, *argv, **options)

    def begin(self, *argv):
        """A command that goes on."""
        return subprocess.Popen(
            self.inside(BUILD / "meshctl", "--run-dir", self.run_dir, *argv), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def json(self, *argv):
        return json.loads(self.ctl(*argv, "-o", "json").stdout)

    def controller(self):
        """What it says of its session: "connected to c1", "away since ..."."""
        answer = self.ctl("status", "-o", "json", check=False)
        return json.loads(answer.stdout)["controller"] if answer.stdout else ""

    def is_connected(self):
        return self.controller().startswith("connected")

    def prepare(self, name):
        """Attached, without a program in it."""
        resolv = self.dir / f"{name}.resolv"
        self.facts[name] = json.loads(
            self.ctl("prepare", name, "--resolv-conf", resolv, "-o", "json").stdout)

    def command(self, name, *argv):
        """What runs a program in that container, with the resolv.conf that meshctl wrote."""
        bind = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
        return ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "--propagation",
                "private", "bash", "-c", bind, "container", str(self.dir / f"{name}.resolv"),
                *map(str, argv)]

    def container(self, name):
        self.prepare(name)
        self.agents[name] = Agent(name, self.command(name))
        return self.agents[name]

    def remove(self, name):
        self.agents.pop(name).stop()
        self.ctl("detach", name)

    def address_of(self, name, family=4):
        return next(a for a in self.facts[name]["addresses"] if (":" in a) == (family == 6))

    def close(self):
        for agent in self.agents.values():
            agent.stop()
        super().close()


class Cluster:
    """Controllers of one cluster, which share `postgres` when there are several, and nodes."""

    def __init__(self, nodes=2, controllers=1, postgres="", more="", node_config=""):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        self.dir = pathlib.Path("/run/test")
        self.dir.mkdir()
        pathlib.Path("/run/netns").mkdir()
        pathlib.Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "lan", "type", "bridge")
        run("ip", "addr", "add", f"{ADMIN}/24", "dev", "lan")
        run("ip", "link", "set", "lan", "up")
        chains = "; ".join(f"add chain bridge lan {hook} {{ type filter hook {hook} priority 0; }}"
                           for hook in ("forward", "input", "output"))
        run("nft", f"add table bridge lan; {chains}")
        self.postgres = postgres
        if postgres:
            more += f"postgres: {postgres}\n"
        self.controllers = [Controller(self, f"c{number}", 250 + number, more)
                            for number in range(1, controllers + 1)]
        self.machines = [Machine(self, f"n{number}", number, node_config)
                         for number in range(1, nodes + 1)]

    def make(self):
        first, *others = self.controllers
        addresses = [word for c in self.controllers for word in ("--address", c.endpoint)]
        run(BUILD / "mesh-controller", "init", "--dir", first.store, *addresses,
            *(["--postgres", self.postgres] if self.postgres else []))
        for other in others:
            other.store.mkdir(mode=0o700)
            for name in ("authority.key", "authorities.pem"):
                shutil.copy(first.store / name, other.store / name)

    def start(self):
        for host in self.controllers + self.machines:
            host.start()
        self.settled()

    def node(self, name):
        """As a controller lists it; None: it knows of no such node."""
        return next((node for node in self.json("list", "nodes")["nodes"]
                     if node["name"] == name), None)

    def settled(self):
        until(self.all_connected, lambda: "all nodes are connected: " + str(
            [machine.controller() for machine in self.machines]))

    def all_connected(self):
        return all(machine.is_connected() for machine in self.machines)

    def endpoints(self):
        return ",".join(c.endpoint for c in self.controllers)

    def ctl(self, *argv, at=None, check=True, stdin=None):
        return run(BUILD / "meshctl", "--controller", at or self.endpoints(), "--identity",
                   self.controllers[0].store / "admin.pem", *argv, check=check, stdin=stdin)

    def begin(self, *argv, stdin=None):
        """A command that goes on."""
        process = subprocess.Popen(
            [BUILD / "meshctl", "--controller", self.endpoints(), "--identity",
             self.controllers[0].store / "admin.pem", *argv], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if stdin:
            process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None  # communicate() is not to flush it
        return process

    def json(self, *argv):
        return json.loads(self.ctl(*argv, "-o", "json").stdout)

    def apply(self, workloads, **options):
        return self.ctl("apply", "-f", "-", stdin="workloads:\n" + workloads, **options)

    def placed(self):
        """Who is attached where, as the controller knows it."""
        return {w["id"]: w["attachment"]["node"]
                for w in self.json("list", "workloads")["workloads"]
                if w["attachment"] and w["attachment"]["addresses"]}

    # --- the network ---

    def cut(self, source, target=None):
        """Packets of `source` to `target`, or to anybody, vanish."""
        rules = [f"add rule bridge lan input iifname {source.port} drop"]
        if target:
            rules = []
            wanted = f"oifname {target.port}"
        else:
            wanted = ""
        rules.append(f"add rule bridge lan forward iifname {source.port} {wanted} drop")
        run("nft", "; ".join(rules))

    def cut_both(self, one, other):
        self.cut(one, other)
        self.cut(other, one)

    def cut_off(self, host):
        """From everybody, both ways."""
        self.cut(host)
        run("nft", f"add rule bridge lan forward oifname {host.port} drop; "
                   f"add rule bridge lan output oifname {host.port} drop")

    def mend(self):
        run("nft", "flush table bridge lan")

    @contextlib.contextmanager
    def broken(self, *cuts):
        """Pairs (source, target): one way each."""
        for cut in cuts:
            self.cut(*cut)
        try:
            yield
        finally:
            self.mend()

    # --- the end ---

    def check_logs(self):
        for host in self.controllers + self.machines:
            text = host.log.read_text() if host.log.exists() else ""
            for word in SANITIZERS:
                if word in text:
                    raise AssertionError(f"{host.name}: {text[text.find(word) - 500:][:4000]}")

    def tell_logs(self):
        for host in self.controllers + self.machines:
            if host.log.exists():
                print(f"--- {host.name}\n" + host.log.read_text()[-2000:], flush=True)

    def close(self):
        for host in self.machines + self.controllers:
            host.close()


class ClusterTest(unittest.TestCase):
    """One cluster for all tests of a class: its start is the dearest part."""
    OPTIONS = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(**cls.options())
        try:
            cls.before_start()
            cls.cluster.start()
            cls.prepare()
        except BaseException:
            cls.cluster.tell_logs()
            raise

    @classmethod
    def options(cls):
        return dict(cls.OPTIONS)

    @classmethod
    def before_start(cls):
        cls.cluster.make()

    @classmethod
    def prepare(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def tearDown(self):
        self.cluster.mend()
        self.cluster.check_logs()
        if any(error for _, error in getattr(self._outcome, "errors", [])) or (
                self._outcome.result and self._outcome.result.failures):
            self.cluster.tell_logs()


PAIR_DB = ("- {{id: db, owner: ada, workflow: r1, name: db, "
           "serves: [{{port: 5432}}, {{port: {}, protocol: UDP}}]}}\n")
PAIR_WORKER = "- {id: worker, owner: ada, workflow: r1, peers: [{name: db}]}\n"


class PairTest(ClusterTest):
    """db on n1, worker on n2, and a conversation between them that never ends."""

    @classmethod
    def prepare(cls):
        cls.n1, cls.n2 = cls.cluster.machines[:2]
        cls.c1 = cls.cluster.controllers[0]
        cls.cluster.apply(PAIR_DB.format(1000) + PAIR_WORKER)
        cls.db = cls.n1.container("db")
        cls.db.serve(proto="tcp", port=5432)
        cls.n1.ctl("wait", "db")
        cls.worker = cls.n2.container("worker")
        cls.vip = cls.worker.lookup(name="db", family=4)["addresses"][0]
        until(lambda: cls.asks() == "answered", "the worker reaches db")
        cls.stop = cls.cluster.dir / "stop"
        opened = cls.worker.open(key="a", proto="tcp", to=cls.vip, port=5432)
        assert opened["result"] == "answered", opened
        cls.talk = cls.worker.begin("stream", key="a", until=str(cls.stop))

    @classmethod
    def asks(cls):
        return cls.worker.ask(proto="tcp", to=cls.vip, port=5432)["result"]

    def conversation(self):
        """Ends it: it went on all the time."""
        self.stop.touch()
        spoken = self.worker.end(self.talk)
        self.assertEqual(spoken["end"], "stopped", spoken)
        self.assertGreater(spoken["rounds"], 100, "void")
        return spoken
