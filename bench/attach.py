#!/usr/bin/env python3
"""Attach to the first connect by name, with one container on the node and with many; beside the
CNI plugins bridge and firewall, and a script of ip(8), which give no names; and the daemon's
memory with many containers and flows. Prints JSON.

Runs in mount, network and pid namespaces of its own (bench/run makes them).
"""
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "e2e"))
import node as bed  # noqa: E402

ROUNDS = 30
ROUNDS_MANY = 100  # enough for a p99
MANY = 1000
CALLS = 10  # of the many, how many others each calls: so many flows
CNI = pathlib.Path("/usr/lib/cni")


def quantiles(values):
    ordered = sorted(values)
    return {"p50_ms": round(statistics.median(ordered), 1),
            "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 1)}


def timed(action):
    start = time.monotonic()
    action()
    return (time.monotonic() - start) * 1000


def declare(node, lines):
    for at in range(0, len(lines), 250):
        node.apply("workloads:\n" + "".join(lines[at:at + 250]))


def callers(first, count):
    return [f"- {{id: c{i}, owner: ada, workflow: wf1, peers: [{{name: db}}]}}\n"
            for i in range(first, first + count)]


def neighbours(first, count):
    """Each is a service itself and calls others by name."""
    lines = []
    for i in range(count):
        peers = ", ".join(f"{{name: s{(i + k) % count}}}" for k in range(1, CALLS + 1))
        lines.append(f"- {{id: c{first + i}, owner: ada, workflow: wf1, name: s{i}, ready: NONE, "
                     f"serves: [{{port: 80}}], peers: [{peers}]}}\n")
    return lines


def flows_in_kernel():
    """Those of IPv4: elements of source, destination, protocol and port."""
    listing = json.loads(bed.run("nft", "-j", "list", "set", "inet", "meshd", "allow4").stdout)
    return next(len(item["set"].get("elem", [])) for item in listing["nftables"] if "set" in item)


def cpu_seconds(node):
    """Of the daemon, and of every command that has ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The clock's number is made as clock_getcpuclockid(3) does it.
    return ended.ru_utime + ended.ru_stime + time.clock_gettime((~node.daemon.pid << 3) | 2)


def ours(node, base, rounds):
    """One attach after another into namespaces that are there already."""
    attach, connect, cpu = [], [], 0
    for i in range(base, base + rounds):
        name = f"c{i}"
        bed.run("ip", "netns", "add", name)
        resolv = node.dir / f"{name}.resolv"
        resolv.write_text("nameserver 169.254.1.1\nsearch wf1.wf.mesh.internal\n")
        agent = bed.Agent(name, ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount",
                                 "bash", "-c", 'mount --bind "$1" /etc/resolv.conf; shift; '
                                 'exec "$@"', "x", str(resolv)])
        agent.lookup(name="localhost")  # it runs
        used, start = cpu_seconds(node), time.monotonic()
        node.ctl("attach", name, "--netns", f"/run/netns/{name}")
        attach.append((time.monotonic() - start) * 1000)
        cpu += cpu_seconds(node) - used
        answer = agent.ask(proto="tcp", to="db", port=5432)
        connect.append((time.monotonic() - start) * 1000)
        if answer["result"] != "answered":
            raise SystemExit(f"bench: {name} does not reach db: {answer}")
        agent.stop()
    return {"attach": quantiles(attach), "to_connect_by_name": quantiles(connect),
            "cpu_ms_of_attach": round(cpu * 1000 / rounds, 1)}


def cni(name, number):
    config = {"cniVersion": "0.4.0", "name": "bench", "type": "bridge", "bridge": "cni0",
              "isGateway": True, "ipMasq": True,
              "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]],
                       "dataDir": "/run/cni"}}
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_IFNAME": "eth0",
                   "CNI_NETNS": f"/run/netns/{name}", "CNI_PATH": str(CNI),
                   "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    added = subprocess.run([CNI / "bridge"], input=json.dumps(config), env=environment, text=True,
                           capture_output=True, check=True)
    fire = {"cniVersion": "0.4.0", "name": "bench", "type": "firewall", "backend": "iptables",
            "prevResult": json.loads(added.stdout)}
    subprocess.run([CNI / "firewall"], input=json.dumps(fire), env=environment, text=True,
                   capture_output=True, check=True)


def by_script(name, number):
    address = f"10.98.{number // 200}.{number % 200 + 2}"
    for line in (f"link add s{number} type veth peer name eth0 netns {name}",
                 f"link set s{number} up", f"-n {name} addr add {address}/32 dev eth0",
                 f"-n {name} link set eth0 up", f"-n {name} route add 169.254.1.1 dev eth0",
                 f"-n {name} route add default via 169.254.1.1",
                 f"route add {address}/32 dev s{number}"):
        bed.run("ip", *line.split())


def peer(action, prefix):
    times = []
    for number in range(ROUNDS):
        name = f"{prefix}{number}"
        bed.run("ip", "netns", "add", name)
        times.append(timed(lambda: action(name, number)))
    return quantiles(times)


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0


def resident_after_restart(node):
    node.kill()
    node.start()
    return resident(node.daemon.pid)


def measure(state):
    node = bed.Node()
    # The bed's own is memory, where what must survive a power cut costs nothing.
    bed.run("mount", "--bind", state, "/run/state")
    node.start()
    node.apply("workloads: [{id: db, owner: ada, workflow: wf1, name: db, "
               "serves: [{port: 5432}]}]")
    node.container("db").serve(proto="tcp", port=5432)
    node.ready("db")
    result = {"meshctl_start_ms": round(statistics.median(
        timed(lambda: node.ctl("version")) for _ in range(10)), 1)}
    declare(node, callers(0, ROUNDS))
    result["few"] = ours(node, 0, ROUNDS)
    declare(node, neighbours(10_000, MANY))
    for i in range(10_000, 10_000 + MANY):
        node.ctl("prepare", f"c{i}")
    result["containers"] = MANY
    result["flows"] = flows_in_kernel()
    result["rss_mib"] = resident(node.daemon.pid)
    declare(node, callers(20_000, ROUNDS_MANY))
    result["many"] = ours(node, 20_000, ROUNDS_MANY)
    result["rss_mib_after_restart"] = resident_after_restart(node)
    if (CNI / "bridge").exists():
        result["cni_bridge_firewall"] = peer(cni, "n")
    result["ip_script"] = peer(by_script, "s")
    node.close()
    return result


def main():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as state:
        result = measure(state)
        bed.run("umount", "/run/state")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
