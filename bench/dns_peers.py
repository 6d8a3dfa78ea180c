#!/usr/bin/env python3
"""Our resolver beside an echo server and others' servers, the same names and the same load in
alternating slices of one run: own names, then cached foreign ones beside unbound. Prints JSON.
Runs in a network namespace of its own.

Usage: dns_peers.py FOLDER-OF-BENCH-PROGRAMS
"""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

NAMES = 1000  # as bench/dns.cc asks for them
ZONE = "svc.mesh.internal"


def records():
    return [(f"n{i}.{ZONE}", f"10.213.{i // 256}.{i % 256}") for i in range(NAMES)]


def zone_file(folder):
    path = folder / "zone"
    lines = [f"$ORIGIN {ZONE}.", "$TTL 5", "@ SOA ns hostmaster 1 3600 600 86400 1", "@ NS ns",
             "ns A 10.213.255.1"]
    path.write_text("\n".join(lines + [f"{n}. A {a}" for n, a in records()]) + "\n")
    return path


def knot(folder, port):
    conf = folder / "knot.conf"
    conf.write_text(f"server:\n  listen: 127.0.0.1@{port}\n  rundir: {folder}\n"
                    f"  udp-workers: 1\ndatabase:\n  storage: {folder}\nzone:\n"
                    f"  - domain: {ZONE}\n    file: {zone_file(folder)}\n")
    return ["knotd", "-c", conf]


def nsd(folder, port):
    conf = folder / "nsd.conf"
    conf.write_text(f"server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n"
                    f"  zonesdir: {folder}\n  pidfile: {folder}/pid\n  xfrdfile: {folder}/xfrd\n"
                    f"  zonelistfile: {folder}/list\n  xfrdir: {folder}\n  server-count: 1\n"
                    f"zone:\n  name: {ZONE}\n  zonefile: {zone_file(folder)}\n")
    return ["nsd", "-d", "-c", conf]


def run_unbound(folder, port, more):
    conf = folder / "unbound.conf"
    conf.write_text(f"server:\n  interface: 127.0.0.1@{port}\n  do-daemonize: no\n  chroot: \"\"\n"
                    f"  username: \"\"\n  pidfile: \"\"\n  num-threads: 1\n  use-syslog: no\n"
                    + more)
    return ["unbound", "-d", "-c", conf]


def unbound(folder, port):
    data = "".join(f'  local-data: "{n}. 5 A {a}"\n' for n, a in records())
    return run_unbound(folder, port, f"  local-zone: {ZONE}. static\n{data}")


def unbound_cache(folder, port, upstream):
    """Forwards everything; nothing is signed here, so nothing is validated."""
    return run_unbound(folder, port,
                       "  module-config: \"iterator\"\n  do-not-query-localhost: no\n"
                       f"forward-zone:\n  name: .\n  forward-addr: 127.0.0.1@{upstream}\n")


def dnsmasq(folder, port):
    hosts = folder / "hosts"
    hosts.write_text("".join(f"{a} {n}\n" for n, a in records()))
    return ["dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", f"--port={port}",
            f"--addn-hosts={hosts}", "--listen-address=127.0.0.1", "--bind-interfaces",
            f"--pid-file={folder}/pid", "--user=root"]


def aardvark(folder, port):
    config = folder / "networks"
    config.mkdir()
    (config / "svc").write_text("127.0.0.1\n" + "".join(
        f"{i:064x} {a}  n{i},{n}\n" for i, (n, a) in enumerate(records())))
    program = shutil.which("aardvark-dns") or "/usr/lib/podman/aardvark-dns"
    return [program, "--config", config, "--port", port, "run"]


PEERS = {"knot": knot, "nsd": nsd, "unbound": unbound, "dnsmasq": dnsmasq, "aardvark-dns": aardvark}


def answers(port, name):
    query = bytes.fromhex("000101000001000000000000") + b"".join(
        bytes([len(label)]) + label.encode() for label in [*name.split("."), ""]) + b"\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        try:
            sock.connect(("127.0.0.1", port))
            sock.send(query)
            reply = sock.recv(512)
        except OSError:
            return False
        return len(reply) > 8 and reply[3] & 15 == 0 and reply[7] == 1


def holders(port):
    """Processes that have the port's UDP socket open."""
    sockets = {f"socket:[{line.split()[9]}]"
               for line in pathlib.Path("/proc/net/udp").read_text().splitlines()[1:]
               if line.split()[1].endswith(f":{port:04X}")}
    found = set()
    for fd in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(fd) in sockets:
                found.add(int(fd.parts[2]))
        except OSError:
            pass  # it has ended
    return found


def cpu_seconds(pid):
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) makes it


def busiest(port, asked):
    """The process that answers, of a server that forks or goes into the background."""
    before = {pid: cpu_seconds(pid) for pid in holders(port)}
    for _ in range(200):
        answers(port, asked)
    return max(before, key=lambda pid: cpu_seconds(pid) - before[pid])


class Servers:
    """Others' servers; they end with the pid namespace at the latest."""

    def __init__(self, temporary):
        self.folder = pathlib.Path(temporary)
        self.started = []

    def start(self, name, port, make, asked):
        """NAME=PID:PORT for the measuring program; a list, empty where it does not run."""
        folder = self.folder / str(port)
        folder.mkdir()
        try:
            with open(folder / "log", "w", encoding="utf-8") as log:
                server = subprocess.Popen([str(a) for a in make(folder, port)],
                                          stdout=subprocess.DEVNULL, stderr=log)
        except OSError as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            return []
        self.started.append(server)
        end = time.monotonic() + 10
        while not answers(port, asked) and time.monotonic() < end:
            time.sleep(0.05)
        if answers(port, asked):
            return [f"{name}={busiest(port, asked)}:{port}"]
        print(f"bench: {name} does not answer: {(folder / 'log').read_text()[-300:]}",
              file=sys.stderr)
        return []

    def stop(self):
        for server in self.started:
            server.kill()
            server.wait()
        self.started.clear()


def measured(program, *arguments):
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def own_names(programs, servers):
    arguments = []
    for number, (name, make) in enumerate(PEERS.items()):
        arguments += servers.start(name, 5301 + number, make, f"n1.{ZONE}")
    result = measured(programs / "bench_dns", *arguments)
    servers.stop()
    return result


def cached_names(programs, servers):
    program = programs / "bench_dns_cached"
    with subprocess.Popen([program, "upstream"], stdout=subprocess.PIPE, text=True) as upstream:
        port = int(upstream.stdout.readline())
        arguments = servers.start("unbound", 5401, lambda folder, own: unbound_cache(
            folder, own, port), "host.example.com")
        result = measured(program, str(port), *arguments)
        servers.stop()
        upstream.kill()
    return result


def main():
    if os.environ.get("MESHD_BENCH_INSIDE") != "1":
        os.environ["MESHD_BENCH_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--pid", "--fork", "--kill-child",
                              "--mount-proc", sys.executable, "-B", __file__, *sys.argv[1:]])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    programs = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        servers = Servers(temporary)
        print(json.dumps({"own": own_names(programs, servers),
                          "cached": cached_names(programs, servers)}))


if __name__ == "__main__":
    main()
