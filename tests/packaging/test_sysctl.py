"""What the packages say in sysctl.d: of names that the kernel has, and in force on a machine as soon
as they are installed, from its boot on, and no further than its administrator wants."""
import configparser
import unittest

from machine import MachineTest, package

PACKAGES = ("meshd", "mesh-controller")
# Something else than the files say, and than the kernel does by itself.
OTHERS = {"net.ipv4.tcp_tw_reuse": "0", "net.ipv6.route.max_size": "5000"}
WORDS = "/etc/sysctl.d/60-local.conf"


class SysctlTest(MachineTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.disturb()
        cls.machine.install(*map(package, PACKAGES))
        cls.installed = {key: cls.value(key) for key in OTHERS}

    @classmethod
    def path(cls, key):
        return "/proc/sys/" + key.replace(".", "/")

    @classmethod
    def value(cls, key):
        return cls.machine.run("cat", cls.path(key)).stdout.strip()

    @classmethod
    def disturb(cls):
        for key, value in OTHERS.items():
            cls.machine.run("tee", cls.path(key), stdin=value)
            if cls.value(key) != value:
                raise AssertionError(f"{key} is {cls.value(key)}")

    def wanted(self):
        found = {}
        for name in PACKAGES:
            has = self.machine.run("dpkg", "-L", name).stdout.splitlines()
            files = [path for path in has if "/sysctl.d/" in path]
            self.assertEqual(files, [f"/usr/lib/sysctl.d/50-{name}.conf"])
            parser = configparser.ConfigParser(delimiters="=", comment_prefixes="#")
            parser.read_string("[all]\n" + self.machine.run("cat", *files).stdout)
            # With a minus a key may be one that this kernel lacks, or does not let set.
            found.update({key.lstrip("-"): value for key, value in parser["all"].items()})
        return found

    def restart(self):
        """What the machine does when it boots."""
        self.machine.run("systemctl", "restart", "systemd-sysctl")
        begun = self.machine.unit("systemd-sysctl", "InvocationID")
        return self.machine.run("journalctl", "--no-pager", "-o", "cat", "-t", "systemd-sysctl",
                                f"_SYSTEMD_INVOCATION_ID={begun}").stdout

    def test_every_value_is_in_force_by_the_installation(self):
        # So all of them are looked at here, and all are the machine's own network's.
        self.assertEqual(set(self.wanted()), set(OTHERS))
        self.assertEqual(self.installed, self.wanted())
        self.assertEqual(self.installed["net.ipv4.tcp_tw_reuse"], "1")

    def test_every_value_is_in_force_by_the_boot(self):
        self.disturb()
        said = self.restart()
        for key, value in self.wanted().items():
            self.assertEqual(self.value(key), value, key)
            self.assertNotIn(key, said.replace("/", "."))

    def test_administrator_has_the_last_word(self):
        self.machine.run("sh", "-c", f"mkdir -p /etc/sysctl.d && cat >{WORDS}",
                         stdin="".join(f"{key} = {value}\n" for key, value in OTHERS.items()))
        self.addCleanup(self.machine.run, "systemctl", "restart", "systemd-sysctl")
        self.addCleanup(self.machine.run, "rm", WORDS)
        self.restart()
        self.assertEqual({key: self.value(key) for key in OTHERS}, OTHERS)
        self.machine.install(*map(package, PACKAGES), option="--reinstall")
        self.assertEqual({key: self.value(key) for key in OTHERS}, OTHERS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
