"""Two nodes and a controller: the real programs, the real kernel, a network between them."""
import json
import os
import pathlib
import signal
import subprocess
import unittest

from node import BUILD, PATIENCE, Agent, run, until

DB = """
- {id: db, owner: ada, workflow: r1, name: db,
   serves: [{port: 5432}, {port: 5432, protocol: UDP}]}
"""
WORKER = "- {id: worker, owner: ada, workflow: r1, peers: [{name: db}]}\n"
STRANGER = "- {id: stranger, owner: bob, workflow: r2}\n"


class Machine:
    """A node of the cluster in a network namespace of its own."""

    def __init__(self, cluster, name, number):
        self.cluster, self.name = cluster, name
        self.address = f"192.0.2.{number}"
        self.dir = cluster.dir / name
        self.run_dir = self.dir / "run"
        for path in (self.dir, self.run_dir, self.dir / "state"):
            path.mkdir()
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "up0",
            "netns", name)
        run("ip", "link", "set", f"to-{name}", "master", "lan", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "up0")
        self.run("ip", "link", "set", "up0", "up")
        self.config = self.dir / "meshd.yaml"
        self.config.write_text(
            f"node: {{name: {name}}}\nrun_dir: {self.run_dir}\nstate_dir: {self.dir}/state\n"
            f"controller: {{join_file: {cluster.store}/join.ticket}}\n"
            'dns: {upstreams: ["192.0.2.254"]}\n')
        self.daemon = None
        self.agents = {}
        self.facts = {}

    def inside(self, *argv):
        return ["nsenter", f"--net=/run/netns/{self.name}", *map(str, argv)]

    def run(self, *argv, **options):
        return run(*self.inside(*argv), **options)

    def start(self):
        with open(self.dir / "meshd.log", "a", encoding="utf-8") as log:
            self.daemon = subprocess.Popen(
                self.inside(BUILD / "meshd", "--config", self.config), stdout=log, stderr=log)
        until(lambda: self.ctl("status", check=False).returncode == 0 or self.ended(),
              lambda: f"{self.name} is healthy: {self.ctl('status', check=False).stdout}")

    def ended(self):
        if self.daemon.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.daemon.returncode}: "
                                 + (self.dir / "meshd.log").read_text()[-2000:])
        return False

    def kill(self, number=signal.SIGKILL):
        self.daemon.send_signal(number)
        self.daemon.wait(timeout=30)
        self.daemon = None

    def ctl(self, *argv, check=True):
        return self.run(BUILD / "meshctl", "--run-dir", self.run_dir, *argv, check=check)

    def container(self, name):
        resolv = self.dir / f"{name}.resolv"
        self.facts[name] = json.loads(
            self.ctl("prepare", name, "--resolv-conf", resolv, "-o", "json").stdout)
        bind = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
        self.agents[name] = Agent(name, [
            "nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "--propagation",
            "private", "bash", "-c", bind, "container", str(resolv)])
        return self.agents[name]

    def remove(self, name):
        self.agents.pop(name).stop()
        self.ctl("detach", name)

    def close(self):
        for agent in self.agents.values():
            agent.stop()
        if self.daemon:
            self.kill()


class Cluster:
    def __init__(self):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        self.dir = pathlib.Path("/run/test")
        self.store = self.dir / "controller"
        self.dir.mkdir()
        pathlib.Path("/run/netns").mkdir()
        pathlib.Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "lan", "type", "bridge")
        run("ip", "addr", "add", "192.0.2.254/24", "dev", "lan")
        run("ip", "link", "set", "lan", "up")
        run(BUILD / "mesh-controller", "init", "--dir", self.store, "--address",
            "192.0.2.254:7443")
        self.config = self.dir / "controller.yaml"
        self.config.write_text(f"dir: {self.store}\nname: c1\nlisten: 192.0.2.254:7443\n"
                               "join_listen: 192.0.2.254:7444\n")
        self.controller = None
        self.machines = [Machine(self, f"n{number}", number) for number in (1, 2)]

    def start_controller(self):
        with open(self.dir / "controller.log", "a", encoding="utf-8") as log:
            self.controller = subprocess.Popen(
                [BUILD / "mesh-controller", "--config", self.config], stdout=log, stderr=log)

    def kill_controller(self):
        self.controller.kill()
        self.controller.wait(timeout=30)
        self.controller = None

    def ctl(self, *argv, check=True, stdin=None):
        return run(BUILD / "meshctl", "--controller", "192.0.2.254:7443", "--identity",
                   self.store / "admin.pem", *argv, check=check, stdin=stdin)

    def json(self, *argv):
        return json.loads(self.ctl(*argv, "-o", "json").stdout)

    def apply(self, workloads):
        return self.ctl("apply", "-f", "-", stdin="workloads:\n" + workloads)

    def close(self):
        for machine in self.machines:
            machine.close()
        if self.controller:
            self.kill_controller()


class ClusterTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.cluster.start_controller()
        cls.n1, cls.n2 = cls.cluster.machines
        cls.n1.start()
        cls.n2.start()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def connected(self):
        answer = self.cluster.ctl("list", "nodes", "-o", "json", check=False)
        if answer.returncode != 0:
            return False  # it has not opened its port yet
        nodes = {n["name"]: n["connected"] for n in json.loads(answer.stdout)["nodes"]}
        return nodes == {"n1": True, "n2": True}

    def placed(self):
        return {w["id"]: w["attachment"]["node"]
                for w in self.cluster.json("list", "workloads")["workloads"]
                if w["attachment"] and w["attachment"]["addresses"]}

    def ask(self, agent, **what):
        return agent.ask(**what)["result"]

    def address(self, machine, name, family):
        return next(a for a in machine.facts[name]["addresses"] if (":" in a) == (family == 6))

    def reaches(self, agent, to, proto="tcp", port=5432):
        return self.ask(agent, proto=proto, to=to, port=port) == "answered"

    def test_1_across_two_nodes(self):
        until(self.connected, "both nodes have joined")
        self.cluster.apply(DB + WORKER + STRANGER)
        worker = self.n2.container("worker")
        stranger = self.n2.container("stranger")
        db = self.n1.container("db")
        db.serve(proto="tcp", port=5432)
        db.serve(proto="udp", port=5432)
        # Whoever asks over IPv6 in the moment between its two listeners is refused, as ever.
        until(lambda: self.reaches(worker, worker.lookup(name="db", family=6)["addresses"][0]),
              "it listens over IPv6")
        for family in (4, 6):
            instance = self.address(self.n1, "db", family)
            vip = until(lambda f=family: worker.lookup(name="db", family=f)["addresses"],
                        "the name resolves")[0]
            for proto in ("tcp", "udp"):
                with self.subTest(family=family, proto=proto):
                    # The first ask waits for its confirmation; it is never refused.
                    self.assertEqual(self.ask(worker, proto=proto, to=vip, port=5432),
                                     "answered")
                    self.assertEqual(self.ask(worker, proto=proto, to=instance, port=5432),
                                     "answered")
                    self.assertEqual(self.ask(stranger, proto=proto, to=instance, port=5432),
                                     "refused")
                    self.assertEqual(self.ask(worker, proto=proto, to=instance, port=9),
                                     "refused")
        self.assertEqual(stranger.lookup(name="db")["addresses"], [])
        states = {w["id"]: (w["state"], w["attachment"]["node"])
                  for w in self.cluster.json("list", "workloads")["workloads"]}
        self.assertEqual(states, {"db": ("READY", "n1"), "worker": ("READY", "n2"),
                                  "stranger": ("READY", "n2")})

    def test_2_without_a_controller(self):
        """Flows, names, restarts, detach and attach go on."""
        worker, db = self.n2.agents["worker"], self.n1.agents["db"]
        instance = self.address(self.n1, "db", 4)
        self.assertEqual(worker.open(key="a", proto="tcp", to=instance, port=5432)["result"],
                         "answered")
        self.cluster.kill_controller()
        for machine in (self.n1, self.n2):
            until(lambda m=machine: "away" in m.ctl("status", check=False).stdout,
                  "the controller is away")
        vip = worker.lookup(name="db", family=4)["addresses"][0]
        self.assertTrue(self.reaches(worker, vip))
        for machine in (self.n1, self.n2):
            machine.kill()
            self.assertEqual(worker.talk(key="a")["result"], "answered")
            machine.start()
            self.assertEqual(worker.talk(key="a")["result"], "answered")
        self.assertTrue(self.reaches(worker, worker.lookup(name="db", family=4)["addresses"][0]))
        self.n2.remove("stranger")
        stranger = self.n2.container("stranger")
        self.assertEqual(self.ask(stranger, proto="tcp", to=instance, port=5432), "refused")
        self.cluster.start_controller()
        until(self.connected, "both nodes are back")
        self.assertEqual(worker.talk(key="a")["result"], "answered")

    def test_3_a_service_moves(self):
        """Its name stays, and whoever calls it waits and is not refused."""
        worker = self.n2.agents["worker"]
        vip = worker.lookup(name="db", family=4)["addresses"][0]
        self.n1.remove("db")
        until(lambda: "db" not in self.placed(), "the controller knows")
        asked = worker.begin("ask", proto="tcp", to=vip, port=5432, timeout=30)
        db = self.n2.container("db")
        db.serve(proto="tcp", port=5432)
        self.assertEqual(worker.end(asked)["result"], "answered")
        self.assertEqual(worker.lookup(name="db", family=4)["addresses"], [vip])

    def test_4_a_revoke_cuts(self):
        worker = self.n2.agents["worker"]
        self.n2.remove("db")
        until(lambda: "db" not in self.placed(), "the controller knows")
        db = self.n1.container("db")
        db.serve(proto="tcp", port=5432)
        vip = worker.lookup(name="db", family=4)["addresses"][0]
        until(lambda: self.reaches(worker, vip), "it is back on n1")
        self.assertEqual(worker.open(key="b", proto="tcp", to=vip, port=5432)["result"],
                         "answered")
        self.cluster.apply("- {id: worker, owner: ada, workflow: r1}\n")
        until(lambda: worker.talk(key="b", timeout=1.0)["result"] != "answered", "it is cut")
        self.assertEqual(self.ask(worker, proto="tcp", to=self.address(self.n1, "db", 4),
                                  port=5432), "refused")


if __name__ == "__main__":
    unittest.main(verbosity=2)
