"""What becomes of containers that nobody declared is the site's to say: engines {undeclared}."""
import json
import unittest

from engines import BRIDGE, Containerd, Docker, EngineTest, Podman
from node import run

HOOKED = ("--annotation", "hooked=yes")
SHOW = ("sh", "-c", "echo ran; ip route | sed -n /default/p")


class UndeclaredTest(EngineTest):
    CONFIG = "engines: {undeclared: CLOSED}\n"

    @classmethod
    def prepare(cls):
        cls.docker = Docker(cls.node)
        cls.docker("network", "create", "-d", "bridge", "--subnet", "203.0.113.0/24", "own")
        cls.ctr = Containerd(cls.node)
        cls.podman = Podman(cls.node)
        cls.podman.hook("attach", "createRuntime", "attach", {"annotations": {"^hooked$": "^yes$"}})
        cls.podman.network("mesh", "1.0.0")
        cls.podman.network("behind", "1.0.0", before=[BRIDGE])
        (cls.podman.networks / "own.conflist").write_text(json.dumps(
            {"cniVersion": "1.0.0", "name": "own", "plugins": [BRIDGE]}))

    @classmethod
    def tearDownClass(cls):
        cls.docker("network", "rm", "own")
        cls.docker.close()
        cls.ctr.close()
        cls.podman.close()
        super().tearDownClass()

    def tearDown(self):
        self.docker.clear()
        self.ctr.clear()
        self.podman.clear()
        run("ip", "link", "del", "own0", check=False)
        self.until_empty()
        super().tearDown()

    def by_docker(self, network):
        return self.docker("run", "--rm", "--network", network, "--name", "nobody", "bb:1", *SHOW,
                           check=False)

    def by_podman(self, network, options=()):
        # crun keeps what a hook says to itself.
        return self.podman.run("nobody", network, *SHOW, options=("--rm", *options),
                               runtime="runc", check=False)

    def by_ctr(self, *before):
        self.ctr.network("mesh", "1.0.0", before=before)
        return self.ctr.run("nobody", f"/bin/{SHOW[0]}", *SHOW[1:], options=("--rm", "--cni"),
                            check=False)

    def ways(self):
        """Each with the other network that a container has there, if any."""
        for way, start, other in (
                ("docker, no network", lambda: self.by_docker("none"), None),
                ("docker's bridge", lambda: self.by_docker("own"), "eth0"),
                ("podman's hook, no network", lambda: self.by_podman("none", HOOKED), None),
                ("podman's hook, a bridge", lambda: self.by_podman("own", HOOKED), "eth0"),
                ("podman's network behind a bridge", lambda: self.by_podman("behind"), "eth0"),
                ("ctr's network, alone", self.by_ctr, None),
                ("ctr's network behind a bridge", lambda: self.by_ctr(BRIDGE), "eth0")):
            yield self.subTest(way), start(), other
            self.ctr.clear()
            self.docker.clear()
            self.podman.clear()

    def restart_with(self, undeclared):
        self.node.kill()
        text = self.node.config.read_text()
        for word in ("CLOSED", "REFUSE", "IGNORE"):
            text = text.replace(f"undeclared: {word}", f"undeclared: {undeclared}")
        self.node.config.write_text(text)
        self.node.start()

    def does_not_start(self, done, why):
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertIn(why, done.stderr)

    def test_closed_starts_without_a_network_or_not_at_all(self):
        self.restart_with("CLOSED")
        for which, done, other in self.ways():
            with which:
                if other:
                    self.does_not_start(done, f"it has another network: {other}")
                else:
                    self.assertEqual(done.stdout, "ran\n", done.stderr)

    def test_refuse_does_not_start(self):
        self.restart_with("REFUSE")
        for which, done, _ in self.ways():
            with which:
                self.does_not_start(done, "nobody declared this container")
        self.does_not_start(self.by_podman("mesh"), "nobody declared this container")

    def test_ignore_starts_as_without_us(self):
        self.restart_with("IGNORE")
        for is_away in (False, True):
            if is_away:
                self.node.kill()
            for which, done, other in self.ways():
                with which:
                    way_out = rf"default via \S+ dev {other} *\n" if other else ""
                    self.assertRegex(done.stdout, rf"\Aran\n{way_out}\Z", (is_away, done.stderr))
        self.node.start()


if __name__ == "__main__":
    unittest.main()
