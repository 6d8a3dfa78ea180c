"""containerd by its own `ctr`: a namespace that is there first, and a CNI network."""
import itertools
import os
import signal
import unittest

from engines import (BRIDGE, SERVE, Containerd, EngineTest, ask, db, declare, worker,
                     workloads)
from node import run

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
        self.clear(self.ctr, f"{ID}1", f"{ID}2", f"{ID}3")
        super().tearDown()

    def script(self):
        """ctr writes no resolv.conf: the name is asked for by hand, and then its address."""
        return ("nslookup db.wf1.wf.mesh.internal 169.254.1.1 >/dev/null && "
                f"wget -qO- http://{self.vip}:8080/")

    def get(self, number, *options, **more):
        return self.ctr.run(f"{ID}{number}", "/bin/sh", "-c", self.script(), check=False,
                            options=("--rm", *options), **more)

    def remove(self, name):
        """Which ctr leaves to its caller where a start fails."""
        self.ctr("task", "rm", "-f", name, check=False)
        self.ctr("container", "rm", name, check=False)

    def test_namespace_that_is_there_first(self):
        def ns(number):
            self.node.ctl("prepare", f"{ID}{number}")
            return "--with-ns", f"network:/run/netns/{ID}{number}"
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", *ns(1)))
        self.node.ready(f"{ID}1")
        done = self.get(2, *ns(2))
        self.assertEqual(done.stdout, "answered\n", done.stderr)
        for number, port in ((2, 8081), (3, 8080)):
            done = self.ctr.run(f"{ID}{number}", "/bin/sh", "-c", ask(self.vip, port),
                                options=("--rm", *ns(number)))
            self.assertEqual(done.stdout, "1\n", "refused, not silent")
        self.assertEqual(self.get(3, *ns(3)).stdout, "", "it does not even resolve")
        # Its container is killed: the namespace is there for the next.
        self.ctr("task", "kill", "--signal", "SIGKILL", f"{ID}1")
        self.remove(f"{ID}1")
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", *ns(1)))
        self.node.ready(f"{ID}1")
        self.assertEqual(self.get(2, *ns(2)).stdout, "answered\n")

    def test_network(self):
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
        done = self.get(2, "--cni")
        self.assertEqual(done.stdout, "answered\n", done.stderr)

    def test_refused(self):
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
        self.node.ready(f"{ID}1")
        done = self.get(3, "--cni")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "", "it does not even resolve")
        for number, port, said in ((2, 8080, "0\n"), (2, 8081, "1\n"), (3, 8080, "1\n")):
            done = self.ctr.run(f"{ID}{number}", "/bin/sh", "-c", self.ask_all(port, f"{ID}1"),
                                options=("--rm", "--cni"))
            self.assertEqual(done.stdout, 4 * said, "refused, not silent")

    def test_started_again_under_its_name(self):
        """ctr has no restart: the same id again is another namespace, and the same service."""
        for _ in range(2):
            self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
            self.node.ready(f"{ID}1")
            self.assertEqual(self.get(2, "--cni").stdout, "answered\n")
            self.remove(f"{ID}1")
            self.until_left()

    def test_add_that_fails_starts_nothing(self):
        """Beside a plugin that does not work."""
        self.ctr.network("mesh", "1.0.0", after=({"type": "mesh-broken"},))
        try:
            done = self.get(2, "--cni")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("broken on purpose", done.stderr)
            self.broken_had_ours(self.ctr)
            self.remove(f"{ID}2")
            self.until_left()
        finally:
            self.ctr.network("mesh", "1.0.0")

    def test_payload_that_does_not_run_leaves_nothing(self):
        """One that is not there ends it before ours is called, and one that is no program after
        it."""
        odd = self.ctr.dir / "odd"
        odd.write_bytes(b"\0")
        odd.chmod(0o755)
        mount = ("--mount", f"type=bind,src={odd},dst=/odd,options=rbind:ro")
        before = self.attached(f"{ID}2")
        for payload, times in (("/nope", 0), ("/odd", 1)):
            done = self.ctr.run(f"{ID}2", payload, options=("--rm", "--cni", *mount), check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(payload, done.stderr)
            self.remove(f"{ID}2")
            self.until_left()
            self.assertEqual(self.attached(f"{ID}2"), before + times, payload)

    def test_another_namespace_is_a_part_of_the_id(self):
        self.ctr("-n", "other", "image", "import", self.ctr.dir / "docker.tar")
        self.ctr.run(f"{ID}1", *SERVE, options=("-d", "--cni"))
        self.node.ready(f"{ID}1")
        self.node.apply(workloads(worker(f"other-{ID}2")))
        done = self.get(2, "--cni", namespace="other")
        self.assertEqual(done.stdout, "answered\n", done.stderr)
        # Who has a declared one's name there is not it.
        said = self.ctr.run(f"{ID}3", "/bin/cat", "/proc/net/dev", options=("--rm", "--cni"),
                            namespace="other").stdout
        self.assertNotIn("eth0", said)

    def test_declared_ones_do_not_meet_on_the_engines_bridge(self):
        numbers = itertools.count()

        def say(name, script):
            return self.ctr("task", "exec", "--exec-id", f"say{next(numbers)}", name, "/bin/sh",
                            "-c", script).stdout

        names = (f"{ID}1", f"{ID}2", "nobody", "other")
        self.ctr.network("mesh", "1.0.0", before=(BRIDGE,))
        try:
            for name in names:
                self.ctr.run(name, *SERVE, options=("-d", "--cni"))
            self.declared_ones_do_not_meet(say, *names)
            self.node.ready(f"{ID}1")
            self.assertEqual(say(f"{ID}2", self.script()), "answered\n")
        finally:
            self.ctr.clear()
            self.ctr.network("mesh", "1.0.0")
            run("ip", "link", "del", "own0", check=False)

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
        self.ctr.run(f"{ID}2", "/bin/sleep", "1000", options=("-d", "--cni"))
        self.node.ready(f"{ID}1")
        pid = self.ctr.pid(f"{ID}2")
        self.ctr.kill()
        self.assertEqual(self.inside(pid, self.script()), "answered\n")
        self.assertEqual(len(self.node.links()), 2)
        self.ctr.start()
        self.assertEqual(self.inside(pid, self.script()), "answered\n")
        self.remove(f"{ID}2")
        done = self.get(2, "--cni")
        self.assertEqual(done.stdout, "answered\n", done.stderr)

    def test_daemon_is_away(self):
        self.node.kill(signal.SIGTERM)
        done = self.get(2, "--cni")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("does not start without the mesh", done.stderr)


if __name__ == "__main__":
    unittest.main()
