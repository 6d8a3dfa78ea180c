"""Real container engines beside a node's daemon: from Debian's packages, each with directories and
sockets of its own. Runs inside namespaces of its own (see CMakeLists.txt)."""
import concurrent.futures
import contextlib
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tarfile

from node import BUILD, VOLATILE, NodeTest, Watch, run, stripped, until

BUSYBOX = "/bin/busybox"  # busybox-static: an image needs nothing else
# What an engine needs to start a container on a busy machine; how many start at a time.
PATIENCE, STARTING = 120.0, int(os.environ.get("MESHD_STARTING", "4"))

# What containers do: one serves a file, another gets it.
SERVE = ("/bin/httpd", "-f", "-p", "8080", "-h", "/www")
GET = "wget -qO- http://db:8080/"


def ask(host, port=8080, patience=30):
    """Prints 0 where it connects and 1 where it is refused. Else, as where nobody answers, it is
    the code and what nc said."""
    return (f"said=$(timeout {patience} nc {host} {port} </dev/null 2>&1); code=$?; "
            'case "$code$said" in 0*|1*refused) echo $code;; *) echo "$code $said";; esac')


def declare(identity, rest=""):
    return f"{{id: {identity}, owner: ada, workflow: wf1{rest}}}"


def db(identity="db"):
    return declare(identity, ", name: db, serves: [{port: 8080}]")


def worker(identity="worker"):
    return declare(identity, ", peers: [{name: db}]")


def workloads(*some):
    return "workloads: [" + ", ".join(some) + "]"


def need(program, package):
    if not shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"):
        raise AssertionError(f"{program} is not installed (package {package}): ./dev setup")
    return program


def image(directory):
    """A root file system of busybox alone, as a tar archive."""
    need(BUSYBOX, "busybox-static")
    root = directory / "rootfs"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "www"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in run(BUSYBOX, "--list").stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "www/index.html").write_text("answered\n")
    archive = directory / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    return archive


def own_state():
    """What CNI's library and plugins remember in fixed places ends with the test."""
    if not os.path.ismount("/var/lib"):
        run("mount", "-t", "tmpfs", "tmpfs", "/var/lib")


def is_cgroup(path):
    return run("stat", "-f", "-c", "%T", path).stdout.strip() in ("cgroupfs", "cgroup2fs")


class Cgroups:
    """A group of the test's own in each hierarchy: the machine's outlives our namespaces."""

    def __init__(self, engine):
        self.name = f"/meshd-{engine}-{os.urandom(4).hex()}"

    def remove(self):
        """Once the processes in them are gone: the engine's own come to us, the init here."""
        def gone():
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            tops = [f"/sys/fs/cgroup{self.name}", *glob.glob(f"/sys/fs/cgroup/*{self.name}")]
            for top in tops:
                if top.startswith("/sys/fs/cgroup/unified/") and not is_cgroup(top):
                    continue
                for path, _, _ in os.walk(top, topdown=False):
                    try:
                        os.rmdir(path)
                    except OSError:
                        return False
            return True
        until(gone, f"cgroups {self.name} can be removed")


def environment(node):
    """Of an engine: where the shims that it starts find the node's daemon."""
    return {**os.environ, "MESHD_RUN_DIR": str(node.run_dir),
            "MESHD_STATE_DIR": str(node.state_dir)}


def plugin(node, **more):
    """Of a CNI list."""
    return {"type": "mesh-cni", "run_dir": str(node.run_dir), "state_dir": str(node.state_dir),
            **more}


# An engine's own network, before ours in a list.
BRIDGE = {"type": "bridge", "bridge": "own0", "isGateway": True,
          "ipam": {"type": "host-local", "subnet": "198.51.100.0/24",
                   "routes": [{"dst": "0.0.0.0/0"}]}}

# What stands behind ours in a list, does not work, and keeps what it was given.
BROKEN = """#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}';;
ADD) cat >"$0.given"
  echo '{"cniVersion": "1.0.0", "code": 100, "msg": "broken on purpose"}'
  exit 1;;
esac
"""


def broken_plugin(directory):
    program = directory / "mesh-broken"
    program.write_text(BROKEN)
    program.chmod(0o755)


def pid_of(*command):
    """Of the one that runs it, in whatever container."""
    whole = "".join(f"{word}\0" for word in command).encode()
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if pathlib.Path(path).read_bytes() == whole:
                return int(path.split("/")[2])
    raise AssertionError(f"nobody runs {' '.join(command)}")


