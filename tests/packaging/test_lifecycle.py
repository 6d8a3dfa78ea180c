"""Installation to purge: an upgrade and a downgrade under load, a removal that gives the node back,
a purge that leaves nothing."""
import pathlib
import re
import unittest

from machine import MachineTest, package, reversioned, until

WORKLOADS = """
workloads:
- id: db
  owner: ada
  workflow: wf1
  name: db
  serves: [{port: 5432}, {port: 5434, protocol: UDP}, {port: 5435}, {port: 5436, protocol: UDP}]
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: stranger, owner: ada, workflow: wf1}
"""
ALLOWED = (("tcp", 5432), ("udp", 5434))  # to the worker
# Of db, whom the stranger may not call at all: ports that the worker may call and does not, one that
# nobody may, and one that the worker calls by TCP only.
FORBIDDEN = (("tcp", 5435), ("udp", 5436), ("tcp", 5433), ("udp", 5432))
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


class LifecycleTest(MachineTest):
    def accounts(self):
        return self.machine.run("cat", "/etc/passwd", "/etc/group").stdout

    def arrived(self):
        db = self.machine.agents["db"]
        return [db.count(proto=proto, port=port) for proto, port in FORBIDDEN]

    def load(self, stop):
        """Begins: open flows, lookups and connects by name, and who is refused all that."""
        machine = self.machine
        worker, stranger = machine.agents["worker"], machine.agents["stranger"]
        own, vips = machine.facts["db"]["addresses"], worker.lookup(name="db")["addresses"]
        self.assertEqual([len(own), len(vips)], [2, 2])
        flows = {}
        for proto, port in ALLOWED:
            for to in (*own, *vips):
                key = f"{proto} {to}"
                self.assertEqual(worker.open(key=key, proto=proto, to=to, port=port)["result"],
                                 "answered", key)
                flows[key] = worker, worker.begin("stream", key=key, until=stop)
        targets = [[proto, to, port] for proto, port in (("tcp", 5432), *FORBIDDEN)
                   for to in (*own, *vips)]
        facts = machine.facts["worker"]
        return flows, {
            "names": (worker, worker.begin("loops", name="db", port=5432, count=4, until=stop)),
            "questions": (worker, worker.begin("questions", name=f"db.{facts['search'][0]}",
                                               server=facts["resolvers"][0], count=8,
                                               until=stop)),
            "refused": (stranger, stranger.begin("hammer", targets=targets, until=stop))}

    def change(self, deb, option):
        """Under load: what came of it."""
        machine = self.machine
        stop = pathlib.Path(f"/run/stop-{deb.name}")
        main = machine.unit("meshd", "MainPID")
        flows, load = self.load(str(stop))
        machine.install(deb, option=option)
        until(lambda: machine.active("meshd"), "it runs again")
        self.assertNotEqual(machine.unit("meshd", "MainPID"), main)
        machine.run("meshctl", "wait", "db", "--timeout", "20s")
        stop.touch()
        longest = 0
        for key, (agent, number) in flows.items():  # of UDP a single lost packet would end it
            flow = agent.end(number)
            self.assertEqual(flow["end"], "stopped", (key, flow))
            self.assertGreater(flow["rounds"], 20)
            longest = max(longest, flow["longest_ms"])
        found = {name: agent.end(number) for name, (agent, number) in load.items()}
        # The C library asks again after a while, these do not: none was lost.
        self.assertEqual(set(found["questions"]["rcodes"]), {"NOERROR"}, found["questions"])
        self.assertGreater(found["questions"]["rcodes"]["NOERROR"], 50)
        self.assertEqual(set(found["names"]["outcomes"]), {"answered"}, found["names"])
        waits = [1000 * (end - begin) for begin, end in found["names"]["answered"]]
        self.assertGreater(found["refused"]["sent"], 50)
        self.assertEqual(self.arrived(), [0] * len(FORBIDDEN))
        print(f"{deb.name}: {len(flows)} open flows, longest wait {longest} ms; "
              f"{found['questions']['rcodes']['NOERROR']} questions, longest "
              f"{found['questions']['longest_ms']} ms; {len(waits)} by name, longest "
              f"{max(waits):.0f} ms; {found['refused']['sent']} refused")

    def test_upgrade_downgrade_remove_purge(self):
        machine = self.machine
        before, kernel_before, accounts = files(machine), kernel(machine), self.accounts()
        machine.install(*map(package, ("meshd", "meshctl", "meshd-engines")))
        machine.apply(WORKLOADS)
        for name in ("db", "worker", "stranger"):
            machine.container(name)
        for proto, port in (*ALLOWED, *FORBIDDEN):
            machine.agents["db"].serve(proto=proto, port=port)
        machine.run("meshctl", "wait", "db", "--timeout", "20s")
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
