"""What demos of a cluster share: their own namespaces, and lines that say what held."""
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
INSIDE = "MESHD_DEMO_INSIDE"
NAMESPACES = ["unshare", "--net", "--mount", "--propagation", "private", "--ipc", "--pid", "--fork",
              "--kill-child", "--mount-proc"]
GREEN, RED, DIM, OFF = "\033[32m", "\033[31m", "\033[2m", "\033[0m"
if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
    GREEN = RED = DIM = OFF = ""


def enter():
    """The program again, in namespaces of its own, where the test bed can be imported."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} BUILD-DIR")
    if os.geteuid() != 0:
        sys.exit("demo: needs root: sudo ./dev demo")
    if os.environ.get(INSIDE) != "yes":
        os.environ |= {INSIDE: "yes", "MESHD_BUILD": str(pathlib.Path(sys.argv[1]).resolve())}
        os.execvp("unshare", [*NAMESPACES, "/usr/bin/python3", "-B", *sys.argv])
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "e2e"))


class Story:
    """Steps in order; each is shown with the programs' own words below it."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.failures = 0

    def show(self, held, what, words):
        self.failures += not held
        mark = f"{GREEN}ok{OFF}  " if held else f"{RED}FAIL{OFF}"
        print(f"{mark} {what}\n     {DIM}{' '.join(words.split())}{OFF}", flush=True)

    def began(self):
        self.start = time.monotonic()

    def ms(self):
        return f"{(time.monotonic() - self.start) * 1000:.0f} ms"

    def tell(self, first, parts):
        """The exit code."""
        print(first, flush=True)
        try:
            for part in parts:
                part()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print(f"demo: {error}", file=sys.stderr)
            self.cluster.tell_logs()
            return 1
        if self.failures:
            print(f"{self.failures} of the steps above did not hold.", file=sys.stderr)
            return 1
        print("All of it held.")
        return 0
