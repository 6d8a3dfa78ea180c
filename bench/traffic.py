#!/usr/bin/env python3
"""What packets see of the daemon: how soon a revoked flow is cut, and what its restart costs those
that are open, gives those that are closed, and lets wait who asks for names. Prints JSON.

All packets are sent and read by one thread, over sockets in the containers; when one arrived, the
kernel says. Runs in mount, network and pid namespaces of its own (bench/run makes them).
"""
import ctypes
import json
import os
import pathlib
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "e2e"))
import node as bed  # noqa: E402

CUTS = 8  # of each kind of flow
BEFORE, AFTER = 0.02, 0.1  # seconds of traffic around a revocation
KEPT, LOST = 6, 2  # restarts of a kind with the sockets kept, and without
EVERY = 0.001  # between a flow's packets, and between questions
NEIGHBOURS = 500  # declared on the node besides, each calling ten others
SETTLE = 0.3  # for what is on its way
SO_TIMESTAMPNS, CLONE_NEWNET = 35, 0x40000000
NAME = b"\x02db\x03wf1\x02wf\x04mesh\x08internal\x00"
DB = "{id: db, owner: ada, workflow: wf1, name: db, ready: NONE, serves: [{port: 80}, " \
     "{port: 80, protocol: UDP}]}"
WORKER = "{id: worker, owner: ada, workflow: wf1%s}"
CALLS = ", peers: [{name: db}]"
STRANGER = "{id: stranger, owner: ada, workflow: wf1}"


def workloads(*some):
    return "workloads: [" + ", ".join(some) + "]"


def make(container, family, kind):
    """A socket in a container, for this thread."""
    made = []

    def inside():
        with open(f"/run/netns/{container}", "rb") as netns:
            if ctypes.CDLL(None, use_errno=True).setns(netns.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.socket(family, kind))
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    made[0].setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    made[0].setblocking(False)
    return made[0]


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def arrived(sock):
    """(data, when) of all that is there."""
    found = []
    while True:
        try:
            data, extra, _, _ = sock.recvmsg(2048, 128)
        except (BlockingIOError, ConnectionError):
            return found
        if not data:
            return found
        for _, kind, value in extra:
            if kind == SO_TIMESTAMPNS:
                seconds, nanos = struct.unpack("qq", value[:16])
                found.append((data, seconds + nanos * 1e-9))


def send(sock, data):
    try:
        return sock.send(data) == len(data)
    except (BlockingIOError, ConnectionError):
        return False  # the refusal of an earlier one


# --- a revoked flow ---------------------------------------------------------------------------