class Engine:
    """A server program and its command."""

    def __init__(self, node, name):
        own_state()
        self.node, self.name = node, name
        self.dir = node.dir / name
        self.dir.mkdir()
        self.log = node.dir / f"{name}.log"
        self.process = None
        self.cgroups = Cgroups(name)

    def launch(self, *argv):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([str(a) for a in argv], stdout=log, stderr=log,
                                            env=environment(self.node))

    def is_up(self, *argv):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended: {self.log.read_text()[-2000:]}")
        return run(*argv, check=False).returncode == 0

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE)
        self.process = None


class Docker(Engine):
    RUNTIME = ("--add-runtime", f"mesh={BUILD / 'mesh-runc'}", "--default-runtime", "mesh")

    def __init__(self, node, *options, bridge="none"):
        super().__init__(node, "docker")
        need("dockerd", "docker.io")
        need("runc", "runc")
        self.options = (f"--bridge={bridge}", *options)
        self.socket = f"unix://{self.dir}/docker.sock"
        self.containerd = None
        self.start()
        run("docker", "-H", self.socket, "import", image(node.dir / "docker"), "bb:1",
            timeout=PATIENCE)

    def start(self):
        self.launch("dockerd", "--data-root", self.dir / "data", "--exec-root", self.dir / "exec",
                    "--pidfile", self.dir / "pid", "-H", self.socket, "--iptables=false",
                    "--ip6tables=false", "--ip-masq=false", "--ip-forward=false",
                    "--userland-proxy=false", "--cgroup-parent", self.cgroups.name, *self.RUNTIME,
                    *self.options)
        until(lambda: self.is_up("docker", "-H", self.socket, "version"), "dockerd answers",
              PATIENCE)

    def __call__(self, *argv, check=True):
        return run("docker", "-H", self.socket, *argv, check=check, timeout=PATIENCE)

    def begin(self, *argv):
        return subprocess.Popen(["docker", "-H", self.socket, *map(str, argv)], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def inspect(self, name):
        return json.loads(self("inspect", name).stdout)[0]

    def kill_hard(self):
        """dockerd and its containerd at once, as the kernel's out-of-memory killer might."""
        pid = int((self.dir / "exec/containerd/containerd.pid").read_text())
        self.kill()
        os.kill(pid, signal.SIGKILL)
        # Its parent is gone, and we are the init here: else it would seem to live.
        os.waitpid(pid, 0)

    def clear(self):
        names = self("ps", "-aq").stdout.split()
        if names:
            self("rm", "-f", *names)

    def close(self):
        if self.process:
            self.clear()
            self.kill(signal.SIGTERM)
        self.cgroups.remove()


class Podman:
    """Without a server. Its CNI plugins are ours and Debian's."""

    def __init__(self, node):
        need("podman", "podman")
        need("crun", "crun")
        own_state()
        self.node = node
        self.dir = node.dir / "podman"
        self.networks = self.dir / "net.d"
        self.hooks = self.dir / "hooks.d"
        self.plugins = self.dir / "plugins"
        for directory in (self.networks, self.hooks, self.plugins):
            directory.mkdir(parents=True)
        broken_plugin(self.plugins)
        # crun takes no mixture of both generations of control groups; what it then writes where
        # the second was is the machine's unless something of ours is mounted there.
        if os.path.ismount("/sys/fs/cgroup/unified"):
            run("umount", "/sys/fs/cgroup/unified")
            run("mount", "-t", "tmpfs", "tmpfs", "/sys/fs/cgroup/unified")
        self.cgroups = Cgroups("podman")
        (self.dir / "containers.conf").write_text(
            "[containers]\n"
            'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
            "[network]\n"
            f'network_backend = "cni"\ncni_plugin_dirs = ["{BUILD}", '
            f'"{self.plugins}", "/usr/lib/cni"]\n'
            f'network_config_dir = "{self.networks}"\n'
            f'[engine]\nhooks_dir = ["{self.hooks}"]\ncgroup_manager = "cgroupfs"\n'
            'events_logger = "file"\nruntime = "crun"\n')
        self.environment = environment(node) | {
            "CONTAINERS_CONF": str(self.dir / "containers.conf")}
        self("import", image(self.dir), "bb:1")

    def hook(self, name, stage, verb, when=None):
        (self.hooks / f"{name}.json").write_text(json.dumps({
            "version": "1.0.0",
            "hook": {"path": str(BUILD / "mesh-hook"),
                     "args": ["mesh-hook", verb, "--run-dir", str(self.node.run_dir),
                              "--state-dir", str(self.node.state_dir)], "timeout": 6},
            "when": when or {"annotations": {r"^mesh\.(id|declaration)$": ".*"}},
            "stages": [stage]}))

    def network(self, name, version, before=(), after=(), **more):
        (self.networks / f"{name}.conflist").write_text(json.dumps({
            "cniVersion": version, "name": name,
            "plugins": [*before, plugin(self.node, **more), *after]}))

    def argv(self, *argv):
        return ["podman", "--root", self.dir / "root", "--runroot", self.dir / "runroot",
                "--tmpdir", self.dir / "tmp", *argv]

    def __call__(self, *argv, check=True, env=None):
        done = subprocess.run([str(a) for a in self.argv(*argv)], capture_output=True, text=True,
                              timeout=PATIENCE, check=False, env=self.environment | (env or {}))
        if check and done.returncode != 0:
            raise AssertionError(f"podman {' '.join(map(str, argv))}: {done.returncode}: "
                                 + done.stderr)
        return done

    def build(self, *argv):
        store = ["--root", self.dir / "root", "--runroot", self.dir / "runroot"]
        return run("env", f"CONTAINERS_CONF={self.dir / 'containers.conf'}",
                   need("buildah", "buildah"), *store, *argv, timeout=PATIENCE)

    def run(self, name, network, *command, options=(), runtime="crun", image="bb:1", **more):
        return self("--runtime", runtime, "run", "--cgroup-parent", self.cgroups.name, "--name",
                    name, "--network", network, *options, image, *command, **more)

    def pid(self, name):
        return int(self("inspect", "-f", "{{.State.Pid}}", name).stdout)

    def clear(self):
        self("rm", "-fa", "-t", "0")

    def close(self):
        self.clear()
        self.cgroups.remove()


class Containerd(Engine):
    """And `ctr`, which looks for CNI in two fixed places: both are ours here."""
    OTHERS = ("loopback", "bridge", "host-local")  # of Debian's plugins

    def __init__(self, node, cri=False):
        super().__init__(node, "containerd")
        need("containerd", "containerd")
        self.networks = pathlib.Path("/etc/cni/net.d")
        run("mount", "-t", "tmpfs", "tmpfs", "/opt")
        self.plugins = pathlib.Path("/opt/cni/bin")
        self.plugins.mkdir(parents=True)
        (self.plugins / "mesh-cni").symlink_to(BUILD / "mesh-cni")
        for name in self.OTHERS:
            (self.plugins / name).symlink_to(f"/usr/lib/cni/{name}")
        broken_plugin(self.plugins)
        self.networks.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", self.networks)
        self.address = self.dir / "containerd.sock"
        without = "" if cri else '"io.containerd.grpc.v1.cri", '
        (self.dir / "config.toml").write_text(
            f'version = 2\nroot = "{self.dir}/root"\nstate = "{self.dir}/state"\n'
            f'disabled_plugins = [{without}"io.containerd.internal.v1.opt", '
            '"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", '
            '"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]\n'
            f'[grpc]\naddress = "{self.address}"\n'
            '[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "docker.io/library/bb:1"\n'
            'restrict_oom_score_adj = true\n')
        self.start()
        archive = self.docker_archive(image(self.dir))
        self(*(("-n", "k8s.io") if cri else ()), "image", "import", archive)

    def docker_archive(self, layer):
        """As `docker save` has it, made by hand: no other engine is needed."""
        digest = run("sha256sum", layer).stdout.split()[0]
        config = {"architecture": "amd64", "os": "linux",
                  "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "3600"]},
                  "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
        manifest = [{"Config": "config.json", "RepoTags": ["bb:1"], "Layers": ["layer.tar"]}]
        (self.dir / "config.json").write_text(json.dumps(config))
        (self.dir / "manifest.json").write_text(json.dumps(manifest))
        archive = self.dir / "docker.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(self.dir / "config.json", "config.json")
            tar.add(layer, "layer.tar")
            tar.add(self.dir / "manifest.json", "manifest.json")
        return archive

    def start(self):
        self.launch("containerd", "--config", self.dir / "config.toml")
        until(lambda: self.is_up("ctr", "-a", self.address, "version"), "containerd answers",
              PATIENCE)

    def network(self, name, version, before=(), after=(), **more):
        (self.networks / f"{name}.conflist").write_text(json.dumps({
            "cniVersion": version, "name": name,
            "plugins": [*before, plugin(self.node, **more), *after]}))

    def __call__(self, *argv, check=True):
        return run("ctr", "-a", self.address, *argv, check=check, timeout=PATIENCE)

    def run(self, name, *command, options=(), namespace="default", check=True):
        return self("-n", namespace, "run", "--cgroup", f"{self.cgroups.name}/{name}", *options,
                    "docker.io/library/bb:1", name, *command, check=check)

    def pid(self, name, namespace="default"):
        for line in self("-n", namespace, "task", "ls").stdout.splitlines()[1:]:
            if line.split()[0] == name:
                return int(line.split()[1])
        raise AssertionError(f"no task {name}")

    def clear(self):
        for name in self("container", "ls", "-q").stdout.split():
            self("task", "rm", "-f", name, check=False)
            self("container", "rm", name, check=False)

    def close(self):
        if self.process:
            self.clear()
            self.kill(signal.SIGTERM)
        self.cgroups.remove()


class EngineTest(NodeTest):
    """One node and one engine for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.empty = cls.remains()

    @classmethod
    def remains(cls):
        """What a container might leave behind, in the kernel and among meshd's files."""
        table = json.loads(run("nft", "-j", "list", "table", "inet", "meshd").stdout)["nftables"]
        kept = {}
        for item in stripped(table, VOLATILE):
            one = item.get("set", item.get("map", {"flags": "dynamic"}))
            if "dynamic" not in one.get("flags", ()):
                kept[one["name"]] = sorted(json.dumps(e, sort_keys=True)
                                           for e in one.get("elem", ()))
        for family in ("-4", "-6"):
            for what in (("route", "show", "table", "all"), ("neigh", "show", "nud", "permanent")):
                lines = run("ip", family, *what).stdout.splitlines()
                # Whether somebody is on an engine's bridge is the engine's business.
                kept[f"ip {family} {what[0]}"] = sorted(line for line in lines
                                                        if " dev br-" not in line)
        links = json.loads(run("ip", "-j", "link").stdout)
        kept["links"] = sorted(link["ifname"] for link in links)
        for directory in ("/run/netns", f"{cls.node.state_dir}/engines/declared"):
            kept[directory] = sorted(os.listdir(directory))
        return kept

    def until_empty(self):
        """As if there had never been a container."""
        def left():
            """Or what is missing now."""
            now = self.remains()
            return {what: sorted(set(lines) ^ set(now[what]))
                    for what, lines in self.empty.items() if lines != now[what]}
        until(lambda: not left(), lambda: f"nothing is left: {left()}")

    @classmethod
    def tell_log(cls):
        super().tell_log()
        for log in cls.node.dir.glob("*.log"):
            print(f"--- {log.name}\n" + log.read_text()[-3000:])

    def attachment(self, name):
        for workload in self.node.json("list", "workloads")["workloads"]:
            if workload["id"] == name:
                return workload["attachment"]
        raise AssertionError(f"no workload {name}")

    def ask_all(self, port=8080, of="db"):
        """At its own addresses and its service's, of both families."""
        vips = [self.node.vip("db", family) for family in (4, 6)]
        return "; ".join(ask(at, port) for at in (*self.attachment(of)["addresses"], *vips))

    def attached(self, name):
        """How often, so far."""
        return (self.node.dir / "meshd.log").read_text().count(f"ATTACHED {name} ")

    def until_left(self, what="nothing is left of the containers"):
        """Whoever attached them, no link and no attachment."""
        def nothing():
            listed = self.node.json("list", "workloads")["workloads"]
            return not self.node.links() and all(w["state"] == "DECLARED" for w in listed)
        until(nothing, what)

    def clear(self, engine, *prepared):
        """Whatever the test did: all run again, and no container and no declaration is left.
        `prepared`: whose namespace was there first, and stays until it is detached."""
        if self.node.daemon is None:
            self.node.start()
        if isinstance(engine, Engine) and engine.process is None:
            engine.start()
        engine.clear()
        for name in prepared:
            self.node.ctl("detach", name)
        self.until_left()
        for workload in self.node.json("list", "workloads")["workloads"]:
            self.node.ctl("delete", workload["id"])
        self.until_empty()

    @staticmethod
    def inside(pid, script):
        """Without the engine."""
        return run("nsenter", "-t", pid, "-n", "-m", "/bin/sh", "-c", script,
                   timeout=PATIENCE).stdout

    def declared_ones_do_not_meet(self, say, db, worker, *others):
        """On an engine's bridge, where all four serve: they reach all else there, whom nobody
        declared too, as they would without us."""
        at = {name: say(name, "ip -4 -o addr show dev eth0").split()[3].split("/")[0]
              for name in (db, worker, *others)}
        one, other = others
        until(lambda: say(one, ask(at[other])) == "0\n", "they serve")
        for name, peer in ((worker, db), (db, worker)):
            self.assertRegex(say(name, ask(at[peer])), "No route to host|Host is unreachable")
            self.assertEqual(say(name, ask(at[one])), "0\n")
            self.assertEqual(say(one, ask(at[name])), "0\n")
            # From the bridge's own address, as crunch-run's gateway.
            socket.create_connection((at[name], 8080), PATIENCE).close()

    def broken_had_ours(self, engine):
        """The plugin that does not work was asked once ours had done its part."""
        given = engine.plugins / "mesh-broken.given"
        outside, inside = json.loads(given.read_text())["prevResult"]["interfaces"]
        given.unlink()
        self.assertRegex(outside["name"], "^mesh")
        self.assertEqual((inside["name"], bool(inside["sandbox"])), ("eth0", True))

    def fifty(self, get, provider="db"):
        """Workers who live at the same time. The engine starts a few of them at a time, as many as
        two cores bear with sanitizers and an engine's own limits (podman gives a hook 6 s); and
        whom they ask answers nobody before all fifty are there."""
        names = [f"many-{i}" for i in range(50)]
        self.node.apply(workloads(*map(worker, names)))
        self.node.ready(provider)
        server, others = pid_of(*SERVE), len(self.node.links())
        asking = []

        def have_come(count):
            # Nobody has an answer yet: one that has ended will not come any more.
            return (len(self.node.links()) - others >= count
                    or any(one.done() for one in asking))

        os.kill(server, signal.SIGSTOP)
        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            try:
                for name in names:
                    until(lambda: have_come(len(asking) - STARTING + 1), "they are attached",
                          PATIENCE)
                    asking.append(pool.submit(get, name))
                until(lambda: have_come(len(names)), "all are attached", PATIENCE)
                at_once = len(self.node.links()) - others
            finally:
                os.kill(server, signal.SIGCONT)
            self.assertEqual([one.result() for one in asking], ["answered\n"] * len(names))
        self.assertEqual(at_once, len(names))

    @staticmethod
    def resolv_conf(text):
        return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]

    def asks_the_mesh_alone(self, resolv_conf):
        servers = self.resolv_conf(resolv_conf)
        self.assertEqual(servers[0], "169.254.1.1", resolv_conf)
        self.assertTrue(all(s == "169.254.1.1" or s.startswith("fd") for s in servers), servers)


class DockerEngineTest(EngineTest):
    """Docker's containers in the network NETWORK of its own."""
    NETWORK = "none"

    @classmethod
    def prepare(cls):
        cls.docker = Docker(cls.node)

    @classmethod
    def tearDownClass(cls):
        cls.docker.close()
        super().tearDownClass()

    def start(self, name, *command, options=()):
        self.docker("run", "-d", "--network", self.NETWORK, "--name", name, *options, "bb:1",
                    *command)

    def say(self, name, script, options=()):
        """What its shell prints, from its first instruction on."""
        return self.docker("run", "--rm", "--network", self.NETWORK, "--name", name, *options,
                           "bb:1", "sh", "-c", script).stdout

    def own_address(self, name, network):
        return self.docker.inspect(name)["NetworkSettings"]["Networks"][network]["IPAddress"]

    def reaches(self, name, address, port=8080):
        return self.docker("exec", name, "sh", "-c", f"nc -w 2 {address} {port} </dev/null",
                           check=False).returncode == 0

    def payload_that_is_not_there_leaves_nothing(self):
        """It was attached by then."""
        with Watch(self.node) as watch:
            self.node.connected(1)
            done = self.docker("run", "--network", self.NETWORK, "--name", "worker", "bb:1", "/nope",
                               check=False)
            self.assertEqual(done.returncode, 127, done.stderr)
            self.assertIn("/nope", done.stderr)
            self.until_left()
            until(lambda: watch.lines("DETACHED"), watch.lines)
            self.assertIn(" worker ", watch.lines("ATTACHED")[0])
        self.docker("rm", "worker")
        self.assertIn("eth0", self.say("worker", "cat /proc/net/dev"))

    def killed_engine_leaves_flows_and_then_nothing(self):
        self.start("db", *SERVE)
        self.start("worker", "sleep", "1000")
        pid = self.docker.inspect("worker")["State"]["Pid"]
        self.docker.kill_hard()
        self.assertEqual(len(self.node.links()), 2)
        inside = ["nsenter", "-t", str(pid), "-n", "-m", "/bin/sh", "-c", GET]
        done = self.node.node.run(argv=inside, timeout=20)
        self.assertEqual(done["out"], "answered\n")
        self.docker.start()  # which ends what it finds
        self.until_left("the engine's new process has ended the containers")

    def killed_payload_is_detached(self):
        self.start("db", *SERVE)
        os.kill(self.docker.inspect("db")["State"]["Pid"], signal.SIGKILL)
        self.until_left()
        self.docker("start", "db")
        self.assertEqual(self.say("worker", GET), "answered\n")
