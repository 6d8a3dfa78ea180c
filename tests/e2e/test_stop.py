"""The daemon is told to stop while clients wait: it ends soon and in order, and they are told."""
import signal
import subprocess
import time
import unittest

import node as bed
from node import NodeTest, run, until

WORKLOADS = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
"""
# What a stop may take: far below every timeout that a hanging client would wait for.
SOON = 10.0
# Somebody else's as long as that process lives: the kernel refuses every change of ours.
RIVAL = "delete table inet meshd; add table inet meshd { flags owner; }\n"


def begin(*argv):
    return subprocess.Popen([str(bed.BUILD / "meshctl"), *argv], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class StopTest(NodeTest):
    def setUp(self):
        if not self.node.daemon:
            self.node.start()
        self.node.apply(WORKLOADS)

    def waiting(self, count):
        """Until that many calls have reached the daemon: each is a connection of its own."""
        def connected():
            listing = run("ss", "-xH", "state", "connected", "src",
                          "unix:/run/meshd/status.sock", check=False).stdout
            return len(listing.splitlines()) >= count
        until(connected, "the clients are connected")

    def stop(self):
        begun = time.monotonic()
        code = self.node.kill(signal.SIGTERM)
        self.assertEqual(code, 0)
        self.assertLess(time.monotonic() - begun, SOON)

    def end(self, process):
        out, error = process.communicate(timeout=SOON)
        return process.returncode, out, error

    def test_watchers_and_waiters_are_told(self):
        watch, refused = begin("watch"), begin("watch", "--refused")
        wait = begin("wait", "db", "--timeout", "600s")
        self.waiting(3)
        self.stop()
        for process in (watch, refused):
            code, _, error = self.end(process)
            self.assertEqual(code, 3)
            self.assertIn("meshd is stopping", error)
        code, _, error = self.end(wait)
        # Answered, or, when it came late, cut off.
        self.assertIn(code, (1, 3))
        self.assertIn("meshd is stopping", error)

    def test_a_command_that_is_not_in_force_is_told(self):
        self.node.container("db")
        rival = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, text=True,
                                 stdout=subprocess.DEVNULL)
        rival.stdin.write(RIVAL)
        rival.stdin.flush()
        try:
            until(lambda: not self.node.healthy(), "the table is the rival's")
            process = begin("detach", "db")
            until(lambda: "DETACHED db" in (self.node.dir / "meshd.log").read_text(), "it is stored")
            self.stop()
            code, _, error = self.end(process)
        finally:
            rival.stdin.close()
            rival.wait()
        self.assertEqual(code, 1)
        self.assertIn("stored, not in force", error)
        self.assertIn("meshd is stopping", error)
        self.node.agents.pop("db").stop()

    def test_a_client_that_has_stopped_reading_does_not_hold_it_up(self):
        watch = begin("watch")
        self.waiting(1)
        watch.send_signal(signal.SIGSTOP)
        try:
            for _ in range(200):
                self.node.apply(WORKLOADS)
            self.stop()
        finally:
            watch.send_signal(signal.SIGCONT)
        self.assertNotEqual(self.end(watch)[0], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
