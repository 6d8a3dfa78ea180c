"""Sockets that outlive the daemon: no question is lost while there is none."""
import os
import socket
import unittest

import node as bed
from node import run, until

WORKFLOW = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
"""


RESOLVER = ("169.254.1.1", "169.254.1.2")


def listeners():
    """(protocol, address) of each socket on port 53, IPv6's by its last group."""
    found = []
    for proto in ("tcp", "udp"):
        for line in run("ss", "-Hnl", f"--{proto}").stdout.splitlines():
            address = next(word for word in line.split() if word.endswith(":53"))[:-3]
            found.append((proto, address.strip("[]").rsplit("::", maxsplit=1)[-1]))
    return sorted(found)


def expected(workers):
    return sorted((proto, address) for proto in ("tcp", "udp") for address in (*RESOLVER, "53", "54")
                  for _ in range(workers))


def inodes(store):
    return {name: [os.fstat(fd).st_ino for fd in fds] for name, fds in store.fds.items()}


class HandOverTest(unittest.TestCase):
    """As systemd would: the sockets are kept by somebody else while the daemon changes."""

    @classmethod
    def setUpClass(cls):
        cls.node = bed.Node()
        cls.store = bed.FdStore(cls.node.dir / "notify")

    @classmethod
    def tearDownClass(cls):
        cls.node.close()

    def tearDown(self):
        for name in list(self.node.agents):
            self.node.remove(name)

    def start(self, workers=1):
        self.node.kill()
        config = self.node.config.read_text().split("dns:")[0]
        self.node.config.write_text(
            f'{config}dns: {{upstreams: ["192.0.2.10"], workers: {workers}}}\n')
        self.node.start(self.store)

    def test_what_is_missing_is_opened_and_what_is_too_much_is_given_back(self):
        node, store = self.node, self.store
        if node.daemon is None:
            node.start(store)
        node.apply(WORKFLOW)
        until(lambda: len(store.fds) == 8, "kept sockets")
        self.assertEqual(listeners(), expected(1))
        kept = inodes(store)
        for fd in store.fds.pop("dns-tcp-169.254.1.1-0"):
            os.close(fd)
        # Of an address that is none of ours, of a worker that is no more, the second of its
        # name, and something else altogether.
        def spare(kind):
            sock = socket.socket(socket.AF_INET, kind)
            sock.bind(("127.0.0.1", 0))
            return sock.detach()
        store.fds["dns-udp-10.9.9.9-0"] = [spare(socket.SOCK_DGRAM)]
        store.fds["dns-udp-169.254.1.1-7"] = [spare(socket.SOCK_DGRAM)]
        store.fds["dns-tcp-169.254.1.2-0"].append(spare(socket.SOCK_STREAM))
        store.fds["else"] = [spare(socket.SOCK_STREAM)]
        self.start()
        worker = node.container("worker")
        for server in RESOLVER[:1]:
            for tcp in (False, True):
                asked = worker.query(name="db.wf1.wf.mesh.internal", kind="A", server=server,
                                     tcp=tcp)
                self.assertEqual(asked["answers"], [node.vip("db")], tcp)
        self.assertEqual(listeners(), expected(1))
        until(lambda: sorted(store.fds) == sorted(kept) and
              all(len(fds) == 1 for fds in store.fds.values()), lambda: inodes(store))
        changed = {name for name, numbers in inodes(store).items() if numbers != kept[name]}
        self.assertEqual(changed, {"dns-tcp-169.254.1.1-0"}, "the others are the same sockets")

    def test_workers_of_the_configuration_take_effect(self):
        if self.node.daemon is None:
            self.node.start(self.store)
        for workers in (2, 1):
            self.start(workers)
            self.assertEqual(listeners(), expected(workers))
            until(lambda: len(self.store.fds) == 8 * workers, lambda: sorted(self.store.fds))

    def test_sockets_come_back_by_name(self):
        node, store = self.node, self.store
        try:
            if node.daemon is None:
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


if __name__ == "__main__":
    unittest.main(verbosity=2)
