"""What passes through a node while a package is replaced, each of which would show one packet that
was lost or let through."""
import pathlib

from machine import MachineTest, until

WORKLOADS = """
workloads:
- id: db
  owner: ada
  workflow: wf1
  name: db
  serves: [{port: 5432}, {port: 5434, protocol: UDP}, {port: 5435}, {port: 5436, protocol: UDP}]
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
- {id: stranger, owner: ada, workflow: wf1}
"""
ALLOWED = (("tcp", 5432), ("udp", 5434))  # to the worker
# Of db, whom the stranger may not call at all: ports that the worker may call and does not, one that
# nobody may, and one that the worker calls by TCP only.
FORBIDDEN = (("tcp", 5435), ("udp", 5436), ("tcp", 5433), ("udp", 5432))


class LoadTest(MachineTest):
    def containers(self):
        for name in ("db", "worker", "stranger"):
            self.machine.container(name)
        for proto, port in (*ALLOWED, *FORBIDDEN):
            self.machine.agents["db"].serve(proto=proto, port=port)
        self.machine.run("meshctl", "wait", "db", "--timeout", "20s")

    def rules(self):
        """Without what counts, and without elements, which follow the containers."""
        return self.machine.run("nft", "--stateless", "--terse", "list", "table", "inet",
                                "meshd").stdout

    def arrived(self):
        db = self.machine.agents["db"]
        return [db.count(proto=proto, port=port) for proto, port in FORBIDDEN]

    def load(self, stop):
        """Begins: open flows, lookups and connects by name, and who is refused all that."""
        machine = self.machine
        worker, stranger = machine.agents["worker"], machine.agents["stranger"]
        own, vips = machine.facts["db"]["addresses"], worker.lookup(name="db")["addresses"]
        self.assertEqual([len(own), len(vips)], [2, 2])
        flows = {}
        for proto, port in ALLOWED:
            for to in (*own, *vips):
                key = f"{proto} {to}"
                self.assertEqual(worker.open(key=key, proto=proto, to=to, port=port)["result"],
                                 "answered", key)
                flows[key] = worker, worker.begin("stream", key=key, until=stop)
        targets = [[proto, to, port] for proto, port in (("tcp", 5432), *FORBIDDEN)
                   for to in (*own, *vips)]
        facts = machine.facts["worker"]
        return flows, {
            "names": (worker, worker.begin("loops", name="db", port=5432, count=4, until=stop)),
            "questions": (worker, worker.begin("questions", name=f"db.{facts['search'][0]}",
                                               server=facts["resolvers"][0], count=8,
                                               until=stop)),
            "refused": (stranger, stranger.begin("hammer", targets=targets, until=stop))}

    def change(self, deb, option, unit="meshd"):
        """Under load: what came of it."""
        machine = self.machine
        stop = pathlib.Path(f"/run/stop-{deb.name}")
        main = machine.unit(unit, "MainPID")
        flows, load = self.load(str(stop))
        machine.install(deb, option=option)
        until(lambda: machine.active(unit), "it runs again")
        self.assertNotEqual(machine.unit(unit, "MainPID"), main)
        machine.run("meshctl", "wait", "db", "--timeout", "20s")
        stop.touch()
        longest = 0
        for key, (agent, number) in flows.items():  # of UDP a single lost packet would end it
            flow = agent.end(number)
            self.assertEqual(flow["end"], "stopped", (key, flow))
            self.assertGreater(flow["rounds"], 20)
            longest = max(longest, flow["longest_ms"])
        found = {name: agent.end(number) for name, (agent, number) in load.items()}
        # The C library asks again after a while, these do not: none was lost.
        self.assertEqual(set(found["questions"]["rcodes"]), {"NOERROR"}, found["questions"])
        self.assertGreater(found["questions"]["rcodes"]["NOERROR"], 50)
        self.assertEqual(set(found["names"]["outcomes"]), {"answered"}, found["names"])
        waits = [1000 * (end - begin) for begin, end in found["names"]["answered"]]
        self.assertGreater(found["refused"]["sent"], 50)
        self.assertEqual(self.arrived(), [0] * len(FORBIDDEN))
        print(f"{deb.name}: {len(flows)} open flows, longest wait {longest} ms; "
              f"{found['questions']['rcodes']['NOERROR']} questions, longest "
              f"{found['questions']['longest_ms']} ms; {len(waits)} by name, longest "
              f"{max(waits):.0f} ms; {found['refused']['sent']} refused")
