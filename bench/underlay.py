#!/usr/bin/env python3
"""What the way between two nodes costs, and how long a service that moves is away. Prints JSON.

Four pairs of hosts on one bridge, and a stream of TCP between each, in turn: the hosts
themselves; containers behind hosts that only forward; containers of two nodes that route to each
other; containers of two nodes that tunnel. Slices alternate, so that a busy machine is busy for
all of them; what counts is CPU time of both ends, in whose context veth does most of the work.
Runs in mount, network and pid namespaces of its own (bench/run makes them).
"""
import ctypes
import errno
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "e2e"))
import node as bed  # noqa: E402
from cluster import ADMIN, Cluster, Machine  # noqa: E402

ROUNDS, SLICE = 8, 0.5  # slices of each kind, and seconds of each
MOVES = 10
PORT = 5432
CHUNK = 1 << 17
CLONE_NEWNET = 0x40000000
WORLD = """
- {id: db-a, owner: ada, workflow: a, name: db, serves: [{port: 5432}]}
- {id: db-b, owner: ada, workflow: b, name: db, serves: [{port: 5432}]}
- {id: worker-a, owner: ada, workflow: a, peers: [{name: db}]}
- {id: worker-b, owner: ada, workflow: b, peers: [{name: db}]}
"""


def enter(path):
    """This thread, for good."""
    with open(path, "rb") as netns:
        if ctypes.CDLL(None, use_errno=True).setns(netns.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


# --- a stream -------------------------------------------------------------------------------


def receive(path, address):
    """A process: takes what comes on one connection; prints bytes, and seconds of CPU time."""
    enter(path)
    with socket.create_server((address, PORT)) as server:
        print("ready", flush=True)
        sock, _ = server.accept()
    total, buffer = 0, bytearray(CHUNK)
    start = time.process_time()
    while got := sock.recv_into(buffer):
        total += got
    print(json.dumps([total, time.process_time() - start]))


def transmit(path, address, port=PORT):
    """A process: sends for the length of a slice; prints seconds of time, and of CPU time."""
    enter(path)
    chunk = bytes(CHUNK)
    with socket.create_connection((address, int(port)), timeout=10) as sock:
        began, start = time.monotonic(), time.process_time()
        while time.monotonic() < began + SLICE:
            sock.sendall(chunk)
    print(json.dumps([time.monotonic() - began, time.process_time() - start]))


def begin(role, path, address, *more):
    command = [sys.executable, "-B", __file__, role, str(path), address, *map(str, more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def stream(way):
    """MB/s, and nanoseconds of CPU time a byte."""
    receiver = begin("receive", way["to"], way.get("listen", way["address"]))
    receiver.stdout.readline()
    sender = begin("transmit", way["from"], way["address"], way.get("port", PORT))
    seconds, cpu = json.loads(sender.communicate()[0])
    total, more = json.loads(receiver.communicate()[0])
    return total / seconds / 1e6, (cpu + more) / total * 1e9


# --- hosts ------------------------------------------------------------------------------------


def on_the_bridge(name, number):
    bed.run("ip", "netns", "add", name)
    bed.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "up0", "netns", name)
    bed.run("ip", "link", "set", f"to-{name}", "master", "lan", "up")
    for line in (f"addr add 192.0.2.{number}/24 dev up0", "link set up0 up", "link set lo up"):
        bed.run("ip", "-n", name, *line.split())


def forwarding_host(name, number, other):
    """With a container behind it, and nothing that decides."""
    on_the_bridge(name, number)
    container = f"{name}-c"
    bed.run("ip", "netns", "add", container)
    bed.run("ip", "link", "add", "c0", "netns", name, "type", "veth", "peer", "name", "eth0",
            "netns", container)
    for line in (f"addr add 198.18.{number}.1/24 dev c0", "link set c0 up",
                 f"route add 198.18.{other}.0/24 via 192.0.2.{other}"):
        bed.run("ip", "-n", name, *line.split())
    bed.run("ip", "netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    for line in (f"addr add 198.18.{number}.2/24 dev eth0", "link set eth0 up",
                 f"route add default via 198.18.{number}.1"):
        bed.run("ip", "-n", container, *line.split())
    return f"/run/netns/{container}"


def wire(machine, number, mode):
    for line in (f"addr add 2001:db8::{number}/64 dev up0 nodad",
                 f"route add default via {ADMIN}"):
        machine.run("ip", *line.split())
    with open(machine.config, "a", encoding="utf-8") as config:
        config.write(f"underlay: {{mode: {mode}}}\n")
    machine.start()


def attached(machine, name):
    return json.loads(machine.ctl("prepare", name, "-o", "json").stdout)["addresses"]


def v4(addresses):
    return next(address for address in addresses if "." in address)


def make_ways(cluster):
    """All nodes of a cluster should be set alike. These pairs have nothing to say to each other."""
    machines = cluster.machines
    cluster.machines += [Machine(cluster, f"n{number}", number) for number in (3, 4)]
    for number, machine in enumerate(machines, start=1):
        wire(machine, number, "ROUTED" if number < 3 else "VXLAN")
    bed.until(lambda: all(node["connected"] for node in cluster.json("list", "nodes")["nodes"]),
              "all nodes have joined")
    cluster.apply(WORLD)
    on_the_bridge("h1", 11)
    on_the_bridge("h2", 12)
    ways = {"hosts": {"from": "/run/netns/h1", "to": "/run/netns/h2", "address": "192.0.2.12"},
            "forwarded": {"from": forwarding_host("f1", 21, 22),
                          "to": forwarding_host("f2", 22, 21), "address": "198.18.22.2"}}
    for kind, here, there, name in (("routed", 0, 1, "a"), ("vxlan", 2, 3, "b")):
        attached(machines[here], f"worker-{name}")
        ways[kind] = {"from": f"/run/netns/worker-{name}", "to": f"/run/netns/db-{name}",
                      "address": v4(attached(machines[there], f"db-{name}"))}
    return ways


def measure_ways(ways):
    rows = {kind: [] for kind in ways}
    for way in ways.values():
        stream(way)  # connection tracking, neighbours, confirmations
    for _ in range(ROUNDS):
        for kind, way in ways.items():
            rows[kind].append(stream(way))
    return {kind: {"mb_per_s": round(statistics.median(rate for rate, _ in row)),
                   "cpu_ns_per_byte": round(statistics.median(cpu for _, cpu in row), 3),
                   "cpu_ns_per_byte_min": round(min(cpu for _, cpu in row), 3)}
            for kind, row in rows.items()}


# --- a move -----------------------------------------------------------------------------------


class Caller:
    """Tries to connect to the service all the time, each time anew."""

    def __init__(self, path, vip):
        self.stop, self.connected = threading.Event(), []
        self.refused = 0
        self.thread = threading.Thread(target=self.call, args=(path, vip))
        self.thread.start()

    def call(self, path, vip):
        enter(path)
        waiting = []
        while not self.stop.is_set():
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.connect_ex((vip, PORT))
            waiting = [*waiting, sock][-50:]
            time.sleep(0.001)
            for one in list(waiting):
                try:
                    one.getpeername()
                    self.connected.append(time.monotonic())
                except OSError:
                    error = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    self.refused += error == errno.ECONNREFUSED
                    if not error:
                        continue
                waiting.remove(one)
                one.close()

    def end(self):
        self.stop.set()
        self.thread.join()


class Server:
    """Takes every connection."""

    def __init__(self, name):
        self.process = begin("listen", f"/run/netns/{name}", "0.0.0.0")
        self.process.stdout.readline()

    def end(self):
        self.process.kill()
        self.process.communicate()


def move(name, old, new, caller, server):
    """Milliseconds from the beginning of the move, and from the end of the attach, to the first
    connection; and the server there."""
    began = time.monotonic()
    old.ctl("detach", name)
    server.end()
    while new.ctl("prepare", name, check=False).returncode != 0:
        pass  # the report of the detach is on its way
    there = time.monotonic()
    server = Server(name)
    bed.until(lambda: any(when > there for when in caller.connected), "it is reached again")
    first = min(when for when in caller.connected if when > there)
    return (first - began) * 1000, (first - there) * 1000, server


def listen(path, address):
    enter(path)
    with socket.create_server((address, PORT), backlog=1000) as server:
        print("ready", flush=True)
        while True:
            server.accept()[0].close()


def measure_move(cluster):
    vip = next(v4(service["vips"]) for service in cluster.json("list", "services")["services"]
               if service["workflow"] == "a")
    server = Server("db-a")
    caller = Caller("/run/netns/worker-a", vip)
    first, second = cluster.machines[:2]
    times = []
    for turn in range(MOVES):
        old, new = (second, first) if turn % 2 == 0 else (first, second)
        *both, server = move("db-a", old, new, caller, server)
        times.append(both)
    caller.end()
    server.end()
    whole, after = zip(*times)
    return {"moves": MOVES, "refused": caller.refused,
            "p50_ms": round(statistics.median(whole), 1), "worst_ms": round(max(whole), 1),
            "after_attach_p50_ms": round(statistics.median(after), 1),
            "after_attach_worst_ms": round(max(after), 1)}


def main():
    cluster = Cluster()
    try:
        cluster.make()
        cluster.controllers[0].run("ip", "route", "add", "default", "via", ADMIN)
        cluster.controllers[0].start()
        result = {"ways": measure_ways(make_ways(cluster)), "move": measure_move(cluster)}
    finally:
        cluster.close()
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"receive": receive, "transmit": transmit, "listen": listen}[sys.argv[1]](*sys.argv[2:])
    else:
        main()
