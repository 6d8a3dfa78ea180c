"""A cluster beside an Arvados site: what the API (a stand-in, over TLS) says of containers is what
they may do, from the request that its user committed to the container's end."""
import json
import os
import pathlib
import time
import unittest

import yaml

from arvados_cluster import SECRET, TOKEN, ArvadosClusterTest, container, uuid
from cluster import ADMIN
from node import until

DB = {"name": "db", "serves": [{"port": 5432}]}
USER = {"peers": [{"name": "db", "ports": [{"port": 5432}]}]}
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/arvados.md"


def example():
    """What the example for authors declares, by step."""
    head = "#!/usr/bin/env cwl-runner"
    text = PAGE.read_text().partition(head)[2].partition("```")[0]
    hints = {name: step["run"]["hints"] for name, step in yaml.safe_load(text)["steps"].items()}
    return {name: hint["arv:ProcessProperties"]["processProperties"]["meshd"]
            for name, hint in hints.items()}


class ArvadosTest(ArvadosClusterTest):
    def asks(self, agent, to, timeout=3.0):
        return agent.ask(proto="tcp", to=to, port=5432, timeout=timeout)["result"]

    def serve(self, machine, number):
        agent = machine.container(container(number))
        agent.serve(proto="tcp", port=5432, family=46)
        machine.ctl("wait", container(number))
        return agent

    @staticmethod
    def resolve(agent, number):
        """The name of that very container."""
        return agent.query(name=f"{container(number)}.id.mesh.internal", kind="A",
                           server="169.254.1.1")

    def close(self, machine, number):
        machine.remove(container(number))
        self.ended(number)

    # --- what must work ---

    def test_steps_of_a_run_reach_their_database_and_nobody_elses(self):
        self.commit(10, DB, run_of=1)
        self.commit(11, USER, run_of=1)
        self.commit(12, USER, run_of=1)
        self.commit(20, DB, run_of=2)
        self.commit(21, USER, run_of=2)
        self.commit(30, USER, run_of=3)
        self.declared(30)
        declaration = self.workload(10)
        self.assertEqual((declaration["owner"], declaration["workflow"], declaration["name"]),
                         (uuid("tpzed", 1), container(1), "db"))
        first, second = self.serve(self.n1, 10), self.serve(self.n2, 20)
        users = {number: self.n2.container(container(number)) for number in (11, 12, 21, 30)}
        for number, wanted in ((11, first), (12, first), (21, second)):
            until(lambda n=number: users[n].lookup(name="db")["addresses"], f"{number} finds db")
            vip = users[number].lookup(name="db", family=4)["addresses"][0]
            until(lambda n=number, v=vip: self.asks(users[n], v) == "answered", f"{number} asks")
            before = wanted.count(proto="tcp", port=5432)
            self.assertEqual(self.asks(users[number], vip), "answered")
            self.assertEqual(wanted.count(proto="tcp", port=5432), before + 1)
        # Of another run: no name, and no way by its address.
        self.assertEqual(users[30].lookup(name="db")["addresses"], [])
        self.assertEqual(self.asks(users[30], self.n1.address_of(container(10))), "refused")
        self.assertEqual(self.asks(users[21], self.n1.address_of(container(10))), "refused")
        for machine, number in ((self.n1, 10), (self.n2, 20), *((self.n2, n) for n in users)):
            self.close(machine, number)
        until(lambda: not self.workload(10) and not self.workload(30), "who ended is forgotten")

    def test_example_for_authors_is_a_database_and_two_that_use_it(self):
        said = example()
        # CWL would take a mapping for the whole entry, and make an address of its `name`.
        self.assertEqual({type(text) for text in said.values()}, {str})
        steps = {"database": 60, "count": 61, "measure": 62}
        for name, text in said.items():
            self.commit(steps[name], text, run_of=6)
        self.declared(60)
        self.serve(self.n1, 60)
        for name in ("count", "measure"):
            user = self.n2.container(container(steps[name]))
            until(lambda u=user: u.lookup(name="db", family=4)["addresses"], "the name")
            vip = user.lookup(name="db", family=4)["addresses"][0]
            until(lambda u=user, v=vip: self.asks(u, v) == "answered", f"{name} asks")
        for name, machine in (("database", self.n1), ("count", self.n2), ("measure", self.n2)):
            self.close(machine, steps[name])

    def test_what_has_not_begun_to_run_is_declared_already(self):
        for number, what, state in ((50, DB, "Locked"), (51, USER, "Queued")):
            self.request(number, what, run_of=5)
            self.api.put("containers", uuid=container(number), state=state)
        for number, name in ((50, "db"), (51, "")):
            told = self.declared(number)
            self.assertEqual((told["name"], told["state"]), (name, "DECLARED"), number)
        # crunch-run makes a container while it is Locked: it gets its network then.
        self.serve(self.n1, 50)
        user = self.n2.container(container(51))
        until(lambda: user.lookup(name="db")["addresses"], "the name resolves")
        vip = user.lookup(name="db", family=4)["addresses"][0]
        until(lambda: self.asks(user, vip) == "answered", "it answers before either runs")
        for machine, number in ((self.n1, 50), (self.n2, 51)):
            self.close(machine, number)

    def test_what_its_author_calls_a_service_is_shown_as_one(self):
        for number, service in ((52, True), (53, False)):
            self.commit(number, service=service)
            self.assertEqual(self.declared(number)["launch"],
                             {"request": uuid("xvhdp", number), "service": service})
            self.ended(number)

    def test_who_attaches_first_is_asked_for_at_once(self):
        self.commit(40)
        self.declared(40)
        # Nothing is found by the readings of everything: each begins with who asks.
        self.api.fault("hang", path="^users/current$")
        self.api.take_asked()
        times = []
        for number in range(41, 51):
            self.commit(number, DB, run_of=4)
            begun = time.monotonic()
            self.n1.prepare(container(number))
            times.append((time.monotonic() - begun) * 1000)
        asked = [q for q in self.api.take_asked() if '"in"' in q["query"].get("filters", "")
                 and "container_uuid" in q["query"]["filters"]]
        self.assertGreaterEqual(len(asked), 10)
        self.api.heal()
        known = []
        for number in range(41, 51):
            self.n1.ctl("detach", container(number))
            begun = time.monotonic()
            self.n1.prepare(container(number))
            known.append((time.monotonic() - begun) * 1000)
        print(f"attach of a container that nobody has heard of: {sorted(times)[5]:.0f} ms, "
              f"of one that is known: {sorted(known)[5]:.0f} ms", flush=True)
        for number in range(41, 51):
            self.n1.ctl("detach", container(number))
            self.ended(number)

    def test_cancelled_it_lets_nobody_new_in_and_ends_nobody(self):
        self.commit(60, DB, run_of=6)
        self.commit(61, USER, run_of=6)
        self.declared(61)
        self.serve(self.n1, 60)
        user = self.n2.container(container(61))
        until(lambda: user.lookup(name="db")["addresses"], "the name resolves")
        vip = user.lookup(name="db", family=4)["addresses"][0]
        direct = self.n1.address_of(container(60))
        until(lambda: self.asks(user, vip) == "answered", "it answers")
        self.assertIn(direct, str(self.resolve(user, 60)["answers"]))
        stop = self.cluster.dir / "stop60"
        self.assertEqual(user.open(key="a", proto="tcp", to=direct, port=5432)["result"],
                         "answered")
        talk = user.begin("stream", key="a", until=str(stop))
        self.commit(60, DB, run_of=6, priority=0)
        until(lambda: self.workload(60)["state"] == "DRAINING", "it drains")
        until(lambda: self.asks(user, direct) == "refused", "nothing new is let in")
        until(lambda: self.asks(user, vip, 1.0) != "answered", "nor by its name")
        # Its own name leads nowhere, and says why; the service's stays, with nobody behind it.
        until(lambda: not self.resolve(user, 60)["answers"], "its name is out")
        self.assertIn("EDE 14", str(self.resolve(user, 60)["options"]))
        self.assertEqual(user.lookup(name="db", family=4)["addresses"], [vip])
        # Long after that the open one goes on.
        until(lambda t=time.monotonic(): time.monotonic() > t + 2, "it goes on")
        stop.touch()
        spoken = user.end(talk)
        self.assertEqual(spoken["end"], "stopped", spoken)
        # Taken back.
        self.commit(60, DB, run_of=6, priority=500)
        until(lambda: self.asks(user, direct) == "answered", "it is let in again")
        until(lambda: self.resolve(user, 60)["answers"], "its name is back")
        self.close(self.n1, 60)
        self.close(self.n2, 61)

    def test_a_new_container_of_the_same_request_has_its_name(self):
        self.commit(70, DB, run_of=7)
        self.commit(71, USER, run_of=7)
        self.declared(71)
        self.serve(self.n1, 70)
        user = self.n2.container(container(71))
        until(lambda: user.lookup(name="db")["addresses"], "the name resolves")
        vip = user.lookup(name="db", family=4)["addresses"][0]
        until(lambda: self.asks(user, vip) == "answered", "it answers")
        self.n1.remove(container(70))
        self.ended(70, "Cancelled")
        self.commit(70, DB, run_of=7, of=79)
        other = self.serve(self.n2, 79)
        until(lambda: self.asks(user, vip) == "answered", "the name is the new one's")
        self.assertGreater(other.count(proto="tcp", port=5432), 0)
        self.assertEqual(user.lookup(name="db", family=4)["addresses"], [vip])
        self.close(self.n2, 79)
        self.close(self.n2, 71)

    def test_what_its_author_wrote_wrong_is_closed_and_listed(self):
        self.commit(80, {"name": "db", "serves": [{"port": 0}]}, run_of=8)
        self.commit(81, USER, run_of=8)
        self.declared(81)
        problem = self.workload(80)["problems"]
        self.assertEqual(problem, [f"container request {uuid('xvhdp', 80)}: properties.meshd: "
                                   "serves[0].port: must be 1 to 65535, not 0"])
        self.assertIn(problem[0], self.cluster.ctl("list", "workloads").stdout)
        explained = self.cluster.ctl("explain", container(81), container(80), "5432",
                                     check=False).stdout
        self.assertIn("serves[0].port", explained)
        # People hear why it is not theirs to change.
        refused = self.cluster.apply(f"- {{id: {container(81)}, owner: {uuid('tpzed', 1)}}}\n",
                                     check=False)
        self.assertIn("it follows its container request", refused.stderr)
        self.assertNotEqual(self.cluster.ctl("delete", container(81), "--force",
                                             check=False).returncode, 0)
        for number in (80, 81):
            self.ended(number)

    def test_an_api_that_is_slow_down_or_lying_ends_nothing_and_opens_nothing(self):
        self.commit(90, DB, run_of=9)
        self.commit(91, USER, run_of=9)
        self.commit(92, user=2)
        self.declared(92)
        self.serve(self.n1, 90)
        user = self.n2.container(container(91))
        other = self.n2.container(container(92))
        until(lambda: user.lookup(name="db")["addresses"], "the name resolves")
        vip = user.lookup(name="db", family=4)["addresses"][0]
        until(lambda: self.asks(user, vip) == "answered", "it answers")
        direct = self.n1.address_of(container(90))
        lies = {
            "nothing is listed any more": ("body", {"body": '{"items":[]}'}),
            "a proxy's page": ("body", {"body": "<html>no</html>", "type": "text/html"}),
            "cut": ("cut", {}),
            "down for repair": ("status", {"status": 503}),
            "our token is nobody's": ("status", {"status": 401}),
            "elsewhere": ("redirect", {"to": f"https://{ADMIN}:{self.api.port}/arvados/v1/links"}),
            "other containers": ("body", {"body": json.dumps({"items": [
                {"uuid": container(5), "state": "Running"}]}), "path": "^containers$"}),
        }
        for lie, (kind, how) in lies.items():
            with self.subTest(lie):
                self.api.fault(kind, **how)
                self.api.remove("container_requests", uuid("xvhdp", 90))  # so it is asked for
                trouble = until(self.trouble, f"{lie}: it is told")
                self.assertIn("away since", trouble)
                self.assertEqual(self.asks(user, vip), "answered")
                self.assertEqual(self.asks(other, direct), "refused")
                self.assertEqual(self.workload(90)["name"], "db")
                self.commit(90, DB, run_of=9)
                self.api.heal()
                until(lambda: not self.trouble(), f"{lie}: it is believed again", patience=70)
        # Down: the port refuses.
        self.api.stop()
        until(self.trouble, "it is told")
        waiting = self.n2.begin("prepare", container(93), "--resolv-conf",
                                self.n2.dir / "93.resolv")
        self.assertEqual(self.asks(user, vip), "answered")
        self.commit(93, DB, run_of=9)
        self.api.start()
        self.assertEqual(waiting.wait(timeout=70), 0, "it waited, and was found")
        until(lambda: not self.trouble(), "it answers again", patience=70)
        self.n2.ctl("detach", container(93))
        self.ended(93)
        for machine, number in ((self.n1, 90), (self.n2, 91), (self.n2, 92)):
            self.close(machine, number)

    def test_the_token_is_in_no_message_log_or_list_of_processes(self):
        self.commit(100, DB, run_of=10)
        self.declared(100)
        self.n1.prepare(container(100))
        self.api.fault("status", status=401, text=f"token {TOKEN} is not good", times=3)
        until(self.trouble, "it is told")
        until(lambda: not self.trouble(), "it is over", patience=30)
        self.no_token_anywhere()
        # What the node holds in memory is what it was sent.
        for process in (self.n1.process.pid, self.n2.process.pid):
            self.assertNotIn(SECRET.encode(), memory(process))
        self.assertIn(SECRET.encode(), memory(self.c1.process.pid), "void")
        for pid in (p for p in os.listdir("/proc") if p.isdigit()):
            for what in ("cmdline", "environ"):
                try:
                    text = pathlib.Path("/proc", pid, what).read_bytes()
                except OSError:
                    continue
                self.assertNotIn(SECRET.encode(), text, pid)
        self.n1.ctl("detach", container(100))
        self.ended(100)

    def test_there_is_one_line_of_audit_for_each_change_and_none_for_a_reading(self):
        self.commit(110, DB, run_of=11)
        self.declared(110)
        lines = self.audited()
        self.api.take_asked()
        until(lambda: len(self.api.asked) > 20, "it is read some times")
        self.assertEqual(self.audited(), lines)
        self.ended(110)
        until(lambda: not self.workload(110), "it is forgotten")
        self.assertEqual(self.audited() - lines, 1)

    def audited(self):
        return self.c1.log.read_text().count("audit arvados/api: ")


def memory(pid):
    """All that a process can write to, as bytes."""
    parts = []
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            span, mode = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if "rw" not in mode or end - start > 1 << 30:
                continue  # shadow memory of sanitizers holds no text
            try:
                mem.seek(start)
                parts.append(mem.read(end - start))
            except (OSError, OverflowError, ValueError):
                continue
    return b"".join(parts)


if __name__ == "__main__":
    unittest.main(verbosity=2)
