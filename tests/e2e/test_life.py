"""Containers come and go, services are waited for, peers are revoked, the daemon dies: what
was open and allowed goes on, what was closed stays closed, nothing is left behind."""
import difflib
import json
import pathlib
import signal
import time
import unittest

import node as bed
from node import NodeTest, until

DB = "{id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}, " \
     "{port: 53, protocol: UDP}]}"
WORKER = "{id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}"
OTHER = "{id: other, owner: ada, workflow: wf1, peers: [{name: db}]}"


def workloads(*some):
    return "workloads: [" + ", ".join(some) + "]"


class LifeTest(NodeTest):
    def setUp(self):
        if self.node.daemon is None:
            self.node.start()
        self.node.apply(workloads(DB, WORKER, OTHER))

    def tearDown(self):
        if self.node.daemon is None:
            self.node.start()
        for name in list(self.node.agents):
            self.node.agents.pop(name).stop()
        for workload in self.node.json("list", "workloads")["workloads"]:
            self.node.ctl("delete", workload["id"], "--force")
        super().tearDown()

    def run_db(self):
        db = self.node.container("db")
        db.serve(proto="tcp", port=5432)
        db.serve(proto="udp", port=53)
        self.node.ready("db")
        return db

    def test_first_connection_waits_for_the_service(self):
        worker = self.node.container("worker")
        waiting = [worker.begin("ask", proto="tcp", to=self.node.vip("db", family), port=5432,
                                timeout=30) for family in (4, 6)]
        by_name = worker.begin("run", argv=["bash", "-c", "exec 3<>/dev/tcp/db/5432 && echo up"],
                               timeout=30)
        refused = worker.ask(proto="tcp", to=self.node.vip("db"), port=5433)
        self.assertEqual(refused["result"], "refused", "a port that nobody serves is not held")
        stranger_port = worker.ask(proto="tcp", to=self.node.vip("db"), port=5432, timeout=0.3)
        self.assertEqual(stranger_port["result"], "silent")
        self.run_db()
        for number in waiting:
            self.assertEqual(worker.end(number)["result"], "answered")
        self.assertEqual(worker.end(by_name)["out"], "up\n")

    def test_port_declared_later_is_seen_soon_at_any_time(self):
        """Also long after the container got ready, and while another port lacks a family."""
        db, worker = self.node.container("db"), self.node.container("worker")
        db.serve(proto="tcp", port=5432, family=4)
        self.node.ready("db")
        vip = self.node.vip("db")
        rare = time.monotonic() + 4  # the daemon's looks at who is ready get rare before that
        for port in range(9000, 9100):
            late = time.monotonic() > rare
            db.serve(proto="tcp", port=port)
            self.node.apply(workloads(DB.replace("5432}", f"5432}}, {{port: {port}}}")))
            asked = worker.ask(proto="tcp", to=vip, port=port, timeout=20)
            self.assertEqual(asked["result"], "answered", f"port {port}")
            if late:
                break
        self.assertTrue(late)

    def test_revoke_cuts_what_is_open_and_nothing_else(self):
        self.run_db()
        worker, other = self.node.container("worker"), self.node.container("other")
        for agent in (worker, other):
            for family in (4, 6):
                for proto, port in (("tcp", 5432), ("udp", 53)):
                    for kind, to in (("address", self.node.address("db", family)),
                                     ("vip", self.node.vip("db", family))):
                        opened = agent.open(key=f"{kind}{proto}{family}", proto=proto, to=to,
                                            port=port)
                        self.assertEqual(opened["result"], "answered", (kind, proto, family))
        stop = self.node.dir / "stop"
        streams = {key: other.begin("stream", key=key, until=str(stop))
                   for key in ("viptcp4", "vipudp4", "addresstcp6", "addressudp6")}
        self.node.apply("workloads: [{id: worker, owner: ada, workflow: wf1}]")
        for kind in ("address", "vip"):
            for proto in ("tcp", "udp"):
                for family in (4, 6):
                    key = f"{kind}{proto}{family}"
                    self.assertEqual(worker.talk(key=key)["result"], "refused", key)
                    if key not in streams:
                        self.assertEqual(other.talk(key=key)["result"], "answered", key)
        stop.touch()
        for key, number in streams.items():  # of UDP a single lost packet would end it
            stream = other.end(number)
            self.assertEqual(stream["end"], "stopped", key)
            self.assertGreater(stream["rounds"], 0, key)
        stop.unlink()
        self.assertEqual(worker.lookup(name="db")["addresses"], [])

    def test_drain_keeps_open_connections_and_takes_no_new_ones(self):
        self.run_db()
        worker = self.node.container("worker")
        worker.open(key="a", proto="tcp", to=self.node.vip("db"), port=5432)
        worker.open(key="b", proto="tcp", to=self.node.address("db"), port=5432)
        self.node.ctl("drain", "db")
        for key in "ab":
            self.assertEqual(worker.talk(key=key)["result"], "answered")
        self.assertEqual(worker.ask(proto="tcp", to=self.node.address("db"),
                                    port=5432)["result"], "refused")
        self.assertEqual(worker.lookup(name="db.id.mesh.internal")["addresses"], [])

    def test_detach_ends_connections_and_the_service_is_waited_for_again(self):
        self.run_db()
        worker = self.node.container("worker")
        vip = self.node.vip("db")
        worker.open(key="a", proto="udp", to=vip, port=53)
        self.node.remove("db")
        self.assertEqual(worker.talk(key="a", timeout=0.3)["result"], "silent", "held")
        waiting = worker.begin("ask", proto="tcp", to=vip, port=5432, timeout=30)
        self.run_db()
        self.assertEqual(self.node.vip("db"), vip)
        self.assertEqual(worker.end(waiting)["result"], "answered")
        self.assertEqual(worker.talk(key="a")["result"], "answered", "led to the new one")

    def test_replicas_share_and_one_that_goes_is_not_missed(self):
        self.run_db()
        worker = self.node.container("worker")
        self.node.apply(workloads(DB.replace("id: db", "id: db2")))
        second = self.node.container("db2")
        second.serve(proto="tcp", port=5432)
        self.node.ready("db2")
        asks = [{"proto": "tcp", "to": self.node.vip("db"), "port": 5432}] * 60
        self.assertEqual(set(worker.ask_all(asks)), {"answered"})
        counts = [self.node.agents[name].count(proto="tcp", port=5432) for name in ("db", "db2")]
        self.assertEqual(sum(counts), 60)
        self.assertGreater(min(counts), 10, counts)
        self.node.remove("db2")
        self.assertEqual(set(worker.ask_all(asks)), {"answered"})
        self.node.ctl("delete", "db2")

    def test_container_that_ends_by_itself_is_detached(self):
        self.run_db()
        self.node.container("worker")
        self.node.agents.pop("db").stop()
        bed.run("ip", "netns", "del", "db")
        until(lambda: self.state("db") == "DECLARED", "the namespace's end is noticed")
        self.assertEqual(len(self.node.links()), 1)
        until(lambda: self.node.address("db") not in self.node.rules(), "rules are gone")

    def state(self, name):
        for workload in self.node.json("list", "workloads")["workloads"]:
            if workload["id"] == name:
                return workload["state"]
        return None

    # --- the daemon dies --------------------------------------------------------------

    def test_killed_and_restarted_it_writes_nothing_and_open_connections_go_on(self):
        self.run_db()
        worker = self.node.container("worker")
        worker.open(key="a", proto="tcp", to=self.node.vip("db"), port=5432)
        stop = self.node.dir / "stop"
        streaming = worker.begin("stream", key="a", until=str(stop))
        vip = self.node.vip("db")
        before = self.node.rules(handles=True)
        self.node.kill()
        self.assertEqual(worker.ask(proto="tcp", to=vip, port=5432)["result"],
                         "answered", "no daemon is needed for what is in force")
        self.node.start()
        self.assertEqual(self.node.rules(handles=True), before)
        self.assertEqual(worker.lookup(name="db")["addresses"],
                         sorted([self.node.vip("db"), self.node.vip("db", 6)]))
        stop.touch()
        stream = worker.end(streaming)
        stop.unlink()
        self.assertEqual(stream["end"], "stopped")

    def test_terminated_it_leaves_the_data_path_and_says_so_quickly(self):
        self.run_db()
        worker = self.node.container("worker")
        worker.open(key="a", proto="tcp", to=self.node.vip("db"), port=5432)
        start = time.monotonic()
        self.assertEqual(self.node.kill(signal.SIGTERM), 0)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(worker.talk(key="a")["result"], "answered")
        self.assertEqual(worker.ask(proto="tcp", to=self.node.address("db"),
                                    port=5432)["result"], "answered")
        self.node.start()

    def test_lookup_while_the_daemon_is_away_waits_and_does_not_fail(self):
        self.run_db()
        worker = self.node.container("worker")
        self.node.kill()
        asked = worker.begin("lookup", name="db", family=4)
        self.node.start()
        self.assertEqual(worker.end(asked)["addresses"], [self.node.vip("db")])

    def test_foreign_hands_are_put_right(self):
        self.run_db()
        worker = self.node.container("worker")
        before = self.node.rules()
        for damage in (["flush", "set", "inet", "meshd", "allow4"],
                       ["flush", "chain", "inet", "meshd", "guard"],
                       ["delete", "table", "inet", "meshd"],
                       ["flush", "ruleset"]):
            bed.run("nft", *damage)
            until(lambda: self.same(before), lambda: f"{damage} is put right: {self.differs(before)}")
        self.assertEqual(worker.ask(proto="tcp", to=self.node.vip("db"), port=5432)["result"],
                         "answered")

    def differs(self, before):
        return "\n".join(difflib.unified_diff(before.split("\n"), self.node.rules().split("\n"),
                                              lineterm="", n=0))

    def same(self, before):
        listing = bed.run("nft", "-j", "list", "table", "inet", "meshd", check=False)
        return listing.returncode == 0 and self.node.rules() == before

    def test_purge_takes_all_of_ours_and_nothing_else(self):
        self.run_db()
        bed.run("nft", "add table inet someone")
        bed.run("nft", "add chain inet someone c { type filter hook input priority 0; }")
        refused = bed.run(bed.BUILD / "meshd", "--config", self.node.config, "--purge",
                          check=False)
        self.assertEqual(refused.returncode, 1, "while a daemon runs")
        self.node.agents.pop("db").stop()
        self.node.kill()
        bed.run(bed.BUILD / "meshd", "--config", self.node.config, "--purge")
        self.assertEqual(bed.run("nft", "list tables").stdout, "table inet someone\n")
        self.assertEqual(self.node.links(), [])
        self.assertNotIn("169.254.1.1", bed.run("ip", "addr").stdout)
        self.assertNotIn("10.213.", bed.run("ip", "route", "show", "table", "all").stdout)
        bed.run("nft", "delete table inet someone")
        pathlib.Path("/run/netns/db").exists() and bed.run("ip", "netns", "del", "db")
        self.node.start()
        self.node.apply(workloads(DB, WORKER, OTHER))
        json.loads(self.node.ctl("list", "workloads", "-o", "json").stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
