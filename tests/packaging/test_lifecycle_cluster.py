"""On a node of a cluster, under load: its controller is replaced by another version, and meshd by one
that makes other rules."""
import json
import unittest

from load import WORKLOADS, LoadTest
from machine import package, reversioned, until

UNIT = "mesh-controller"
STATE = "/var/lib/mesh-controller"
CONFIG = "/etc/meshd/meshd.yaml"
JOIN = "controller: {join_file: /etc/meshd/join.ticket}\n"
# By which the same program makes other rules, as another version would.
OTHER_RULES = JOIN + "gateway: true\n"
LATE = """
workloads:
- {id: %s, owner: ada, workflow: wf1, peers: [{name: db}]}
"""


class ControllerLifecycleTest(LoadTest):
    def as_controller(self, *argv, stdin=None):
        return self.machine.run("runuser", "-u", UNIT, "--", *argv, stdin=stdin).stdout

    def at_controller(self, *argv, stdin=None):
        return self.as_controller("meshctl", "--controller", "127.0.0.1:7443", "--identity",
                                  f"{STATE}/admin.pem", *argv, stdin=stdin)

    def connected(self):
        return "connected to" in self.machine.run("meshctl", "status", check=False).stdout

    def ids(self):
        listed = json.loads(self.at_controller("list", "workloads", "-o", "json"))
        return {one["id"] for one in listed["workloads"]}

    def joined(self):
        """This machine is the controller's and a node."""
        machine = self.machine
        machine.install(*map(package, ("meshd", "meshctl", UNIT)))
        self.as_controller(UNIT, "init", "--address", "127.0.0.1:7443")
        machine.run("systemctl", "start", UNIT)
        machine.run("sh", "-c", "umask 077; cat >/etc/meshd/join.ticket",
                    stdin=self.as_controller(UNIT, "token", "create"))
        self.configure(JOIN)
        machine.run("systemctl", "restart", "meshd")
        until(self.connected, "it is connected")

    def configure(self, text):
        self.machine.run("sh", "-c", f"cat >{CONFIG}", stdin=text)

    def test_upgrades_and_downgrades(self):
        machine = self.machine
        self.joined()
        self.at_controller("apply", "-f", "-", stdin=WORKLOADS)
        self.containers()
        rules = self.rules()
        with self.subTest("upgrade to a meshd that makes other rules"):
            self.configure(OTHER_RULES)
            self.change(reversioned("meshd", "0.1.99", machine.root.parent), "--no-remove")
            self.assertTrue(self.rules() != rules, "they are others")
        with self.subTest("downgrade to one that makes those from before"):
            self.configure(JOIN)
            self.change(package("meshd"), "--allow-downgrades")
            self.assertEqual(self.rules(), rules)
        until(self.connected, "it is connected again")
        known = {"db", "worker", "stranger"}
        for late, deb, option in (
                ("late-1", reversioned(UNIT, "0.1.99", machine.root.parent), "--no-remove"),
                ("late-2", package(UNIT), "--allow-downgrades")):
            with self.subTest(deb.name):
                node = machine.unit("meshd", "MainPID")
                self.change(deb, option, UNIT)
                until(self.connected, "it is connected again")
                self.assertEqual(machine.unit("meshd", "MainPID"), node, "the node is the same")
                self.assertEqual(self.ids(), known)
                # What is declared from now on arrives.
                self.at_controller("apply", "-f", "-", stdin=LATE % late)
                known.add(late)
                asked = machine.container(late).ask(proto="tcp", to=machine.address("db"), port=5432)
                self.assertEqual(asked["result"], "answered")


if __name__ == "__main__":
    unittest.main(verbosity=2)
