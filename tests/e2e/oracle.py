"""The truth function once more, from its definition alone, over declarations as the file has
them: what rules, packets, names and `explain` must match.

    C may reach S on (protocol, port) iff some peer entry of C resolves to S and lists the port
    or lists none, S serves the port, and S admits C.

Ports stand as (protocol, number) with "tcp" or "udp"; a service by its key, (scope, workflow,
name). Whatever a container serves is taken as ready: the test waits for that.
"""
import functools

ZONE = "mesh.internal"
ANSWERED, REFUSED, SILENT = "answered", "refused", "silent"


def ports(entry):
    proto = entry.get("protocol", "TCP").lower()
    return {(proto, port) for port in range(entry["port"], entry.get("end_port", entry["port"]) + 1)}


def all_ports(entries):
    return set().union(*(ports(entry) for entry in entries))


def scope_of(entry, workload):
    return entry.get("scope") or ("WORKFLOW" if "workflow" in workload else "CLUSTER")


def key_of(entry, workload):
    """The service that a workload is (entry: itself) or that a peer of it names, or None."""
    if "name" not in entry:
        return None
    scope = scope_of(entry, workload)
    return scope, workload["workflow"] if scope == "WORKFLOW" else "", entry["name"]


def fqdn(key):
    scope, workflow, name = key
    return f"{name}.svc.{ZONE}" if scope == "CLUSTER" else f"{name}.{workflow}.wf.{ZONE}"


def admit_of(workload):
    default = "WORKFLOW" if scope_of(workload, workload) == "WORKFLOW" else "OWNER"
    return workload.get("admit", default)


def admits(provider, consumer):
    if consumer["owner"] in provider.get("admit_owners", ()):
        return True
    admit = admit_of(provider)
    if admit == "CLUSTER":
        return True
    same_owner = provider["owner"] == consumer["owner"]
    if admit == "OWNER":
        return same_owner
    return same_owner and provider["workflow"] == consumer.get("workflow")


class World:
    """What is declared, and which of it is attached."""

    def __init__(self, workloads, attached):
        self.workloads = {workload["id"]: workload for workload in workloads}
        self.attached = set(attached)
        self.members = {}
        for name, workload in self.workloads.items():
            if key := key_of(workload, workload):
                self.members.setdefault(key, []).append(name)
        self.granted = functools.cache(self.granted)  # asked again for every port

    def granted(self, consumer, provider):
        """All ports on which the one may reach the other."""
        c, s = self.workloads[consumer], self.workloads[provider]
        listed = set()
        served = all_ports(s.get("serves", ()))
        for peer in c.get("peers", ()):
            meant = peer["id"] == provider if "id" in peer else \
                key_of(peer, c) == key_of(s, s)
            if meant:
                listed |= all_ports(peer["ports"]) if "ports" in peer else served
        return listed & served if admits(s, c) else set()

    def may_reach(self, consumer, provider, port):
        return port in self.granted(consumer, provider)

    def names_service(self, consumer, key):
        c = self.workloads[consumer]
        return any(key_of(peer, c) == key for peer in c.get("peers", ()))

    def endpoints(self, key, port):
        return [name for name in self.members.get(key, ()) if name in self.attached
                and port in all_ports(self.workloads[name].get("serves", ()))]

    def would_wait(self, consumer, key, port):
        """It names the service and will be permitted. For a peer by id nobody waits."""
        members = self.members.get(key, ())
        return (self.names_service(consumer, key)
                and any(self.may_reach(consumer, name, port) for name in members)
                and self.workloads[members[0]]["hold"] != "0s")

    def held(self, consumer, key, port):
        return not self.endpoints(key, port) and self.would_wait(consumer, key, port)

    def granted_by_name(self, consumer, key, port):
        """All replicas agree in whom they admit, so the first of them speaks for all."""
        c, first = self.workloads[consumer], self.workloads[self.members[key][0]]
        return admits(first, c) and any(
            key_of(peer, c) == key and ("ports" not in peer or port in all_ports(peer["ports"]))
            for peer in c.get("peers", ()))

    # What a packet meets, as a set: replicas are drawn from by chance. Each outcome is
    # (verdict, who answers).

    def by_address(self, consumer, provider, port):
        if self.may_reach(consumer, provider, port):
            return {(ANSWERED, provider)}
        return {(REFUSED, "")}

    def by_vip(self, consumer, key, port):
        there = self.endpoints(key, port)
        if there and self.granted_by_name(consumer, key, port):
            return {(ANSWERED, name) for name in there}
        if there:  # a peer by id may be one of them
            return set().union(*(self.by_address(consumer, name, port) for name in there))
        return {(SILENT, "") if self.held(consumer, key, port) else (REFUSED, "")}

    def after_change(self, consumer, key, provider, port, tcp):
        """What a flow to that VIP meets which was open to that provider in another world."""
        if provider in self.endpoints(key, port) and self.may_reach(consumer, provider, port):
            return {(ANSWERED, provider)}
        outcomes = self.by_vip(consumer, key, port)
        # Whoever is behind the VIP now knows nothing of the connection.
        return {(REFUSED, "") if tcp and verdict == ANSWERED else (verdict, who)
                for verdict, who in outcomes}

    # --- names ---

    def sees_instance(self, consumer, name):
        return consumer == name or bool(self.granted(consumer, name))

    def sees_service(self, consumer, key):
        members = self.members.get(key, ())
        return consumer in members or (self.names_service(consumer, key) and any(
            self.granted(consumer, name) for name in members))

    def bare(self, consumer, label):
        """The service that the label alone stands for, the workflow's own first."""
        workflow = self.workloads[consumer].get("workflow", "")
        for key in (("WORKFLOW", workflow, label), ("CLUSTER", "", label)):
            if self.sees_service(consumer, key):
                return key
        return None

    # --- what `explain` says ---

    def explain(self, consumer, target, port):
        if isinstance(target, str):
            good = target in self.attached and self.may_reach(consumer, target, port)
            return "ALLOWED" if good else "REFUSED"
        outcomes = {verdict for verdict, _ in self.by_vip(consumer, target, port)}
        if ANSWERED in outcomes:
            return "ALLOWED"
        return "HELD" if SILENT in outcomes else "REFUSED"
