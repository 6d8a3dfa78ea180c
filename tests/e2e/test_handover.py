"""Sockets that outlive the daemon: no question is lost while there is none."""
import unittest

import node as bed
from node import until

WORKFLOW = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
"""


class HandOverTest(unittest.TestCase):
    """As systemd would: the sockets are kept by somebody else while the daemon changes."""

    def test_sockets_come_back_by_name(self):
        node = bed.Node()
        try:
            store = bed.FdStore(node.dir / "notify")
            node.start(store)
            node.apply(WORKFLOW)
            worker = node.container("worker")
            names = until(lambda: [n for n in store.fds if n.startswith("dns-")], "kept sockets")
            self.assertTrue(any("udp" in n for n in names), names)
            vip = node.vip("db")
            node.kill()
            # No daemon, but its sockets: a question waits in the queue.
            asked = [worker.begin("query", name="db.wf1.wf.mesh.internal", kind="A",
                                  server="169.254.1.1", timeout=20.0) for _ in range(5)]
            node.start(store)
            for number in asked:
                self.assertEqual(worker.end(number)["answers"], [vip])
            # And once more, by the same way, when stopped in order.
            node.kill(bed.signal.SIGTERM)
            node.start(store)
            self.assertEqual(worker.lookup(name="db", family=4)["addresses"], [vip])
        except BaseException:
            print((node.dir / "meshd.log").read_text()[-4000:])
            raise
        finally:
            node.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
