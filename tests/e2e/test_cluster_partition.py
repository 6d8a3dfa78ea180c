"""Networks that lose packets between a node and its controller: both ways, and one way only, which
leaves a connection half open."""
import json
import time
import unittest

from cluster import PAIR_DB, PAIR_WORKER, PairTest
from node import until

# What finding a silent peer takes, and what a busy machine adds to it.
FOUND, SLACK = 5.0, 2.5


class PartitionTest(PairTest):
    OPTIONS = {"more": "stale_after_s: 4\n"}

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.ghost = cls.n2.begin("prepare", "ghost")

    def mark(self):
        """What the worker is told beside db's address."""
        answer = self.n2.json("resolve", "--as", "worker", "db")
        self.assertEqual([a["data"] for a in answer["answers"]], [self.vip])
        return answer["ede"]

    def cut(self, *cuts):
        """The n1 that was cut off for a while: how long it took to be seen, and to be over."""
        before = self.n1.json("list", "workloads")
        serves = 2000 + len(cuts) * 10 + (cuts[0][0] is self.n1)
        with self.cluster.broken(*cuts):
            start, seen = time.monotonic(), {}

            def both_have_seen():
                ends = {"node": not self.n1.is_connected(), "controller":
                        not self.cluster.node("n1")["connected"]}
                for end, has_seen in ends.items():
                    if has_seen:
                        seen.setdefault(end, time.monotonic() - start)
                return len(seen) == 2
            until(both_have_seen, lambda: f"both ends have seen it: {seen}")
            self.cluster.apply(PAIR_DB.format(serves) + PAIR_WORKER)
            self.assertEqual(self.asks(), "answered")
            self.assertEqual(self.worker.lookup(name="db", family=4)["addresses"], [self.vip])
            until(lambda: self.cluster.node("n1")["stale"], "n1 is marked")
            until(lambda: self.mark() == "Stale Answer", "and so is its name")
            self.assertEqual(self.asks(), "answered", "and goes on")
            self.assertEqual(self.n1.json("list", "workloads"), before, "nothing is swept")
        start = time.monotonic()
        until(self.n1.is_connected, lambda: f"n1 is back: {self.n1.controller()}")
        back = time.monotonic() - start
        until(lambda: f'"port": {serves}' in json.dumps(self.n1.json("list", "workloads")),
              "what was declared meanwhile arrives")
        self.assertFalse(self.cluster.node("n1")["stale"], "it is marked no more")
        until(lambda: self.mark() == "", "nor is its name")
        print(f"seen by the node after {seen['node']:.1f} s, by the controller after "
              f"{seen['controller']:.1f} s; back {back:.1f} s after its end", flush=True)
        for end in seen.values():
            self.assertLess(end, FOUND + SLACK)

    def test_1_both_ways(self):
        self.cut((self.n1, self.c1), (self.c1, self.n1))

    def test_2_to_the_node_only(self):
        self.cut((self.c1, self.n1))

    def test_3_from_the_node_only(self):
        self.cut((self.n1, self.c1))

    def test_4_the_conversation_went_on(self):
        spoken = self.conversation()
        print(f"{spoken['rounds']} rounds, the longest {spoken['longest_ms']} ms", flush=True)


    def test_5_who_waits_in_vain_hears_why(self):
        """Before its own patience, which is as long, is at an end."""
        _, error = self.ghost.communicate(timeout=60)
        self.assertEqual(self.ghost.returncode, 1, error)
        self.assertRegex(error, "no declaration arrived within (29|30) s .controller: connected")


if __name__ == "__main__":
    unittest.main(verbosity=2)
