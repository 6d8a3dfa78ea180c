"""What docs/cluster.md tells whoever installs a cluster from packages, word for word, on one machine
that is the controller's and a node; and what of README.md's five commands is a whole machine's."""
import json
import pathlib
import re
import shutil
import unittest

from machine import MachineTest, package, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONTROLLER = "ctl.example.org"


# Which a machine has that has Docker; dockerd itself does not run in one like ours.
DOCKER = """[Service]
ExecStart=/usr/bin/sleep infinity
ExecReload=/bin/true
"""


def commands(page, word):
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    block = next(block for block in blocks if word in block)
    return re.findall(r"(?:.*(?:[\\|]|&&)\n)*.+\n", block)


def carry_out(machine, command):
    # Nobody is asked, and nothing is recommended by a mirror.
    command = command.replace("apt install", "apt-get -y --no-install-recommends install")
    return machine.run("bash", "-e", "-o", "pipefail", "-c", f"cd /srv && {command}")


class ClusterPageTest(MachineTest):
    def test_cluster_from_packages(self):
        machine = self.machine
        folder = machine.root / "srv"
        for name in ("meshd", "meshctl", "mesh-controller"):
            shutil.copy(package(name), folder)
        hosts = machine.root / "etc/hosts"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {CONTROLLER}\n", encoding="utf-8")
        for command in commands("docs/cluster.md", "runuser"):
            carry_out(machine, command)
        until(lambda: "connected to" in machine.run("meshctl", "status", check=False).stdout,
              lambda: machine.run("meshctl", "status", check=False).stdout)
        self.assertEqual(machine.state(), "running")
        ticket = machine.run("stat", "-c", "%U %a", "/etc/meshd/join.ticket").stdout
        self.assertEqual(ticket.strip(), "root 600")


class ReadmeTest(MachineTest):
    """The other three commands are dockerd's: tests/e2e/test_readme.py."""

    def test_packages_are_installed_and_configured_by_two_commands(self):
        machine = self.machine
        made = machine.root / "srv/build/package"
        made.mkdir(parents=True)
        for name in ("meshd", "meshctl", "meshd-engines"):
            shutil.copy(package(name), made)
        sudo = machine.root / "usr/bin/sudo"
        sudo.write_text('#!/bin/sh\nexec "$@"\n', encoding="utf-8")
        sudo.chmod(0o755)
        for path, text in (("etc/docker/.there", ""), ("etc/systemd/system/docker.service", DOCKER)):
            (machine.root / path).parent.mkdir(parents=True, exist_ok=True)
            (machine.root / path).write_text(text, encoding="utf-8")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", "docker")
        install, configure = commands("README.md", "docker run")[:2]
        carry_out(machine, install)
        self.assertTrue(machine.active("meshd"))
        before = machine.unit("meshd", "MainPID")
        carry_out(machine, configure)
        self.assertTrue(machine.active("meshd"))
        self.assertNotEqual(machine.unit("meshd", "MainPID"), before)
        self.assertTrue(machine.active("docker"))
        machine.run("meshd", "--check-config", "--config", "/etc/meshd/meshd.yaml")
        docker = json.loads(machine.run("cat", "/etc/docker/daemon.json").stdout)
        machine.run("test", "-x", docker["runtimes"][docker["default-runtime"]]["path"])
        self.assertEqual(machine.run("meshctl", "doctor").stdout, "nothing is wrong\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
