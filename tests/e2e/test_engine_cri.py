"""containerd as a kubelet drives it: pods by CRI, whose network is a CNI list."""
import os
import signal
import unittest

import grpc

from cri import Cri
from engines import (BRIDGE, GET, PATIENCE, SERVE, Containerd, EngineTest, ask, db, declare, worker,
                     workloads)
from node import run, until

WORKLOADS = workloads(db("db-0"), worker("worker-0"), declare("other-0"))
CAPABILITIES = {"io.kubernetes.cri.pod-annotations": True, "portMappings": True}
DNS = (("169.254.1.1",), ("wf1.wf.mesh.internal",))


class CriTest(EngineTest):
    @classmethod
    def prepare(cls):
        cls.engine = Containerd(cls.node, cri=True)
        cls.engine.network("mesh", "1.0.0", capabilities=CAPABILITIES)
        cls.cri = Cri(cls.engine, PATIENCE)

    @classmethod
    def tearDownClass(cls):
        cls.cri.channel.close()
        cls.engine.close()
        super().tearDownClass()

    def setUp(self):
        self.node.apply(WORKLOADS)

    def tearDown(self):
        if self.node.daemon is None:
            self.node.start()
        self.cri.remove_all()
        self.clear(self.engine)
        super().tearDown()

    def pod(self, name, annotations=None, attempt=0, ports=()):
        return self.cri.pod(name, {"mesh.id": name} if annotations is None else annotations, DNS,
                            attempt, ports)

    def say(self, pod, script):
        container = pod.start("main", "/bin/sleep", "600")
        return self.cri.execute(container, "/bin/sh", "-c", script)

    def get(self, pod, name="db"):
        return self.say(pod, f"wget -qO- http://{name}:8080/")

    def list_with(self, *after, before=()):
        """The network's list is another one; containerd reads it when it starts."""
        self.engine.kill(signal.SIGTERM)
        self.engine.network("mesh", "1.0.0", before=before, after=after,
                            capabilities=CAPABILITIES)
        self.engine.start()
        self.cri.connect()

    def test_peer_by_name(self):
        self.pod("db-0").start("main", *SERVE)
        self.node.ctl("wait", "db-0", "--timeout", "20s")
        code, said, trouble = self.get(self.pod("worker-0"))
        self.assertEqual((code, said), (0, "answered\n"), trouble)
        code, said, _ = self.get(self.pod("other-0"))
        self.assertNotEqual(code, 0, "it declared no peer")

    def test_refused_at_once(self):
        pod = self.pod("db-0")
        pod.start("main", *SERVE)
        self.node.ready("db-0")
        said = self.say(self.pod("worker-0"), "; ".join((
            ask("db"), self.ask_all(of="db-0"), self.ask_all(8081, "db-0"))))
        self.assertEqual(said, (0, 5 * "0\n" + 4 * "1\n", ""))
        self.assertEqual(self.say(self.pod("other-0"), self.ask_all(of="db-0")),
                         (0, 4 * "1\n", ""))

    def test_the_runtime_learns_the_address(self):
        pod = self.pod("db-0")
        self.assertEqual(pod.address(), self.attachment("db-0")["addresses"][0])

    def test_declared_by_annotation(self):
        declaration = "{name: web, scope: CLUSTER, serves: [{port: 8080}]}"
        self.pod("web-0", {"mesh.declaration": declaration, "mesh.owner": "ada"}).start(
            "main", *SERVE)
        self.node.ctl("wait", "web-0", "--timeout", "20s")
        self.node.apply(WORKLOADS.replace("{name: db}", "{name: web, scope: CLUSTER}"))
        code, said, trouble = self.get(self.pod("worker-0"), "web.svc.mesh.internal")
        self.assertEqual((code, said), (0, "answered\n"), trouble)

    def test_the_pods_name_says_who_it_is(self):
        pod = self.pod("db-0", {})
        self.assertEqual(pod.address(), self.attachment("db-0")["addresses"][0])

    def test_ports_of_the_node_are_refused(self):
        """A declaration publishes; containerd would have believed that these are open."""
        with self.assertRaises(grpc.RpcError) as raised:
            self.pod("db-0", ports=((8080, 18080),))
        self.assertIn("portMappings: ", raised.exception.details())

    def test_nobodys_pod_has_what_others_give_it(self):
        """containerd starts none without an address."""
        with self.assertRaises(grpc.RpcError) as raised:
            self.pod("nobody-0", {})
        self.assertIn("failed to find network info", raised.exception.details())
        self.cri.remove_all()
        self.list_with(before=[BRIDGE])
        try:
            pod = self.pod("nobody-0", {})
            self.assertTrue(pod.address().startswith("198.51.100."))
            code, said, trouble = self.say(pod, "ip route; cat /proc/net/dev")
            self.assertEqual(code, 0, trouble)
            self.assertIn("default via 198.51.100.1 dev eth0", said)
            self.assertNotIn("mesh0", said)
            self.cri.remove_all()
        finally:
            self.list_with()
            run("ip", "link", "del", "own0", check=False)

    def test_stopped_pod_is_detached(self):
        """containerd deletes the network of one twice, the second time without a namespace."""
        pod = self.pod("db-0")
        pod.stop()
        self.until_left()

    def test_killed_payload_starts_again_in_its_pod(self):
        pod = self.pod("db-0")
        first = pod.start("main", *SERVE)
        attachment = self.attachment("db-0")
        os.kill(self.engine.pid(first, "k8s.io"), signal.SIGKILL)
        until(lambda: self.cri.exited(first), "containerd knows that it ended")
        pod.start("again", *SERVE)
        self.assertEqual(self.attachment("db-0"), attachment)
        self.node.ready("db-0")
        self.assertEqual(self.get(self.pod("worker-0"))[:2], (0, "answered\n"))

    def test_killed_pod_comes_back_as_another(self):
        """As a kubelet does it: what holds the namespaces is gone, so that all of it is stopped and
        made anew."""
        pod = self.pod("db-0")
        pod.start("main", *SERVE)
        vip = self.node.vip("db")
        os.kill(self.engine.pid(pod.id, "k8s.io"), signal.SIGKILL)
        until(lambda: not pod.is_ready(), "containerd knows that it ended")
        pod.stop()
        self.until_left()
        self.pod("db-0", attempt=1).start("main", *SERVE)
        self.assertEqual(self.node.vip("db"), vip)
        self.node.ready("db-0")
        self.assertEqual(self.get(self.pod("worker-0"))[:2], (0, "answered\n"))

    def test_add_that_fails_starts_nothing(self):
        """Beside a plugin that does not work: its pod does not run, and what ours did is taken back
        when the kubelet removes it."""
        self.list_with({"type": "mesh-broken"})
        try:
            with self.assertRaises(grpc.RpcError) as raised:
                self.pod("db-0")
            self.assertIn("broken on purpose", raised.exception.details())
            self.broken_had_ours(self.engine)
        finally:
            self.list_with()
        self.cri.remove_all()
        self.until_left()
        self.pod("db-0")

    def test_killed_engine_changes_nothing(self):
        self.pod("db-0").start("main", *SERVE)
        self.node.ready("db-0")
        container = self.pod("worker-0").start("main", "/bin/sleep", "600")
        pid = self.engine.pid(container, "k8s.io")
        self.engine.kill()
        self.assertEqual(self.inside(pid, GET), "answered\n")
        self.assertEqual(len(self.node.links()), 2)
        self.engine.start()
        self.cri.connect()
        self.assertEqual(self.cri.execute(container, "/bin/sh", "-c", GET), (0, "answered\n", ""))

    def test_fifty_at_once(self):
        self.pod("db-0").start("main", *SERVE)

        def get(name):
            code, said, trouble = self.get(self.pod(name))
            return said if code == 0 else f"{code}: {said}{trouble}"

        self.fifty(get, "db-0")

    def test_daemon_is_away(self):
        self.node.kill(signal.SIGTERM)
        with self.assertRaises(grpc.RpcError) as raised:
            self.pod("db-0")
        self.assertIn("does not start without the mesh", raised.exception.details())


if __name__ == "__main__":
    unittest.main()
