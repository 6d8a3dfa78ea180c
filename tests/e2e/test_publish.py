"""Ports published to the outside, ways out, readiness by HTTP: with real programs."""
import contextlib
import unittest

import node as bed
from node import NodeTest, until

WEB = """
workloads:
- {id: web, owner: ada, workflow: wf1,
   publish: [{port: 8080, node_port: 28080, allow_from: [192.0.2.10/32, "2001:db8:1::10/128"]},
             {port: 53, protocol: UDP, node_port: 28053, allow_from: [192.0.2.0/24]}]}
- {id: chosen, owner: ada, workflow: wf1, publish: [{port: 80, allow_from: [192.0.2.0/24]}]}
- {id: out, owner: ada, workflow: wf1,
   egress: [{cidr: 192.0.2.10/32, ports: [{port: 443}, {port: 4433, protocol: UDP}]},
            {cidr: "2001:db8:1::/64", ports: [{port: 443}]}]}
- {id: steady, owner: ada, workflow: wf1,
   publish: [{port: 8080, node_port: 28081, allow_from: [192.0.2.0/24]},
             {port: 53, protocol: UDP, node_port: 28054,
              allow_from: [192.0.2.0/24, "2001:db8:1::/64"]}],
   egress: [{cidr: 192.0.2.10/32, ports: [{port: 4433, protocol: UDP}]},
            {cidr: "2001:db8:1::/64", ports: [{port: 443}]}]}
- {id: closed, owner: ada, workflow: wf1}
- {id: hot, owner: ada, workflow: wf1, name: hot, serves: [{port: 8000}],
   ready: HTTP, ready_http: {port: 8000, path: /healthy}}
- {id: caller, owner: ada, workflow: wf1, peers: [{name: hot}]}
"""


