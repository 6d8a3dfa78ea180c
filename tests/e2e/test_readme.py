"""What README.md tells somebody who has Docker, word for word: the commands are read from there.

As on a machine where Docker came first: dockerd has switched forwarding on and drops what it does
not know. Only what is a whole machine's is another here: `apt` puts our programs where the packages
have them (tests/packaging installs the packages themselves), for it and for `systemctl` this test
starts its meshd and tells its dockerd, and the image `busybox` is made here and not fetched."""
import os
import pathlib
import re
import signal
import unittest

from engines import PATIENCE, Docker, EngineTest
from node import BUILD, run, until

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
PROGRAMS = pathlib.Path("/usr/libexec/meshd")
CONFIGURED = pathlib.Path("/etc/meshd")
FORWARDING = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
IN_THEIR_PLACE = {
    "sudo": 'exec "$@"',
    "apt": f'test "$1" = install && mkdir -p {PROGRAMS} && '
           f"cp {BUILD}/mesh-runc {BUILD}/mesh-hook {PROGRAMS}/ && echo start meshd >>$ORDERS",
    "systemctl": 'echo "$*" >>$ORDERS',
}


def commands(heading):
    """Of the first block below it: a line, and those that it goes on in."""
    section = README.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1]
    return re.findall(r"(?:.*(?:[\\|]|&&)\n)*.+\n", block)


class PlainDocker(Docker):
    """That nobody has told of the mesh."""
    RUNTIME = ()


class ReadmeTest(EngineTest):
    @classmethod
    def remains(cls):
        """Nothing to compare with: meshd is yet to come."""
        return {}

    @classmethod
    def prepare(cls):
        for folder in (PROGRAMS.parent, pathlib.Path("/etc/docker"), CONFIGURED):
            folder.mkdir(parents=True, exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        (CONFIGURED / "meshd.yaml").symlink_to(cls.node.config)
        # Nobody has heard of us.
        cls.node.kill()
        run(BUILD / "meshd", "--config", cls.node.config, "--purge")
        FORWARDING.write_text("0")
        cls.docker = PlainDocker(cls.node, "--iptables=true", "--ip-forward=true")
        cls.docker("tag", "bb:1", "busybox:latest")
        cls.programs = cls.node.dir / "bin"
        cls.programs.mkdir()
        for name, script in IN_THEIR_PLACE.items():
            program = cls.programs / name
            program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            program.chmod(0o755)
        cls.orders = cls.node.dir / "orders"

    @classmethod
    def tearDownClass(cls):
        cls.docker.close()
        super().tearDownClass()

    def carry_out(self):
        """What a service manager was told meanwhile."""
        orders = self.orders.read_text().split() if self.orders.exists() else []
        if "meshd" in orders:
            if "start" not in orders:
                self.node.kill(signal.SIGTERM)
            self.node.start()
        if "docker" in orders:
            self.docker.process.send_signal(signal.SIGHUP)
            # It reads its file anew a moment later, which people do not see.
            until(lambda: "mesh" in self.docker("info", "-f", "{{.DefaultRuntime}}").stdout,
                  "dockerd has the runtime", PATIENCE)
        self.orders.unlink(missing_ok=True)
        return orders

    def test_two_containers_talk_by_name_with_five_commands(self):
        self.assertIn("-P FORWARD DROP", run("iptables", "-S", "FORWARD").stdout)
        told = commands("With Docker")
        self.assertEqual(len(told), 5, told)
        said, ordered = [], []
        for command in told:
            said.append(run("env", f"PATH={self.programs}:{os.environ['PATH']}",
                            f"DOCKER_HOST={self.docker.socket}", f"ORDERS={self.orders}",
                            "bash", "-e", "-o", "pipefail", "-c", command, timeout=120).stdout)
            ordered += self.carry_out()
        self.assertEqual(ordered, ["start", "meshd", "reload-or-restart", "meshd", "docker"])
        name = self.docker.inspect("web")["Config"]["Hostname"]
        self.assertEqual(said[4], f"{name}\n")
        # By IPv4 too, which is all that dockerd's firewall is about.
        self.docker("exec", "app", "sh", "-c", f"nc -w 3 {self.node.vip('web')} 80 </dev/null")
        self.assertIn("ALLOWED", self.node.ctl("explain", "app", "web", "80").stdout)
        self.assertEqual(self.node.ctl("doctor").stdout, "nothing is wrong\n")
        # And the mesh is why: nobody declared this one.
        done = self.docker("run", "--rm", "--network", "none", "busybox", "wget", "-qO-",
                           "http://web/hostname", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.docker("rm", "-f", "web", "app")
        self.until_left()


if __name__ == "__main__":
    unittest.main()
