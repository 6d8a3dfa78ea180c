"""What a start finds and checks: who may reach its sockets, whose directories it takes, and what
a process that was killed in between has left in connection tracking."""
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import unittest

import node as bed
from node import NodeTest, run, until

WORKLOADS = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: third, owner: ada, workflow: wf1}
"""
GROUP = 54321
SOMEBODY = 12345
# linux/netlink.h; of linux/netfilter/nfnetlink.h the bit of NFNLGRP_NFTABLES.
NETLINK_NETFILTER, NFTABLES_EVENTS = 12, 1 << 6
SOCKETS = {name: pathlib.Path("/run/meshd", name) for name in ("control.sock", "status.sock")}


SEAL = pathlib.Path("/run/meshd/table.seal")


def reseal(by):
    """The seal of a table, as if the ruleset's generation were so many later (FNV-1a at its end)."""
    words = SEAL.read_text().split(" ")
    words[-2] = f"{int(words[-2], 16) + by:08x}"
    line = " ".join(words[:-1]) + " "
    total = 0xcbf29ce484222325
    for byte in line.encode():
        total = (total ^ byte) * 0x100000001b3 % 2**64
    SEAL.write_text(f"{line}{total:016x}\n")


def allowed():
    return "5432" in run("nft", "list", "set", "inet", "meshd", "allow4").stdout


def entries():
    return run("conntrack", "-L").stdout.splitlines()