class PublishTest(NodeTest):
    @classmethod
    def prepare(cls):
        node = cls.node
        node.apply(WEB)
        for name in ("web", "steady", "chosen", "out", "closed"):
            node.container(name)
        for name in ("web", "steady"):
            node.agents[name].serve(proto="tcp", port=8080)
            node.agents[name].serve(proto="udp", port=53)
        node.agents["chosen"].serve(proto="tcp", port=80)
        for proto in ("tcp", "udp"):
            for port in (443, 4433, 80, 5353):
                node.outside.serve(proto=proto, port=port)
        node.ready("web")
        node.ready("steady")
        node.ready("chosen")

    @contextlib.contextmanager
    def undisturbed(self):
        """Other flows of the same kinds that go on all the while: no packet of them is lost."""
        node, stop = self.node, self.node.dir / "stop"
        streams = []
        for agent, key, proto, to, port in (
                (node.outside, "s1", "tcp", node.UPLINK, 28081),
                (node.outside, "s2", "udp", node.UPLINK, 28054),
                (node.outside, "s3", "udp", "2001:db8:1::1", 28054),
                (node.agents["steady"], "s4", "udp", "192.0.2.10", 4433),
                (node.agents["steady"], "s5", "tcp", node.OUTSIDE6, 443)):
            self.assertEqual(agent.open(key=key, proto=proto, to=to, port=port)["result"],
                             "answered", key)
            streams.append((key, agent, agent.begin("stream", key=key, until=str(stop))))
        yield
        stop.touch()
        for key, agent, number in streams:
            stream = agent.end(number)
            self.assertEqual(stream["end"], "stopped", key)
            self.assertGreater(stream["rounds"], 0, key)
        stop.unlink()

    def ask(self, agent, proto, to, port, **more):
        return agent.ask(proto=proto, to=to, port=port, **more)["result"]

    def test_allowed_source(self):
        outside = self.node.outside
        for to, source in ((self.node.UPLINK, "192.0.2.10"),
                           ("2001:db8:1::1", self.node.OUTSIDE6)):
            self.assertEqual(self.ask(outside, "tcp", to, 28080, source=source), "answered")
        self.assertEqual(self.ask(outside, "udp", self.node.UPLINK, 28053), "answered")

    def test_other_source_is_refused_and_falls_through_to_nobody(self):
        outside = self.node.outside
        self.assertEqual(self.ask(outside, "tcp", self.node.UPLINK, 28080, source="192.0.2.66"),
                         "refused")
        # A listener of the node on that very port is not what it meets.
        self.node.node.serve(proto="tcp", port=28080)
        self.assertEqual(self.ask(outside, "tcp", self.node.UPLINK, 28080, source="192.0.2.66"),
                         "refused")
        self.assertEqual(self.ask(outside, "tcp", self.node.UPLINK, 28080, source="192.0.2.10"),
                         "answered")
        self.assertEqual(self.node.node.count(proto="tcp", port=28080), 0)
        self.node.node.unserve(proto="tcp", port=28080)

    def test_container_port_is_not_reached_past_the_publication(self):
        outside = self.node.outside
        outside.run(argv=["ip", "route", "replace", "10.213.0.0/16", "via", self.node.UPLINK])
        self.assertEqual(self.ask(outside, "tcp", self.node.address("web"), 8080), "refused")

    def test_chosen_port_is_told_and_kept(self):
        def port():
            return next(p["node_port"] for p in self.node.json("list", "published")["published"]
                        if p["id"] == "chosen")

        first = port()
        self.assertTrue(20000 <= first <= 29999, first)
        self.assertEqual(self.ask(self.node.outside, "tcp", self.node.UPLINK, first), "answered")
        self.node.kill()
        self.node.start()
        self.assertEqual(port(), first)

    def test_withdrawn_publication_cuts_what_is_open(self):
        outside = self.node.outside
        for key, proto, to, port in (("t", "tcp", self.node.UPLINK, 28080),
                                     ("t6", "tcp", "2001:db8:1::1", 28080),
                                     ("u", "udp", self.node.UPLINK, 28053)):
            opened = outside.open(key=key, proto=proto, to=to, port=port)
            self.assertEqual(opened["result"], "answered", key)
        with self.undisturbed():
            self.node.apply("workloads: [{id: web, owner: ada, workflow: wf1}]")
            for key in ("t", "t6", "u"):
                self.assertIn(outside.talk(key=key, timeout=2)["result"], ("refused", "silent"),
                              key)
        for proto, port in (("tcp", 28080), ("udp", 28053)):
            self.assertEqual(self.ask(outside, proto, self.node.UPLINK, port), "refused")
        self.node.apply(WEB)
        self.assertEqual(self.ask(outside, "tcp", self.node.UPLINK, 28080), "answered")

    def test_containers_do_not_reach_each_other_through_published_ports(self):
        for name in ("closed", "out", "web"):
            result = self.ask(self.node.agents[name], "tcp", self.node.UPLINK, 28080, timeout=2)
            self.assertEqual(result, "refused", name)

    def test_way_out_is_what_was_declared(self):
        out, closed, there = self.node.agents["out"], self.node.agents["closed"], "192.0.2.10"
        for agent, proto, to, port, good in (
                (out, "tcp", there, 443, True), (out, "udp", there, 5353, False),
                (out, "udp", there, 443, False), (out, "tcp", there, 80, False),
                (out, "tcp", "192.0.2.66", 443, False), (out, "tcp", self.node.OUTSIDE6, 443, True),
                (out, "tcp", self.node.OUTSIDE6, 80, False),
                (out, "tcp", self.node.UPLINK, 443, False),
                (out, "tcp", "2001:db8:1::1", 443, False),
                (closed, "tcp", there, 443, False), (closed, "tcp", self.node.OUTSIDE6, 443, False)):
            with self.subTest((agent.name, proto, to, port)):
                self.assertEqual(self.ask(agent, proto, to, port),
                                 "answered" if good else "refused")

    def test_outside_sees_the_nodes_address(self):
        self.node.agents["out"].open(key="o", proto="tcp", to="192.0.2.10", port=443)
        seen = bed.run("ip", "netns", "exec", "outside", "ss", "-Htn", "state", "established",
                       "sport", "=", ":443").stdout
        self.assertIn(self.node.UPLINK, seen)
        self.assertNotIn("10.213.", seen)

    def test_withdrawn_way_out_cuts_what_is_open(self):
        out = self.node.agents["out"]
        for key, proto, to, port in (("4", "tcp", "192.0.2.10", 443),
                                     ("6", "tcp", self.node.OUTSIDE6, 443),
                                     ("u", "udp", "192.0.2.10", 4433)):
            self.assertEqual(out.open(key=key, proto=proto, to=to, port=port)["result"],
                             "answered", key)
        with self.undisturbed():
            self.node.apply("workloads: [{id: out, owner: ada, workflow: wf1}]")
            for key in "46u":
                self.assertEqual(out.talk(key=key)["result"], "refused", key)
        self.node.apply(WEB)

    def test_changed_profile_keeps_what_it_still_lets_pass(self):
        # A new source, or a new way out, is a new profile: no packet meets it half made.
        def world(number):
            return f"""
workloads:
- {{id: steady, owner: ada, workflow: wf1,
   publish: [{{port: 8080, node_port: 28081, allow_from: [192.0.2.0/24, 203.0.113.{number}]}},
             {{port: 53, protocol: UDP, node_port: 28054,
              allow_from: [192.0.2.0/24, "2001:db8:1::/64", 203.0.113.{number}]}}],
   egress: [{{cidr: 192.0.2.10/32, ports: [{{port: 4433, protocol: UDP}}]}},
            {{cidr: "2001:db8:1::/64", ports: [{{port: 443}}]}}, {{cidr: 203.0.113.{number}}},
            {{cidr: "2001:db8:2::{number}"}}]}}
"""
        with self.undisturbed():
            for number in range(1, 41):
                self.node.apply(world(number))
        self.node.apply(WEB)

    def test_service_is_ready_when_it_says_so_over_http(self):
        node = self.node
        hot, caller = node.container("hot"), node.container("caller")
        waiting = caller.begin("run", timeout=60, argv=[
            "curl", "--silent", "--max-time", "50", "http://hot:8000/healthy"])
        root = node.dir / "www"
        root.mkdir()
        server = bed.subprocess.Popen(
            ["ip", "netns", "exec", "hot", *bed.PYTHON, "-m", "http.server", "8000", "--directory",
             str(root), "--bind", "0.0.0.0"], stdout=bed.subprocess.DEVNULL,
            stderr=bed.subprocess.DEVNULL)
        try:
            until(lambda: hot.ask(proto="tcp", to="127.0.0.1", port=8000)["result"] != "refused",
                  "the server listens")
            not_yet = node.ctl("wait", "hot", "--timeout", "1s", check=False)
            self.assertEqual(not_yet.returncode, 1, "404 is not ready")
            (root / "healthy").write_text("yes")
            node.ready("hot")
            self.assertEqual(caller.end(waiting)["out"], "yes")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    unittest.main(verbosity=2)
