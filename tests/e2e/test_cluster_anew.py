"""A cluster that is made anew under its old name, while nodes have identities of the old one."""
import shutil
import unittest

from cluster import ClusterTest
from node import until

WORKLOAD = "- {id: kept, owner: ada, workflow: r1, ready: NONE}\n"


class AnewTest(ClusterTest):
    @classmethod
    def prepare(cls):
        cls.n1, cls.n2 = cls.cluster.machines
        (cls.c1,) = cls.cluster.controllers
        cls.cluster.apply(WORKLOAD)
        cls.n1.container("kept")

    def test_a_cluster_made_anew_under_its_name(self):
        self.c1.kill()
        shutil.rmtree(self.c1.store)
        self.cluster.make()
        for machine in self.cluster.machines:
            shutil.copy(self.c1.store / "join.ticket", machine.ticket)
        self.c1.start()
        until(self.n2.is_connected, lambda: f"n2, which is empty, joins: {self.n2.controller()}")
        until(lambda: "it joins once nothing is attached here; 1 containers" in
              self.n1.controller(), lambda: f"n1 says why it does not: {self.n1.controller()}")
        states = {w["id"]: w["state"] for w in self.n1.json("list", "workloads")["workloads"]}
        self.assertEqual(states, {"kept": "READY"}, "what runs there goes on")
        self.n1.remove("kept")
        until(self.n1.is_connected, lambda: f"now it joins: {self.n1.controller()}")
        until(lambda: not self.n1.json("list", "workloads")["workloads"],
              "the old cluster's declaration is gone")
        self.assertEqual(self.n1.ctl("status", check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
