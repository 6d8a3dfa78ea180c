"""What becomes of containers that nobody declared is the site's to say: engines {undeclared}."""
import unittest

from engines import Docker, EngineTest


class UndeclaredTest(EngineTest):
    CONFIG = "engines: {undeclared: CLOSED}\n"

    @classmethod
    def prepare(cls):
        cls.docker = Docker(cls.node)
        cls.docker("network", "create", "-d", "bridge", "--subnet", "198.51.100.0/24", "own")

    @classmethod
    def tearDownClass(cls):
        cls.docker("network", "rm", "own")
        cls.docker.close()
        super().tearDownClass()

    def run_nobody(self, network):
        return self.docker("run", "--rm", "--network", network, "--name", "nobody", "bb:1", "echo",
                           "ran", check=False)

    def restart_with(self, undeclared):
        self.node.kill()
        text = self.node.config.read_text()
        for word in ("CLOSED", "REFUSE", "IGNORE"):
            text = text.replace(f"undeclared: {word}", f"undeclared: {undeclared}")
        self.node.config.write_text(text)
        self.node.start()

    def test_closed_starts_without_a_network_or_not_at_all(self):
        self.restart_with("CLOSED")
        self.assertEqual(self.run_nobody("none").stdout, "ran\n")
        done = self.run_nobody("own")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("it has another network: eth0", done.stderr)
        self.docker("rm", "-f", "nobody", check=False)

    def test_refuse_does_not_start(self):
        self.restart_with("REFUSE")
        done = self.run_nobody("none")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nobody declared this container", done.stderr)
        self.docker("rm", "-f", "nobody", check=False)

    def test_ignore_starts_as_without_us(self):
        self.restart_with("IGNORE")
        self.assertEqual(self.run_nobody("own").stdout, "ran\n")


if __name__ == "__main__":
    unittest.main()
