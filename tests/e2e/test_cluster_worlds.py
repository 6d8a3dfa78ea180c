"""The truth function over a cluster: the random worlds of test_worlds.py, applied at the
controller, with their containers on several nodes, and nodes that come and go meanwhile.

Packets of every ordered pair and to every VIP, within a node and between nodes, over TCP and UDP,
IPv4 and IPv6, meet what oracle.py says; so do the rules of every node, the names, and `explain`.
Here nodes on a link route to each other, and tunnel to one that is behind a router;
test_cluster_worlds_vxlan.py has all of them tunnel.

MESHD_WORLDS says how many worlds (3), MESHD_SEED which (1).
"""
import collections
import itertools
import json
import os
import pathlib
import random
import unittest

import node as bed
import oracle
import test_worlds
import worlds
from cluster import ADMIN, Cluster, Machine
from node import run, until

START = {name: "n1" if place < 4 else "n2" for place, name in enumerate(worlds.CONTAINERS)}


class Programs:
    """The cluster as test_worlds.py asks a node: each question goes to whom it is for."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.machines = {}
        self.home = {}  # container -> machine
        self.agents, self.facts = {}, {}
        self.node = None  # no process that reaches everything: see root()

    def json(self, *argv):
        if argv[0] == "list":
            return self.cluster.json(*argv)
        consumer = argv[2] if argv[0] == "resolve" else argv[1]
        return json.loads(self.home[consumer].ctl(*argv, "-o", "json").stdout)

    def address(self, name, family):
        return next(a for a in self.facts[name]["addresses"] if (":" in a) == (family == 6))

    def place(self, name, machine):
        if name in self.home:
            self.agents.pop(name)
            self.home[name].remove(name)
            until(lambda: name not in self.placed(), f"{name} has left")
        self.home[name] = machine
        self.agents[name] = machine.container(name)
        self.facts[name] = machine.facts[name]
        self.agents[name].stand(ports=[*worlds.PORTS, worlds.SHUT], mute=test_worlds.MUTE)

    def placed(self):
        return {w["id"] for w in self.json("list", "workloads")["workloads"]
                if w["attachment"] and w["attachment"]["addresses"]}

    def root(self, machine):
        """A process of uid 0 on that node."""
        name = f"root of {machine.name}"
        if name not in self.agents:
            self.agents[name] = bed.Agent(name, machine.inside())
        return self.agents[name]


class Scenario(test_worlds.WorldsTest):
    MODE, AFAR = "AUTO", ()  # nodes behind a router

    @classmethod
    def setUpClass(cls):
        bed.AGENT = bed.AGENT.with_name("prober.py")
        seed = int(os.environ.get("MESHD_SEED") or 1)
        print(f"MESHD_SEED={seed}", flush=True)
        cls.dice = random.Random(seed)
        cls.drawing = worlds.Drawing(cls.dice)
        cls.vips, cls.gone, cls.open = {}, {}, {}
        asking = (*worlds.CONTAINERS, "root of n1", "root of n2", "root of n3")
        cls.sources = {name: itertools.cycle(range(10000 + 2500 * place, 12500 + 2500 * place))
                       for place, name in enumerate(asking)}
        cls.cluster = Cluster()
        cls.node = Programs(cls.cluster)
        pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        pathlib.Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        run("ip", "addr", "add", "2001:db8::ff/64", "dev", "lan", "nodad")
        cls.cluster.make()
        cls.cluster.controllers[0].run("ip", "route", "add", "default", "via", ADMIN)
        cls.cluster.controllers[0].start()
        for machine in cls.cluster.machines:
            cls.add(machine)
        cls.world = cls.drawing.next()
        cls.apply(cls.world)
        for name, home in START.items():
            cls.node.place(name, cls.node.machines[home])

    @classmethod
    def tearDownClass(cls):
        for name, agent in cls.node.agents.items():
            if name not in worlds.CONTAINERS:
                agent.stop()
        cls.cluster.close()

    def check_log(self):
        for machine in self.cluster.machines:
            text = machine.log.read_text()
            for word in ("AddressSanitizer", "runtime error", "LeakSanitizer"):
                self.assertNotIn(word, text)

    @classmethod
    def apply(cls, world):
        cls.cluster.ctl("apply", "-f", "-",
                        stdin=json.dumps({"workloads": list(world.workloads.values())}))

    # --- nodes ------------------------------------------------------------------------------

    @classmethod
    def add(cls, machine):
        """Wires the node, and waits until it has joined."""
        number = int(machine.name[1:])
        if machine.name in cls.AFAR:
            router4, router6 = f"198.51.100.{16 * number + 2}", f"2001:db8:{number}::2"
            port = f"to-{machine.name}"
            run("ip", "link", "set", port, "nomaster")
            run("ip", "addr", "add", f"{router4}/28", "dev", port)
            run("ip", "addr", "add", f"{router6}/64", "dev", port, "nodad")
            machine.run("ip", "addr", "flush", "dev", "up0", "scope", "global")
            own = f"198.51.100.{16 * number + 1}/28", f"2001:db8:{number}::1/64"
        else:
            router4, router6 = ADMIN, "2001:db8::ff"
            own = None, f"2001:db8::{number}/64"
        lines = [f"addr add {own[0]} dev up0"] if own[0] else []
        lines += [f"addr add {own[1]} dev up0 nodad", f"route add default via {router4}",
                  f"-6 route add default via {router6}"]
        for line in lines:
            machine.run("ip", *line.split())
        for path, value in (("ipv4/icmp_ratemask", "0"), ("ipv6/icmp/ratemask", "")):
            machine.run("sh", "-c", f"echo '{value}' > /proc/sys/net/{path}")
        with open(machine.config, "a", encoding="utf-8") as config:
            config.write(f"underlay: {{mode: {cls.MODE}}}\n")
        machine.start()
        cls.node.machines[machine.name] = machine
        until(lambda: machine.name in cls.connected(), f"{machine.name} has joined")
        # What the daemon does to its own routes is no repair.
        log = machine.log.read_text()
        assert "REPAIRED" not in log, log

    @classmethod
    def connected(cls):
        answer = cls.cluster.ctl("list", "nodes", "-o", "json", check=False)
        nodes = json.loads(answer.stdout)["nodes"] if answer.returncode == 0 else []
        return {node["name"] for node in nodes if node["connected"]}

    @classmethod
    def remove(cls, machine):
        """As a machine is taken away: at once, and an administrator says that for good."""
        machine.kill()
        run("ip", "link", "set", f"to-{machine.name}", "down")
        until(lambda: machine.name not in cls.connected(), f"{machine.name} is missed")
        run(bed.BUILD / "mesh-controller", "node", "dismiss", machine.name,
            "--controller", cls.cluster.controllers[0].endpoint, "--dir",
            cls.cluster.controllers[0].store)
        del cls.node.machines[machine.name]

    def move(self, names, machines):
        """Meanwhile open flows of those who stay go on."""
        self.open_flows_but(names)
        for name, machine in zip(names, itertools.cycle(machines)):
            self.node.place(name, machine)
        self.check_rules()
        print("move:", self.check_open_flows(), flush=True)

    def open_flows_but(self, movers):
        for consumer, rows in self.rows().items():
            def stays(row):
                met = worlds.expected(self.world, (consumer, row[0], row[2]))
                return all(verdict == oracle.ANSWERED and who not in movers
                           for verdict, who in met)
            if consumer in movers:
                continue
            sure = list(filter(stays, rows))
            chosen = self.dice.sample(sure, min(len(sure), 12))
            told = self.node.agents[consumer].open_flows(asks=self.asks(consumer, chosen),
                                                         patience=bed.PATIENCE)
            for row, (verdict, who) in zip(chosen, told, strict=True):
                self.assertEqual(verdict, oracle.ANSWERED, (consumer, row))
                self.open.setdefault(consumer, []).append((*row, who))

    def check_ways(self):
        raise NotImplementedError

    def device(self, machine, other):
        """By which packets go to the containers of that node."""
        block = next(block for node in self.cluster.json("list", "nodes")["nodes"]
                     if node["name"] == other for block in node["blocks"] if "." in block)
        return json.loads(machine.run("ip", "-j", "route", "show", block).stdout)[0]["dev"]

    # --- what differs from one node -----------------------------------------------------------

    def check_controls(self):
        """Everything listens and answers root of its own node, and what comes in is seen."""
        for machine in self.node.machines.values():
            asking = f"root of {machine.name}"
            self.node.root(machine)
            here = [name for name in worlds.CONTAINERS if self.node.home[name] is machine]
            rows = [(name, family, (proto, port)) for name in here for family in (4, 6)
                    for proto in ("tcp", "udp") for port in (*worlds.PORTS, worlds.SHUT)]
            for _, row, verdict in self.probe({asking: rows},
                                              lambda _, row: {(oracle.ANSWERED, row[0])}):
                self.assertEqual(verdict, (oracle.ANSWERED, row[0]), f"void: {asking} at {row}")
            mute = [(name, family, (proto, test_worlds.MUTE)) for name in here
                    for family in (4, 6) for proto in ("tcp", "udp")]
            for _, row, verdict in self.probe({asking: mute}, lambda *_: {(oracle.SILENT, "")}):
                self.assertEqual(verdict, (test_worlds.ARRIVED, row[0]), f"void: {asking} at {row}")

    def wait_for_endpoints(self):
        """check_rules() waits for them, too."""
        self.check_ways()

    def check_rules(self):
        """Of every node, once the last news have come: what touches its containers, and nothing
        more; behind VIPs whoever serves."""
        for machine in self.node.machines.values():
            differ = {}

            def agree(machine=machine, differ=differ):
                wanted, found = self.wanted(machine), self.found(machine)
                differ.clear()
                differ.update((what, (sorted(found[what] - wanted[what])[:9],
                                      sorted(wanted[what] - found[what])[:9]))
                              for what in wanted if found[what] != wanted[what])
                return not differ

            until(agree, lambda m=machine, d=differ: f"{m.name}: too much, too little: {d}")

    def wanted(self, machine):
        here = {name for name in worlds.CONTAINERS if self.node.home[name] is machine}
        pairs = [pair for pair in itertools.product(worlds.CONTAINERS, repeat=2)
                 if here & set(pair)]
        allow = {(c, s, *port) for c, s in pairs for port in self.world.granted(c, s)}
        behind = {(key, proto, port, name) for key in self.world.members
                  for proto in ("tcp", "udp") for port in worlds.PORTS
                  for name in self.world.endpoints(key, (proto, port))
                  if any(self.world.names_service(consumer, key)
                         and self.world.granted(consumer, name) for consumer in here)}
        return {f"{what}{family}": of for family in (4, 6)
                for what, of in (("allow", allow), ("vip", behind))} | {
                    f"pair{family}": {flow[:2] for flow in allow} for family in (4, 6)}

    def found(self, machine):
        listing = machine.run("nft", "-j", "list", "table", "inet", "meshd").stdout
        sets = {item[kind]["name"]: item[kind].get("elem", ())
                for item in json.loads(listing)["nftables"] for kind in ("set", "map")
                if kind in item}
        names = {address: name for name in worlds.CONTAINERS
                 for address in self.node.facts[name]["addresses"]}
        services = {}
        for service in self.node.json("list", "services")["services"]:
            key = service["scope"], service["workflow"], service["name"]
            services |= dict.fromkeys(service["vips"], key)
        name = lambda address: names.get(address, address)  # one that is nobody's is too much
        found = collections.defaultdict(set)
        for family, (suffix, count) in itertools.product((4, 6), (("", 1), ("_b16", 16))):
            for c, s, proto, port in test_worlds.elements({"elem": sets[f"allow{family}{suffix}"]}):
                found[f"allow{family}"] |= {(name(c), name(s), proto, int(port) + n)
                                            for n in range(count)}
            for key, endpoint in sets[f"vip{family}{suffix}"]:
                vip, proto, port, _ = key["concat"]
                found[f"vip{family}"] |= {
                    flow for n in range(count)
                    if (flow := (services.get(vip, vip), proto, int(port) + n, name(endpoint)))
                    if flow[2] in worlds.PORTS and not self.is_idle(machine, flow)}
            if not suffix:
                found[f"pair{family}"] = {(name(a), name(b)) for a, b in test_worlds.elements(
                    {"elem": sets[f"pair{family}"]})}
        return found

    def is_idle(self, machine, flow):
        """Behind a VIP, rightly, but none of that node's containers calls it by its name."""
        key, proto, port, name = flow
        return name in self.world.endpoints(key, (proto, port)) and not any(
            self.world.names_service(consumer, key) and self.world.granted(consumer, name)
            for consumer, home in self.node.home.items() if home is machine)

    def check_start(self, from_nothing):
        machine = self.dice.choice(sorted(self.node.machines.values(), key=lambda m: m.name))
        volatile = bed.VOLATILE if from_nothing else bed.VOLATILE - {"handle"}

        def rules():
            listing = machine.run("nft", "-j", "list", "table", "inet", "meshd").stdout
            return bed.canonical(json.loads(listing)["nftables"], volatile)

        before = rules()
        machine.kill()
        if from_nothing:
            machine.run("nft", "delete", "table", "inet", "meshd")
        machine.start()
        self.assertEqual([line[:500] for line in set(before.split("\n")) ^ set(rules().split("\n"))],
                         [], "lines of the table before or after the start only")
        until(lambda: machine.name in self.connected(), f"{machine.name} is back")

    # --- the property -------------------------------------------------------------------------

    def test_truth_rules_packets_and_names_agree(self):
        count = int(os.environ.get("MESHD_WORLDS", "3"))
        machines = self.node.machines
        for number in range(count):
            if number:
                self.open_flows()
                type(self).world = self.drawing.next()
                self.apply(self.world)
                self.check_rules()
                self.read_vips()
                print(self.check_open_flows(), flush=True)
            print(f"world {number} on {sorted(machines)}: {self.check_world(number)}", flush=True)
            if number + 1 == count:
                break
            if "n3" not in machines:
                self.add(Machine(self.cluster, "n3", 3))
                self.cluster.machines.append(machines["n3"])
                self.move(self.dice.sample(worlds.CONTAINERS, 3), [machines["n3"]])
            elif len(machines) == 3:
                goes = machines[self.dice.choice(("n1", "n2"))]
                rest = [machine for machine in machines.values() if machine is not goes]
                self.move([c for c in worlds.CONTAINERS if self.node.home[c] is goes], rest)
                self.remove(goes)
                for machine in rest:
                    until(lambda m=machine, g=goes: not self.knows(m, g), f"{goes.name} is forgotten")

    @staticmethod
    def knows(machine, other):
        return other.address in machine.run("nft", "list", "table", "inet", "meshd").stdout


class RoutedWithOneAfar(Scenario):
    MODE, AFAR = "AUTO", ("n3",)

    def check_ways(self):
        for name, machine in self.node.machines.items():
            for other in set(self.node.machines) - {name}:
                tunnelled = "n3" in (name, other)
                self.assertEqual(self.device(machine, other), "mesh0" if tunnelled else "up0")


def load_tests(loader, *_):
    return loader.loadTestsFromTestCase(RoutedWithOneAfar)


if __name__ == "__main__":
    unittest.main(verbosity=2)
