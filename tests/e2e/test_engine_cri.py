"""containerd as a kubelet drives it: pods by CRI, whose network is a CNI list."""
import concurrent.futures
import signal
import unittest

import grpc

from cri import Cri
from engines import PATIENCE, Containerd, EngineTest

SERVE = ("/bin/httpd", "-f", "-p", "8080", "-h", "/www")
WORKLOADS = """workloads:
- {id: db-0, owner: ada, workflow: wf1, name: db, serves: [{port: 8080}]}
- {id: worker-0, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: other-0, owner: ada, workflow: wf1}
"""
DNS = (("169.254.1.1",), ("wf1.wf.mesh.internal",))


class CriTest(EngineTest):
    @classmethod
    def prepare(cls):
        cls.engine = Containerd(cls.node, cri=True)
        cls.engine.network("mesh", "1.0.0", capabilities={"io.kubernetes.cri.pod-annotations": True})
        cls.cri = Cri(cls.engine, PATIENCE)

    @classmethod
    def tearDownClass(cls):
        cls.cri.channel.close()
        cls.engine.close()
        super().tearDownClass()

    def setUp(self):
        self.node.apply(WORKLOADS)
        self.pods = []

    def tearDown(self):
        if self.node.daemon is None:
            self.node.start()
        for pod in self.pods:
            pod.remove()
        self.until_left()
        super().tearDown()

    def pod(self, name, annotations=None):
        self.pods.append(self.cri.pod(name, {"mesh.id": name} if annotations is None
                                      else annotations, DNS))
        return self.pods[-1]

    def get(self, pod, name="db"):
        container = pod.start("main", "/bin/sleep", "600")
        return self.cri.execute(container, "/bin/sh", "-c",
                                f"timeout 5 wget -qO- http://{name}:8080/")

    def test_peer_by_name(self):
        self.pod("db-0").start("main", *SERVE)
        self.node.ctl("wait", "db-0", "--timeout", "20s")
        code, said, trouble = self.get(self.pod("worker-0"))
        self.assertEqual((code, said), (0, "answered\n"), trouble)
        code, said, _ = self.get(self.pod("other-0"))
        self.assertNotEqual(code, 0, "it declared no peer")

    def test_the_runtime_learns_the_address(self):
        pod = self.pod("db-0")
        self.assertEqual(pod.address(), self.attachment("db-0")["addresses"][0])

    def test_declared_by_annotation(self):
        declaration = "{name: web, scope: CLUSTER, serves: [{port: 8080}]}"
        self.pod("web-0", {"mesh.declaration": declaration, "mesh.owner": "ada"}).start(
            "main", *SERVE)
        self.node.ctl("wait", "web-0", "--timeout", "20s")
        self.node.apply(WORKLOADS.replace("peers: [{name: db}]", "peers: [{name: web, scope: CLUSTER}]"))
        code, said, trouble = self.get(self.pod("worker-0"), "web.svc.mesh.internal")
        self.assertEqual((code, said), (0, "answered\n"), trouble)

    def test_stopped_pod_is_detached(self):
        """containerd deletes the network of one twice, the second time without a namespace."""
        pod = self.pod("db-0")
        pod.stop()
        self.until_left()

    def test_killed_engine_changes_nothing(self):
        self.pod("db-0").start("main", *SERVE)
        self.engine.kill()
        self.assertEqual(len(self.node.links()), 1)
        self.engine.start()
        self.cri.connect()
        code, said, trouble = self.get(self.pod("worker-0"))
        self.assertEqual((code, said), (0, "answered\n"), trouble)

    def test_fifty_at_once(self):
        names = [f"many-{i}" for i in range(50)]
        self.node.apply("workloads: [" + ", ".join(
            f"{{id: {name}, owner: ada, workflow: wf1}}" for name in names) + "]")
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            addresses = list(pool.map(lambda name: self.pod(name).address(), names))
        self.assertEqual(len(set(addresses)), len(names))

    def test_daemon_is_away(self):
        self.node.kill(signal.SIGTERM)
        with self.assertRaises(grpc.RpcError) as raised:
            self.pod("db-0")
        self.assertIn("does not start without the mesh", raised.exception.details())


if __name__ == "__main__":
    unittest.main()
