"""`meshctl watch`: what happens is told, once and in order, and who does not read holds up
nobody."""
import json
import signal
import unittest

import node as bed
from node import NodeTest, run, until

DB = "{id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}"
STRANGER = "{id: stranger, owner: ada, workflow: wf1}"
# The limits of the daemon: watchers at the same time, events that one has not read.
WATCHERS, UNREAD = 64, 4096
LONG = 100.0  # for so many processes to start, or to read all that


def workloads(*some):
    return "workloads: [" + ", ".join(some) + "]"


class Events(bed.Watch):
    def __init__(self, node, *options):
        super().__init__(node, "-o", "json", *options)

    def all(self):
        return [json.loads(line) for line in self.lines()]

    def of(self, *ids):
        return [event for event in self.all() if event["id"] in ids]

    def kinds(self, *ids):
        return [event["kind"] for event in self.of(*ids)]


class WatchTest(NodeTest):
    def tearDown(self):
        for name in list(self.node.agents):
            self.node.agents.pop(name).stop()
        for workload in self.node.json("list", "workloads")["workloads"]:
            self.node.ctl("delete", workload["id"], "--force")
        super().tearDown()

    def tell(self, name="herald"):
        """Something that every watcher hears of."""
        self.node.apply(workloads(f"{{id: {name}, owner: ada, workflow: wf1}}"))
        self.node.ctl("delete", name)

    def hears(self, *watchers):
        def heard():
            self.tell()
            return all(watch.of("herald") for watch in watchers)
        until(heard, "they hear")

    def has_heard_all(self, *watchers):
        self.tell("last")
        until(lambda: all("DELETED" in watch.kinds("last") for watch in watchers), "the last", LONG)

    def test_life_of_a_container_is_told_in_order(self):
        with Events(self.node) as watch:
            self.hears(watch)
            self.node.apply(workloads(DB))
            db = self.node.container("db")
            db.serve(proto="tcp", port=5432)
            self.node.ready("db")
            self.node.ctl("drain", "db")
            self.node.remove("db")
            self.node.ctl("delete", "db")
            self.has_heard_all(watch)
            self.assertEqual(watch.kinds("db"), ["DECLARED", "ATTACHED", "READY", "DRAINING",
                                                 "DETACHED", "DELETED"])
            for address in self.node.facts["db"]["addresses"]:
                self.assertIn(address, watch.of("db")[1]["detail"])
            times = [event["time"] for event in watch.all()]
            self.assertEqual(times, sorted(times))
            for time in times:
                self.assertRegex(time, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")

    def test_repair_is_told_once(self):
        self.node.apply(workloads(DB))
        self.node.container("db")
        with Events(self.node) as watch:
            self.hears(watch)
            run("nft", "flush", "set", "inet", "meshd", "bind4")
            until(lambda: watch.of(""), "the repair is told")
            self.has_heard_all(watch)
            self.assertEqual([(event["kind"], event["detail"]) for event in watch.of("")],
                             [("REPAIRED", "1 elements of bind4 were missing")])

    def test_refusals_are_told_with_both_ends_and_what_is_missing(self):
        self.node.apply(workloads(DB, STRANGER))
        stranger = self.node.container("stranger")
        self.node.container("db").serve(proto="tcp", port=5432)
        with Events(self.node) as watch, Events(self.node, "--refused") as refused:
            self.hears(watch)

            # It hears of these alone.
            def told():
                asked = stranger.ask(proto="tcp", to=self.node.address("db"), port=5432)
                self.assertEqual(asked["result"], "refused")
                stranger.lookup(name="db", family=4)
                return set(refused.kinds("stranger")) == {"REFUSED_FLOW", "REFUSED_NAME"}
            until(told, lambda: refused.lines())
            self.assertEqual(refused.all(), refused.of("stranger"))
            self.has_heard_all(watch)
            for events in (refused.of("stranger"), watch.of("stranger")):
                flow = next(event for event in events if event["kind"] == "REFUSED_FLOW")
                self.assertEqual(flow["peer"], "db")
                self.assertRegex(flow["detail"], r"^tcp/5432: ")
                self.assertRegex(flow["missing"], r"stranger.*peers.*db")
                name = next(event for event in events if event["kind"] == "REFUSED_NAME")
                self.assertRegex(name["peer"], r"^db\.")
                self.assertIn("you declare no peer db", name["detail"])

    # --- limits -------------------------------------------------------------------------

    def has_room(self):
        """For one that comes now: the daemon hears of those who leave a little later."""
        with Events(self.node) as watch:
            def heard():
                self.tell()
                return watch.process.poll() is not None or watch.of("herald")
            until(heard, "it hears or ends")
            return bool(watch.of("herald"))

    def test_only_so_many_watch_at_the_same_time(self):
        watchers = [self.node.begin("watch") for _ in range(WATCHERS + 1)]
        try:
            def refused():
                return [one for one in watchers if one.poll() is not None]
            until(refused, "one is refused", LONG)
            self.node.connected(WATCHERS - 2, LONG)
            self.assertTrue(self.node.healthy(), "other calls have room")
            late = refused()
            # The watchers of the test before may have been counted for a moment longer.
            self.assertLess(len(late), 4)
            for one in late:
                watchers.remove(one)
                self.assertEqual(one.communicate()[1], "meshctl: watch: too many watchers\n")
                self.assertEqual(one.returncode, 1)
            leaving = watchers.pop()
            leaving.send_signal(signal.SIGINT)
            leaving.communicate(timeout=bed.PATIENCE)
            self.assertEqual(leaving.returncode, 0)
            until(self.has_room, "there is room for one")
        finally:
            for one in watchers:
                one.kill()
            for one in watchers:
                one.communicate()
        until(self.has_room, "there is room for all")

    def test_who_reads_too_slowly_is_dropped_and_told_and_others_miss_nothing(self):
        ids = [f"w{i:03}" for i in range(1000)]
        rounds = 2 * UNREAD // len(ids)  # with what is on its way to a client
        with Events(self.node) as slow, Events(self.node) as watch:
            self.hears(slow, watch)
            slow.process.send_signal(signal.SIGSTOP)
            for i in range(rounds):
                self.node.apply("workloads:\n" + "".join(
                    f"- {{id: {one}, owner: ada, workflow: wf1, hold: {i}s}}\n" for one in ids))
                # Whoever reads is never behind by more than what it is given at once.
                until(lambda: len(watch.lines('"id":"w')) == (i + 1) * len(ids),
                      lambda: f"{len(watch.lines())} lines, ended: {watch.process.poll()}", LONG)
            self.has_heard_all(watch)
            self.assertEqual([event["id"] for event in watch.of(*ids)], ids * rounds)
            slow.process.send_signal(signal.SIGCONT)
            error = slow.process.communicate(timeout=LONG)[1]
            self.assertEqual(slow.process.returncode, 1)
            self.assertEqual(error, "meshctl: watch: this client reads too slowly\n")
            heard = [event["id"] for event in slow.of(*ids)]
            self.assertEqual(heard, (ids * rounds)[:len(heard)], "what it heard is whole")


if __name__ == "__main__":
    unittest.main(verbosity=2)
