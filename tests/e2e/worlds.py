"""Draws random worlds that an apply must take: small numbers of everything, so that
containers have much to do with each other, and ports where blocks of 16 begin and end."""
import collections
import itertools

import oracle

# Where every container listens; SHUT is one more, which nobody ever declares.
PORTS = (80, 7999, 8000, 8015, 8016, 8032)
SHUT = 9
BORDERS = (7998, 7999, 8000, 8001, 8014, 8015, 8016, 8017, 8031, 8032, 8033)
CONTAINERS = tuple(f"c{n}" for n in range(8))
# Declared and never attached: behind their names nobody is ready.
GHOSTS = ("g0", "g1", "g2", "g3")
OWNERS = ("ada", "bob", "cy")
OWNER_OF = {"wf1": "ada", "wf2": "ada", "wf3": "bob"}
NAMES = ("db", "api", "hub")
# How many rows of a kind a world must have on either protocol, or it tells too little.
WANTED = {("address", oracle.ANSWERED): 12, ("address", oracle.REFUSED): 12,
          ("vip", oracle.ANSWERED): 12, ("vip", oracle.REFUSED): 12, ("vip", oracle.SILENT): 3}


def rows(world, keys):
    """Every ask that a world is tried with: (consumer, target, (protocol, port)), where the
    target is an instance or a service's key."""
    for consumer in CONTAINERS:
        for target in (*CONTAINERS, *keys):
            if target == consumer:
                continue  # never leaves the container
            for port in (*PORTS, SHUT):
                for proto in ("tcp", "udp"):
                    yield consumer, target, (proto, port)


def expected(world, row):
    consumer, target, port = row
    by = world.by_address if isinstance(target, str) else world.by_vip
    return by(consumer, target, port)


def without(workload, field):
    return {name: value for name, value in workload.items() if name != field}


def admitting(workload, wide, narrow):
    return {**workload, "admit": narrow} if oracle.admit_of(workload) == wide else workload


def with_entries(workload, field, change):
    return {**workload, field: [change(entry) for entry in workload.get(field, ())]}


# Each forgets one word of the declarations: how a wrong truth function would read them.
MISREADINGS = (
    lambda w: without(w, "admit_owners"),
    lambda w: admitting(w, "CLUSTER", "OWNER"),
    lambda w: admitting(w, "OWNER", "CLUSTER"),
    lambda w: admitting(w, "OWNER", "WORKFLOW") if "workflow" in w else w,
    lambda w: admitting(w, "WORKFLOW", "OWNER"),
    lambda w: with_entries(w, "serves", lambda served: without(served, "end_port")),
    lambda w: with_entries(w, "peers", lambda peer: without(peer, "ports")),
    lambda w: {**w, "peers": [peer for peer in w.get("peers", ()) if "id" not in peer]},
    lambda w: {**w, "peers": [peer for peer in w.get("peers", ()) if "id" in peer
                              or oracle.scope_of(peer, w) == "WORKFLOW"]},
)


def grants(workloads):
    world = oracle.World(workloads, CONTAINERS)
    return {(consumer, provider, port)
            for consumer, provider in itertools.permutations(CONTAINERS, 2)
            for port in world.granted(consumer, provider) if port[1] in PORTS}


def telling(world):
    """Whether there is enough of everything in it, and every word counts."""
    right = grants(world.workloads.values())
    if any(len(grants(map(wrong, world.workloads.values())) ^ right) < 2
           for wrong in MISREADINGS):
        return False
    found = collections.Counter()
    for row in rows(world, world.members):
        kind = "address" if isinstance(row[1], str) else "vip"
        verdicts = {verdict for verdict, _ in expected(world, row)}
        if len(verdicts) == 1:
            found[(kind, *verdicts, row[2][0])] += 1
    return all(found[(*what, proto)] >= number for what, number in WANTED.items()
               for proto in ("tcp", "udp"))


class Drawing:
    """One world after another for the same containers: about a third of the declarations stays as it
    is, another third changes a little.

    The CLUSTER names are remembered: each belongs to its first owner for good."""

    def __init__(self, dice):
        self.dice = dice
        self.homes = {}  # owner and workflow: fixed while attached, so for good
        self.owners = {}
        self.world = oracle.World((), ())

    def home(self):
        workflow = self.dice.choice(("wf1", "wf1", "wf2", "wf2", "wf3", None))
        return OWNER_OF.get(workflow) or self.dice.choice(OWNERS), workflow

    def maybe(self, chance):
        return self.dice.random() < chance

    def next(self):
        for _ in range(10000):
            if not self.world.workloads:
                self.homes = {name: self.home() for name in CONTAINERS}
            attempt = Attempt(self)
            world = oracle.World(attempt.workloads.values(), CONTAINERS)
            if telling(world):
                self.owners, self.world = attempt.owners, world
                return world
        raise AssertionError("no world that tells anything can be drawn from here")


