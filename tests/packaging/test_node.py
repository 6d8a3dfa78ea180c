"""meshd as its package installs it: under systemd, with no more power than its unit gives."""
import json
import re
import unittest

from machine import MachineTest, package, until

WORKLOADS = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: stranger, owner: ada, workflow: wf1}
- {id: other, owner: ada, workflow: wf1}
"""
UNIT = "meshd"
# linux/capability.h
CAPABILITIES = {"NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21}
SECCOMP_FILTER = "2"


class NodeTest(MachineTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine.install(package("meshd"), package("meshctl"))
        cls.machine.apply(WORKLOADS)
        for name in ("db", "worker", "stranger"):
            cls.machine.container(name)
        cls.machine.agents["db"].serve(proto="tcp", port=5432)
        cls.machine.run("meshctl", "wait", "db", "--timeout", "20s")

    def main(self):
        return self.machine.unit(UNIT, "MainPID")

    def works(self):
        agents = self.machine.agents
        asked = {name: agents[name].ask(proto="tcp", to=self.machine.address("db"),
                                        port=5432)["result"] for name in ("worker", "stranger")}
        self.assertEqual(asked, {"worker": "answered", "stranger": "refused"})
        found = agents["worker"].lookup(name="db")
        self.assertEqual(found["error"], "")

    def test_starts_at_once_and_the_machine_is_well(self):
        self.assertTrue(self.machine.active(UNIT))
        self.assertEqual(self.machine.state(), "running")
        self.assertEqual(self.machine.unit(UNIT, "UnitFileState"), "enabled")
        self.works()

    def test_has_the_capabilities_of_its_unit_and_no_others(self):
        status = self.machine.run("cat", f"/proc/{self.main()}/status").stdout
        fields = dict(re.findall(r"^(\w+):\s+(\S+)", status, re.MULTILINE))
        wanted = sum(1 << number for number in CAPABILITIES.values())
        for name in ("CapPrm", "CapEff", "CapBnd"):
            self.assertEqual(int(fields[name], 16), wanted, name)
        self.assertEqual((fields["NoNewPrivs"], fields["Seccomp"]), ("1", SECCOMP_FILTER))

    def test_sockets_are_for_root_and_for_the_group(self):
        modes = self.machine.run("stat", "-c", "%n %U:%G %a", "/run/meshd/control.sock",
                                 "/run/meshd/status.sock", "/var/lib/meshd").stdout
        self.assertIn("control.sock root:meshd 600", modes)
        self.assertIn("status.sock root:meshd 660", modes)
        self.assertIn("/var/lib/meshd root:meshd 700", modes)

    def test_namespace_of_a_process_in_a_user_namespace_is_attached(self):
        machine = self.machine
        machine.run("systemd-run", "--unit=payload", "unshare", "--user", "--map-root-user",
                    "--net", "sleep", "600")
        pid = until(lambda: machine.unit("payload", "MainPID") if machine.active("payload") else "",
                    "a payload")
        until(lambda: machine.run("readlink", f"/proc/{pid}/ns/net").stdout !=
              machine.run("readlink", "/proc/1/ns/net").stdout, "it has its namespace")
        answer = json.loads(machine.run("meshctl", "attach", "other", "--pid", pid).stdout)
        links = machine.run("nsenter", f"--target={pid}", "--net", "ip", "-br", "addr").stdout
        self.assertIn(answer["addresses"][0], links)
        machine.run("systemctl", "stop", "payload")
        until(lambda: self.workload("other")["state"] == "DECLARED", "it is detached")

    def workload(self, name):
        listed = self.machine.run("meshctl", "list", "workloads", "-o", "json").stdout
        return next(one for one in json.loads(listed)["workloads"] if one["id"] == name)

    def test_killed_it_comes_back_and_its_sockets_were_kept(self):
        before = self.main()
        self.machine.signal(UNIT, "KILL")
        until(lambda: self.main() not in ("0", before) and self.machine.active(UNIT), "a new one")
        self.assertEqual(self.machine.unit(UNIT, "NFileDescriptorStore"), "8")
        self.works()

    def laid(self, path, text):
        """A file for as long as the test goes."""
        self.machine.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, stdin=text)
        self.addCleanup(self.taken, path)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", UNIT, check=False)

    def taken(self, path):
        self.machine.run("rm", "-f", path)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", UNIT)

    def test_hangs_and_the_watchdog_sees_it(self):
        self.laid(f"/run/systemd/system/{UNIT}.service.d/t.conf",
                  "[Service]\nWatchdogSec=6s\nTimeoutAbortSec=2s\n")
        before = self.main()
        self.machine.signal(UNIT, "STOP")
        until(lambda: self.main() not in ("0", before) and self.machine.active(UNIT), "a new one",
              60)
        self.assertIn("atchdog", self.machine.run("journalctl", "-u", UNIT, "-n", "20").stdout)
        self.works()

    def test_unit_that_cannot_start_says_why_in_a_line_and_goes_on_when_it_can(self):
        config = "/etc/meshd/meshd.yaml"
        self.laid(config, "log: {level: INFO}\nzone: -bad\n")
        until(lambda: f"{config}:2: zone" in self.machine.unit(UNIT, "StatusText"),
              lambda: "status " + self.machine.unit(UNIT, "StatusText"))
        self.assertFalse(self.machine.active(UNIT))
        # What ran goes on meanwhile.
        asked = self.machine.agents["worker"].ask(proto="tcp", to=self.machine.address("db"),
                                                  port=5432)
        self.assertEqual(asked["result"], "answered")
        self.machine.run("rm", config)
        until(lambda: self.machine.active(UNIT), "it starts by itself")
        self.works()

    def test_examples_are_good_configurations(self):
        self.machine.run("meshd", "--check-config", "--config",
                         "/usr/share/doc/meshd/examples/meshd.yaml")


if __name__ == "__main__":
    unittest.main(verbosity=2)
