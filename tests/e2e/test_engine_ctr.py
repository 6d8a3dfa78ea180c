"""containerd by its own `ctr`: a namespace that is there first, and a CNI network."""
import os
import signal
import unittest

from engines import SERVE, Containerd, EngineTest, ask, db, declare, worker, workloads

ID = "zzzzz-dz642-00000000000000"


class CtrTest(EngineTest):
    @classmethod
    def prepare(cls):
        cls.ctr = Containerd(cls.node)
        cls.ctr.network("mesh", "1.0.0")

    @classmethod
    def tearDownClass(cls):
        cls.ctr.close()
        super().tearDownClass()

    def setUp(self):
        self.node.apply(workloads(db(f"{ID}1"), worker(f"{ID}2"), declare(f"{ID}3")))
        self.vip = self.node.vip("db")

    def tearDown(self):
        self.clear(self.ctr, f"{ID}1", f"{ID}2")
        super().tearDown()

    def get(self, number, *options):
        # ctr writes no resolv.conf: the name is asked for by hand, and then its address.
        script = "nslookup db.wf1.wf.mesh.internal 169.254.1.1 >/dev/null && " \
                 f"wget -qO- http://{self.vip}:8080/"
        return self.ctr.run(f"{ID}{number}", "/bin/sh", "-c", script, options=("--rm", *options),
                            check=False)

    def test_namespace_that_is_there_first(self):
        for number in (1, 2):
            self.node.ctl("prepare", f"{ID}{number}")
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--with-ns", f"network:/run/netns/{ID}1"))
        self.node.ctl("wait", f"{ID}1", "--timeout", "20s")
        done = self.get(2, "--with-ns", f"network:/run/netns/{ID}2")
        self.assertEqual(done.stdout, "answered\n", done.stderr)

    def test_network(self):
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
        done = self.get(2, "--cni")
        self.assertEqual(done.stdout, "answered\n", done.stderr)

    def test_refused(self):
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
        self.node.ready(f"{ID}1")
        done = self.get(3, "--cni")
        self.assertEqual((done.returncode != 0, done.stdout), (True, ""), "it does not even resolve")
        done = self.ctr.run(f"{ID}3", "/bin/sh", "-c", ask(self.vip),
                            options=("--rm", "--cni"))
        self.assertEqual(done.stdout, "1\n", "refused, not silent")

    def test_started_again_under_its_name(self):
        """ctr has no restart: the same id again is another namespace, and the same service."""
        for _ in range(2):
            self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
            self.node.ready(f"{ID}1")
            self.assertEqual(self.get(2, "--cni").stdout, "answered\n")
            self.ctr("task", "rm", "-f", f"{ID}1")
            self.ctr("container", "rm", f"{ID}1")
            self.until_left()

    def test_add_that_fails_starts_nothing(self):
        """Beside a plugin that does not work. ctr leaves it to its caller to clear away."""
        self.ctr.network("mesh", "1.0.0", after=({"type": "mesh-broken"},))
        try:
            done = self.get(2, "--cni")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("mesh-broken", done.stderr)
            self.ctr("task", "rm", "-f", f"{ID}2", check=False)
            self.ctr("container", "rm", f"{ID}2", check=False)
            self.until_left()
        finally:
            self.ctr.network("mesh", "1.0.0")

    def test_fifty_at_once(self):
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
        self.fifty(lambda name: self.ctr.run(name, "/bin/wget", "-qO-", f"http://{self.vip}:8080/",
                                             options=("--rm", "--cni")).stdout, f"{ID}1")

    def test_killed_payload_is_detached(self):
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
        os.kill(self.ctr.pid(f"{ID}1"), signal.SIGKILL)
        self.until_left()

    def test_killed_engine_changes_nothing(self):
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
        self.ctr.kill()
        self.assertEqual(len(self.node.links()), 1)
        self.ctr.start()
        done = self.get(2, "--cni")
        self.assertEqual(done.stdout, "answered\n", done.stderr)

    def test_daemon_is_away(self):
        self.node.kill(signal.SIGTERM)
        done = self.get(2, "--cni")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("does not start without the mesh", done.stderr)


if __name__ == "__main__":
    unittest.main()
