"""The style check refuses what it should; the licences are what they should be."""

import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_style  # noqa: E402
import tree  # noqa: E402

HEADER = "// What it is for.\n#pragma once\n"


def found(path, text):
    cxx = list(check_style.check_cxx(path, text)) if path.endswith(tree.CXX) else []
    return [why for _, why in [*check_style.check_text(path, text), *cxx]]


class CheckStyleTest(unittest.TestCase):
    def refuses(self, path, text, reason):
        problems = found(path, text)
        self.assertEqual(1, len(problems), problems)
        self.assertIn(reason, problems[0])

    def test_whitespace(self):
        self.refuses("a.md", "x \n", "trailing")
        self.refuses("a.md", "\tx\n", "tab")
        self.refuses("a.md", "x", "no newline")
        self.refuses("a.md", "x\n\n", "empty lines")
        self.assertEqual([], found("a.md", "x\n"))

    def test_words(self):
        self.refuses("a.cc", "// TODO: later\n", "unfinished")
        self.refuses("a.md", "see /home/someone/x\n", "machine")
        self.assertEqual([], found("a.md", "GET /lab and /run/meshd\n"))

    def test_what_is_built_is_not_read(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path in ("build/package/x.md", "docs/build/y.md", "mine/CMakeCache.txt"):
                (root / path).parent.mkdir(parents=True)
                (root / path).write_text("x\n", encoding="utf-8")
            self.assertEqual(tree.files(folder), ["docs/build/y.md"])

    def test_what_the_house_refuses_in_code(self):
        self.refuses("dns/a.cc", "void f() { throw 1; }\n", "nothing throws")
        self.refuses("dns/a.cc", "using namespace std;\n", "using namespace")
        self.refuses("dns/a.cc", "#define MAX 3\n", "macros")
        self.refuses("tests/dns/a_test.cc", "TEST(A, DISABLED_B) {}\n", "disabled")
        self.refuses("tests/dns/a_test.cc", "EXPECT_TRUE(true);\n", "cannot fail")
        self.refuses("tests/dns/a_test.cc", "std::this_thread::sleep_for(1s);\n", "fixed sleep")
        self.refuses("dns/a.cc", "if (testing_) return;\n", "branch for tests")
        self.assertEqual([], found("tests/support/wait.cc", "usleep(10);\n"))
        self.assertEqual([], found("dns/a.cc", "using namespace std::chrono_literals;\n"))
        self.assertEqual([], found("dns/a.cc", '// never throw\nauto s = "throw";\n'))

    def test_code_in_comments(self):
        self.refuses("dns/a.cc", "  // run(x);\n", "code in a comment")
        self.refuses("dns/a.cc", "// x = y + 1;\n", "code in a comment")
        self.assertEqual([], found("dns/a.cc", "// Returns x; the caller frees nothing.\n"))

    def test_headers(self):
        self.assertEqual([], found("dns/a.h", HEADER))
        self.refuses("dns/a.h", "#pragma once\n", "opens with a comment")
        self.refuses("dns/a.h", "// What it is for.\n", "pragma once")

    def test_licences(self):
        self.assertEqual([], list(check_style.check_licence(ROOT)))
        with tempfile.TemporaryDirectory() as root:
            pathlib.Path(root, "proto").mkdir()
            pathlib.Path(root, "LICENSE").write_text("All mine.\n", encoding="utf-8")
            pathlib.Path(root, "proto/x.proto").write_text("syntax;\n", encoding="utf-8")
            problems = list(check_style.check_licence(root))
        self.assertEqual(3, len(problems), problems)


if __name__ == "__main__":
    unittest.main()
