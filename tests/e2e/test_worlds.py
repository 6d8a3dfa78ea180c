"""Random worlds, one applied over the other: the truth function of oracle.py, the rules in the
kernel, what packets meet, DNS and `explain` agree, over TCP and UDP, IPv4 and IPv6.

Every container listens on all ports on both families, so that policy alone decides. A probe
that is not answered is looked for in every container: to arrive unanswered is a verdict of its
own. When the probes cannot tell, by their own controls, the world is void and the test fails.

MESHD_WORLDS says how many worlds (3), MESHD_SEED which (1).
"""
import collections
import ipaddress
import itertools
import json
import os
import pathlib
import random
import unittest

import node as bed
import oracle
import worlds
from node import NodeTest, until

MUTE = 7  # listens, takes what comes, says nothing
ARRIVED = "arrived"
# Longer than the first retransmission of TCP: a lost packet is no silence.
PATIENCE = 1.5
FAMILIES = (4, 6)


def lift_icmp_limits():
    """The kernel limits the errors that refuse UDP to a few a second. Of this node alone."""
    for path, value in (("ipv4/icmp_ratemask", "0"), ("ipv6/icmp/ratemask", "")):
        pathlib.Path("/proc/sys/net", path).write_text(value + "\n")


class WorldsTest(NodeTest):
    @classmethod
    def setUpClass(cls):
        bed.AGENT = bed.AGENT.with_name("prober.py")
        super().setUpClass()

    @classmethod
    def prepare(cls):
        lift_icmp_limits()
        seed = int(os.environ.get("MESHD_SEED") or 1)
        print(f"MESHD_SEED={seed}", flush=True)
        cls.dice = random.Random(seed)
        cls.drawing = worlds.Drawing(cls.dice)
        cls.vips, cls.gone = {}, {}
        cls.open = {}  # consumer -> [(row, family, who answered)]
        # Source ports of their own for everybody, below those that the kernel gives out.
        cls.sources = {name: itertools.cycle(range(10000 + 2500 * place, 12500 + 2500 * place))
                       for place, name in enumerate((*worlds.CONTAINERS, "node"))}
        cls.world = cls.drawing.next()
        cls.apply(cls.world)
        for name in worlds.CONTAINERS:
            cls.node.container(name)
        for name in worlds.CONTAINERS:
            cls.node.agents[name].stand(ports=[*worlds.PORTS, worlds.SHUT], mute=MUTE)

    @classmethod
    def apply(cls, world):
        """Valid by construction: an apply that is refused raises."""
        cls.node.apply(json.dumps({"workloads": list(world.workloads.values())}))

    # --- addresses --------------------------------------------------------------------------

    def read_vips(self):
        before = self.vips
        now = {}
        for service in self.node.json("list", "services")["services"]:
            key = service["scope"], service["workflow"], service["name"]
            now[key] = {6 if ":" in vip else 4: vip for vip in service["vips"]}
        run_local = {key for key in now if key[0] == "WORKFLOW"}
        self.assertEqual(run_local, {key for key in self.world.members if key[0] == "WORKFLOW"})
        self.assertLessEqual(set(self.world.members), set(now))
        for key in set(now) & set(before):
            self.assertEqual(now[key], before[key], "a VIP stays as long as its name")
        # What nobody declares any more is tried once more, under a name that nobody has.
        type(self).gone = {("GONE", *key): vip for key, vip in before.items() if key not in now}
        type(self).vips = now

    def address(self, target, family):
        if isinstance(target, str):
            return self.node.address(target, family)
        return (self.vips.get(target) or self.gone[target])[family]

    # --- packets ----------------------------------------------------------------------------

    def asks(self, consumer, rows):
        """Of (target, family, (protocol, port))."""
        return [[port[0], self.address(target, family), port[1], next(self.sources[consumer])]
                for target, family, port in rows]

    def rows(self):
        by_consumer = collections.defaultdict(list)
        for consumer, target, port in worlds.rows(self.world, (*self.vips, *self.gone)):
            by_consumer[consumer] += [(target, family, port) for family in FAMILIES]
        return by_consumer

    def arrived(self):
        """Who got what, by the ask that sent it."""
        seen = {}
        for name in worlds.CONTAINERS:
            answer = self.node.agents[name].arrived()
            self.assertEqual(answer["lost"], 0, f"void: {name} did not see all that came in")
            seen |= {tuple(packet): name for packet in answer["seen"]}
        return seen

    @staticmethod
    def verdict(ask, told, seen):
        what, who = told
        proto, to, port, source = ask
        there = seen.get((proto, 6 if ":" in to else 4, source, port))
        return (ARRIVED, there) if there and what != oracle.ANSWERED else (what, who)

    def probe(self, rows_of, expected):
        """[(consumer, row, verdict)]. Who is silent and should not be is asked once more and
        waited for: a busy machine is no policy."""
        agents = {**self.node.agents, "node": self.node.node}
        result = []
        for patience in (PATIENCE, bed.PATIENCE):
            asks = {name: self.asks(name, rows) for name, rows in rows_of.items()}
            begun = {name: agents[name].begin("probe", asks=asks[name], patience=patience)
                     for name in asks}
            told = {name: agents[name].end(number) for name, number in begun.items()}
            seen = self.arrived()
            again = collections.defaultdict(list)
            for name, rows in rows_of.items():
                for row, ask, answer in zip(rows, asks[name], told[name], strict=True):
                    late = answer[0] == oracle.SILENT and patience == PATIENCE and \
                        all(verdict != oracle.SILENT for verdict, _ in expected(name, row))
                    if late:
                        again[name].append(row)
                    else:
                        result.append((name, row, self.verdict(ask, answer, seen)))
            if not again:
                break
            rows_of = again
        return result

    def check_controls(self):
        """Everything listens and answers, what comes in is seen, what is undeclared is shut."""
        ports = [(proto, port) for proto in ("tcp", "udp") for port in (*worlds.PORTS, worlds.SHUT)]
        targets = list(itertools.product(worlds.CONTAINERS, FAMILIES))
        open_rows = [(name, family, port) for name, family in targets for port in ports]
        for _, row, verdict in self.probe({"node": open_rows},
                                          lambda _, row: {(oracle.ANSWERED, row[0])}):
            self.assertEqual(verdict, (oracle.ANSWERED, row[0]), f"void: root asked {row}")
        mute = [(name, family, (proto, MUTE)) for name, family in targets
                for proto in ("tcp", "udp")]
        for _, row, verdict in self.probe({"node": mute}, lambda *_: {(oracle.SILENT, "")}):
            self.assertEqual(verdict, (ARRIVED, row[0]), f"void: root asked {row}")

    def wait_for_endpoints(self):
        """Until root meets an endpoint behind every VIP that has one."""
        rows = [(key, family, (proto, port)) for key in self.world.members
                for family in FAMILIES for proto in ("tcp", "udp") for port in worlds.PORTS
                if self.world.endpoints(key, (proto, port))]

        def all_there():
            told = self.node.node.probe(asks=self.asks("node", rows), patience=0.5)
            rows[:] = [row for row, (verdict, who) in zip(rows, told, strict=True)
                       if verdict != oracle.ANSWERED
                       or who not in self.world.endpoints(row[0], row[2])]
            return not rows

        until(all_there, lambda: f"root meets an endpoint: {rows[:5]}")

    def check_packets(self):
        def expected(consumer, row):
            return worlds.expected(self.world, (consumer, row[0], row[2]))

        tally = collections.Counter()
        wrong = []
        for consumer, row, verdict in self.probe(self.rows(), expected):
            if row[2][1] == worlds.SHUT:
                self.assertEqual(verdict, (oracle.REFUSED, ""),
                                 f"void: {consumer} asked {row}, which nobody declares")
                continue
            tally[verdict[0]] += 1
            if verdict not in expected(consumer, row):
                wrong.append((consumer, row, verdict))
        self.no_difference(wrong, expected)
        return dict(tally)

    def no_difference(self, wrong, expected):
        if not wrong:
            return
        lines = [f"{consumer} -> {row}: {verdict}, not {expected(consumer, row)}"
                 for consumer, row, verdict in wrong[:20]]
        about = {name for consumer, row, _ in wrong[:20] for name in (consumer, row[0])}
        lines += [json.dumps(workload) for name, workload in self.world.workloads.items()
                  if name in about or oracle.key_of(workload, workload) in about]
        self.fail(f"{len(wrong)} differ:\n" + "\n".join(lines))

    # --- open flows -------------------------------------------------------------------------

    def open_flows(self):
        for consumer, rows in self.rows().items():
            sure = [row for row in rows if {verdict for verdict, _ in worlds.expected(
                self.world, (consumer, row[0], row[2]))} == {oracle.ANSWERED}]
            chosen = self.dice.sample(sure, min(len(sure), 12))
            told = self.node.agents[consumer].open_flows(asks=self.asks(consumer, chosen),
                                                         patience=bed.PATIENCE)
            for row, (verdict, who) in zip(chosen, told, strict=True):
                self.assertEqual(verdict, oracle.ANSWERED, (consumer, row))
                self.open.setdefault(consumer, []).append((*row, who))

    def check_open_flows(self):
        """What is still allowed goes on with the same provider, the rest is cut."""
        def expected(consumer, row):
            target, _, port, who = row
            if isinstance(target, str):
                return self.world.by_address(consumer, target, port)
            return self.world.after_change(consumer, target, who, port, port[0] == "tcp")

        begun = {name: self.node.agents[name].begin("talk_flows", patience=PATIENCE)
                 for name in self.open}
        wrong, went_on = [], 0
        for consumer, number in begun.items():
            told = self.node.agents[consumer].end(number)
            for row, verdict in zip(self.open[consumer], told, strict=True):
                went_on += verdict == [oracle.ANSWERED, row[3]]
                if tuple(verdict) not in expected(consumer, row):
                    wrong.append((consumer, row, tuple(verdict)))
        total = sum(map(len, self.open.values()))
        self.open.clear()
        self.no_difference(wrong, expected)
        return f"{went_on} of {total} open flows went on"

    # --- rules ------------------------------------------------------------------------------

    def check_rules(self):
        """The elements in the kernel, and the daemon's list of them, are the truth function:
        for every port, also those that nobody is asked for."""
        pairs = list(itertools.product(worlds.CONTAINERS, repeat=2))
        wanted = {(c, s, *port) for c, s in pairs for port in self.world.granted(c, s)}
        near = {(c, s) for c, s, *_ in wanted}
        names = {address: name for name in worlds.CONTAINERS
                 for address in self.node.facts[name]["addresses"]}
        table = json.loads(bed.run("nft", "-j", "list", "table", "inet", "meshd").stdout)
        sets = {item["set"]["name"]: elements(item["set"]) for item in table["nftables"]
                if item.get("set", {}).get("name", "").startswith(("allow", "pair"))}
        for family in FAMILIES:
            found = {(names[c], names[s], proto, int(port))
                     for c, s, proto, port in sets[f"allow{family}"]}
            for c, s, proto, port in sets[f"allow{family}_b16"]:
                found |= {(names[c], names[s], proto, int(port) + n) for n in range(16)}
            self.same(found, wanted, f"allow{family}")
            found = {(names[a], names[b]) for a, b in sets[f"pair{family}"]}
            self.same(found, near, f"pair{family}")
        listed = {(flow["src"], flow["dst"], flow["protocol"].lower(), port)
                  for flow in self.node.json("list", "flows")["flows"]
                  for port in range(flow["port"], (flow["end_port"] or flow["port"]) + 1)}
        between = {flow for flow in wanted if flow[0] != flow[1]}  # its own it has by the VIP
        self.same(listed, between, "list flows")

    def same(self, found, wanted, what):
        self.assertEqual((sorted(found - wanted)[:20], sorted(wanted - found)[:20]), ([], []),
                         f"{what}: too much, too little")

    def check_start(self, from_nothing):
        """What came by changes is what a start compiles: it finds nothing to write, and makes
        the same again when the table is gone."""
        services = self.node.json("list", "services")
        before = self.node.rules(handles=not from_nothing)
        self.node.kill()
        if from_nothing:
            bed.run("nft", "delete", "table", "inet", "meshd")
        self.node.start()
        after = self.node.rules(handles=not from_nothing)
        self.assertEqual([line[:500] for line in set(before.split("\n")) ^ set(after.split("\n"))],
                         [], "lines of the table before or after the start only")
        self.assertEqual(self.node.json("list", "services"), services)

    # --- names and reasons --------------------------------------------------------------------

    def questions(self, consumer):
        """What DNS is asked, and what it should say: {(name, type): [rcode, data...]}."""
        world, wanted = self.world, {}

        def ask(name, visible, address_of):
            for family, kind in ((4, "A"), (6, "AAAA")):
                data = address_of(family) if visible else None
                wanted[name, kind] = ["NOERROR", *([data] if data else ())] if visible \
                    else ["NXDOMAIN"]

        def ask_back(name, visible, address):
            back = ipaddress.ip_address(address).reverse_pointer
            wanted[back, "PTR"] = ["NOERROR", name + "."] if visible else ["NXDOMAIN"]

        for name in world.workloads:
            full, visible = f"{name}.id.{oracle.ZONE}", world.sees_instance(consumer, name)
            there = name in world.attached
            ask(full, visible, lambda f, n=name: self.node.address(n, f) if there else None)
            for address in self.node.facts[name]["addresses"] if there else ():
                ask_back(full, visible, address)
        for key, vips in (*self.vips.items(), *self.gone.items()):
            full = oracle.fqdn(key[-3:])
            visible = world.sees_service(consumer, key)
            if key in self.vips:
                ask(full, visible, vips.get)
            for address in vips.values():
                ask_back(full, visible, address)
        for label in (*worlds.NAMES, "absent"):
            key = world.bare(consumer, label)
            ask(label, key is not None, self.vips.get(key, {}).get)
        return wanted

    def check_names(self):
        wanted = {name: self.questions(name) for name in worlds.CONTAINERS}
        begun = {name: self.node.agents[name].begin(
            "ask_names", questions=list(questions), patience=bed.PATIENCE,
            server=self.dice.choice(self.node.facts[name]["resolvers"]))
                 for name, questions in wanted.items()}
        for name, number in begun.items():
            told = dict(zip(wanted[name], self.node.agents[name].end(number), strict=True))
            wrong = {question: (answer, wanted[name][question])
                     for question, answer in told.items() if answer != wanted[name][question]}
            self.assertEqual(wrong, {}, f"{name} asked; told, wanted")
        consumer = self.dice.choice(worlds.CONTAINERS)
        for name, kind in self.dice.sample(sorted(wanted[consumer]), 4):
            reply = self.node.json("resolve", "--as", consumer, name, kind)
            told = [reply["rcode"], *(answer["data"] for answer in reply["answers"])]
            self.assertEqual(told, [text.rstrip(".") for text in wanted[consumer][name, kind]],
                             f"resolve --as {consumer} {name} {kind}")

    def check_explain(self):
        """Two of each kind of row: of instances and services, of every verdict, granted or not,
        with and without somebody there."""
        world, kinds = self.world, collections.defaultdict(list)
        for consumer, target, port in worlds.rows(world, (*self.vips, *worlds.GHOSTS)):
            is_id = isinstance(target, str)
            granted = (world.may_reach if is_id else world.would_wait)(consumer, target, port)
            there = target in world.attached if is_id else bool(world.endpoints(target, port))
            verdict = world.explain(consumer, target, port)
            kinds[is_id, verdict, granted, there].append((consumer, target, port))
        for (is_id, verdict, *_), rows in kinds.items():
            for consumer, target, port in self.dice.sample(rows, min(len(rows), 2)):
                text = target if is_id else oracle.fqdn(target)
                told = self.node.json("explain", consumer, text, f"{port[1]}/{port[0]}")
                self.assertEqual(told["verdict"], verdict, (consumer, text, port, told))

    # --- the property -------------------------------------------------------------------------

    def check_world(self, number):
        self.read_vips()
        self.check_controls()
        self.wait_for_endpoints()
        self.check_rules()
        tally = self.check_packets()
        self.check_names()
        self.check_explain()
        self.check_start(from_nothing=number % 2 == 1)
        return tally

    def test_truth_rules_packets_and_names_agree(self):
        count = int(os.environ.get("MESHD_WORLDS", "3"))
        for number in range(count):
            if number:
                self.open_flows()
                type(self).world = self.drawing.next()
                self.apply(self.world)
                self.read_vips()
                print(self.check_open_flows(), flush=True)
            print(f"world {number}: {self.check_world(number)}", flush=True)


def elements(kernel_set):
    """Keys of a set as nft lists them, with or without counters."""
    found = set()
    for element in kernel_set.get("elem", ()):
        if isinstance(element, dict) and "elem" in element:
            element = element["elem"]["val"]
        found.add(tuple(element["concat"]))
    return found


if __name__ == "__main__":
    unittest.main(verbosity=2)
