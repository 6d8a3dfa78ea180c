"""Three nodes, two controllers and their database's primary, any of them killed at any moment of
churn: what was acknowledged holds, what is forbidden never arrives, and a conversation between two
nodes goes on."""
import os
import random
import time
import unittest

from node import until
from postgres import PostgresTest

ROUNDS = int(os.environ.get("MESHD_KILLS", "8"))
SEED = int(os.environ.get("MESHD_SEED", "8"))
STRANGERS = "".join(f"- {{id: stranger{i}, owner: ada, workflow: r1}}\n" for i in (2, 3))
NAMES = [f"c{i}" for i in range(6)]
NOWHERE = (None, None)


def declaration(name, port):
    return (f"- {{id: {name}, owner: ada, workflow: r1, peers: [{{name: db}}], "
            f"serves: [{{port: {port}}}]}}\n")


class Operation:
    """One command, and what it means for what is known of a workload: the port that it serves
    and the node that it is on."""

    def __init__(self, cluster, name, known, dice):
        self.cluster, self.name, self.before = cluster, name, known
        port, node = known
        choices = ["apply"]
        if port:
            choices += ["delete", "detach" if node else "attach", "detach" if node else "attach"]
        self.verb = dice.choice(choices)
        self.machine = node or dice.choice(cluster.machines).name
        new = dice.randrange(10000, 60000)
        self.after = {"apply": (new, node), "attach": (port, self.machine),
                      "detach": (port, None), "delete": NOWHERE}[self.verb]
        self.text = "workloads:\n" + declaration(name, new) if self.verb == "apply" else None

    def begin(self):
        if self.verb in ("apply", "delete"):
            words = (["apply", "-f", "-"] if self.text else ["delete", self.name, "--force"])
            self.process = self.cluster.begin(*words, stdin=self.text)
        else:
            machine = next(m for m in self.cluster.machines if m.name == self.machine)
            verb = "prepare" if self.verb == "attach" else "detach"
            self.process = machine.begin(verb, self.name)

    def end(self):
        """The states that the workload may have now."""
        _, self.error = self.process.communicate(timeout=90)
        if self.process.returncode == 0:
            return {self.after}
        return {self.before, self.after}


class Primary:
    """Of the controllers' database: when it dies the standby takes over, and gets one itself."""
    name = "primary"

    def __init__(self, pair):
        self.pair = pair

    def kill(self):
        self.pair.primary.kill()

    def start(self):
        self.pair.promote()
        self.pair.renew_standby()


class KillsTest(PostgresTest):
    OPTIONS = {"nodes": 3}

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.primary = Primary(cls.pair)
        cls.n3 = cls.cluster.machines[2]
        cls.cluster.apply(STRANGERS)
        cls.strangers = [cls.n2.container("stranger2"), cls.n3.container("stranger3")]
        cls.db.serve(proto="udp", port=53)
        for proto, port in (("tcp", 5432), ("udp", 53)):
            cls.worker.serve(proto=proto, port=port)

    def forbidden(self):
        """Everybody, both families, TCP and UDP, by address and by VIP."""
        targets = []
        for machine, name in ((self.n1, "db"), (self.n2, "worker")):
            for family in (4, 6):
                to = machine.address_of(name, family)
                targets += [["tcp", to, 5432], ["udp", to, 53]]
        for vip in self.worker.lookup(name="db")["addresses"]:
            targets += [["tcp", vip, 5432], ["udp", vip, 53]]
        return targets

    def arrivals(self):
        return [agent.count(proto=proto, port=port) for agent in (self.db, self.worker)
                for proto, port in (("tcp", 5432), ("udp", 53))]

    def actual(self):
        """By the controller's word, which has to be the nodes' as well: None while it is not."""
        found = {}
        for workload in self.cluster.json("list", "workloads")["workloads"]:
            attachment = workload["attachment"]
            there = attachment and attachment["addresses"]
            found[workload["id"]] = (workload["serves"][0]["port"] if workload["serves"] else 0,
                                     attachment["node"] if there else None)
        for machine in self.cluster.machines:
            own = {w["id"] for w in machine.json("list", "workloads")["workloads"]
                   if w["state"] != "DECLARED" and w["attachment"]["host_ifname"]}
            if own != {name for name, (_, node) in found.items() if node == machine.name}:
                return None
        return {name: found.get(name, NOWHERE) for name in NAMES}

    def everybody(self):
        return [*self.cluster.machines, *self.cluster.controllers, self.primary]

    def draw(self, dice):
        """One or two; everybody comes before anybody comes again."""
        victims = []
        for _ in range(dice.choice((1, 1, 2))):
            if not self.deck:
                self.deck = self.everybody()
                dice.shuffle(self.deck)
            victims.append(self.deck.pop())
        return list(dict.fromkeys(victims))

    def round(self, known, dice):
        """Commands on some workloads at a time, and one or two of the programs killed meanwhile."""
        names = dice.sample(NAMES, 3)
        operations = [Operation(self.cluster, name, known[name], dice) for name in names]
        victims = self.draw(dice)
        for operation in operations:
            operation.begin()
        for victim in victims:
            end = time.monotonic() + dice.uniform(0.0, 0.4)
            until(lambda e=end: time.monotonic() > e, "a moment")
            victim.kill()
        # A controller that finds no database ends, and is started again by whoever runs it.
        for victim in sorted(victims, key=lambda one: one is not self.primary):
            victim.start()
        may_be = {name: {state} for name, state in known.items()}
        for operation in operations:
            may_be[operation.name] = operation.end()
        self.cluster.settled()

        def as_it_has_to_be():
            actual = self.actual()
            return actual if actual and all(actual[n] in may_be[n] for n in NAMES) else None
        return until(as_it_has_to_be, lambda: (
            f"{[v.name for v in victims]} killed; may be {may_be}, is {self.actual()}; "
            f"{[(o.verb, o.name, o.machine, o.error) for o in operations]}")), \
            [o.verb for o in operations if o.process.returncode != 0], victims

    def test_killed_at_any_moment_they_keep_their_word(self):
        dice = random.Random(SEED)
        known = {name: NOWHERE for name in NAMES}
        before = self.arrivals()
        hammers = [stranger.begin("hammer", targets=self.forbidden(), until=str(self.stop))
                   for stranger in self.strangers]
        self.deck, interrupted, killed = [], 0, {}
        try:
            for _ in range(ROUNDS):
                known, failed, victims = self.round(known, dice)
                interrupted += len(failed)
                for victim in victims:
                    killed[victim.name] = killed.get(victim.name, 0) + 1
        finally:
            self.stop.touch()
            tried = [stranger.end(hammer) for stranger, hammer in zip(self.strangers, hammers)]
        spoken = self.conversation()
        print(f"seed {SEED}: {ROUNDS} rounds, killed {killed}, {interrupted} commands not "
              f"acknowledged; forbidden: {tried}; allowed: {spoken}", flush=True)
        self.assertEqual(self.arrivals(), before, "nothing forbidden arrived")
        for sent in tried:
            self.assertGreater(sent["sent"], 50 * ROUNDS, "void: hardly anything was tried")
        if ROUNDS >= len(everybody := {v.name for v in self.everybody()}):
            self.assertEqual(set(killed), everybody, "void")


if __name__ == "__main__":
    unittest.main(verbosity=2)
