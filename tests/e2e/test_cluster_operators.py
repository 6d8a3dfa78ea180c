"""What operators see of a cluster: refusals of all nodes with what is missing, events, why a flow
passes or not, metrics; and what a dismissed node is told. The real programs on two nodes."""
import json
import subprocess
import threading
import unittest

from cluster import Cluster
from node import BUILD, PYTHON, run, until
from test_cluster import DB, STRANGER, WORKER

METRICS = 9470
# A monitor's own parser says whether it is a text that monitors read.
SCRAPE = """
import json, sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families
text = urllib.request.urlopen(sys.argv[1], timeout=20).read().decode()
out = {}
for family in text_string_to_metric_families(text):
    for sample in family.samples:
        labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
        out[sample.name + ("{" + labels + "}" if labels else "")] = sample.value
print(json.dumps(out))
"""


class Watch:
    def __init__(self, cluster, *options):
        self.process = subprocess.Popen(
            [BUILD / "meshctl", "--controller", cluster.endpoints(), "--identity",
             cluster.controllers[0].store / "admin.pem", "watch", "-o", "json", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def heard(self, kind, who, **fields):
        return [e for e in list(self.events) if e["kind"] == kind and e["id"] == who
                and all(e[key] == value for key, value in fields.items())]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


class OperatorsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster = Cluster()
        listen = f'metrics: {{listen: "127.0.0.1:{METRICS}"}}\n'
        cls.c1 = cluster.controllers[0]
        for host in (cls.c1, *cluster.machines):
            host.config.write_text(host.config.read_text() + listen)
        cluster.make()
        cls.c1.start()
        cls.n1, cls.n2 = cluster.machines
        cls.n1.start()
        cls.n2.start()
        until(lambda: cluster.ctl("status", check=False).returncode == 0, "the controller is there")
        until(lambda: cls.nodes() == {"n1": True, "n2": True}, "both nodes have joined")
        cluster.apply(DB + WORKER + STRANGER)
        cls.n1.container("db").serve(proto="tcp", port=5432)
        cls.n2.container("worker")
        cls.n2.container("stranger")

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    @classmethod
    def nodes(cls):
        answer = cls.cluster.ctl("list", "nodes", "-o", "json", check=False)
        if answer.returncode != 0:
            return {}  # it does not answer yet
        return {n["name"]: n["connected"] for n in json.loads(answer.stdout)["nodes"]}

    def scrape(self, machine=None):
        url = f"http://127.0.0.1:{METRICS}/metrics"
        argv = [*PYTHON, "-c", SCRAPE, url]
        return json.loads((machine or self.c1).run(*argv).stdout)

    def refused(self, ask=None):
        listing = ask("list", "refused", "-o", "json").stdout if ask else None
        listing = json.loads(listing) if ask else self.cluster.json("list", "refused")
        return {(r["consumer"], r["provider"], r["port"]): r for r in listing["refused"]}

    def explain(self, *what):
        return self.cluster.json("explain", *what)

    def administrate(self, *what, check=True):
        return run(BUILD / "mesh-controller", *what, "--dir", self.c1.store, "--controller",
                   self.c1.endpoint, check=check)

    def test_1_refusals_are_told_with_what_is_missing(self):
        stranger = self.n2.agents["stranger"]
        address = next(a for a in self.n1.facts["db"]["addresses"] if ":" not in a)
        with Watch(self.cluster, "--refused") as watch:
            def tried():
                self.assertEqual(
                    stranger.ask(proto="tcp", to=address, port=5432)["result"], "refused")
                return watch.heard("REFUSED_FLOW", "stranger", peer="db")
            event = until(tried, "it is told")[0]
        self.assertEqual(event["missing"], "in stranger: peers: [{id: db}]")
        self.assertEqual(event["node"], "n2")
        told = self.refused()[("stranger", "db", 5432)]
        self.assertEqual((told["missing"], told["node"], told["owner"], told["workflow"]),
                         (event["missing"], "n2", "bob", "r2"))
        self.assertGreater(int(told["count"]), 0)
        self.assertIn(("stranger", "db", 5432), self.refused(self.n2.ctl))
        # A declared peer that is there, by a port that it does not serve.
        worker = self.n2.agents["worker"]
        until(lambda: worker.ask(proto="tcp", to=address, port=5432)["result"] == "answered",
              "the flow is confirmed")
        self.assertEqual(worker.ask(proto="tcp", to=address, port=81)["result"], "refused")
        mine = until(lambda: self.refused(self.n2.ctl).get(("worker", "db", 81)), "it is listed")
        self.assertEqual(mine["missing"], "in db: serves: [{port: 81}]")
        self.assertEqual(worker.lookup(name="cache")["addresses"], [])
        until(lambda: ("worker", "cache", 0) in self.refused(), "a name that was withheld")
        self.assertEqual(self.refused()[("worker", "cache", 0)]["missing"],
                         "in worker: peers: [{name: cache}]")

    def test_2_explains_across_nodes(self):
        answer = until(lambda: self.explain("worker", "db", "5432"), "an answer")
        self.assertEqual(answer["verdict"], "ALLOWED")
        self.assertIn("db is on node n1", answer["lines"])
        self.assertIn("worker is on node n2", answer["lines"])
        self.assertEqual(self.explain("stranger", "db.r1.wf.mesh.internal", "5432")["verdict"],
                         "REFUSED")

    def test_3_events_of_all_nodes(self):
        with Watch(self.cluster) as watch:
            def hears():
                self.cluster.apply("- {id: herald, owner: ada}\n")
                self.cluster.ctl("delete", "herald")
                return watch.heard("DECLARED", "herald")
            until(hears, "it hears")
            self.n2.remove("stranger")
            until(lambda: watch.heard("DETACHED", "stranger", node="n2"), "the detach")
            self.n1.container("stranger")
            until(lambda: watch.heard("MOVED", "stranger", node="n1"), "the move")
            until(lambda: watch.heard("ATTACHED", "stranger", node="n1"), "the attach")
            self.n2.kill()
            until(lambda: watch.heard("NODE_DOWN", "n2"), "its session has ended")
            until(lambda: "node n2 is not connected" in
                  self.explain("worker", "db", "5432")["lines"], "which explain says")
            self.n2.start()
            until(lambda: watch.heard("NODE_UP", "n2"), "its session has begun")
            self.c1.kill()
            self.assertEqual(watch.process.wait(timeout=30), 3)
        self.c1.start()
        until(lambda: self.cluster.ctl("status", check=False).returncode == 0, "it is back")
        until(lambda: self.nodes() == {"n1": True, "n2": True}, "both nodes are back")

    def test_4_a_reader_looks_and_changes_nothing(self):
        made = self.cluster.dir / "eve.pem"
        self.administrate("certify", "reader", "eve", "-o", made)
        def ask(*what):
            return run(BUILD / "meshctl", "--controller", self.c1.endpoint, "--identity", made,
                       "--authorities", self.c1.store / "authorities.pem", *what,
                       check=False, stdin="workloads: [{id: x, owner: eve}]")
        for what in (("list", "refused"), ("explain", "worker", "db", "5432"), ("list", "nodes")):
            self.assertEqual(ask(*what).returncode, 0, what)
        refused = ask("apply", "-f", "-")
        self.assertEqual((refused.returncode, refused.stderr),
                         (1, "meshctl: mesh://mesh/reader/eve may not do that\n"))
        self.assertEqual(
            self.scrape()["mesh_controller_turned_away_total{reason=role}"], 1)

    def test_5_metrics(self):
        node = self.scrape(self.n1)
        self.assertEqual(node["meshd_healthy"], 1)
        self.assertEqual(node["meshd_controller_connected"], 1)
        self.assertGreater(node["meshd_workloads{state=ready}"], 0)
        self.assertGreater(node["meshd_flows"], 0)
        self.assertGreater(node["meshd_commands_total{command=attach,outcome=done}"], 0)
        before = self.scrape(self.n2)
        self.n2.agents["worker"].lookup(name="db", family=4)
        self.n2.agents["worker"].ask(
            proto="tcp", to=next(a for a in self.n1.facts["db"]["addresses"] if ":" not in a),
            port=82)
        after = self.scrape(self.n2)
        for name in ("meshd_dns_queries_total", "meshd_dns_answers_total{rcode=NOERROR}",
                     "meshd_refused_flows_total",
                     "meshd_dropped_packets_total{counter=c_refused}"):
            with self.subTest(name=name):
                self.assertGreater(after[name], before[name])
        self.assertEqual(len({after["meshd_generation{stage=%s}" % stage] for stage in (
            "stored", "planned", "installed", "named", "reported")}), 1)
        controller = self.scrape()
        self.assertEqual(controller["mesh_controller_nodes{state=connected}"], 2)
        self.assertEqual(controller["mesh_controller_store_up"], 1)
        self.assertEqual(controller["mesh_controller_revision"],
                         int(self.cluster.json("status")["generations"]["stored"]))
        # Nothing of a container stands in it.
        for name in (*after, *controller):
            for word in ("worker", "stranger", "ada", "10.213."):
                self.assertNotIn(word, name)
        # From a container the node's loopback and addresses are out of reach.
        self.assertEqual(self.n2.agents["worker"].ask(proto="tcp", to=self.n2.address,
                                                      port=METRICS)["result"], "refused")

    def test_6_a_dismissed_node_joins_again(self):
        self.n2.remove("worker")
        self.administrate("node", "dismiss", "n2")
        self.assertEqual(self.nodes(), {"n1": True})
        until(lambda: "dismissed by an administrator" in
              self.n2.ctl("status", check=False).stdout, "the node says why")
        until(lambda: "dismissed by an administrator" in
              self.n2.log.read_text(), "and logs it")
        log = self.c1.log
        self.assertIn("audit admin/admin: node dismiss n2: done", log.read_text())
        self.n2.kill()
        self.n2.start()
        until(lambda: "turned away: node n2: dismissed" in log.read_text(), "it is not let in")
        self.assertEqual(self.nodes(), {"n1": True}, "its certificate is good no more")
        self.n2.kill()
        (self.n2.dir / "state/identity.pem").unlink()
        self.n2.start()
        until(lambda: self.nodes() == {"n1": True, "n2": True}, "it has joined again")


if __name__ == "__main__":
    unittest.main(verbosity=2)
