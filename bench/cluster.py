#!/usr/bin/env python3
"""A controller with many nodes: how soon a change is with all whom it concerns, what it costs,
how that grows with the cluster, and how all nodes come at once. Prints JSON.

The controller is the real program; the nodes are their side of the protocol and nothing else
(bench/cluster_fleet.h), each with its own certificate and connection. The store is on a disk, for
a change is stored before anybody hears of it. Runs in mount, network and pid namespaces of its
own (bench/run makes them).
"""
import argparse
import json
import os
import pathlib
import pwd
import shutil
import statistics
import subprocess
import tempfile
import time

BUILD = pathlib.Path(os.environ["MESHD_BUILD"])
PROGRAMS = pathlib.Path("/usr/lib/postgresql")
# Up to --nodes. One thread plays all of them: with 5,000 it needs a machine that does nothing else,
# or their pings come too late.
SIZES = (100, 1000, 5000)
POSTGRES_SIZE = 1000
# What is changed, how often, and how many times a second: see Load::begin() in bench/cluster.cc.
CHANGES = (("report", 400, 50), ("apply", 400, 50), ("move", 200, 25), ("shared", 40, 4))
IDLE_S = 4
FEW = 4  # changes that are not measured, so that nothing is done for the first time


def cpu_seconds(pid):
    """The clock's number is made as clock_getcpuclockid(3) does it."""
    return time.clock_gettime((~pid << 3) | 2)


def rss_mib(pid):
    fields = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def network_bytes():
    """All that went over the loopback device, headers and acknowledgements too."""
    for line in pathlib.Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    raise SystemExit("bench: no loopback device")


def sync_ms(folder):
    """What one small write costs until it is on the disk."""
    took = []
    with open(folder / "sync", "wb") as file:
        for _ in range(50):
            start = time.monotonic()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            took.append((time.monotonic() - start) * 1000)
    return round(statistics.median(took), 2)


class Postgres:
    """A server of our own, run by a user without privileges, reached by a socket."""

    def __init__(self, folder):
        versions = sorted(PROGRAMS.glob("*/bin"), key=lambda path: int(path.parent.name))
        if not versions:
            raise SystemExit("bench: no PostgreSQL is installed (package postgresql-15)")
        nobody = pwd.getpwnam("nobody")
        self.user = nobody.pw_uid
        self.dir = folder / "postgres"
        self.dir.mkdir(mode=0o700)
        os.chown(self.dir, nobody.pw_uid, nobody.pw_gid)
        self.log = open(folder / "postgres.log", "wb")
        options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/",
                   "stdout": self.log, "stderr": self.log, "env": {"LC_ALL": "C"}}
        subprocess.run([versions[-1] / "initdb", "-D", self.dir, "-U", "mesh", "-A", "trust",
                        "--no-locale", "-E", "UTF8"], check=True, **options)
        self.process = subprocess.Popen([versions[-1] / "postgres", "-D", self.dir, "-k", self.dir,
                                         "-c", "listen_addresses="], **options)
        self.conninfo = f"host={self.dir} dbname=postgres user=mesh"
        ask = [versions[-1] / "pg_isready", "-q", "-h", self.dir]
        for _ in range(200):
            if subprocess.run(ask, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit("bench: PostgreSQL does not start")

    def cpu_seconds(self):
        """Of all its processes; one for each session does the work."""
        ticks = 0
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                owner = stat.stat().st_uid
            except OSError:  # it has ended
                continue
            if owner == self.user:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


class Controller:
    def __init__(self, folder, postgres):
        self.dir = folder / "controller"
        subprocess.run([BUILD / "mesh-controller", "init", "--dir", self.dir,
                        "--address", "127.0.0.1:7443", "--pool4", "10.128.0.0/14", "--block4",
                        "27", "--vip4", "10.132.0.0/14"], check=True, stdout=subprocess.DEVNULL)
        self.config = folder / "controller.yaml"
        text = f"dir: {self.dir}\nname: c1\nlisten: 127.0.0.1:7443\njoin_listen: 127.0.0.1:7444\n"
        if postgres:
            subprocess.run([BUILD / "bench/bench_cluster", "copy-store", self.dir,
                            postgres.conninfo], check=True)
            text += f'postgres: "{postgres.conninfo}"\n'
        self.config.write_text(text)
        self.log = folder / "controller.log"
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        """Returns in how many seconds it served."""
        start, seen = time.monotonic(), self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [BUILD / "mesh-controller", "--config", self.config], stdout=log, stderr=log)
        while b": ports " not in self.log.read_bytes()[seen:]:
            if self.process.poll() is not None:
                raise SystemExit("bench: " + self.log.read_text()[-1000:])
            time.sleep(0.005)
        return time.monotonic() - start

    def kill(self):
        self.process.kill()
        self.process.wait()


