"""The check of units sees what systemd would stumble over, and what lets too much be done."""

import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_units  # noqa: E402

UNIT = "[Unit]\nDescription=x\n[Service]\nExecStart=/usr/sbin/x\n"


class UnitsTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def problems(self, text, limit=100):
        unit = pathlib.Path(self.folder.name, "x.service")
        unit.write_text(text, encoding="utf-8")
        return list(check_units.problems([unit], limit))

    def test_good_unit_passes(self):
        self.assertEqual(self.problems(UNIT), [])

    def test_word_that_systemd_does_not_know_is_named(self):
        found = self.problems(UNIT + "RestartSteeps=3\n")
        self.assertTrue(any("RestartSteeps" in line for line in found), found)

    def test_unit_that_starts_nothing_is_refused(self):
        self.assertNotEqual(self.problems("[Service]\nRestart=always\n"), [])

    def test_exposure_above_the_limit_is_refused(self):
        found = self.problems(UNIT, limit=30)
        self.assertEqual(len(found), 1)
        self.assertIn("exposure", found[0])

    def test_units_without_their_bounds_are_refused(self):
        for unit in sorted((ROOT / "packaging/systemd").glob("*.service")):
            with self.subTest(unit.name):
                lines = unit.read_text(encoding="utf-8").splitlines()
                unbound = [line for line in lines if not line.startswith(
                    ("CapabilityBoundingSet=", "SystemCallFilter=", "User="))]
                self.assertNotEqual(
                    self.problems("\n".join(unbound) + "\n", check_units.EXPOSURE), [])

    def test_versions_that_differ_are_refused(self):
        root = pathlib.Path(self.folder.name)
        for number, (path, line) in enumerate({
                "CMakeLists.txt": "project(meshd VERSION 0.%d.0 LANGUAGES CXX)",
                "packaging/debian/changelog": "meshd (0.%d.0) bookworm; urgency=medium",
                "meshd/daemon.h": 'kVersion = "0.%d.0";',
                "controller/main.cc": 'kVersion = "0.%d.0";'}.items()):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text((line % (number == 3)) + "\n", encoding="utf-8")
        found = list(check_units.versions(root))
        self.assertEqual(len(found), 1)
        self.assertIn("controller/main.cc 0.1.0", found[0])
        self.assertEqual(list(check_units.versions(ROOT)), [])


if __name__ == "__main__":
    unittest.main()
