#!/usr/bin/env python3
"""A container's start by real engines, in the mesh and on their own bridge, alone and 50 at
once; what an ADD costs the plugin and the daemon, beside the plugin `bridge`; and how soon the
programs that stand before engines are over. Prints JSON.

Runs in mount, network and pid namespaces of its own (bench/run makes them).
"""
import concurrent.futures
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from attach import CNI, callers, declare, quantiles, timed  # and the way to tests/e2e
import engines as real
import node as bed

ROUNDS = 20
AT_ONCE = 50
ADDS = 100
STARTS = 50  # of a program alone
SLEEP = ("sleep", "1000")
# Of each way's own, so that no address is waited for.
BRIDGE = {"type": "bridge", "isGateway": True, "ipMasq": True, "hairpinMode": True}


def bridge(name, network):
    return {**BRIDGE, "bridge": name, "ipam": {
        "type": "host-local", "ranges": [[{"subnet": network}]], "dataDir": f"/run/cni-{name}",
        "routes": [{"dst": "0.0.0.0/0"}]}}


# What podman makes of `podman network create`, and ctr's users write.
BEHIND_BRIDGE = [{"type": "portmap", "capabilities": {"portMappings": True}},
                 {"type": "firewall", "backend": ""}, {"type": "tuning"}]


class DockerWays:
    def __init__(self, node):
        # As it is installed, with the rules for its bridges.
        self.engine = real.Docker(node, "--iptables=true", "--ip-masq=true")
        self.engine("network", "create", "-d", "bridge", "--subnet", "10.97.0.0/16", "own")
        self.ways = {"own bridge": ("--runtime", "runc", "--network", "own"),
                     "mesh-runc": ("--runtime", "mesh", "--network", "none")}

    def start(self, way, name):
        self.engine("run", "-d", "--name", name, *self.ways[way], "bb:1", *SLEEP)

    def clear(self):
        self.engine("rm", "-f", *self.engine("ps", "-aq").stdout.split())


class PodmanWays:
    def __init__(self, node):
        self.engine = real.Podman(node)
        self.engine.network("mesh", "0.4.0")
        (self.engine.networks / "own.conflist").write_text(json.dumps({
            "cniVersion": "0.4.0", "name": "own",
            "plugins": [bridge("podman9", "10.96.0.0/16"), *BEHIND_BRIDGE]}))
        self.engine.hook("attach", "createRuntime", "attach")
        self.engine.hook("detach", "poststop", "detach")
        self.ways = {"own bridge": ("own",), "mesh-cni": ("mesh", "--dns", "169.254.1.1"),
                     "mesh-hook": ("none",)}

    def start(self, way, name):
        network, *options = self.ways[way]
        if way == "mesh-hook":
            options += ["--annotation", f"mesh.id={name}"]
        self.engine.run(name, network, *SLEEP, options=("-d", *options))

    def clear(self):
        self.engine("rm", "-fa", "-t", "0")


class CtrWays:
    """ctr takes the first list of networks there is."""

    def __init__(self, node):
        self.engine = real.Containerd(node)
        for plugin in BEHIND_BRIDGE:  # the bridge itself is there
            os.symlink(CNI / plugin["type"], f"/opt/cni/bin/{plugin['type']}")
        self.ways = {"own bridge": [bridge("ctr9", "10.95.0.0/16"), *BEHIND_BRIDGE],
                     "mesh-cni": [{"type": "mesh-cni", "run_dir": "/run/meshd",
                                   "state_dir": "/run/state"}]}

    def choose(self, way):
        (self.engine.networks / "bench.conflist").write_text(json.dumps({
            "cniVersion": "0.4.0", "name": "bench", "plugins": self.ways[way]}))

    def start(self, way, name):
        self.engine.run(name, f"/bin/{SLEEP[0]}", *SLEEP[1:], options=("-d", "--cni"))

    def clear(self):
        for name in self.engine("container", "ls", "-q").stdout.split():
            self.engine("task", "rm", "-f", name, check=False)
            self.engine("container", "rm", name, check=False)


def attached(node):
    listed = json.loads(node.ctl("list", "workloads", "-o", "json").stdout)
    return {one["id"] for one in listed["workloads"] if one["state"] != "DECLARED"}


def measure_engine(node, ways, names):
    """The ways in turn, so that whatever else the machine does meets all of them. What is measured
    is what was asked for: fifty that are attached, and nobody afterwards."""
    choose, before = getattr(ways, "choose", lambda way: None), attached(node)
    alone = {way: [] for way in ways.ways}
    for _ in range(ROUNDS):
        for way, times in alone.items():
            choose(way)
            name = next(names)
            times.append(timed(lambda: ways.start(way, name)))
            ways.clear()
    result = {way: {"alone": quantiles(times)} for way, times in alone.items()}
    for way, row in result.items():
        choose(way)
        some = list(itertools.islice(names, AT_ONCE))
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            times = list(pool.map(lambda name: timed(lambda: ways.start(way, name)), some))
        row["at_once"] = quantiles(times) | {"all_ms": round((time.monotonic() - begun) * 1000)}
        wanted = set(some) if way.startswith("mesh-") else set()
        if attached(node) - before != wanted:
            raise AssertionError(f"{way}: attached: {sorted(attached(node) - before)}")
        ways.clear()
        bed.until(lambda: attached(node) == before, "all of them are detached")
    return result


