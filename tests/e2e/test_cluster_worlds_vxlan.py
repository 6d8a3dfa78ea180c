"""test_cluster_worlds.py with all nodes behind the tunnel."""
import unittest

from test_cluster_worlds import Scenario


class Tunnelled(Scenario):
    MODE = "VXLAN"

    def check_ways(self):
        for name, machine in self.node.machines.items():
            for other in set(self.node.machines) - {name}:
                self.assertEqual(self.device(machine, other), "mesh0")


def load_tests(loader, *_):
    return loader.loadTestsFromTestCase(Tunnelled)


if __name__ == "__main__":
    unittest.main(verbosity=2)
