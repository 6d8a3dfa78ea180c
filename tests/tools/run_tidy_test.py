"""A clean file is not read again until something that it depends on changes."""

import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import run_tidy  # noqa: E402


class RunTidyKeyTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = self.folder.name
        self.write("dns/a.cc", '#include "dns/a.h"\n')
        self.write("dns/a.h", '#include "base/b.h"\n#include "proto/x.pb.h"\n')
        self.write("base/b.h", "\n")
        self.write("base/other.h", "\n")
        self.write("proto/x.proto", "\n")
        self.write(".clang-tidy", "Checks: '*'\n")
        self.before = self.key()

    def write(self, path, text):
        file = pathlib.Path(self.root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def key(self, command="c++ -O1", version="19"):
        return run_tidy.key(self.root, "dns/a.cc", command, version)

    def test_changes_with_all_that_the_file_reaches(self):
        for path in ("dns/a.cc", "dns/a.h", "base/b.h", "proto/x.proto", ".clang-tidy"):
            text = pathlib.Path(self.root, path).read_text(encoding="utf-8")
            self.write(path, text + "// more\n")
            self.assertNotEqual(self.before, self.key(), path)
            self.write(path, text)
        self.assertNotEqual(self.before, self.key(command="c++ -O2"))
        self.assertNotEqual(self.before, self.key(version="20"))

    def test_stays_when_nothing_of_it_changed(self):
        self.write("base/other.h", "// more\n")
        self.assertEqual(self.before, self.key())

    def test_is_the_same_in_another_clone(self):
        self.assertEqual(self.key(command=f"c++ -iquote {self.root}"), self.key("c++ -iquote "))


if __name__ == "__main__":
    unittest.main()
