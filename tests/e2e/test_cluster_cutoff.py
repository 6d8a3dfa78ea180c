"""A node that nobody hears of any more: its names stay, then they are given up, and its block is
its own all the while."""
import time
import unittest

from cluster import Machine, PairTest
from node import until


class CutOffTest(PairTest):
    OPTIONS = {"more": "stale_after_s: 2\ndismiss_after_s: 14\n"}

    def join(self, number):
        machine = Machine(self.cluster, f"n{number}", number)
        self.cluster.machines.append(machine)
        machine.start()
        until(machine.is_connected, f"n{number} has joined")
        return self.cluster.node(machine.name)["blocks"]

    def test_a_node_that_nobody_hears_of(self):
        block = self.cluster.node("n1")["blocks"]
        self.cluster.cut_off(self.n1)
        start = time.monotonic()
        until(lambda: self.cluster.node("n1")["stale"], "n1 is marked")
        self.assertEqual(self.worker.lookup(name="db", family=4)["addresses"], [self.vip])
        self.assertEqual(self.cluster.placed()["db"], "n1")
        self.assertFalse(set(block) & set(self.join(3)), "its block is its own")
        self.assertLess(time.monotonic() - start, 14.0, "void: it took too long")
        until(lambda: self.cluster.node("n1") is None, "n1 is given up", 30.0)
        self.assertGreater(time.monotonic() - start, 14.0 - 0.5)
        self.assertNotIn("db", self.cluster.placed())
        until(lambda: self.n2.ctl("explain", "worker", "db", "5432").stdout.startswith("HELD"),
              "whoever calls db waits")
        self.assertEqual(self.worker.lookup(name="db", family=4)["addresses"], [self.vip])
        self.assertFalse(set(block) & set(self.join(4)), "its block rests")
        # It comes back to a cluster that has done without it, and says what is to be done.
        self.cluster.mend()
        until(lambda: "1 containers are attached: detach them" in self.n1.controller(),
              lambda: f"n1 says what is wrong: {self.n1.controller()}")
        self.assertEqual(self.n1.ctl("status", check=False).returncode, 1)
        self.assertEqual(self.cluster.node("n1")["workloads"], 0)
        self.n1.remove("db")
        until(self.n1.is_connected, lambda: f"n1 has joined again: {self.n1.controller()}")
        self.assertEqual(self.n1.ctl("status", check=False).returncode, 0)
        self.stop.touch()
        self.worker.end(self.talk)
        self.n1.container("db").serve(proto="tcp", port=5432)
        until(lambda: self.asks() == "answered", "db is back under its name")


if __name__ == "__main__":
    unittest.main(verbosity=2)
