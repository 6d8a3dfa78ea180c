"""The node under churn: killed at any moment it keeps its word, and whatever came and went has
left nothing behind. Meanwhile somebody forbidden tries all the time, and somebody allowed talks."""
import concurrent.futures
import os
import pathlib
import random
import subprocess
import unittest

import node as bed
from node import NodeTest, run, until

KILLS = int(os.environ.get("MESHD_KILLS", "40"))
CYCLES = int(os.environ.get("MESHD_CYCLES", "1000"))
SEED = int(os.environ.get("MESHD_SEED", "7"))
FIXED = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}, {port: 53, protocol: UDP}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: stranger, owner: ada, workflow: wf1}
"""


def declaration(name, port):
    return (f"workloads: [{{id: {name}, owner: ada, workflow: wf1, peers: [{{name: db}}], "
            f"serves: [{{port: {port}}}]}}]")


class Operation:
    """One command, what it means for what is known of a workload, and how it is run."""

    def __init__(self, name, known, dice):
        self.name, self.before = name, known
        declared, attached = known
        choices = ["apply"]
        if declared:
            choices += ["delete", "detach" if attached else "prepare"]
            choices += ["drain"] if attached else ["prepare"]
        self.verb = dice.choice(choices)
        port = dice.randrange(1000, 60000)
        self.stdin = declaration(name, port) if self.verb == "apply" else None
        self.after = {"apply": (port, attached), "prepare": (declared, True),
                      "detach": (declared, False), "drain": (declared, attached),
                      "delete": (None, False)}[self.verb]
        self.argv = ["apply", "-f", "-"] if self.verb == "apply" else [self.verb, name]
        if self.verb == "delete":
            self.argv.append("--force")

    def begin(self):
        process = subprocess.Popen([str(bed.BUILD / "meshctl"), *self.argv], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        if self.stdin:
            process.stdin.write(self.stdin)
        process.stdin.close()
        process.stdin = None  # communicate() is not to flush it
        return process


class ChurnTest(NodeTest):
    @classmethod
    def prepare(cls):
        node = cls.node
        node.apply(FIXED)
        for name in ("db", "worker", "stranger"):
            node.container(name)
        node.agents["db"].serve(proto="tcp", port=5432)
        node.agents["db"].serve(proto="udp", port=53)
        node.ready("db")
        node.agents["worker"].serve(proto="tcp", port=5432)
        node.agents["worker"].serve(proto="udp", port=53)

    def forbidden(self):
        """What the stranger tries: everybody, both families, TCP and UDP."""
        targets = []
        for name in ("db", "worker"):
            for family in (4, 6):
                targets += [["tcp", self.node.address(name, family), 5432],
                            ["udp", self.node.address(name, family), 53]]
        for family in (4, 6):
            targets += [["tcp", self.node.vip("db", family), 5432],
                        ["udp", self.node.vip("db", family), 53]]
        return targets

    def arrivals(self):
        return {(name, proto): self.node.agents[name].count(proto=proto, port=port)
                for name in ("db", "worker") for proto, port in (("tcp", 5432), ("udp", 53))}

    def actual(self):
        """What each workload is now: (port it serves or None, attached)."""
        found = {}
        for workload in self.node.json("list", "workloads")["workloads"]:
            found[workload["id"]] = (workload["serves"][0]["port"] if workload["serves"] else 0,
                                     workload["state"] != "DECLARED")
        return found

    # --- killed at any moment ---------------------------------------------------------

    def churn(self, known, dice, names):
        """Some commands that end, then one in whose course the daemon is killed. Gives the
        states that its workload may have now."""
        for _ in range(dice.randrange(4)):
            operation = Operation(name := dice.choice(names), known.get(name, (None, False)), dice)
            process = operation.begin()
            _, error = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, (operation.argv, error))
            known[name] = operation.after
        operation = Operation(name := dice.choice(names), known.get(name, (None, False)), dice)
        process = operation.begin()
        try:
            process.wait(timeout=dice.uniform(0.0, 0.08))
        except subprocess.TimeoutExpired:
            pass
        self.node.kill()
        process.communicate(timeout=60)
        acknowledged = process.returncode == 0
        return name, {operation.after} if acknowledged else {operation.before, operation.after}

    def start_again(self, dice):
        if dice.random() < 0.25:  # and killed while it comes up
            self.node.launch()
            try:
                self.node.daemon.wait(timeout=dice.uniform(0.0, 0.4))
            except subprocess.TimeoutExpired:
                pass
            self.node.kill()
        self.node.start()

    def test_killed_at_any_moment_it_keeps_its_word(self):
        dice = random.Random(SEED)
        names = [f"c{i}" for i in range(6)]
        known, interrupted = {}, 0
        worker, stranger = self.node.agents["worker"], self.node.agents["stranger"]
        before = self.arrivals()
        stop = self.node.dir / "stop"
        opened = worker.open(key="a", proto="tcp", to=self.node.vip("db"), port=5432)
        self.assertEqual(opened["result"], "answered")
        before[("db", "tcp")] += 1
        hammer = stranger.begin("hammer", targets=self.forbidden(), until=str(stop))
        talk = worker.begin("stream", key="a", until=str(stop))
        try:
            for number in range(KILLS):
                name, may_be = self.churn(known, dice, names)
                self.start_again(dice)
                actual = self.actual()
                now = actual.get(name, (None, False))
                self.assertIn(now, may_be, (number, name))
                interrupted += len(may_be) > 1
                known[name] = now
                for other in names:
                    self.assertEqual(actual.get(other, (None, False)),
                                     known.get(other, (None, False)), (number, other))
                attached = sum(is_attached for _, is_attached in actual.values())
                self.assertEqual(len(self.node.links()), attached, number)
        finally:
            stop.touch()
        tried, spoken = stranger.end(hammer), worker.end(talk)
        stop.unlink()
        print(f"seed {SEED}: {KILLS} kills, {interrupted} within a command; forbidden: {tried}; "
              f"allowed: {spoken}", flush=True)
        self.assertEqual(self.arrivals(), before, "nothing forbidden arrived")
        self.assertGreater(tried["sent"], 100 * KILLS, "void: hardly anything was tried")
        self.assertEqual(spoken["end"], "stopped", "the open connection went on")
        self.assertGreater(interrupted, KILLS // 5, "void: hardly a command was interrupted")
        for name in known:
            self.node.ctl("delete", name, "--force", check=False)

    # --- nothing is left --------------------------------------------------------------

    def threads(self):
        """How many are ours: gRPC's pool grows and shrinks as it likes."""
        tasks = pathlib.Path(f"/proc/{self.node.daemon.pid}/task")
        return sum((task / "comm").read_text() == "meshd\n" for task in tasks.iterdir())

    def inventory(self):
        def lines(*argv):
            return sorted(run(*argv).stdout.splitlines())

        return {
            "links": self.node.links(),
            "routes": lines("ip", "route", "show", "table", "all"),
            "routes6": lines("ip", "-6", "route", "show", "table", "all"),
            "policy rules": lines("ip", "rule") + lines("ip", "-6", "rule"),
            "neighbours": lines("ip", "neigh", "show", "nud", "permanent"),
            "addresses": lines("ip", "-o", "addr", "show", "dev", "lo"),
            "rules and elements": self.node.rules(),
            "conntrack": [entry for entry in lines("conntrack", "-L") if "10.213." in entry],
            "descriptors": len(os.listdir(f"/proc/{self.node.daemon.pid}/fd")),
            "threads": self.threads(),
            "files": sorted(str(path) for path in pathlib.Path("/run").rglob("*")
                            if path.name not in ("meshd.log",)),
        }

    def cycles(self, name, count):
        """Attached, now and then talking to its peer, detached."""
        for number in range(count):
            self.node.ctl("prepare", name)
            if number % 25 == 0:  # that connection tracking has something to forget
                for to in (self.node.vip("db"), self.node.address("db"), self.node.vip("db", 6)):
                    run("ip", "netns", "exec", name, "bash", "-c", f"exec 3<>/dev/tcp/{to}/5432")
            self.node.ctl("detach", name)

    def test_cycles_leave_everything_as_before(self):
        names = ["x0", "x1"]
        for name in names:
            self.node.apply(declaration(name, 7000))
            self.cycles(name, 1)  # what is made once
        before = self.inventory()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self.cycles(name, CYCLES // len(names)), names))
        until(lambda: self.inventory() == before, lambda: str(
            [(key, value, before[key]) for key, value in self.inventory().items()
             if value != before[key]]))
        for name in names:
            self.node.ctl("delete", name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
