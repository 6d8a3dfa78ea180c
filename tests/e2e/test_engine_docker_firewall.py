"""dockerd with the firewall that it makes by default, which drops whatever it does not know."""
import pathlib
import unittest

from engines import SERVE, Docker, EngineTest, ask, db, worker, workloads
from node import BUILD, run, until

FORWARDING = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
MENDED = "engines: {docker_user: true}\n"


def user_rules():
    """As iptables lists them, which would refuse a chain that it does not understand."""
    return run("iptables", "-S", "DOCKER-USER").stdout


class DockerFirewallTest(EngineTest):
    @classmethod
    def prepare(cls):
        cls.plain = cls.node.config.read_text()
        # It drops what is forwarded only where it was itself that switched forwarding on.
        cls.node.kill()
        FORWARDING.write_text("0")
        # The last of two options counts.
        cls.docker = Docker(cls.node, "--iptables=true", "--ip-forward=true")
        cls.node.start()

    @classmethod
    def tearDownClass(cls):
        cls.docker.close()
        super().tearDownClass()

    def restart(self, config):
        self.node.kill()
        self.node.config.write_text(self.plain + config)
        self.node.start()

    def findings(self):
        done = self.node.ctl("doctor", check=False)
        return done.returncode, done.stdout

    def answers(self):
        """By IPv4, which is all that dockerd's firewall is about unless it is told otherwise."""
        said = self.docker("run", "--rm", "--network", "none", "--name", "worker", "bb:1", "sh",
                           "-c", ask(self.node.vip("db"))).stdout
        return said == "0\n"

    def test_flows_pass_when_it_is_told_to_let_them(self):
        self.node.apply(workloads(db(), worker()))
        self.docker("run", "-d", "--network", "none", "--name", "db", "bb:1", *SERVE)
        self.node.ready("db")
        code, said = self.findings()
        self.assertEqual(code, 1)
        self.assertIn("chain FORWARD of table ip filter drops", said)
        self.assertIn("set engines.docker_user", said)
        self.assertIn("firewall: ", said)
        self.assertFalse(self.answers())
        before = user_rules()
        self.assertNotIn("mesh", before)

        self.restart(MENDED)
        self.assertEqual(self.findings(), (0, "nothing is wrong\n"))
        self.assertTrue(self.answers())
        mended = user_rules()
        for way in ("-i", "-o"):
            rule = f"-A DOCKER-USER {way} mesh+ -m comment --comment meshd -j ACCEPT\n"
            self.assertEqual(mended.count(rule), 1, mended)

        # Whoever takes them out: they are back, once each.
        run("iptables", "-F", "DOCKER-USER")
        run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
        until(lambda: user_rules() == mended, user_rules)
        # A copy, as others' scripts make one when they save and restore, is known again.
        run("iptables-restore", stdin=run("iptables-save").stdout)
        self.restart(MENDED)
        self.assertEqual(user_rules(), mended)
        # dockerd itself does not mind them.
        self.docker.kill_hard()
        self.docker.start()
        until(lambda: user_rules() == mended, user_rules)
        self.until_left("the engine's new process has ended the containers")
        self.docker("start", "db")
        self.node.ready("db")
        self.assertTrue(self.answers())

        self.restart("")
        self.assertEqual(user_rules(), before)
        self.restart(MENDED)
        self.assertEqual(user_rules(), mended)
        self.docker("rm", "-f", "db")
        self.until_left()
        self.node.kill()
        run(BUILD / "meshd", "--config", self.node.config, "--purge")
        self.assertEqual(user_rules(), before)
        self.node.start()


if __name__ == "__main__":
    unittest.main()