class Flow:
    """From worker to db."""

    def __init__(self, node, kind, to):
        family = family_of(to)
        own = node.address("db", 6 if family == socket.AF_INET6 else 4)
        listener = make("db", family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((own, 80))
        self.source = make("worker", family, kind)
        self.source.setblocking(True)
        if kind == socket.SOCK_STREAM:
            listener.listen()
            self.source.connect((to, 80))
            listener.setblocking(True)
            self.sink, _ = listener.accept()
            listener.close()
            self.sink.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.source.connect((to, 80))
            self.sink = listener
        self.source.setblocking(False)
        self.sink.setblocking(False)

    def close(self):
        self.source.close()
        self.sink.close()


def cut(node, flow):
    """Milliseconds from the acknowledgement to the last packet that passed; before it: below 0."""
    last = acknowledged = 0.0
    process, answer = None, select.poll()
    start = time.time()
    while not acknowledged or time.time() < acknowledged + AFTER:
        send(flow.source, b"traffic")
        for _, last in arrived(flow.sink):
            pass
        if process is None and time.time() > start + BEFORE:
            if not last:
                raise SystemExit("bench: the flow is not open")
            process = subprocess.Popen([bed.BUILD / "meshctl", "apply", "-f", node.dir / "revoke"],
                                       stdout=subprocess.PIPE, bufsize=0)
            answer.register(process.stdout, select.POLLIN)
        if process and not acknowledged and answer.poll(0):
            acknowledged = time.time()
    process.communicate()
    if process.returncode != 0:
        raise SystemExit("bench: the flow is not revoked")
    return (last - acknowledged) * 1000


def measure_cut(node):
    (node.dir / "revoke").write_text(workloads(WORKER % ""))
    times = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        for family in (4, 6):
            for to in (node.address("db", family), node.vip("db", family)):
                for _ in range(CUTS):
                    flow = Flow(node, kind, to)
                    times.append(cut(node, flow))
                    flow.close()
                    node.apply(workloads(WORKER % CALLS))
    return {"cuts": len(times), "worst_ms": round(max(times), 2),
            "p50_ms": round(statistics.median(times), 2)}


# --- a restart --------------------------------------------------------------------------------


class Packets:
    """Numbered, by a flow that is open or by one that is closed."""

    def __init__(self, node, source, to, sink):
        self.sock = make(source, family_of(to), socket.SOCK_DGRAM)
        self.sock.connect((to, sink.getsockname()[1]))
        self.sent = 0
        self.name = f"{source} {to} ".encode()

    def step(self):
        # One that was not sent was refused before.
        self.sent += send(self.sock, self.name + str(self.sent).encode())


class Questions:
    """Asked once each and never again."""

    def __init__(self, server):
        self.sock = make("worker", socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((server, 53))
        self.asked, self.answered = {}, {}

    def step(self):
        number = len(self.asked)
        header = struct.pack(">HHHHHH", number & 0xffff, 0x100, 1, 0, 0, 0)
        self.asked[number] = time.time()
        if not send(self.sock, header + NAME + struct.pack(">HH", 1, 1)):
            self.asked[number] = None
        self.listen()

    def listen(self):
        for data, when in arrived(self.sock):
            low = struct.unpack(">H", data[:2])[0]
            last = len(self.asked) - 1
            self.answered[last - ((last - low) & 0xffff)] = when

    def unanswered(self):
        return len(self.asked.keys() - self.answered.keys())

    def longest(self, deaths):
        """From the question, or from the death of the daemon that did not answer it."""
        return max(when - max([asked] + [d for d in deaths if asked < d < when])
                   for asked, when in ((self.asked[n], when) for n, when in self.answered.items()))


class Traffic:
    def __init__(self, node):
        self.sinks, self.open, self.closed = [], [], []
        for family in (4, 6):
            for port in (80, 81):
                sink = make("db", family_of(node.address("db", family)), socket.SOCK_DGRAM)
                sink.bind((node.address("db", family), port))
                self.sinks.append(sink)
            served, other = self.sinks[-2:]
            for to in (node.address("db", family), node.vip("db", family)):
                self.open.append(Packets(node, "worker", to, served))
                self.closed += [Packets(node, "stranger", to, served),
                                Packets(node, "worker", to, other)]
        self.questions = Questions("169.254.1.1")
        self.came = {}

    def read(self):
        for sink in self.sinks:
            for data, _ in arrived(sink):
                key = (sink.getsockname()[1], data.rpartition(b" ")[0] + b" ")
                self.came[key] = self.came.get(key, 0) + 1

    def run(self, until):
        while not until():
            end = time.time() + EVERY
            for one in self.open + self.closed:
                one.step()
            self.read()
            self.questions.step()
            time.sleep(max(0, end - time.time()))

    def results(self, deaths):
        time.sleep(SETTLE)
        self.read()
        self.questions.listen()
        sent = sum(one.sent for one in self.open)
        came = sum(self.came.pop((80, one.name), 0) for one in self.open)
        return {"open_sent": sent, "open_lost": sent - came,
                "closed_sent": sum(one.sent for one in self.closed),
                "closed_passed": sum(self.came.values()),
                "questions": len(self.questions.asked),
                "unanswered": self.questions.unanswered(),
                "longest_wait_ms": round(self.questions.longest(deaths) * 1000, 1)}


def restarts(node, store, end_by, count):
    """In a thread of its own, one after another: when each old process was made to end."""
    deaths = []

    def work():
        for _ in range(count):
            deaths.append(time.time())
            node.kill(end_by)
            node.launch(store)
            bed.until(node.healthy, "the daemon is healthy")
    thread = threading.Thread(target=work)
    thread.start()
    return thread, deaths


def measure_kept(node, store, end_by):
    traffic = Traffic(node)
    begin = time.time() + BEFORE
    traffic.run(lambda: time.time() > begin)
    thread, deaths = restarts(node, store, end_by, KEPT)
    traffic.run(lambda: not thread.is_alive())
    return {"restarts": KEPT, **traffic.results(deaths)}


def measure_lost(node, store):
    """Nobody keeps the sockets: programs ask as they do, by the C library."""
    for name in list(store.fds):
        for fd in store.fds.pop(name):
            os.close(fd)
    worker, numbers = node.agents["worker"], []
    thread, _ = restarts(node, None, signal.SIGKILL, LOST)
    while thread.is_alive():
        numbers.append(worker.begin("lookup", name="db", family=4))
        time.sleep(EVERY * 5)
    done = [worker.end(number) for number in numbers]
    right = [node.vip("db")]
    return {"restarts": LOST, "lookups": len(done),
            "failed": sum(one["addresses"] != right for one in done),
            "longest_ms": max(one["ms"] for one in done)}


def neighbours():
    lines = []
    for i in range(NEIGHBOURS):
        peers = ", ".join(f"{{name: s{(i + k) % NEIGHBOURS}}}" for k in range(1, 11))
        lines.append(f"- {{id: c{i}, owner: ada, workflow: wf1, name: s{i}, ready: NONE, "
                     f"serves: [{{port: 80}}], peers: [{peers}]}}\n")
    return "workloads:\n" + "".join(lines)


def main():
    node = bed.Node()
    store = bed.FdStore(node.dir / "notify")
    node.start(store)
    node.apply(workloads(DB, WORKER % CALLS, STRANGER))
    node.apply(neighbours())
    for name in ("db", "worker", "stranger"):
        node.container(name)
    result = {"cut": measure_cut(node), "stopped": measure_kept(node, store, signal.SIGTERM),
              "killed": measure_kept(node, store, signal.SIGKILL)}
    result["not_kept"] = measure_lost(node, store)
    node.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
