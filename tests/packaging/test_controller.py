"""mesh-controller as its package installs it: a user of its own, no capability, nginx's group."""
import re
import unittest

from machine import MachineTest, package, until

UNIT = "mesh-controller"
STATE = "/var/lib/mesh-controller"
CONFIG = "/etc/mesh-controller/mesh-controller.yaml"


class ControllerTest(MachineTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine.install(package(UNIT))
        cls.waited = cls.machine.unit(UNIT, "ConditionResult")
        cls.ask("init", "--address", "127.0.0.1:7443")
        cls.machine.run("systemctl", "start", UNIT)

    @classmethod
    def ask(cls, *argv):
        return cls.machine.run("runuser", "-u", UNIT, "--", "mesh-controller", *argv)

    def main(self):
        return self.machine.unit(UNIT, "MainPID")

    def test_waits_until_a_cluster_is_made(self):
        self.assertEqual(self.waited, "no")
        self.assertTrue(self.machine.active(UNIT))

    def test_has_no_capability_and_is_nobody_else(self):
        status = self.machine.run("cat", f"/proc/{self.main()}/status").stdout
        fields = dict(re.findall(r"^(\w+):\s+(\S+)", status, re.MULTILINE))
        for name in ("CapPrm", "CapEff", "CapBnd"):
            self.assertEqual(int(fields[name], 16), 0, name)
        self.assertEqual(fields["NoNewPrivs"], "1")
        uid = self.machine.run("id", "-u", UNIT).stdout.strip()
        self.assertEqual(fields["Uid"], uid)

    def test_administrator_is_answered(self):
        self.ask("token", "create")
        self.assertIn("good", self.ask("token", "list").stdout)
        self.ask("backup", f"{STATE}/copy.db")
        self.assertIn("copy.db", self.machine.run("ls", STATE).stdout)

    def test_killed_it_comes_back(self):
        before = self.main()
        self.machine.signal(UNIT, "KILL")
        until(lambda: self.main() not in ("0", before) and self.machine.active(UNIT), "a new one")
        self.ask("token", "list")

    def laid(self, path, text):
        """A file for as long as the test goes."""
        self.machine.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, stdin=text)
        self.addCleanup(self.taken, path)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", UNIT, check=False)

    def taken(self, path):
        self.machine.run("rm", path)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", UNIT)

    def test_hangs_and_the_watchdog_sees_it(self):
        self.laid(f"/run/systemd/system/{UNIT}.service.d/t.conf",
                  "[Service]\nWatchdogSec=8s\nTimeoutAbortSec=2s\n")
        before = self.main()
        first = self.machine.unit(UNIT, "WatchdogTimestampMonotonic")
        until(lambda: self.machine.unit(UNIT, "WatchdogTimestampMonotonic") != first, "a sign")
        self.assertEqual(self.main(), before)
        self.machine.signal(UNIT, "STOP")
        until(lambda: self.main() not in ("0", before) and self.machine.active(UNIT), "a new one",
              60)
        self.assertIn("atchdog", self.machine.run("journalctl", "-u", UNIT, "-n", "20").stdout)

    def test_nginx_is_given_its_socket(self):
        self.laid(CONFIG, "proxy: {addresses: [192.0.2.8]}\n"
                  "web: {zone: mesh.example.org, group: www-data}\n")
        self.assertTrue(self.machine.active(UNIT))
        modes = self.machine.run("stat", "-c", "%n %U:%G %a", "/run/mesh-controller/web.sock",
                                 "/run/mesh-controller/relay").stdout
        self.assertIn(f"web.sock {UNIT}:www-data 660", modes)
        self.assertIn(f"relay {UNIT}:www-data", modes)

    def test_unit_that_cannot_start_says_why_in_a_line(self):
        self.laid(CONFIG, "listen: nowhere\n")
        until(lambda: "listen" in self.machine.unit(UNIT, "StatusText"), "the reason")
        self.assertFalse(self.machine.active(UNIT))

    def test_example_is_a_good_configuration(self):
        self.ask("--check-config", "--config",
                 "/usr/share/doc/mesh-controller/examples/mesh-controller.yaml")


class PurgeTest(MachineTest):
    def test_purge_leaves_nothing(self):
        before = self.machine.run("cat", "/etc/passwd", "/etc/group").stdout
        self.machine.install(package(UNIT))
        ControllerTest.machine = self.machine
        ControllerTest.ask("init", "--address", "127.0.0.1:7443")
        self.machine.run("systemctl", "start", UNIT)
        self.machine.remove(UNIT)
        self.assertIn("authority.key", self.machine.run("ls", STATE).stdout)
        self.machine.remove(UNIT, purge=True)
        left = self.machine.run("find", "/etc", "/usr", "/var/lib", "/run", "-xdev", "-path",
                                f"*{UNIT}*", "-not", "-path", "/var/lib/dpkg/*").stdout
        self.assertEqual(left, "")
        self.assertEqual(self.machine.run("cat", "/etc/passwd", "/etc/group").stdout, before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
