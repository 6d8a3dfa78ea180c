#!/usr/bin/env python3
"""Our resolver beside an echo server and others' servers, the same names and the same load in
alternating slices of one run. Prints JSON. Runs in a network namespace of its own.

Usage: dns_peers.py BENCH_DNS
"""
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


def unbound(folder, port):
    conf = folder / "unbound.conf"
    data = "".join(f'  local-data: "{n}. 5 A {a}"\n' for n, a in records())
    conf.write_text(f"server:\n  interface: 127.0.0.1@{port}\n  do-daemonize: no\n  chroot: \"\"\n"
                    f"  username: \"\"\n  pidfile: \"\"\n  num-threads: 1\n  use-syslog: no\n"
                    f"  local-zone: {ZONE}. static\n{data}")
    return ["unbound", "-d", "-c", conf]


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


def answers(port):
    query = bytes.fromhex("000101000001000000000000026e31037376630"
                          "46d65736808696e7465726e616c0000010001")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        try:
            sock.connect(("127.0.0.1", port))
            sock.send(query)
            reply = sock.recv(512)
        except OSError:
            return False
        return len(reply) > 8 and reply[3] & 15 == 0 and reply[7] == 1


def busiest(pid):
    """Of a server with several processes, the one that answers: its last child."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True,
                              text=True, check=False).stdout.split()
    return busiest(int(children[-1])) if children else pid


def main():
    if os.environ.get("MESHD_BENCH_INSIDE") != "1":
        os.environ["MESHD_BENCH_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--pid", "--fork", "--kill-child",
                              "--mount-proc", sys.executable, "-B", __file__, *sys.argv[1:]])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    arguments, started = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, make) in enumerate(PEERS.items()):
            folder = pathlib.Path(temporary, name)
            folder.mkdir()
            port = 5301 + number
            try:
                server = subprocess.Popen([str(a) for a in make(folder, port)],
                                          stdout=subprocess.DEVNULL,
                                          stderr=open(folder / "log", "w", encoding="utf-8"))
            except OSError as error:
                print(f"bench: {name}: {error}", file=sys.stderr)
                continue
            started.append(server)
            end = time.monotonic() + 10
            while not answers(port) and time.monotonic() < end:
                time.sleep(0.05)
            if answers(port):
                arguments.append(f"{name}={busiest(server.pid)}:{port}")
            else:
                print(f"bench: {name} does not answer: {(folder / 'log').read_text()[-300:]}",
                      file=sys.stderr)
        done = subprocess.run([sys.argv[1], *arguments], stdout=subprocess.PIPE, text=True,
                              check=True)
        for server in started:
            server.kill()
            server.wait()
    print(done.stdout, end="")


if __name__ == "__main__":
    main()
