"""Installation to purge: an upgrade and a downgrade under load, a removal that gives the node back,
a purge that leaves nothing."""
import re
import unittest

from load import WORKLOADS, LoadTest
from machine import package, reversioned

# What every installation writes, whatever is installed.
RECORDS = ("/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/", "/var/log/", "/var/lib/systemd/",
           "/root/", "/tmp/", "/etc/group-", "/etc/gshadow-", "/etc/passwd-", "/etc/shadow-",
           "/etc/.pwd.lock", "/etc/ld.so.cache")
# Of the machine's sysctls what counts, and not what is set; and what sysctl.d has set until the next
# boot, on a kernel that has another default.
COUNTING = re.compile(r"nf_conntrack_count|/netfilter/nf_log|random|dentry|inode|route/flush|"
                      r"route/max_size")


def files(machine):
    listed = machine.run("find", "/", "-xdev", "-not", "-type", "s").stdout.splitlines()
    runtime = machine.run("find", "/run", "-path", "*mesh*").stdout.splitlines()
    return {path for path in listed + runtime
            if not path.startswith(RECORDS) and f"{path}/" not in RECORDS}


def kernel(machine):
    lines = machine.run("sh", "-c", "ip -br link; ip -br addr; ip rule; ip -6 rule; "
                        "ip route show table all; ip -6 route show table all; nft list ruleset; "
                        "grep -rs . /proc/sys/net; true").stdout.splitlines()
    return {line for line in lines if not COUNTING.search(line)}


class LifecycleTest(LoadTest):
    def accounts(self):
        return self.machine.run("cat", "/etc/passwd", "/etc/group").stdout

    def test_upgrade_downgrade_remove_purge(self):
        machine = self.machine
        before, kernel_before, accounts = files(machine), kernel(machine), self.accounts()
        machine.install(*map(package, ("meshd", "meshctl", "meshd-engines")))
        machine.apply(WORKLOADS)
        self.containers()
        with self.subTest("upgrade"):
            self.change(reversioned("meshd", "0.1.99", machine.root.parent), "--no-remove")
        with self.subTest("downgrade"):
            self.change(package("meshd"), "--allow-downgrades")
        with self.subTest("removal: the node is given back, declarations stay"):
            for agent in machine.agents.values():
                agent.stop()
            machine.agents.clear()
            machine.remove("meshd")
            for name in ("db", "worker", "stranger"):  # meshctl made them; nobody's now
                machine.run("ip", "netns", "del", name)
            self.assertEqual(kernel(machine), kernel_before)
            machine.install(package("meshd"))
            self.assertIn("stranger", machine.run("meshctl", "list", "workloads").stdout)
        with self.subTest("purge: nothing is left"):
            machine.remove("meshd", "meshctl", "meshd-engines", purge=True)
            machine.run("umount", "/run/netns")  # as ip(8) leaves it
            machine.run("rmdir", "/run/netns")
            self.assertEqual(sorted(files(machine) - before), [])
            self.assertEqual(sorted(before - files(machine)), [])
            self.assertEqual(kernel(machine), kernel_before)
            self.assertEqual(self.accounts(), accounts)


if __name__ == "__main__":
    unittest.main(verbosity=2)