class StartTest(NodeTest):
    def setUp(self):
        if not self.node.daemon:
            self.node.start()

    @classmethod
    def prepare(cls):
        cls.node.apply(WORKLOADS)
        for name in ("db", "worker", "third"):
            cls.node.container(name)
        cls.node.agents["db"].serve(proto="tcp", port=5432)
        cls.node.ready("db")

    def again(self):
        self.node.kill(signal.SIGTERM)
        self.node.start()

    def modes(self):
        return {name: (f"{stat.S_IMODE(path.stat().st_mode):04o}", path.stat().st_uid,
                       path.stat().st_gid) for name, path in SOCKETS.items()}

    def ctl_as(self, group, *argv):
        return subprocess.run([str(bed.BUILD / "meshctl"), *argv], user=SOMEBODY, group=group,
                              extra_groups=[], check=False, capture_output=True,
                              text=True).returncode

    # --- what is believed unread ------------------------------------------------------

    def test_a_table_is_read_back_when_anybody_changed_it(self):
        self.node.kill()
        run("nft", "flush", "set", "inet", "meshd", "allow4")
        self.node.start()
        self.assertTrue(allowed())

    def test_a_table_that_nobody_changed_is_not_read_back(self):
        """Shown by a seal that hides a change: its elements stay away, until somebody else's
        next change makes all of it be compared."""
        self.node.ctl("apply", "-f", "-", stdin="workloads:\n- {id: fourth, owner: ada}\n")
        self.node.kill()
        run("nft", "flush", "set", "inet", "meshd", "allow4")
        reseal(by=1)
        self.node.start()
        self.assertFalse(allowed())
        run("nft", "flush", "set", "inet", "meshd", "allow6")
        until(allowed, "all is compared again")

    # --- who may reach the sockets ----------------------------------------------------

    def test_without_a_group_both_sockets_are_roots(self):
        self.groups_are("root:x:0:\n")
        self.again()
        self.assertEqual(self.modes(), {name: ("0600", 0, 0) for name in SOCKETS})
        self.assertEqual(self.ctl_as(GROUP, "status"), 3)

    def test_the_group_reads_and_changes_nothing(self):
        self.groups_are(f"root:x:0:\nmeshd:x:{GROUP}:\n")
        self.again()
        self.assertEqual(self.modes(), {"control.sock": ("0600", 0, 0),
                                        "status.sock": ("0660", 0, GROUP)})
        self.assertEqual(self.ctl_as(GROUP, "status"), 0)
        self.assertEqual(self.ctl_as(GROUP, "detach", "third"), 3)
        self.assertEqual(self.ctl_as(SOMEBODY, "status"), 3)

    def test_the_log_says_which_process_asked_for_a_change(self):
        command = subprocess.Popen([str(bed.BUILD / "meshctl"), "drain", "nobody"],
                                   stderr=subprocess.DEVNULL)
        self.assertEqual(command.wait(), 1)
        log = (self.node.dir / "meshd.log").read_text()
        self.assertIn(f"control.sock: uid 0 pid {command.pid}: drain nobody: refused: ", log)
        self.assertRegex(log, r"control\.sock: uid 0 pid \d+: apply db of ada, worker of ada, "
                              r"third of ada: done\n")

    def groups_are(self, text):
        file = self.node.dir / "group"
        file.write_text(text)
        run("mount", "--bind", file, "/etc/group")
        self.addCleanup(run, "umount", "/etc/group")

    def test_a_directory_that_others_could_write_to_is_refused(self):
        self.node.kill(signal.SIGTERM)
        run_dir = pathlib.Path("/run/meshd")
        cases = [("others may write", lambda: run_dir.chmod(0o777), lambda: run_dir.chmod(0o755)),
                 ("owned by uid", lambda: os.chown(run_dir, SOMEBODY, 0),
                  lambda: os.chown(run_dir, 0, 0))]
        for why, spoil, mend in cases:
            spoil()
            done = run(bed.BUILD / "meshd", "--config", self.node.config, check=False)
            mend()
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(f"/run/meshd: {why}", done.stderr)
        self.node.start()

    # --- what others do while it starts -------------------------------------------------

    def start_stopped_after_its_commit(self):
        """True when it was stopped before it listened to what is done to its table."""
        self.node.kill()
        run("nft", "flush", "set", "inet", "meshd", "bind4")  # so that it has to write
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as ear:
            ear.bind((0, NFTABLES_EVENTS))
            self.node.launch()
            ear.recv(1)
            self.node.daemon.send_signal(signal.SIGSTOP)
        until(lambda: "T (stopped)" in
              pathlib.Path(f"/proc/{self.node.daemon.pid}/status").read_text(), "it stands still")
        # sk Eth Pid Groups ...
        sockets = [line.split()[1:4] for line in
                   pathlib.Path("/proc/net/netlink").read_text().splitlines()[1:]]
        return not any(int(protocol) == NETLINK_NETFILTER and int(groups, 16) & NFTABLES_EVENTS
                       for protocol, _, groups in sockets)

    def test_a_change_between_its_first_comparison_and_its_first_event_is_repaired(self):
        until(self.start_stopped_after_its_commit, "it is stopped in time")
        run("nft", "flush", "set", "inet", "meshd", "bind4")
        self.node.daemon.send_signal(signal.SIGCONT)
        address = self.node.address("db")
        until(lambda: address in run("nft", "list", "set", "inet", "meshd", "bind4").stdout,
              "it is repaired")
        until(self.node.healthy, "the daemon is healthy")

    # --- what it is told ------------------------------------------------------------------

    def test_an_upstream_that_is_the_resolver_itself_is_a_problem(self):
        self.node.kill(signal.SIGTERM)
        before = self.node.config.read_text()
        self.node.config.write_text(before.replace('"192.0.2.10"', '"169.254.1.1"'))
        self.node.launch()
        until(lambda: self.node.ctl("status", check=False).returncode != 3, "the daemon answers")
        told = self.node.ctl("status", check=False)
        self.node.kill(signal.SIGTERM)
        self.node.config.write_text(before)
        self.assertEqual(told.returncode, 1, told.stdout)
        self.assertRegex(told.stdout, r"dns: upstream 169\.254\.1\.1\S* leads back to this "
                                      r"resolver: it is not asked\n")

    # --- what a killed process left ---------------------------------------------------

    def insert(self, source, asked, server):
        """An open connection as connection tracking would have it, translated or not."""
        run("conntrack", "-I", "-p", "tcp", "-s", source, "-d", asked, "--sport", "4000",
            "--dport", "5432", "--reply-src", server, "--reply-dst", source,
            "--reply-port-src", "5432", "--reply-port-dst", "4000", "--state", "ESTABLISHED",
            "--timeout", "1000", *(["--dst-nat", server] if asked != server else []))

    def left(self, *addresses):
        return [line for line in entries() if "sport=4000" in line and
                all(re.search(f"={re.escape(address)} ", line) for address in addresses)]

    def test_connections_of_addresses_that_nobody_has_are_erased(self):
        worker, db = self.node.address("worker"), self.node.address("db")
        third, vip = self.node.address("third"), self.node.vip("db")
        self.node.kill()
        self.insert("192.0.2.10", "10.213.77.77", "10.213.77.77")
        self.insert("10.213.77.78", db, db)
        self.insert(worker, vip, third)  # it was the endpoint once
        self.insert("192.0.2.10", "192.0.2.1", third)  # it was published once
        worker6, third6 = self.node.address("worker", 6), self.node.address("third", 6)
        self.insert(worker6, third6, third6)
        self.insert(worker, db, db)
        self.assertEqual(len(self.left()), 6, entries())
        self.node.start()
        until(lambda: not self.left("10.213.77.77") and not self.left("10.213.77.78"),
              lambda: str(entries()))
        self.assertEqual(self.left(vip), [])
        self.assertEqual(self.left("192.0.2.1", third), [])
        self.assertEqual(len(self.left(worker, db)), 1, "an attached pair's")
        self.assertEqual(len(self.left(worker6, third6)), 1, "an attached pair's")

    def test_a_translation_that_is_still_right_lives_on(self):
        worker = self.node.agents["worker"]
        opened = worker.open(key="a", proto="tcp", to=self.node.vip("db"), port=5432)
        self.assertEqual(opened["result"], "answered")
        self.node.kill()
        self.node.start()
        vip = self.node.vip("db")
        self.assertTrue([line for line in entries() if f"dst={vip} " in line], entries())


if __name__ == "__main__":
    unittest.main(verbosity=2)