class Attempt:
    def __init__(self, drawing):
        self.dice, self.maybe = drawing.dice, drawing.maybe
        self.owners = dict(drawing.owners)
        self.terms = {}  # replicas must agree in these
        self.runs = {}  # and, if they admit WORKFLOW, in their workflow
        self.workloads = {}
        for name, old in drawing.world.workloads.items():
            if self.maybe(0.7):
                self.workloads[name] = old if self.maybe(0.5) else self.changed(old)
                if key := oracle.key_of(old, old):
                    self.terms[key] = {field: old[field] for field in
                                       ("admit", "admit_owners", "hold") if field in old}
                    self.runs[key] = old.get("workflow")
        for name in (*CONTAINERS, *GHOSTS):
            if name not in self.workloads:
                self.draw(name, *drawing.homes.get(name) or drawing.home())

    def draw(self, name, owner, workflow):
        workload = {"id": name, "owner": owner}
        if workflow:
            workload["workflow"] = workflow
        if self.maybe(0.8):
            self.name(workload)
        if "name" not in workload:
            workload |= self.draw_terms(workload)
        if entries := self.serves():
            workload["serves"] = entries
        if peers := self.peers(workload):
            workload["peers"] = peers
        if self.maybe(0.3):
            workload["ready"] = "NONE"
        self.workloads[name] = workload

    def changed(self, old):
        """The same but for its ports or its peers."""
        field, entries = self.dice.choice((("serves", self.serves()), ("peers", self.peers(old))))
        new = {**old, field: entries}
        return new if entries else {f: value for f, value in old.items() if f != field}

    def name(self, workload):
        """A service, if the name is free for its owner and the replicas' terms suit it."""
        named = workload | {"name": self.dice.choice(NAMES)}
        scopes = ("CLUSTER", "WORKFLOW", None) if "workflow" in workload else ("CLUSTER",)
        if scope := self.dice.choice(scopes):
            named["scope"] = scope
        key = oracle.key_of(named, named)
        if key[0] == "CLUSTER" and self.owners.get(key[2], workload["owner"]) != workload["owner"]:
            return
        terms = self.terms.get(key) or self.draw_terms(named)
        run = workload.get("workflow")
        if terms.get("admit") == "WORKFLOW" and (run is None or self.runs.get(key, run) != run):
            return
        self.runs.setdefault(key, run)
        if key[0] == "CLUSTER":
            self.owners[key[2]] = workload["owner"]
        self.terms[key] = terms
        workload |= {**named, **terms}

    def draw_terms(self, workload):
        terms = {"hold": self.dice.choice(("0s", "86400s", "86400s"))}
        choices = ["OWNER", "CLUSTER", "CLUSTER", None, None]
        if "workflow" in workload:
            choices.append("WORKFLOW")
        if admit := self.dice.choice(choices):
            terms["admit"] = admit
        if self.maybe(0.5):
            terms["admit_owners"] = self.dice.sample((*OWNERS, "nobody"), self.dice.randint(1, 2))
        return terms

    def serves(self):
        """Entries that do not overlap, as the format demands."""
        entries, taken = [], set()
        for _ in range(self.dice.choice((0, 6, 10, 12))):
            entry = self.entry(0.5)
            if not oracle.ports(entry) & taken:
                taken |= oracle.ports(entry)
                entries.append(entry)
        return entries

    def entry(self, single):
        entry = {"port": self.dice.choice(PORTS)}
        if not self.maybe(single):
            first, last = sorted(self.dice.sample(BORDERS, 2))
            entry = {"port": first, "end_port": last}
        if protocol := self.dice.choice(("TCP", "UDP", "UDP", None)):
            entry["protocol"] = protocol
        return entry

    def peers(self, workload):
        scopes = ("WORKFLOW", "CLUSTER") if "workflow" in workload else ("CLUSTER",)
        services = [(name, scope) for name in (*NAMES, "absent") for scope in scopes]
        ids = [name for name in (*CONTAINERS, *GHOSTS, "absent") if name != workload["id"]]
        peers = []
        for name, scope in self.dice.sample(services, self.dice.randint(0, len(services))):
            peer = {"name": name}
            if scope != scopes[0] or self.maybe(0.5):  # the first is the default
                peer["scope"] = scope
            peers.append(peer)
        peers += [{"id": name} for name in self.dice.sample(ids, self.dice.choice((0, 2, 4, 6)))]
        self.dice.shuffle(peers)
        for peer in peers:
            if self.maybe(0.4):
                peer["ports"] = [self.entry(0.4) for _ in range(self.dice.randint(1, 2))]
        return peers
