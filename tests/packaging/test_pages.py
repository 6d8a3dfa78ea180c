"""What docs/cluster.md tells whoever installs a cluster from packages, word for word, on one machine
that is the controller's and a node."""
import pathlib
import re
import shutil
import unittest

from machine import MachineTest, package, until

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/cluster.md"
CONTROLLER = "ctl.example.org"


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if "runuser" in block).splitlines()


class ClusterPageTest(MachineTest):
    def test_cluster_from_packages(self):
        machine = self.machine
        folder = machine.root / "srv"
        for name in ("meshd", "meshctl", "mesh-controller"):
            shutil.copy(package(name), folder)
        hosts = machine.root / "etc/hosts"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {CONTROLLER}\n", encoding="utf-8")
        for command in commands():
            # Nobody is asked, and nothing is recommended by a mirror.
            command = command.replace("apt install", "apt-get -y --no-install-recommends install")
            machine.run("bash", "-e", "-c", f"cd /srv && {command}")
        until(lambda: "connected to" in machine.run("meshctl", "status", check=False).stdout,
              lambda: machine.run("meshctl", "status", check=False).stdout)
        self.assertEqual(machine.state(), "running")
        ticket = machine.run("stat", "-c", "%U %a", "/etc/meshd/join.ticket").stdout
        self.assertEqual(ticket.strip(), "root 600")


if __name__ == "__main__":
    unittest.main(verbosity=2)
