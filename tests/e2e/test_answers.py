"""What meshctl answers of the node agrees with what packets and names do: holds, names given up,
counts, health, the uplink's MTU."""
import json
import time
import unittest

from node import NodeTest, run, until

DB = "{id: db, owner: ada, workflow: wf1, name: db, hold: %s, serves: [{port: 5432}, " \
     "{port: 53, protocol: UDP}]}"
WORKER = "{id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}"
THIRD = "{id: third, owner: ada, workflow: wf1, peers: [{name: db}]}"
OLLAMA = "{id: %s, owner: %s, name: ollama, scope: CLUSTER, admit: CLUSTER, ready: NONE, " \
         "serves: [{port: 11434}]}"
CALLER = "{id: caller, owner: eve, peers: [{name: ollama, scope: CLUSTER}]}"
FAR = '{id: far, owner: ada, workflow: wf1, egress: [{cidr: "192.0.2.10/32"}]}'


def workloads(*some):
    return "workloads: [" + ", ".join(some) + "]"


class AnswersTest(NodeTest):
    def tearDown(self):
        for name in list(self.node.agents):
            self.node.agents.pop(name).stop()
        for workload in self.node.json("list", "workloads")["workloads"]:
            self.node.ctl("delete", workload["id"], "--force")
        super().tearDown()

    def explain(self, *flow):
        told = self.node.json("explain", *flow)
        return told["verdict"], told["reason"]

    # --- holds --------------------------------------------------------------------------

    def test_held_is_told_while_packets_wait_and_refused_when_they_are(self):
        self.node.apply(workloads(DB % "6s", WORKER))
        worker = self.node.container("worker")
        begun = time.monotonic()
        vip = self.node.vip("db")
        waiting = [worker.begin("ask", proto="tcp", to=self.node.vip("db", family), port=5432,
                                timeout=20) for family in (4, 6)]
        for destination in ("db", vip, "db.wf1.wf.mesh.internal"):
            verdict, reason = self.explain("worker", destination, "5432")
            self.assertEqual(verdict, "HELD", reason)
            self.assertRegex(reason, r"no endpoint of .*db.* is ready: held for another [1-6] s")
        self.assertEqual(self.explain("worker", "db", "5433")[0], "REFUSED", "nobody serves it")
        shown = self.node.ctl("explain", "worker", "db", "5432").stdout
        self.assertIn("HELD", shown)
        # The names of a service that is held are answered.
        self.assertIn(vip, worker.lookup(name="db")["addresses"])
        for number in waiting:
            self.assertEqual(worker.end(number)["result"], "refused")
        self.assertGreater(time.monotonic() - begun, 5, "not before the hold is over")
        for destination in ("db", vip):
            verdict, reason = self.explain("worker", destination, "5432")
            self.assertEqual(verdict, "REFUSED")
            self.assertIn("the time to wait for one is over", reason)
        # And once somebody is there, it is neither.
        self.node.container("db").serve(proto="tcp", port=5432)
        self.node.ready("db")
        self.assertEqual(self.explain("worker", "db", "5432")[0], "ALLOWED")

    # --- names given up -----------------------------------------------------------------

    def release(self, name):
        return self.node.ctl("name", "release", name, check=False)

    def services(self):
        return [service["name"] for service in self.node.json("list", "services")["services"]]

    def test_name_is_its_owners_until_it_is_released(self):
        self.node.apply(workloads(OLLAMA % ("m1", "ada"), CALLER))
        vip, vip6 = self.node.vip("ollama"), self.node.vip("ollama", 6)
        self.node.container("m1").serve(proto="tcp", port=11434)
        caller = self.node.container("caller")
        self.assertEqual(caller.ask(proto="tcp", to=vip, port=11434)["result"], "answered")
        refused = self.release("ollama")
        self.assertEqual((refused.returncode, refused.stderr),
                         (1, "meshctl: name release: ollama is declared by m1\n"))
        self.assertEqual(caller.ask(proto="tcp", to=vip, port=11434)["result"], "answered")
        self.node.agents.pop("m1").stop()
        self.node.ctl("delete", "m1", "--force")
        # Nothing runs under it: it is ada's all the same.
        self.assertIn("ollama", self.services())
        taken = self.node.apply(workloads(OLLAMA % ("m2", "bob")), check=False)
        self.assertEqual(taken.returncode, 1)
        self.assertIn("name: ollama belongs to another owner", taken.stderr)
        released = self.release("ollama")
        self.assertEqual(released.returncode, 0, released.stderr)
        self.assertNotIn("ollama", self.services())
        self.assertEqual(caller.lookup(name="ollama.svc.mesh.internal")["addresses"], [])
        self.assertEqual(self.release("ollama").returncode, 1, "there is none")
        self.take("m2", "bob", {vip, vip6}, caller)

    def take(self, name, owner, resting, caller):
        """Another's now, and nobody who kept the old address comes to it by that."""
        self.node.apply(workloads(OLLAMA % (name, owner)))
        vips = {self.node.vip("ollama", family) for family in (4, 6)}
        self.assertEqual(vips & resting, set(), "what was given up rests")
        self.node.container(name).serve(proto="tcp", port=11434)
        for to in vips:
            self.assertEqual(caller.ask(proto="tcp", to=to, port=11434)["result"], "answered")
        for to in resting:
            self.assertEqual(caller.ask(proto="tcp", to=to, port=11434)["result"], "refused", to)
        self.assertEqual(set(caller.lookup(name="ollama.svc.mesh.internal")["addresses"]), vips)

    # --- counts -------------------------------------------------------------------------

    def flows(self):
        return {(flow["src"], flow["dst"], flow["protocol"], flow["port"]):
                (int(flow["packets"]), int(flow["bytes"]))
                for flow in self.node.json("list", "flows")["flows"]}

    def test_flows_between_peers_count_their_packets(self):
        self.node.apply(workloads(DB % "120s", WORKER, THIRD))
        db, worker = self.node.container("db"), self.node.container("worker")
        self.node.container("third")
        db.serve(proto="udp", port=53)
        udp, tcp = ("worker", "db", "UDP", 53), ("worker", "db", "TCP", 5432)
        none = {(src, "db", proto, port): (0, 0) for src in ("worker", "third")
                for proto, port in (("UDP", 53), ("TCP", 5432))}
        self.assertEqual(self.flows(), none)
        # "ping" there and "pingdb" back, with the headers of IP and UDP.
        sizes = {4: 2 * 28 + 10, 6: 2 * 48 + 10}
        packets = size = 0
        for family, more in ((4, 5), (6, 7), (4, 3)):
            for to in (self.node.address("db", family), self.node.vip("db", family)):
                for _ in range(more):
                    asked = worker.ask(proto="udp", to=to, port=53)
                    self.assertEqual(asked["result"], "answered")
                packets, size = packets + 2 * more, size + sizes[family] * more
                self.assertEqual(self.flows(), {**none, udp: (packets, size)}, (family, to))
        # Nobody listens: what was sent and its refusal went through all the same.
        self.assertEqual(worker.ask(proto="tcp", to=self.node.address("db"),
                                    port=5432)["result"], "refused")
        self.assertEqual(self.flows()[tcp][0], 2)
        # Counts are the kernel's: a new daemon goes on with them.
        before = self.flows()
        self.node.kill()
        self.node.start()
        self.assertEqual(self.flows(), before)

    # --- health -------------------------------------------------------------------------

    def status(self):
        done = self.node.ctl("status", "-o", "json", check=False)
        return done.returncode, json.loads(done.stdout)

    def test_status_tells_a_node_in_trouble_by_its_exit(self):
        self.node.apply(workloads(DB % "120s"))
        code, told = self.status()
        self.assertEqual((code, told["healthy"], told["problems"]), (0, True, []))
        self.assertEqual(len(set(told["generations"].values())), 1, told)
        with self.node.rival():
            applied = self.node.apply(workloads(WORKER), check=False)
            self.assertEqual(applied.returncode, 1)
            self.assertIn("stored, not in force", applied.stderr)
            code, told = self.status()
            self.assertEqual((code, told["healthy"]), (1, False))
            self.assertEqual([problem["subject"] for problem in told["problems"]], ["rules"])
            generations = {key: int(value) for key, value in told["generations"].items()}
            self.assertEqual(generations["planned"], generations["stored"])
            self.assertLess(generations["installed"], generations["stored"])
            self.assertEqual(generations["named"], generations["installed"])
            shown = self.node.ctl("status", check=False)
            self.assertEqual((shown.returncode, shown.stderr), (1, ""))
            self.assertIn(told["problems"][0]["detail"], shown.stdout)
        until(self.node.healthy, "it gets well by itself")
        code, told = self.status()
        self.assertEqual((code, told["healthy"], told["problems"]), (0, True, []))
        self.assertEqual(len(set(told["generations"].values())), 1, told)

    def test_trouble_of_a_container_is_told_and_is_none_of_the_node(self):
        self.node.apply(workloads(DB % "120s"))
        db = self.node.container("db")
        db.serve(proto="tcp", port=5432, family=4, address="127.0.0.1")

        def told():
            code, answer = self.status()
            self.assertEqual((code, answer["healthy"]), (0, True))
            return [p["detail"] for p in answer["problems"] if p["subject"] == "db"]
        self.assertRegex(until(told, "it is told")[0], r"5432.*127\.0\.0\.1")

    # --- the uplink's MTU ---------------------------------------------------------------

    def mtus(self, name):
        """As it was answered, and of both ends."""
        facts = self.node.facts[name]
        ends = [run("ip", "-j", "link", "show", facts["host_ifname"]),
                run("ip", "-n", name, "-j", "link", "show", "eth0")]
        return [facts["mtu"], *(json.loads(end.stdout)[0]["mtu"] for end in ends)]

    def test_containers_to_come_get_the_uplinks_mtu_and_others_find_the_path(self):
        run("ip", "route", "add", "default", "via", self.node.OUTSIDE[0])
        try:
            self.node.apply(workloads(FAR, WORKER))
            far = self.node.container("far")
            self.assertEqual(self.mtus("far"), [1500] * 3)
            run("ip", "link", "set", "up0", "mtu", "1300")
            run("ip", "-n", "outside", "link", "set", "eth0", "mtu", "1300")

            def follows():
                self.node.ctl("detach", "worker")
                return json.loads(self.node.ctl("prepare", "worker").stdout)["mtu"] == 1300
            until(follows, "the daemon has seen it")
            self.node.ctl("detach", "worker")
            self.node.container("worker")
            self.assertEqual(self.mtus("worker"), [1300] * 3)
            self.assertEqual(self.mtus("far"), [1500] * 3, "its packets find out by themselves")
            ping = ["ping", "-M", "do", "-c", "1", "-W", "5", "-s"]
            tried = far.run(argv=[*ping, "1400", self.node.OUTSIDE[0]])
            self.assertRegex(tried["out"] + tried["err"], r"mtu ?= ?1300")
            self.assertEqual(far.run(argv=[*ping, "1272", self.node.OUTSIDE[0]])["code"], 0)
        finally:
            for command in (("route", "del", "default"), ("link", "set", "up0", "mtu", "1500"),
                            ("-n", "outside", "link", "set", "eth0", "mtu", "1500")):
                run("ip", *command, check=False)


if __name__ == "__main__":
    unittest.main(verbosity=2)
