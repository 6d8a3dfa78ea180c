"""What README.md tells somebody who has Docker, word for word: the commands are read from there.

Only what is a whole machine's is another here: `apt` puts our programs where the packages have them
(tests/packaging installs the packages themselves), `systemctl reload docker` tells the dockerd of
this test, and the image `busybox` is made here and not fetched."""
import os
import pathlib
import re
import unittest

from engines import Docker, EngineTest
from node import BUILD, run

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
PROGRAMS = pathlib.Path("/usr/libexec/meshd")
IN_THEIR_PLACE = {
    "sudo": 'exec "$@"',
    "apt": f'test "$1" = install && mkdir -p {PROGRAMS} && '
           f"cp {BUILD}/mesh-runc {BUILD}/mesh-hook {PROGRAMS}/",
    # dockerd reads its file anew a moment after the signal, which people do not see.
    "systemctl": 'test "$*" = "reload docker" && kill -HUP "$(cat "$DOCKER_PID")" && '
                 "until docker info -f '{{.DefaultRuntime}}' | grep -q mesh; do sleep 0.1; done",
}


def commands(heading):
    """Of the first block below it: a line, and those that it goes on in."""
    section = README.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1]
    return re.findall(r"(?:.*[\\|]\n)*.+\n", block)


class PlainDocker(Docker):
    """That nobody has told of the mesh."""
    RUNTIME = ()


class ReadmeTest(EngineTest):
    @classmethod
    def prepare(cls):
        for folder in (PROGRAMS.parent, pathlib.Path("/etc/docker")):
            folder.mkdir(parents=True, exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        cls.docker = PlainDocker(cls.node)
        cls.docker("tag", "bb:1", "busybox:latest")
        cls.programs = cls.node.dir / "bin"
        cls.programs.mkdir()
        for name, script in IN_THEIR_PLACE.items():
            program = cls.programs / name
            program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            program.chmod(0o755)

    @classmethod
    def tearDownClass(cls):
        cls.docker.close()
        super().tearDownClass()

    def test_two_containers_talk_by_name_with_five_commands(self):
        told = commands("With Docker")
        self.assertEqual(len(told), 5, told)
        said = []
        for command in told:
            said.append(run("env", f"PATH={self.programs}:{os.environ['PATH']}",
                            f"DOCKER_HOST={self.docker.socket}",
                            f"DOCKER_PID={self.docker.dir / 'pid'}",
                            "bash", "-e", "-o", "pipefail", "-c", command, timeout=120).stdout)
        name = self.docker.inspect("web")["Config"]["Hostname"]
        self.assertEqual(said[4], f"{name}\n")
        self.assertIn("ALLOWED", self.node.ctl("explain", "app", "web", "80").stdout)
        # And the mesh is why: nobody declared this one.
        done = self.docker("run", "--rm", "--network", "none", "busybox", "wget", "-qO-",
                           "http://web/hostname", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.docker("rm", "-f", "web", "app")
        self.until_left()


if __name__ == "__main__":
    unittest.main()
