#!/usr/bin/env python3
"""Attach to the first connect by name, with one container on the node and with many; beside the
CNI plugins bridge and firewall, and a script of ip(8), which give no names. Prints JSON.

Runs in mount, network and pid namespaces of its own (bench/run makes them).
"""
import json
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "e2e"))
import node as bed  # noqa: E402

ROUNDS = 30
MANY = 1000
CNI = pathlib.Path("/usr/lib/cni")


def quantiles(values):
    ordered = sorted(values)
    return {"p50_ms": round(statistics.median(ordered), 1),
            "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 1)}


def timed(action):
    start = time.monotonic()
    action()
    return (time.monotonic() - start) * 1000


def declare(node, first, count):
    for at in range(first, first + count, 250):
        node.apply("workloads:\n" + "".join(
            f"- {{id: c{i}, owner: ada, workflow: wf1, peers: [{{name: db}}]}}\n"
            for i in range(at, min(at + 250, first + count))))


def ours(node, base):
    """One attach after another into namespaces that are there already."""
    attach, connect = [], []
    for i in range(base, base + ROUNDS):
        name = f"c{i}"
        bed.run("ip", "netns", "add", name)
        resolv = node.dir / f"{name}.resolv"
        resolv.write_text("nameserver 169.254.1.1\nsearch wf1.wf.mesh.internal\n")
        agent = bed.Agent(name, ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount",
                                 "bash", "-c", 'mount --bind "$1" /etc/resolv.conf; shift; '
                                 'exec "$@"', "x", str(resolv)])
        agent.lookup(name="localhost")  # it runs
        start = time.monotonic()
        node.ctl("attach", name, "--netns", f"/run/netns/{name}")
        attach.append((time.monotonic() - start) * 1000)
        answer = agent.ask(proto="tcp", to="db", port=5432)
        connect.append((time.monotonic() - start) * 1000)
        if answer["result"] != "answered":
            raise SystemExit(f"bench: {name} does not reach db: {answer}")
        agent.stop()
    return {"attach": quantiles(attach), "to_connect_by_name": quantiles(connect)}


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
            return int(line.split()[1]) // 1024
    return 0


def main():
    node = bed.Node()
    node.start()
    node.apply("workloads: [{id: db, owner: ada, workflow: wf1, name: db, "
               "serves: [{port: 5432}]}]")
    node.container("db").serve(proto="tcp", port=5432)
    node.ready("db")
    result = {"meshctl_start_ms": round(statistics.median(
        timed(lambda: node.ctl("version")) for _ in range(10)), 1)}
    declare(node, 0, ROUNDS)
    result["few"] = ours(node, 0)
    declare(node, 10_000, MANY)
    for i in range(10_000, 10_000 + MANY):
        node.ctl("prepare", f"c{i}")
    result["rss_mib_with_many"] = resident(node.daemon.pid)
    declare(node, 20_000, ROUNDS)
    result["many"] = ours(node, 20_000)
    result["containers"] = MANY
    if (CNI / "bridge").exists():
        result["cni_bridge_firewall"] = peer(cni, "n")
    result["ip_script"] = peer(by_script, "s")
    node.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
