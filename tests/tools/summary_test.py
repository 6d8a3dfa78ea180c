"""The closing line fails when anything failed, and when nothing ran."""

import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import summary  # noqa: E402

PASSED = '<testcase name="a.B" status="run"/>'
FAILED = '<testcase name="a.C" status="fail"><failure message=""/></testcase>'
SKIPPED = (
    '<testcase name="a.D" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'
    "<system-out>x.cc:1: Skipped\nno user namespaces\n</system-out></testcase>"
)
NOT_BUILT = (
    '<testcase name="a.E" status="notrun"><skipped message="Unable to find executable"/></testcase>'
)
DISABLED = '<testcase name="a.F" status="disabled"><system-out>Disabled</system-out></testcase>'


def run(*cases):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "r.xml")
        path.write_text(f"<testsuite>{''.join(cases)}</testsuite>", encoding="utf-8")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = summary.main([str(path)])
    return code, output.getvalue().splitlines()


class SummaryTest(unittest.TestCase):
    def test_passes_when_all_passed(self):
        self.assertEqual((0, ["1 passed, 0 failed"]), run(PASSED))

    def test_fails_and_names_what_failed(self):
        self.assertEqual((1, ["failed: r: a.C", "1 passed, 1 failed"]), run(PASSED, FAILED))

    def test_what_is_not_built_or_disabled_has_failed(self):
        self.assertEqual((1, ["failed: r: a.E", "1 passed, 1 failed"]), run(PASSED, NOT_BUILT))
        self.assertEqual((1, ["failed: r: a.F", "1 passed, 1 failed"]), run(PASSED, DISABLED))

    def test_names_what_was_left_out_and_why(self):
        code, lines = run(PASSED, SKIPPED)
        self.assertEqual(0, code)
        self.assertEqual("left out: 1 (no user namespaces): r: a.D", lines[0])
        self.assertEqual("1 passed, 0 failed, 1 left out", lines[1])

    def test_nothing_run_is_a_failure(self):
        self.assertEqual(1, run()[0])
        self.assertEqual(1, run(SKIPPED)[0])
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(1, summary.main(["/nonexistent.xml"]))


if __name__ == "__main__":
    unittest.main()
