"""The role for Ansible: what the recipe for a shell does, as an administrator's play calls it. In a
tree that does not run, with all that can be asked for; and on a machine that runs, such as Packer
makes images of, with nothing asked for."""
import json
import re
import shutil
import unittest

import test_image
from machine import MachineTest, package
from test_image import SINGULARITY, TICKET, image, inside, refused, state

ANSIBLE = test_image.RECIPE.parent / "ansible"
# Where the play is to run is where it is read; colours are for people.
PLAY = ("env", "ANSIBLE_NOCOLOR=1", "ansible-playbook", "--inventory", "localhost,",
        "--connection", "local")
OPTIONS = {"meshd_packages": "/srv/packages", "meshd_singularity_prefix": f"/{SINGULARITY}",
           "meshd_ticket": "{{ lookup('file', '%s') }}" % TICKET,
           "meshd_config": {"log": {"level": "DEBUG"}, "engines": {"undeclared": "REFUSE"}}}


def changes(done):
    recap = dict(re.findall(r"(\w+)=(\d+)", done.stdout.partition("PLAY RECAP")[2]))
    if recap.get("failed") != "0":
        raise AssertionError(done.stdout)
    return int(recap["changed"])


def left(root):
    """Folders of what was handed over, and whoever else has the ticket."""
    ticket = (root / TICKET.lstrip("/")).read_text(encoding="utf-8").strip()
    having = [str(path.relative_to(root)) for folder in ("etc", "root", "tmp", "var/tmp")
              for path in (root / folder).rglob("*")
              if path.is_file() and not path.is_symlink() and ticket.encode() in path.read_bytes()]
    return [*(path.name for path in (root / "tmp").iterdir()), *having]


def prepare(root):
    # The recipe in the role is a link.
    shutil.copytree(ANSIBLE, root / "srv/ansible")

    def play(check=True, mode=(), **options):
        return inside(root, *PLAY, *mode, "--extra-vars", json.dumps({**OPTIONS, **options}),
                      "/srv/ansible/compute-image.yml", check=check)

    def refuses(why, but=(), **options):
        refused(play(check=False, **options), why)
        if left(root) != [*but]:
            raise AssertionError(f"it is refused, and left: {left(root)}")
    with image(root) as folder:
        untouched = state(root)
        refuses('"meshd_packages: no meshd_*.deb in /srv/none"', meshd_packages="/srv/none")
        refuses('"meshd_packages: no meshd-engines_*.deb in /srv/packages"')
        shutil.copy(package("meshd-engines"), folder)
        refuses("could not locate file in lookup: /srv/none",
                meshd_ticket="{{ lookup('file', '/srv/none') }}")
        if changes(play(mode=["--check"])) or state(root) != untouched:
            raise AssertionError("a play that was refused, or only tried, has changed something")
        refuses("zone: must", meshd_config={"zone": "-bad"}, but=["etc/meshd/join.ticket"])
        refuses("/opt/none: no Singularity below it", meshd_singularity_prefix="/opt/none",
                but=["etc/meshd/join.ticket"])
        if changes(play()) != 1:
            raise AssertionError("the first play changes the image")
        before = state(root)
        if changes(play()) != 0 or state(root) != before:
            raise AssertionError(set(state(root).items()) ^ set(before.items()))
        if left(root) != ["etc/meshd/join.ticket"]:
            raise AssertionError(left(root))
    shutil.rmtree(root / "srv/ansible")


class AnsibleImageTest(test_image.ImageTest):
    """Everything that holds of the recipe's machine."""

    prepare = staticmethod(prepare)

    def test_configuration_has_what_was_asked_for(self):
        config = self.machine.run("cat", "/etc/meshd/meshd.yaml").stdout
        for asked in ("level: DEBUG", "undeclared: REFUSE", "docker_user: true",
                      "join_file: /etc/meshd/join.ticket"):
            self.assertIn(asked, config)
        modes = self.machine.run("stat", "-c", "%U %a", "/etc/meshd/meshd.yaml").stdout
        self.assertEqual(modes.strip(), "root 644")


class RunningTest(MachineTest):
    @staticmethod
    def prepare(root):
        shutil.copytree(ANSIBLE / "roles/meshd", root / "srv/roles/meshd")
        (root / "srv/play.yml").write_text("- {hosts: all, roles: [meshd]}\n", encoding="utf-8")
        (root / "srv/packages").mkdir()
        for name in ("meshd", "meshctl"):
            shutil.copy(package(name), root / "srv/packages")

    def play(self):
        return changes(self.machine.run("env", "HOME=/root", *PLAY, "/srv/play.yml"))

    def test_what_the_machine_was_is_forgotten(self):
        self.assertEqual(self.play(), 1)
        self.assertEqual(self.play(), 0)
        self.assertFalse(self.machine.active("meshd"))
        self.assertEqual(self.machine.unit("meshd", "UnitFileState"), "enabled")
        self.assertEqual(self.machine.run("nft", "list", "tables").stdout, "")
        left = self.machine.run("find", "/var/lib/meshd", "/run/meshd", check=False).stdout
        self.assertEqual(left, "")
        self.machine.run("systemctl", "start", "meshd")  # as the node that boots from it does
        self.assertTrue(self.machine.active("meshd"))
        self.assertEqual(self.play(), 1, "it has become a machine of its own again")


if __name__ == "__main__":
    unittest.main(verbosity=2)
