"""How the packaged programs are linked: what stands before every start of a container is static and
runs where nothing else is; all are loaded where nobody knows, and none has memory that is written
and executed. No machine is booted."""
import json
import pathlib
import re
import subprocess
import tempfile
import unittest

from machine import package, run

PROGRAMS = ("sbin/meshd", "sbin/mesh-controller", "bin/meshctl")
SHIMS = ("mesh-cni", "mesh-hook", "mesh-netavark", "mesh-runc")
DYNAMIC = "libexec/meshd/mesh-docker"


class ProgramsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        for name in ("meshd", "mesh-controller", "meshctl", "meshd-engines"):
            run("dpkg-deb", "-x", package(name), folder.name)
        cls.usr = pathlib.Path(folder.name, "usr")
        cls.shims = [cls.usr / "libexec/meshd" / name for name in SHIMS]
        cls.others = [cls.usr / name for name in (*PROGRAMS, DYNAMIC)]

    def test_these_are_all(self):
        files = [path for path in self.usr.rglob("*") if path.is_file() and not path.is_symlink()]
        programs = [path for path in files if path.read_bytes()[:4] == b"\x7fELF"]
        self.assertEqual(sorted(programs), sorted(self.shims + self.others))

    def segments(self, program):
        """Of each its type and flags."""
        listed = run("readelf", "-lW", program).stdout
        found = re.findall(r"^  (\w+) +(?:0x\w+ +){5}([RWE ]{3}) 0x", listed, re.MULTILINE)
        self.assertIn(("LOAD", "R E"), found, listed)
        return found

    def test_shims_are_static_and_where_nobody_knows(self):
        for program in self.shims:
            self.assertNotIn("INTERP", dict(self.segments(program)), program.name)
            dynamic = run("readelf", "-dW", program).stdout
            self.assertNotIn("(NEEDED)", dynamic, program.name)
            self.assertRegex(dynamic, r"FLAGS_1\).* NOW PIE", program.name)

    def test_other_programs_are_bound_before_they_run_and_where_nobody_knows(self):
        for program in self.others:
            dynamic = run("readelf", "-dW", program).stdout
            self.assertRegex(dynamic, r"FLAGS_1\).* NOW PIE", program.name)
            self.assertNotRegex(dynamic, "RPATH|RUNPATH|TEXTREL", program.name)

    def test_nothing_is_written_and_executed(self):
        for program in self.shims + self.others:
            segments = self.segments(program)
            for kind, flags in segments:
                self.assertNotIn(flags, ("RWE", " WE"), f"{program.name} {kind}")
            self.assertIn("GNU_RELRO", dict(segments), program.name)
            # Where it is left out, the kernel takes it for one that may be executed.
            self.assertEqual(dict(segments).get("GNU_STACK"), "RW ", program.name)

    def start(self, *argv, env=None):
        """In a root with the shims alone, without an environment unless said."""
        return subprocess.run(["/usr/sbin/chroot", self.usr / "libexec/meshd", *argv], env=env or {},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)

    def test_shims_start_where_nothing_is(self):
        for program, said in (("/mesh-hook", "mesh-hook: usage"), ("/mesh-netavark", "usage"),
                              ("/mesh-cni", "CNI_COMMAND: must be")):
            done = self.start(program)
            self.assertIn(said, done.stdout + done.stderr, program)
            self.assertEqual(done.returncode, 1, program)
        done = self.start("/mesh-cni", env={"CNI_COMMAND": "VERSION"})
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("1.0.0", json.loads(done.stdout)["supportedVersions"])

    def test_wrapper_finds_itself_and_starts_the_runtime(self):
        self.assertIn("find the own path", self.start("/mesh-runc", "list").stderr)
        proc = self.usr / "libexec/meshd/proc"
        proc.mkdir()
        run("mount", "-t", "proc", "proc", proc)
        try:
            done = self.start("/mesh-runc", "--mesh-runtime=/mesh-hook", "list")
            self.assertIn("mesh-hook: usage", done.stderr)
        finally:
            run("umount", proc)
            proc.rmdir()


if __name__ == "__main__":
    unittest.main(verbosity=2)
