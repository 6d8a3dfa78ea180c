"""containerd by its own `ctr`: a namespace that is there first, and a CNI network."""
import os
import signal
import unittest

from engines import Containerd, EngineTest

SERVE = ("/bin/httpd", "-f", "-p", "8080", "-h", "/www")
ID = "zzzzz-dz642-00000000000000"
DB = f"{{id: {ID}1, owner: ada, workflow: wf1, name: db, serves: [{{port: 8080}}]}}"
WORKER = f"{{id: {ID}2, owner: ada, workflow: wf1, peers: [{{name: db}}]}}"
OTHER = f"{{id: {ID}3, owner: ada, workflow: wf1, peers: [{{name: db}}]}}"


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
        self.node.apply(f"workloads: [{DB}, {WORKER}, {OTHER}]")
        self.vip = self.node.vip("db")

    def tearDown(self):
        if self.node.daemon is None:
            self.node.start()
        if self.ctr.process is None:
            self.ctr.start()
        for name in self.ctr("container", "ls", "-q").stdout.split():
            self.ctr("task", "rm", "-f", name, check=False)
            self.ctr("container", "rm", name, check=False)
        for number in (1, 2, 3):
            self.node.ctl("detach", f"{ID}{number}")
        self.until_left()
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
