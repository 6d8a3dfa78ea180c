"""podman as Debian configures it, with the two hook files of the package meshd-engines where it
looks by itself."""
import pathlib
import shutil
import unittest

from engines import EngineTest, Podman, worker, workloads
from node import BUILD, run

ENGINES = pathlib.Path(__file__).resolve().parents[2] / "packaging/engines"
PROGRAMS = pathlib.Path("/usr/libexec/meshd")
SHARED = pathlib.Path("/usr/share/containers")
LINKS = ("cat", "/proc/net/dev")


class PackagedTest(EngineTest):
    @classmethod
    def prepare(cls):
        kept = cls.node.dir / "shared"
        shutil.copytree(SHARED, kept)
        for folder in (PROGRAMS.parent, SHARED):
            folder.mkdir(exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        shutil.copytree(kept, SHARED, dirs_exist_ok=True)
        PROGRAMS.mkdir()
        shutil.copy(BUILD / "mesh-hook", PROGRAMS)
        hooks = SHARED / "oci/hooks.d"
        hooks.mkdir(parents=True)
        for stage in ("attach", "detach"):
            shutil.copy(ENGINES / f"50-mesh-{stage}.json", hooks)
        cls.podman = Podman(cls.node)
        config = cls.podman.dir / "containers.conf"
        lines = config.read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if not line.startswith("hooks_dir")))

    @classmethod
    def tearDownClass(cls):
        cls.podman.close()
        super().tearDownClass()

    def setUp(self):
        self.node.apply(workloads(worker()))

    def tearDown(self):
        self.clear(self.podman)
        super().tearDown()

    def test_annotation_is_enough(self):
        said = self.podman.run("first", "none", *LINKS,
                               options=("--rm", "--annotation", "mesh.id=worker")).stdout
        self.assertIn("eth0", said)
        text = "{name: web, scope: CLUSTER, serves: [{port: 8080}]}"
        said = self.podman.run("web", "none", *LINKS, options=(
            "--rm", "--annotation", f'"mesh.declaration={text}"', "--annotation",
            "mesh.id=web")).stdout
        self.assertIn("eth0", said)
        self.until_left("what both ended with was their detach, and nothing is left")

    def test_other_annotations_are_not_ours(self):
        for annotation in ("mesh.ids=worker", "org.mesh.id=worker", "mesh_id=worker"):
            said = self.podman.run("other", "none", *LINKS,
                                   options=("--rm", "--annotation", annotation)).stdout
            self.assertNotIn("eth0", said, annotation)


if __name__ == "__main__":
    unittest.main()