class Load:
    def __init__(self, nodes, controller, postgres):
        self.controller, self.postgres = controller, postgres
        self.process = subprocess.Popen(
            [BUILD / "bench/bench_cluster", str(nodes), controller.dir], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)

    def say(self, *words):
        """What came of a command, and what it cost the controller."""
        pid = self.controller.pid
        alive = self.controller.process.poll() is None
        cpu, network = cpu_seconds(pid) if alive else 0, network_bytes()
        database = self.postgres.cpu_seconds() if self.postgres else 0
        print(*words, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: bench_cluster ended at '{' '.join(map(str, words))}'")
        result = json.loads(line)
        result["network_bytes"] = network_bytes() - network
        if self.postgres:
            result["database_cpu_s"] = round(self.postgres.cpu_seconds() - database, 2)
        if alive:
            result["cpu_s"] = round(cpu_seconds(pid) - cpu, 4)
            result["rss_mib"] = round(rss_mib(pid), 1)
        return result

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def change(load, idle, kind, count, rate):
    load.say("change", kind, FEW, rate)
    result = load.say("change", kind, count, rate)
    # What an idle cluster takes in that time is not the changes'.
    for what in ("cpu_s", "network_bytes"):
        result[what] -= idle[what] * result["seconds"] / IDLE_S
    result["cpu_us_a_change"] = round(result["cpu_s"] * 1e6 / count)
    if load.postgres:
        result["database_cpu_us_a_change"] = round(result["database_cpu_s"] * 1e6 / count)
    result["network_bytes_a_change"] = round(result["network_bytes"] / count)
    return {"kind": kind, "a_second": rate, **result}


def measure(nodes, kind, folder):
    postgres = Postgres(folder) if kind == "postgres" else None
    controller = Controller(folder, postgres)
    controller.start()
    load = Load(nodes, controller, postgres)
    row = {"nodes": nodes, "store": kind, "sync_ms": sync_ms(folder),
           "load_average": round(os.getloadavg()[0], 1)}
    try:
        row["declare"] = load.say("declare")
        row["join"] = load.say("connect")
        load.say("idle", 1000)
        row["idle"] = load.say("idle", IDLE_S * 1000)
        row["idle_cpu_percent"] = round(row["idle"]["cpu_s"] / IDLE_S * 100, 2)
        row["changes"] = [change(load, row["idle"], *what) for what in CHANGES]
        load.say("leave")
        controller.kill()
        load.say("gone")
        row["start_s"] = round(controller.start(), 2)
        row["rss_mib_alone"] = round(rss_mib(controller.pid), 1)
        row["reconnect"] = load.say("connect")
        load.say("idle", 1000)
        row["rss_mib_connected"] = round(rss_mib(controller.pid), 1)
        row["kib_a_stream"] = round(
            (row["rss_mib_connected"] - row["rss_mib_alone"]) * 1024 / nodes, 1)
    finally:
        load.stop()
        controller.kill()
        if postgres:
            postgres.stop()
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=1000, help="of the largest cluster")
    parser.add_argument("--only", action="store_true", help="no smaller cluster")
    parser.add_argument("--store", choices=("sqlite", "postgres"), help="only this one")
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    sizes = sorted({min(size, options.nodes) for size in SIZES})
    sizes = [options.nodes] if options.only else sizes
    plan = [(size, "sqlite") for size in sizes] + [(min(POSTGRES_SIZE, options.nodes), "postgres")]
    rows = []
    for nodes, kind in plan:
        if options.store not in (None, kind):
            continue
        folder = pathlib.Path(tempfile.mkdtemp(prefix="meshd-bench-", dir="/var/tmp"))
        folder.chmod(0o755)  # the database's user passes through
        try:
            rows.append(measure(nodes, kind, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
