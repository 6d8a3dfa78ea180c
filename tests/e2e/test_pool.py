"""A pool that is used up."""
import os
import unittest

from node import NodeTest


class SmallPoolTest(NodeTest):
    CONFIG = "pool: {ipv4: 10.9.0.0/28, vip4: 10.9.1.0/28}\n"

    def test_exhausted_pool_says_so_and_recovers(self):
        names = [f"c{i}" for i in range(15)]
        self.node.apply("workloads:\n" + "".join(
            f"- {{id: {n}, owner: ada, workflow: wf1}}\n" for n in names))
        for name in names[:14]:
            self.node.ctl("prepare", name)
        rules = self.node.rules()
        done = self.node.ctl("prepare", "c14", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"no address is free")
        self.assertNotIn("c14", os.listdir("/run/netns"))
        self.assertEqual(self.node.rules(), rules)
        for name in names[:14]:
            self.node.ctl("detach", name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