def measure_engines(node, names):
    result = {}
    for engine, make in (("docker", DockerWays), ("podman", PodmanWays), ("ctr", CtrWays)):
        ways = make(node)
        try:
            result[engine] = measure_engine(node, ways, names)
        finally:
            ways.engine.close()
        print(f"bench: {engine}: {json.dumps(result[engine])}", file=sys.stderr)
    return result


# --- one ADD --------------------------------------------------------------------------------


def ended_cpu():
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def daemon_cpu(node):
    # The clock's number is made as clock_getcpuclockid(3) does it.
    return time.clock_gettime((~node.daemon.pid << 3) | 2)


def call(program, command="", name="", config=None):
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND": command,
                   "CNI_CONTAINERID": name, "CNI_IFNAME": "eth0", "CNI_PATH": str(CNI),
                   "CNI_NETNS": f"/run/netns/{name}"}
    subprocess.run([str(program)], input=json.dumps(config), env=environment, text=True,
                   stdout=subprocess.DEVNULL, check=True)


def measure_adds(node, names):
    """Each in a namespace that is there. The start of a process alone is taken off the CPU time."""
    plugins = {
        "mesh-cni": (real.BUILD / "mesh-cni", {
            "cniVersion": "1.0.0", "name": "bench", "type": "mesh-cni", "run_dir": "/run/meshd",
            "state_dir": "/run/state"}),
        "bridge": (CNI / "bridge", {"cniVersion": "1.0.0", "name": "bench",
                                    **bridge("cni9", "10.94.0.0/16")})}
    rows = {plugin: {"times": [], "cpu": 0.0, "daemon": 0.0} for plugin in plugins}
    begun = ended_cpu()
    for _ in range(ADDS):
        call("/bin/true", config={})
    empty = (ended_cpu() - begun) / ADDS
    for _ in range(ADDS):
        for plugin, (program, config) in plugins.items():
            name, row = next(names), rows[plugin]
            bed.run("ip", "netns", "add", name)
            used, in_daemon = ended_cpu(), daemon_cpu(node)
            row["times"].append(timed(lambda: call(program, "ADD", name, config)))
            row["cpu"] += ended_cpu() - used - empty
            row["daemon"] += daemon_cpu(node) - in_daemon
    return {plugin: quantiles(row["times"]) | {
        "cpu_ms": round(row["cpu"] * 1000 / ADDS, 2),
        "meshd_cpu_ms": round(row["daemon"] * 1000 / ADDS, 2)} for plugin, row in rows.items()}


# --- a program alone ------------------------------------------------------------------------


def measure_starts(node):
    """From fork to exit: what an engine waits for, whomever it starts."""
    bundle = node.dir / "bundle"
    bundle.mkdir()
    config = json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "linux": {}})
    payload = subprocess.Popen(["unshare", "--net", *SLEEP])
    state = json.dumps({"ociVersion": "1.0.2", "id": "nobody", "status": "creating",
                        "pid": payload.pid, "bundle": str(bundle)})
    build = real.BUILD
    calls = {"true": (["/bin/true"], ""),
             "mesh-runc": ([build / "mesh-runc", "--mesh-runtime=/bin/true", "create", "--bundle",
                            bundle, "nobody"], ""),
             "mesh-hook": ([build / "mesh-hook", "attach", "--run-dir", "/run/meshd",
                            "--state-dir", "/run/state"], state),
             "mesh-cni": ([build / "mesh-cni"], '{"cniVersion":"1.0.0"}'),
             "mesh-netavark": ([build / "mesh-netavark", "info"], "")}
    environment = {"PATH": "/usr/bin:/bin", "CNI_COMMAND": "VERSION"}
    times, cpu = ({name: [] for name in calls} for _ in range(2))
    for _ in range(STARTS):
        for name, (argv, told) in calls.items():
            (bundle / "config.json").write_text(config)
            used = ended_cpu()
            times[name].append(timed(lambda: subprocess.run(
                [str(word) for word in argv], input=told, text=True, env=environment,
                stdout=subprocess.DEVNULL, check=True)))
            cpu[name].append((ended_cpu() - used) * 1000)
    payload.kill()
    payload.wait()
    return {name: quantiles(some) | {"cpu_ms": round(statistics.mean(cpu[name]), 1)}
            for name, some in times.items()}


def main():
    node = bed.Node()
    node.start()
    count = 7 * (ROUNDS + AT_ONCE) + 2 * ADDS
    node.apply("workloads: [{id: db, owner: ada, workflow: wf1, name: db, "
               "serves: [{port: 5432}]}]")
    declare(node, callers(0, count))
    names = (f"c{number}" for number in range(count))
    result = {"at_once": AT_ONCE, "starts": measure_starts(node),
              "add": measure_adds(node, names), "engines": measure_engines(node, names)}
    node.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
