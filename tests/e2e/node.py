"""A node for tests: the real daemon, the real kernel, containers that are network and mount
namespaces, and a host outside. Runs inside namespaces of its own (see CMakeLists.txt)."""
import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

BUILD = pathlib.Path(os.environ.get("MESHD_BUILD", "build/asan")).resolve()
AGENT = pathlib.Path(__file__).with_name("agent.py")
# Debian's, which has the packages; -I: no module is taken from where we stand.
PYTHON = ("/usr/bin/python3", "-I", "-B")
# Sanitizers and a busy machine take their time; only what hangs waits that long.
PATIENCE = 20.0


def run(*argv, check=True, stdin=None, timeout=60):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, input=stdin,
                          timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: {done.returncode}: {done.stderr}")
    return done


def until(condition, what, patience=PATIENCE):
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what() if callable(what) else what}")
        time.sleep(0.01)


class Agent:
    """The program in one container, or outside."""

    def __init__(self, name, prefix):
        self.name = name
        self.process = subprocess.Popen(
            [*prefix, *PYTHON, str(AGENT), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.numbers = itertools.count()
        self.answers = {}
        self.came = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for line in self.process.stdout:
                answer = json.loads(line)
                with self.came:
                    self.answers[answer["n"]] = answer
                    self.came.notify_all()
        except ValueError:
            pass  # closed by stop()

    def begin(self, do, **arguments):
        number = next(self.numbers)
        self.process.stdin.write(json.dumps({"n": number, "do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return number

    def end(self, number, patience=60.0):
        with self.came:
            if not self.came.wait_for(lambda: number in self.answers, patience):
                raise AssertionError(f"{self.name} does not answer")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise AssertionError(f"{self.name}: {answer['error']}")
        return answer["ok"]

    def __getattr__(self, do):
        return lambda **arguments: self.end(self.begin(do, **arguments))

    def ask_all(self, asks):
        """Many at once: list of results in order."""
        numbers = [self.begin("ask", **ask) for ask in asks]
        return [self.end(number)["result"] for number in numbers]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Node:
    UPLINK = "192.0.2.1"
    OUTSIDE = ("192.0.2.10", "192.0.2.66")
    OUTSIDE6 = "2001:db8:1::10"
    run_dir, state_dir = "/run/meshd", "/run/state"

    def __init__(self, config=""):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        self.dir = pathlib.Path("/run/test")
        self.dir.mkdir()
        for name in ("netns", "meshd", "state"):
            pathlib.Path("/run", name).mkdir()
        os.environ["MESHD_RUN_DIR"] = "/run/meshd"
        run("ip", "link", "set", "lo", "up")
        run("ip", "netns", "add", "outside")
        # No duplicate address detection: its end would add routes some seconds later.
        pathlib.Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", "outside")
        run("ip", "addr", "add", f"{self.UPLINK}/24", "dev", "up0")
        run("ip", "addr", "add", "2001:db8:1::1/64", "dev", "up0", "nodad")
        run("ip", "link", "set", "up0", "up")
        for address in self.OUTSIDE:
            run("ip", "-n", "outside", "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", "outside", "addr", "add", f"{self.OUTSIDE6}/64", "dev", "eth0", "nodad")
        run("ip", "-n", "outside", "link", "set", "eth0", "up")
        run("ip", "-n", "outside", "link", "set", "lo", "up")
        until(lambda: "fe80" in run("ip", "-6", "route", "show", "dev", "up0").stdout,
              "the uplink has its routes")
        self.config = self.dir / "meshd.yaml"
        self.config.write_text("node: {name: n1}\nrun_dir: /run/meshd\nstate_dir: /run/state\n"
                               'dns: {upstreams: ["192.0.2.10"]}\n' + config)
        self.daemon = None
        self.agents = {}
        self.facts = {}
        self.outside = Agent("outside", ["ip", "netns", "exec", "outside"])
        self.node = Agent("node", [])

    ASKED = pathlib.Path("/run/test/asked")

    def upstream(self):
        """The resolver outside, which writes down what it is asked."""
        return subprocess.Popen(["ip", "netns", "exec", "outside", *PYTHON,
                                 AGENT.with_name("upstream.py"), self.ASKED])

    # --- the daemon ---

    def start(self, store=None):
        self.launch(store)
        until(self.healthy, "the daemon is healthy")

    def launch(self, store=None):
        command = [str(BUILD / "meshd"), "--config", str(self.config)]
        with open(self.dir / "meshd.log", "a", encoding="utf-8") as log:
            if store:
                self.daemon = store.launch(command, log)
            else:
                self.daemon = subprocess.Popen(command, stdout=log, stderr=log)

    def healthy(self):
        if self.daemon.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.daemon.returncode}")
        return self.ctl("status", check=False).returncode == 0

    def kill(self, with_signal=signal.SIGKILL):
        self.daemon.send_signal(with_signal)
        code = self.daemon.wait(timeout=30)
        self.daemon = None
        return code

    def ctl(self, *argv, check=True, stdin=None):
        return run(BUILD / "meshctl", *argv, check=check, stdin=stdin)

    def json(self, *argv):
        return json.loads(self.ctl(*argv, "-o", "json").stdout)

    def begin(self, *argv):
        """A command that goes on."""
        return subprocess.Popen([str(BUILD / "meshctl"), *argv], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def connected(self, count, patience=PATIENCE):
        """Until that many calls have reached the daemon: each is a connection of its own."""
        def are_there():
            listing = run("ss", "-xH", "state", "connected", "src",
                          "unix:/run/meshd/status.sock", check=False).stdout
            return len(listing.splitlines()) >= count
        until(are_there, "the clients are connected", patience)

    def apply(self, yaml, check=True):
        return self.ctl("apply", "-f", "-", check=check, stdin=yaml)

    # --- containers ---

    def container(self, name):
        """Prepared by meshctl, with an agent inside that has the resolv.conf it wrote."""
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

    def address(self, name, family=4):
        return next(a for a in self.facts[name]["addresses"] if (":" in a) == (family == 6))

    def vip(self, name, family=4):
        for service in self.json("list", "services")["services"]:
            if service["name"] == name:
                return next(a for a in service["vips"] if (":" in a) == (family == 6))
        raise AssertionError(f"no service {name}")

    def ready(self, name):
        self.ctl("wait", name, "--timeout", "20s")

    # --- what the kernel holds ---

    def rules(self, handles=False):
        """The table without counters and without what the kernel keeps for itself. Handles
        are given anew to whatever is written anew."""
        listing = json.loads(run("nft", "-j", "list", "table", "inet", "meshd").stdout)
        return canonical(listing["nftables"], VOLATILE - {"handle"} if handles else VOLATILE)

    @contextlib.contextmanager
    def rival(self):
        """The table is somebody else's for a while: the kernel refuses every change of ours."""
        process = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, text=True,
                                   stdout=subprocess.DEVNULL)
        process.stdin.write("delete table inet meshd; add table inet meshd { flags owner; }\n")
        process.stdin.flush()
        try:
            until(lambda: not self.healthy(), "the table is the rival's")
            yield
        finally:
            process.stdin.close()
            process.wait()

    def links(self):
        return [link["ifname"] for link in json.loads(run("ip", "-j", "link").stdout)
                if link.get("ifname", "").startswith("mesh")]

    def close(self):
        for agent in [*self.agents.values(), self.outside, self.node]:
            agent.stop()
        if self.daemon:
            self.kill()


class Watch:
    """`meshctl watch`, and what it has printed so far."""

    def __init__(self, node, *options):
        self.path = node.dir / f"watch{id(self)}"
        with open(self.path, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen([BUILD / "meshctl", "watch", *options], stdout=out,
                                            stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def lines(self, kind=""):
        whole = self.path.read_text().rpartition("\n")[0]
        return [line for line in whole.splitlines() if kind in line]

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.path.unlink()


class FdStore:
    """What systemd does for a service with FileDescriptorStoreMax=: keeps descriptors that
    the service sends (sd_pid_notify_with_fds) and gives them to its next process."""

    def __init__(self, path):
        self.path = str(path)
        self.fds = {}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        while True:
            data, fds, _, _ = socket.recv_fds(self.socket, 4096, 64)
            fields = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
            for fd in fds:
                os.set_inheritable(fd, False)
            name = fields.get("FDNAME", "stored")
            if "FDSTOREREMOVE" in fields:
                for fd in self.fds.pop(name, []):
                    os.close(fd)
            elif "FDSTORE" in fields:
                self.fds.setdefault(name, []).extend(fds)

    def launch(self, command, log):
        """Descriptors start at 3, in the order of their names; LISTEN_PID is the daemon."""
        environment = {**os.environ, "NOTIFY_SOCKET": self.path}
        pairs = [(name, fd) for name, fds in self.fds.items() for fd in fds]
        if pairs:
            environment |= {"LISTEN_FDS": str(len(pairs)),
                            "LISTEN_FDNAMES": ":".join(name for name, _ in pairs)}
        # Out of the way of where they go, and gone with exec: the daemon could else never
        # close its last copy.
        spare = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for _, fd in pairs]

        def place():
            for number, fd in enumerate(spare, start=3):
                os.dup2(fd, number)
        process = subprocess.Popen(
            ["sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *command], preexec_fn=place,
            close_fds=False, env=environment, stdout=log, stderr=log)
        for fd in spare:
            os.close(fd)
        return process


VOLATILE = {"packets", "bytes", "handle", "expires", "metainfo", "counter"}


def stripped(value, volatile):
    if isinstance(value, list):
        return [stripped(item, volatile) for item in value]
    if isinstance(value, dict):
        return {key: stripped(item, volatile) for key, item in value.items()
                if key not in volatile}
    return value


def canonical(listing, volatile):
    """Equal texts for equal tables: chains, sets and elements are listed as they were made,
    and only the order of rules in a chain matters."""
    lines, position = [], {}
    for item in stripped(listing, volatile):
        for kind in ("set", "map"):
            elements = item.get(kind, {}).pop("elem", [])
            # What rules themselves add counts or limits somebody: the kernel's bookkeeping.
            kept = [e for e in elements
                    if not (isinstance(e, dict) and {"ct count", "limit"} & set(e.get("elem", ())))]
            if kept:
                item[kind]["elem"] = sorted(json.dumps(e, sort_keys=True) for e in kept)
        if "rule" in item:
            chain = item["rule"]["chain"]
            position[chain] = position.get(chain, 0) + 1
            item["rule"]["position"] = position[chain]
        lines.append(json.dumps(item, sort_keys=True))
    return "\n".join(sorted(lines))


class NodeTest(unittest.TestCase):
    """One node for all tests of a class: its start is the dearest part."""
    CONFIG = ""

    @classmethod
    def setUpClass(cls):
        cls.node = Node(cls.CONFIG)
        try:
            cls.node.start()
            cls.prepare()
        except BaseException:
            cls.tell_log()
            raise

    @classmethod
    def prepare(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    @classmethod
    def tell_log(cls):
        log = cls.node.dir / "meshd.log"
        if log.exists():
            print("--- meshd's log\n" + log.read_text()[-4000:], file=sys.stderr)

    def check_log(self):
        """What no test may cause."""
        text = (self.node.dir / "meshd.log").read_text()
        for word in ("AddressSanitizer", "runtime error", "LeakSanitizer"):
            self.assertNotIn(word, text)

    def tearDown(self):
        self.check_log()
