"""Plugins as engines call them that no Debian package has: CNI's with the bare environment, the
process's number and the five seconds of Singularity, in every version, twice, late and wrongly;
netavark's by its description."""
import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import time
import unittest

from engines import EngineTest, db, declare, worker, workloads
from node import BUILD, PYTHON, Agent, run, until

ID = "zzzzz-dz642-00000000000000"
DB, WORKER, OTHER = db(f"{ID}1"), worker(f"{ID}2"), worker(f"{ID}3")


class PluginTest(EngineTest):
    @classmethod
    def prepare(cls):
        cls.node.apply(workloads(DB, WORKER, OTHER))

    def setUp(self):
        self.payload = self.enterContext(self.payload_with_a_namespace())

    @staticmethod
    @contextlib.contextmanager
    def payload_with_a_namespace():
        def has_own():
            own, its = (os.stat(f"/proc/{pid}/ns/net").st_ino for pid in ("self", payload.pid))
            return own != its
        payload = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
        try:
            until(has_own, "the payload has a namespace")
            yield payload
        finally:
            payload.kill()
            payload.wait()

    def tearDown(self):
        if self.node.daemon is None:
            self.node.start()
        self.payload.kill()
        self.payload.wait()
        self.until_left()
        self.until_empty()
        super().tearDown()

    def call(self, command, container, version="1.0.0", before=(), **more):
        """With the environment that Singularity has cleared, and its 5 s."""
        environment = {"PATH": "/bin:/sbin:/usr/bin:/usr/sbin", "CNI_COMMAND": command,
                       "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0",
                       "CNI_NETNS": f"/proc/{self.payload.pid}/ns/net", "CNI_PATH": str(BUILD)}
        environment |= more.pop("environment", {})
        network = {"cniVersion": version, "name": "bridge", "type": "mesh-cni",
                   "run_dir": "/run/meshd", "state_dir": "/run/state", **more}
        begun = time.monotonic()
        done = subprocess.run([*before, BUILD / "mesh-cni"], input=json.dumps(network), text=True,
                              capture_output=True, env=environment, timeout=30, check=False)
        self.took = time.monotonic() - begun
        self.assertEqual(done.stderr, "")
        answer = json.loads(done.stdout) if done.stdout else None
        self.assertEqual(done.returncode, 1 if answer and "code" in answer else 0)
        return answer

    def inside(self, *argv):
        return run("nsenter", "-t", self.payload.pid, "-n", *argv).stdout

    def test_all_versions(self):
        for version in ("0.3.1", "0.4.0", "1.0.0", "1.1.0"):
            answer = self.call("ADD", f"{ID}1", version)
            self.assertEqual(answer["cniVersion"], version)
            inside = answer["interfaces"][1]
            self.assertIn(inside["mac"], self.inside("ip", "link", "show", "eth0"))
            self.assertIn("default via 169.254.1.1", self.inside("ip", "route"))
            self.assertEqual({ip["address"].split("/")[1] for ip in answer["ips"]}, {"32", "128"})
            self.assertEqual("version" in answer["ips"][0], version < "1")
            self.assertIsNone(self.call("CHECK", f"{ID}1", version, prevResult=answer))
            self.assertIsNone(self.call("DEL", f"{ID}1", version, prevResult=answer))
            self.assertNotIn("eth0", self.inside("ip", "link"))
            self.assertIn("code", self.call("CHECK", f"{ID}1", version, prevResult=answer))

    def test_repeated_add_gives_the_same(self):
        first = self.call("ADD", f"{ID}1")
        self.assertEqual(self.call("ADD", f"{ID}1"), first)

    def test_removal_twice_late_and_of_nothing(self):
        self.call("ADD", f"{ID}1")
        for _ in range(2):
            self.assertIsNone(self.call("DEL", f"{ID}1", environment={"CNI_NETNS": ""}))
        self.assertIsNone(self.call("DEL", "never-seen"))
        # Of an earlier container of that id: the one that runs stays.
        self.call("ADD", "second", environment={"MESHD_UUID": f"{ID}1"})
        self.assertIsNone(self.call("DEL", f"{ID}1"))
        self.assertEqual(self.attachment(f"{ID}1")["netns"], "cni:bridge/second/eth0")
        self.node.kill()
        self.assertIsNone(self.call("DEL", "second"))
        self.node.start()

    def crunch_run(self, number):
        """What starts a program as the one that runs this container."""
        crunch = self.node.dir / "crunch-run"
        if not crunch.exists():
            crunch.write_text('#!/bin/bash\nshift\n"$@"\n')
            crunch.chmod(0o755)
        return ["bash", "-c", f'exec -a crunch-run bash {crunch} "$@"', "bash", f"{ID}{number}"]

    @contextlib.contextmanager
    def container_of_singularity(self, number):
        """Attached, and an agent inside, which has a copy of the host's resolv.conf."""
        hosts = self.node.dir / "hosts.conf"
        hosts.write_text("nameserver 192.0.2.53\n")
        bind = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
        with self.payload_with_a_namespace() as payload:
            netns = f"/proc/{payload.pid}/ns/net"
            self.call("ADD", str(payload.pid), "0.4.0", before=self.crunch_run(number),
                      environment={"CNI_NETNS": netns})
            agent = Agent(f"{ID}{number}", [
                "nsenter", f"--net={netns}", "unshare", "--mount", "--propagation", "private",
                "bash", "-c", bind, "container", hosts])
            try:
                yield agent
            finally:
                agent.stop()

    def test_fifty_of_singularity(self):
        """Their plugins run at the same time, as many as a node starts containers; so do those that
        take them away."""
        names = [f"many-{i}" for i in range(50)]
        self.node.apply(workloads(*map(worker, names)))
        with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(8) as pool:
            payloads = [stack.enter_context(self.payload_with_a_namespace()) for _ in names]

            def call(command, name, payload):
                return self.call(command, str(payload.pid), "0.4.0", environment={
                    "CNI_NETNS": f"/proc/{payload.pid}/ns/net", "MESHD_UUID": name})
            answers = list(pool.map(lambda *one: call("ADD", *one), names, payloads))
            given = {ip["address"] for answer in answers for ip in answer["ips"]}
            self.assertEqual(len(given), 2 * len(names))
            self.assertEqual(len(self.node.links()), len(names))
            self.assertEqual(list(pool.map(lambda *one: call("DEL", *one), names, payloads)),
                             [None] * len(names))
            self.assertEqual(self.node.links(), [])
        for name in names:
            self.node.ctl("delete", name)

    def test_singularity_containers_have_names_and_flows(self):
        def result(agent, to, port=8080):
            return agent.ask(proto="tcp", to=to, port=port)["result"]
        stranger = f"{ID}4"
        self.node.apply(workloads(declare(stranger)))
        with self.container_of_singularity(2) as worker_s, \
                self.container_of_singularity(4) as stranger_s:
            with self.container_of_singularity(1) as db_s:
                for port in (8080, 8081):
                    db_s.serve(proto="tcp", port=port)
                self.node.ready(f"{ID}1")
                addresses, vip = self.attachment(f"{ID}1")["addresses"], self.node.vip("db")
                # The host's server is another one: whoever is asked, the mesh answers.
                for name in ("db.wf1.wf.mesh.internal", "db"):
                    self.assertIn(vip, worker_s.lookup(name=name)["addresses"])
                    self.assertEqual(stranger_s.lookup(name=name)["addresses"], [])
                for to in (*addresses, vip):
                    self.assertEqual(result(worker_s, to), "answered", to)
                    self.assertEqual(result(worker_s, to, 8081), "refused", to)
                    self.assertEqual(result(stranger_s, to), "refused", to)
                # crunch-run's own gateway calls from the node.
                self.assertEqual(result(self.node.node, addresses[0]), "answered")
            # Its payload was killed, and nobody said DEL.
            self.until_state(f"{ID}1", "DECLARED")
            self.assertEqual(result(worker_s, addresses[0]), "refused")
        self.until_left()
        self.node.ctl("delete", stranger)

    def until_state(self, name, state):
        def states():
            return {w["id"]: w["state"] for w in self.node.json("list", "workloads")["workloads"]}
        until(lambda: states()[name] == state, lambda: f"{name} is {state}: {states()}")

    def test_singularity_under_crunch_run(self):
        """Nothing but a process's number arrives; an ancestor says for whom it was started."""
        starts = self.crunch_run(2)
        answer = self.call("ADD", str(self.payload.pid), "0.4.0", before=starts)
        self.assertEqual(len(answer["ips"]), 2, answer)
        self.assertLess(self.took, 5)
        self.assertEqual(self.attachment(f"{ID}2")["ifname"], "eth0")
        self.assertIsNone(self.call("DEL", str(self.payload.pid), "0.4.0"))
        # Nobody knows of it: it starts as alone as it would without a plugin.
        answer = self.call("ADD", str(self.payload.pid), "0.4.0")
        self.assertEqual((answer["interfaces"], answer["ips"]), ([], []))

    def test_only_root_says_for_whom_it_was_started(self):
        """Singularity's starter is anybody's to call, and root itself."""
        lowers = ("import os, sys; r, w = os.pipe(); child = os.fork()\n"
                  "if child: os.setresuid(1000, 1000, 1000); os.write(w, b'x'); "
                  "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
                  "os.read(r, 1); os.execv(sys.argv[2], sys.argv[2:])")
        starts = ["bash", "-c", 'exec -a crunch-run "$0" -c "$@"', PYTHON[0], lowers, f"{ID}2"]
        answer = self.call("ADD", str(self.payload.pid), "0.4.0", before=starts)
        self.assertEqual((answer["interfaces"], answer["ips"]), ([], []))

    def test_beside_another_network_it_is_the_second(self):
        """Whoever gave it that one: by its name alone an interface is not the kernel's own."""
        run("ip", "link", "add", "other0", "type", "veth", "peer", "name", "gretap0", "netns",
            self.payload.pid)
        for state, is_first in (("down", True), ("up", False)):
            self.inside("ip", "link", "set", "gretap0", state)
            self.call("ADD", f"{ID}1")
            self.assertEqual("default via 169.254.1.1" in self.inside("ip", "route"), is_first)
            self.call("DEL", f"{ID}1")

    def test_garbage_is_collected_and_nothing_else(self):
        self.call("ADD", f"{ID}1")
        with self.payload_with_a_namespace() as other:
            self.call("ADD", f"{ID}2", environment={"CNI_NETNS": f"/proc/{other.pid}/ns/net"})
            valid = [{"containerID": f"{ID}2", "ifname": "eth0"}]
            self.assertIsNone(self.call("GC", "", "1.1.0", **{"cni.dev/valid-attachments": valid}))
            states = {w["id"]: w["state"] for w in self.node.json("list", "workloads")["workloads"]}
            self.assertEqual(states[f"{ID}1"], "DECLARED")
            self.assertIn(states[f"{ID}2"], ("ATTACHED", "READY"))
            # A list that is missing is not an empty one.
            self.assertEqual(self.call("GC", "", "1.1.0")["code"], 7)
            self.assertIsNone(self.call("GC", "", "1.1.0", **{"cni.dev/valid-attachments": []}))

    def test_garbage_that_stays_does_not_hold_up_the_rest(self):
        """The kernel refuses the first one, which takes all of the time that there is."""
        self.call("ADD", f"{ID}1")
        with self.payload_with_a_namespace() as other:
            self.call("ADD", f"{ID}2", environment={"CNI_NETNS": f"/proc/{other.pid}/ns/net"})
            with self.node.rival():
                answer = self.call("GC", "", "1.1.0", **{"cni.dev/valid-attachments": []})
                self.assertEqual(answer["msg"], "not all could be detached")
                self.assertIn(f"{ID}1: stored, not in force: ", answer["details"])
                self.assertIn(f"{ID}2: ", answer["details"])
            until(self.node.healthy, "the table is ours again")
            self.until_left("both were to be detached, and now are")

    def test_check_tells_what_is_gone(self):
        answer = self.call("ADD", f"{ID}1")
        self.assertIsNone(self.call("CHECK", f"{ID}1", prevResult=answer))
        said = self.call("CHECK", f"{ID}2", prevResult=answer)
        self.assertEqual(said["msg"], "it is not attached any more")
        address, *_ = (ip["address"] for ip in answer["ips"])
        self.inside("ip", "address", "del", address, "dev", "eth0")
        said = self.call("CHECK", f"{ID}1", prevResult=answer)
        self.assertEqual(said["msg"], f"its address {address.partition('/')[0]} is gone")
        self.inside("ip", "link", "set", "eth0", "down")
        self.inside("ip", "link", "set", "eth0", "name", "eth9")
        said = self.call("CHECK", f"{ID}1", prevResult=answer)
        self.assertEqual(said["msg"], "its interface is gone")
        self.inside("ip", "link", "del", "eth9")
        self.until_left()
        said = self.call("CHECK", f"{ID}1", prevResult=answer)
        self.assertEqual(said["msg"], "it is not attached any more")
        # Whom nobody declared never had one.
        answer = self.call("ADD", "nobody")
        self.assertIsNone(self.call("CHECK", "nobody", prevResult=answer))
        self.node.kill(signal.SIGTERM)
        self.assertEqual(self.call("CHECK", f"{ID}1", prevResult=answer)["code"], 11)

    def test_status_and_version(self):
        self.assertIsNone(self.call("STATUS", "", "1.1.0"))
        self.node.kill(signal.SIGTERM)
        self.assertEqual(self.call("STATUS", "", "1.1.0")["code"], 50)
        versions = self.call("VERSION", "")
        self.assertEqual(versions["supportedVersions"][-1], "1.1.0")
        answer = self.call("ADD", f"{ID}1")
        self.assertEqual(answer["code"], 11)
        self.assertIn(f"container {ID}1 is declared and does not start", answer["msg"])
        self.assertLess(self.took, 5)
        self.nobodys_is_left_alone()

    def nobodys_is_left_alone(self):
        for before in (None, {"cniVersion": "1.0.0", "interfaces": [{"name": "cni0"}], "ips": []}):
            answer = self.call("ADD", "nobody", **({"prevResult": before} if before else {}))
            self.assertEqual(answer["interfaces"], before["interfaces"] if before else [], answer)
            self.assertEqual(answer["ips"], [])
            self.assertLess(self.took, 4)  # the daemon was not waited for

    def test_daemon_that_hangs_holds_nobody_longer(self):
        self.node.daemon.send_signal(signal.SIGSTOP)
        try:
            answer = self.call("ADD", f"{ID}1")
            self.assertEqual(answer["code"], 11)
            # By itself, not by the alarm that is there for the worst.
            self.assertIn("meshd at /run/meshd/control.sock does not answer in time", answer["msg"])
            # Its own limit is 4 s, and the machine may be busy.
            self.assertLess(self.took, 10)
            self.nobodys_is_left_alone()
        finally:
            self.node.daemon.send_signal(signal.SIGCONT)

    def netavark(self, *argv, **more):
        done = subprocess.run([BUILD / "mesh-netavark", *argv], input=json.dumps(more), text=True,
                              capture_output=True, timeout=30, check=False)
        self.assertEqual(done.stderr, "")
        answer = json.loads(done.stdout) if done.stdout else None
        self.assertEqual(done.returncode, 1 if answer and "error" in answer else 0)
        return answer

    def test_netavark(self):
        network = self.netavark("create", name="net", id=64 * "a", driver="mesh-netavark",
                                subnets=[], dns_enabled=True, ipam_options={"driver": "host-local"},
                                options={"run_dir": "/run/meshd", "state_dir": "/run/state"})
        self.assertFalse(network["dns_enabled"])
        netns = f"/proc/{self.payload.pid}/ns/net"
        asked = {"container_id": 64 * "b", "container_name": f"{ID}1", "network": network,
                 "port_mappings": [], "network_options": {"interface_name": "eth3"}}
        status = self.netavark("setup", netns, **asked)
        made = status["interfaces"]["eth3"]
        self.assertIn(made["mac_address"], self.inside("ip", "link", "show", "eth3"))
        self.assertIn("default via 169.254.1.1 dev eth3", self.inside("ip", "route"))
        addresses = {subnet["ipnet"].split("/")[0] for subnet in made["subnets"]}
        self.assertEqual(addresses, set(self.attachment(f"{ID}1")["addresses"]))
        self.assertEqual(status["dns_server_ips"][0], "169.254.1.1")
        self.assertEqual(self.netavark("setup", netns, **asked), status)
        for _ in range(2):
            self.assertIsNone(self.netavark("teardown", netns, **asked))
        self.assertNotIn("eth3", self.inside("ip", "link"))
        said = self.netavark("setup", netns, **asked | {"container_name": "nobody"})
        self.assertIn("nobody declared this container", said["error"])
        self.node.kill(signal.SIGTERM)
        said = self.netavark("setup", netns, **asked)
        self.assertIn(f"container {ID}1 is declared and does not start", said["error"])
        self.assertIsNone(self.netavark("teardown", netns, **asked))
        self.assertEqual(self.netavark("info")["api_version"], "1.0.0")

    def test_what_is_wrong_is_told_in_json(self):
        self.assertEqual(self.call("ADD", f"{ID}1", "0.2.0")["code"], 1)
        self.assertEqual(self.call("ADD", "../x")["code"], 4)
        for netns, code in (("/etc/passwd", 4), ("/proc/self/ns/net", 100)):
            said = self.call("ADD", f"{ID}1", environment={"CNI_NETNS": netns})
            self.assertEqual(said["code"], code, said)


if __name__ == "__main__":
    unittest.main()
