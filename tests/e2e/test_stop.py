"""The daemon is told to stop while clients wait: it ends soon and in order, and they are told."""
import json
import signal
import time
import unittest

from node import NodeTest, until

WORKLOADS = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
"""
# What a stop may take: far below every timeout that a hanging client would wait for.
SOON = 10.0


class StopTest(NodeTest):
    def setUp(self):
        if not self.node.daemon:
            self.node.start()
        self.node.apply(WORKLOADS)

    def have(self, **counts):
        """Until the daemon says that it has these calls."""
        def there():
            status = json.loads(self.node.ctl("status", "-o", "json", check=False).stdout)
            return all(status[what] == number for what, number in counts.items())
        until(there, f"the daemon has {counts}")

    def stop(self):
        begun = time.monotonic()
        code = self.node.kill(signal.SIGTERM)
        self.assertEqual(code, 0)
        self.assertLess(time.monotonic() - begun, SOON)

    def end(self, process):
        out, error = process.communicate(timeout=SOON)
        return process.returncode, out, error

    def test_watchers_and_waiters_are_told(self):
        watch, refused = self.node.begin("watch"), self.node.begin("watch", "--refused")
        wait = self.node.begin("wait", "db", "--timeout", "600s")
        self.have(watching=2, waiting=1)
        self.stop()
        for process in (watch, refused):
            code, _, error = self.end(process)
            self.assertEqual(code, 3)
            self.assertIn("meshd is stopping", error)
        code, _, error = self.end(wait)
        self.assertEqual(code, 1)
        self.assertIn("meshd is stopping", error)

    def test_a_command_that_is_not_in_force_is_told(self):
        self.node.container("db")
        with self.node.rival():
            process = self.node.begin("detach", "db")
            until(lambda: "DETACHED db" in (self.node.dir / "meshd.log").read_text(), "it is stored")
            self.stop()
            code, _, error = self.end(process)
        self.assertEqual(code, 1)
        self.assertIn("stored, not in force", error)
        self.assertIn("meshd is stopping", error)
        self.node.agents.pop("db").stop()

    def test_a_client_that_has_stopped_reading_does_not_hold_it_up(self):
        watch = self.node.begin("watch")
        self.have(watching=1)
        watch.send_signal(signal.SIGSTOP)
        try:
            for hold in range(3):  # more than is on the way to it
                self.node.apply("workloads:\n" + "".join(
                    f"- {{id: w{i}, owner: ada, workflow: wf1, hold: {hold}s}}\n"
                    for i in range(1000)))
            self.stop()
        finally:
            watch.send_signal(signal.SIGCONT)
        self.assertNotEqual(self.end(watch)[0], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
