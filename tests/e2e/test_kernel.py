"""What meshd keeps in the kernel: taken from the node no more than needed, repaired when
foreign hands damage it, given back at a purge."""
import contextlib
import json
import pathlib
import re
import socket
import struct
import subprocess
import time
import unittest

import node as bed
from node import NodeTest, run, until

WORKFLOW = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}
"""
# What the contract gives for a repair, and what sanitizers and a loaded machine add.
TABLE, REST, SLACK = 0.25, 10.0, 5.0


def sysctl(key):
    return pathlib.Path("/proc/sys/net", key).read_text().strip()


def set_sysctl(key, value):
    pathlib.Path("/proc/sys/net", key).write_text(value)


def lo_addresses():
    links = json.loads(run("ip", "-j", "addr", "show", "lo").stdout)
    return {a["local"] for link in links for a in link.get("addr_info", [])}


def repairs(watch):
    return watch.lines("REPAIRED")


class LogReader:
    """A foreign program that reads the log group of ours."""
    CONFIG, BIND = 4 << 8 | 1, 1

    def __init__(self, group):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        self.socket.bind((0, 0))
        attribute = struct.pack("HHBxxx", 5, 1, self.BIND)
        payload = struct.pack("BB", 0, 0) + struct.pack(">H", group) + attribute
        self.socket.send(struct.pack("IHHII", 16 + len(payload), self.CONFIG, 5, 1, 0) + payload)
        error = struct.unpack("i", self.socket.recv(4096)[16:20])[0]
        assert error == 0, error

    def close(self):
        self.socket.close()


class KernelTest(NodeTest):
    @classmethod
    def setUpClass(cls):
        cls.node = bed.Node()
        try:
            # A node that forwards IPv4 already, as one with containers does, and not IPv6.
            set_sysctl("ipv4/ip_forward", "1")
            set_sysctl("ipv6/conf/all/forwarding", "0")
            run("ip", "link", "add", "br9", "type", "bridge")
            for link in ("br9", "up0"):
                set_sysctl(f"ipv6/conf/{link}/accept_ra", "1")
            run("ip", "-6", "route", "add", "default", "via", "2001:db8:1::10", "dev", "up0")
            cls.node.start()
        except BaseException:
            cls.tell_log()
            raise

    def setUp(self):
        if self.node.daemon is None:
            self.node.start()
        self.node.apply(WORKFLOW)

    def tearDown(self):
        if self.node.daemon is None:
            self.node.start()
        for name in list(self.node.agents):
            self.node.agents.pop(name).stop()
        for workload in self.node.json("list", "workloads")["workloads"]:
            self.node.ctl("delete", workload["id"], "--force")
        for name in ("full", "noip6", "eng"):
            run("ip", "netns", "del", name, check=False)
        super().tearDown()

    def attachment(self, name):
        for workload in self.node.json("list", "workloads")["workloads"]:
            if workload["id"] == name and workload["state"] != "DECLARED":
                return workload["attachment"]
        return None

    def purge(self, config=None):
        return run(bed.BUILD / "meshd", "--config", config or self.node.config, "--purge",
                   check=False)

    @contextlib.contextmanager
    def watching(self):
        with bed.Watch(self.node) as watch:
            # Whoever watches is there once it hears of something.
            def heard():
                self.node.ctl("prepare", "worker")
                self.node.ctl("detach", "worker")
                return watch.lines("DETACHED")
            until(heard, "watch hears")
            yield watch

    # --- sysctls ---

    def test_only_the_family_that_did_not_forward_is_closed_for_others(self):
        chain = run("nft", "list", "chain", "inet", "meshd", "forw").stdout
        self.assertRegex(chain, r"meta nfproto ipv6 jump others6")
        self.assertEqual(chain.count("others"), 1, chain)

    def test_only_uplinks_are_told_to_hear_routers(self):
        self.assertEqual(sysctl("ipv6/conf/up0/accept_ra"), "2")
        self.assertEqual(sysctl("ipv6/conf/br9/accept_ra"), "1")
        with self.watching() as watch:
            run("ip", "link", "add", "br10", "type", "bridge")
            set_sysctl("ipv6/conf/br10/accept_ra", "1")
            run("ip", "link", "set", "br10", "up")
            run("ip", "-6", "route", "add", "default", "via", "fe80::99", "dev", "br10",
                "metric", "2000")
            until(lambda: sysctl("ipv6/conf/br10/accept_ra") == "2", "the new uplink hears them",
                  REST + SLACK)
            self.assertEqual(repairs(watch), [], "a new link is no repair")
            # Set back by somebody: now it is one.
            set_sysctl("ipv6/conf/br10/accept_ra", "1")
            until(lambda: sysctl("ipv6/conf/br10/accept_ra") == "2", "it is repaired",
                  REST + SLACK)
            until(lambda: any("br10/accept_ra was 1" in line for line in repairs(watch)), "told")
        run("ip", "-6", "route", "del", "default", "dev", "br10")
        self.assertEqual(sysctl("ipv6/conf/br9/accept_ra"), "1")
        # And what was set long after the start is known to a purge.
        self.node.kill()
        self.assertEqual(self.purge().returncode, 0)
        for link in ("up0", "br9", "br10"):
            self.assertEqual(sysctl(f"ipv6/conf/{link}/accept_ra"), "1", link)
        self.assertEqual(sysctl("ipv6/conf/all/forwarding"), "0")
        self.assertEqual(sysctl("ipv4/ip_forward"), "1")
        run("ip", "link", "del", "br10")

    # --- repairs ---

    def damage(self):
        """By name: what to do, when it is right again, within which time, what is told."""
        db = self.attachment("db")
        link, a4 = db["host_ifname"], next(a for a in db["addresses"] if ":" not in a)
        a6 = next(a for a in db["addresses"] if ":" in a)

        def shows(*argv):
            return run("ip", *argv, check=False).stdout

        def flags():
            return shows("link", "show", link)

        return {
            "element": (["nft", "flush", "set", "inet", "meshd", "bind4"],
                        lambda: a4 in run("nft", "list", "set", "inet", "meshd", "bind4").stdout,
                        TABLE, "bind4"),
            "rules": (["nft", "flush", "chain", "inet", "meshd", "forw"],
                      lambda: "jump" in run("nft", "list", "chain", "inet", "meshd", "forw").stdout,
                      TABLE, "forw"),
            "table": (["nft", "delete", "table", "inet", "meshd"],
                      lambda: run("nft", "list", "table", "inet", "meshd",
                                  check=False).returncode == 0, TABLE, "table"),
            "route": (["ip", "route", "del", f"{a4}/32"],
                      lambda: link in shows("route", "show", a4), REST, f"route {a4}/32"),
            "route6": (["ip", "-6", "route", "del", f"{a6}/128"],
                       lambda: link in shows("-6", "route", "show", a6), REST, f"route {a6}/128"),
            "stolen route": (["ip", "route", "replace", f"{a4}/32", "dev", "lo"],
                             lambda: link in shows("route", "show", a4), REST, f"route {a4}/32"),
            "neighbour": (["ip", "neigh", "del", a4, "dev", link],
                          lambda: "PERMANENT" in shows("neigh", "show", a4), REST,
                          f"neighbour {a4}"),
            "lo": (["ip", "addr", "del", "169.254.1.1/32", "dev", "lo"],
                   lambda: "169.254.1.1" in lo_addresses(), REST, "address 169.254.1.1/32 dev lo"),
            "sysctl": (["sysctl", "-w", "net.ipv4.ip_forward=0"],
                       lambda: sysctl("ipv4/ip_forward") == "1", REST, "ip_forward was 0"),
            "flag": (["ip", "link", "set", link, "arp", "on"],
                     lambda: "NOARP" in flags(), REST, "another arp"),
            "down": (["ip", "link", "set", link, "down"],
                     lambda: "state UP" in flags() and link in shows("route", "show", a4), REST,
                     "another up"),
            "group": (["ip", "link", "set", link, "group", "0"],
                      lambda: "group 77" in flags(), REST, "another group"),
        }

    def test_damage_is_repaired_in_time_and_told(self):
        db, worker = self.node.container("db"), None
        db.serve(proto="tcp", port=5432)
        with self.watching() as watch:
            worker = self.node.container("worker")
            for name, (command, is_right, limit, told) in self.damage().items():
                with self.subTest(name):
                    before = len(repairs(watch))
                    if command[0] == "sysctl":
                        set_sysctl("ipv4/ip_forward", "0")
                    else:
                        run(*command)
                    start = time.monotonic()
                    until(is_right, f"{name} is repaired", limit + SLACK)
                    took = time.monotonic() - start
                    print(f"{name}: {took * 1000:.0f} ms of {limit * 1000:.0f}")
                    until(lambda: any(told in line for line in repairs(watch)[before:]),
                          lambda: f"{told} in {repairs(watch)[before:]}")
                    asked = worker.ask(proto="tcp", to=self.node.address("db"), port=5432)
                    self.assertEqual(asked["result"], "answered", name)
            self.assertEqual(self.attachment("db")["addresses"], self.node.facts["db"]["addresses"])

    def test_renamed_link_is_a_detach(self):
        self.node.container("db")
        link = self.attachment("db")["host_ifname"]
        run("ip", "link", "set", link, "down")
        run("ip", "link", "set", link, "name", "foo0")
        until(lambda: self.attachment("db") is None, "the detach", REST + SLACK)
        until(lambda: run("ip", "link", "show", "foo0", check=False).returncode != 0, "its link")
        until(lambda: self.node.ctl("status", check=False).returncode == 0, "health")
        self.node.agents.pop("db").stop()
        run("ip", "netns", "del", "db")
        self.node.container("db")  # and back

    def test_start_that_finds_all_right_writes_nothing(self):
        self.node.container("db")
        rules = self.node.rules(handles=True)
        with open(self.node.dir / "monitor", "w", encoding="utf-8") as out:
            monitor = subprocess.Popen(["nft", "monitor"], stdout=out)
        routes = subprocess.Popen(["ip", "monitor", "link", "address", "route"],
                                  stdout=subprocess.PIPE, text=True)
        try:
            heard = self.node.dir / "monitor"

            # It listens once it hears.
            def hears():
                run("nft", "add", "table", "inet", "herald")
                run("nft", "delete", "table", "inet", "herald")
                return "herald" in heard.read_text()
            until(hears, "nft monitor hears")
            self.node.kill()
            self.node.start()
            run("nft", "add", "table", "inet", "last")
            run("nft", "delete", "table", "inet", "last")
            until(lambda: "delete table inet last" in heard.read_text(), "the end")
        finally:
            for process in (monitor, routes):
                process.terminate()
            events = routes.communicate()[0]
            monitor.wait()
        ours = [line for line in heard.read_text().splitlines()
                if not re.search(r"herald|last|new generation|^$", line)]
        self.assertEqual(ours, [])
        self.assertEqual(events, "")
        self.assertEqual(self.node.rules(handles=True), rules)

    def test_tables_of_earlier_tries_are_swept(self):
        self.node.kill()
        run("nft", "add", "table", "inet", "meshd-probe-4711")
        run("nft", "add", "table", "inet", "meshd2")
        try:
            self.node.start()
            self.assertNotIn("meshd-probe", run("nft", "list", "tables").stdout)
            self.node.kill()
            run("nft", "add", "table", "inet", "meshd-probe-4711")
            self.assertEqual(self.purge().returncode, 0)
            self.assertEqual(run("nft", "list", "tables").stdout, "table inet meshd2\n")
        finally:
            run("nft", "delete", "table", "inet", "meshd2")

    # --- others on the node ---

    def test_foreign_links_of_our_names_are_passed_over(self):
        self.node.container("worker")
        index = int(self.attachment("worker")["host_ifname"][4:], 16)
        foreign = [f"mesh{index + i:x}" for i in range(1, 4)]
        for link in foreign:
            run("ip", "link", "add", link, "type", "bridge")
        try:
            self.node.container("db")
            self.assertNotIn(self.attachment("db")["host_ifname"], foreign)
            for link in foreign:
                self.assertIn("bridge", run("ip", "-d", "link", "show", link).stdout)
        finally:
            for link in foreign:
                run("ip", "link", "del", link)

    def test_interface_that_is_there_already_is_named(self):
        run("ip", "netns", "add", "full")
        run("ip", "-n", "full", "link", "add", "eth0", "type", "bridge")
        done = self.node.ctl("attach", "db", "--netns", "/run/netns/full", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"the container has an interface eth0 already.*--ifname")
        run("ip", "netns", "del", "full")

    def test_foreign_reader_of_the_log_is_no_reason_not_to_start(self):
        self.node.kill()
        reader = LogReader(88)
        try:
            self.node.launch()
            until(lambda: self.node.ctl("apply", "-f", "-", stdin=WORKFLOW,
                                        check=False).returncode == 0, "the daemon answers")
            status = self.node.ctl("status", check=False)
            self.assertEqual(status.returncode, 1)
            self.assertRegex(status.stdout, r"log group 88.*another process reads it")
        finally:
            reader.close()
        until(self.node.healthy, "it reads the log once that is free", REST + SLACK)

    # --- containers that are not as usual ---

    def test_container_with_ipv6_switched_off_gets_it_on_our_interface_alone(self):
        run("ip", "netns", "add", "noip6")
        run("ip", "netns", "exec", "noip6", "sh", "-c",
            "for key in all default; do echo 1 > /proc/sys/net/ipv6/conf/$key/disable_ipv6; done;"
            "ip link add other type bridge; ip link set other up")
        self.node.ctl("attach", "db", "--netns", "/run/netns/noip6")
        addresses = self.attachment("db")["addresses"]
        shown = run("ip", "-n", "noip6", "addr", "show", "eth0").stdout
        for address in addresses:
            self.assertIn(address, shown)
        self.assertEqual(len(addresses), 2)
        self.assertNotIn("inet6", run("ip", "-n", "noip6", "addr", "show", "other").stdout)
        self.node.container("worker")
        server = bed.Agent("noip6", ["ip", "netns", "exec", "noip6"])
        try:
            server.serve(proto="tcp", port=5432)
            for to in addresses:
                asked = self.node.agents["worker"].ask(proto="tcp", to=to, port=5432)
                self.assertEqual(asked["result"], "answered", to)
        finally:
            server.stop()
        self.node.ctl("detach", "db")
        run("ip", "netns", "del", "noip6")

    def test_beside_the_engines_interface(self):
        """--no-default-route: the container has its network, ours comes as a second one."""
        run("ip", "netns", "add", "eng")
        run("ip", "link", "add", "eng0", "type", "veth", "peer", "name", "eth0", "netns", "eng")
        run("ip", "addr", "add", "172.30.0.1/24", "dev", "eng0")
        run("ip", "link", "set", "eng0", "up")
        run("ip", "-n", "eng", "addr", "add", "172.30.0.2/24", "dev", "eth0")
        run("ip", "-n", "eng", "link", "set", "eth0", "up")
        run("ip", "-n", "eng", "route", "add", "default", "via", "172.30.0.1")
        rules = [run("ip", "-n", "eng", family, "rule").stdout for family in ("-4", "-6")]
        attach = ("attach", "db", "--netns", "/run/netns/eng", "--ifname", "mesh0",
                  "--no-default-route")
        facts = json.loads(self.node.ctl(*attach).stdout)
        a4 = next(a for a in facts["addresses"] if ":" not in a)
        server = bed.Agent("eng", ["ip", "netns", "exec", "eng"])
        try:
            route = run("ip", "-n", "eng", "route", "get", "198.51.100.1").stdout
            self.assertIn("dev eth0", route, "the engine's default route stands")
            doctor = self.node.ctl("doctor", check=False).stdout
            self.assertIn("note: what passes interfaces that engines have given is not controlled: "
                          "db\n", doctor)
            route = run("ip", "-n", "eng", "route", "get", "198.51.100.1", "from", a4).stdout
            self.assertIn("dev mesh0", route, "replies go back by the interface they came by")
            for port in (5432, 5433):
                server.serve(proto="tcp", port=port)
            worker = self.node.container("worker")
            for to in facts["addresses"]:
                self.assertEqual(worker.ask(proto="tcp", to=to, port=5432)["result"], "answered")
                # Served, listening, and not declared: closed on the mesh interface.
                self.assertEqual(worker.ask(proto="tcp", to=to, port=5433)["result"], "refused")
            # And it may go nowhere by it itself.
            for to in self.node.facts["worker"]["addresses"]:
                asked = server.ask(proto="tcp", to=to, port=80)
                self.assertEqual(asked["result"], "refused", to)
            # By the engine's interface nothing is ours: it answers as before.
            own = self.node.node.ask(proto="tcp", to="172.30.0.2", port=5433)
            self.assertEqual(own["result"], "answered")
            egress = 'workloads: [{id: db, owner: ada, workflow: wf1, name: db, ' \
                     'egress: [{cidr: "0.0.0.0/0"}]}]'
            self.assertEqual(self.node.apply(egress, check=False).returncode, 1)
            self.node.ctl("detach", "db")
            left = [run("ip", "-n", "eng", family, "rule").stdout for family in ("-4", "-6")]
            self.assertEqual(left, rules)
            self.assertEqual(run("ip", "-n", "eng", "route", "show", "table", "213",
                                 check=False).stdout, "")
            self.assertNotIn("mesh0", run("ip", "-n", "eng", "link").stdout)
        finally:
            server.stop()
            run("ip", "netns", "del", "eng", check=False)

    # --- purge ---

    def test_purge_and_second_daemon_are_refused_beside_a_daemon(self):
        self.node.container("db")
        rules = self.node.rules()
        others = {"same state": ("/run/other", "/run/state"), "own state": ("/run/other", "/run/os"),
                  "same run_dir": ("/run/meshd", "/run/os")}
        for name, (run_dir, state_dir) in others.items():
            with self.subTest(name):
                other = self.node.dir / "other.yaml"
                other.write_text(f"node: {{name: n1}}\nrun_dir: {run_dir}\nstate_dir: {state_dir}\n")
                for arguments in (["--purge"], []):
                    done = run(bed.BUILD / "meshd", "--config", other, *arguments, check=False)
                    self.assertEqual(done.returncode, 1, arguments)
                    self.assertRegex(done.stderr, "another meshd (runs|uses)")
        self.assertEqual(self.node.rules(), rules)
        self.assertIsNotNone(self.attachment("db"))

    def test_name_taken_by_another_user_stops_nobody(self):
        self.node.kill()
        holder = subprocess.Popen(
            ["setpriv", "--reuid", "65534", "--clear-groups", *bed.PYTHON, "-c",
             "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(chr(0) + 'meshd');"
             "s.listen(); print('held', flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(holder.stdout.readline(), "held\n")
            self.node.start()
        finally:
            holder.kill()
            holder.communicate()

    def test_purge_without_its_state(self):
        before = lo_addresses()
        self.assertTrue(any(a.endswith(":53::53") for a in before), before)
        self.node.container("db")
        self.node.kill()
        for agent in list(self.node.agents):
            self.node.agents.pop(agent).stop()
        run("ip", "addr", "add", "169.254.1.9/32", "dev", "lo")  # not ours
        state = pathlib.Path("/run/state")
        aside = pathlib.Path("/run/aside")
        state.rename(aside)
        try:
            done = self.purge()
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertFalse(state.exists(), "a purge makes no store")
            self.assertEqual(lo_addresses(), {"127.0.0.1", "::1", "169.254.1.9"})
            self.assertEqual(self.node.links(), [])
            self.assertNotIn("meshd", run("nft", "list", "tables").stdout)
            self.assertNotIn("213", run("ip", "route", "show", "table", "all").stdout)
        finally:
            aside.rename(state)
            run("ip", "addr", "del", "169.254.1.9/32", "dev", "lo")
            run("ip", "netns", "del", "db")

    def test_purge_goes_on_after_a_failure(self):
        self.node.container("db")
        self.node.kill()
        for agent in list(self.node.agents):
            self.node.agents.pop(agent).stop()
        database = pathlib.Path("/run/state/meshd.db")
        for rest in database.parent.glob("meshd.db-*"):
            rest.unlink()
        database.write_bytes(b"not a database" * 100)
        try:
            done = self.purge()
            self.assertEqual(done.returncode, 1)
            self.assertIn("meshd.db", done.stderr)
            self.assertEqual(self.node.links(), [])
            self.assertNotIn("169.254.1.1", lo_addresses())
            # Whether the node forwarded before us stood in the store.
            self.assertIn("the table inet meshd stays", done.stderr)
            self.assertIn("meshd", run("nft", "list", "tables").stdout)
            database.unlink()
            self.assertEqual(self.purge().returncode, 0)
            self.assertNotIn("meshd", run("nft", "list", "tables").stdout)
        finally:
            for rest in database.parent.glob("meshd.db*"):
                rest.unlink()
            run("ip", "netns", "del", "db")

    def test_node_without_ipv6_is_told_the_setting(self):
        self.node.kill()
        set_sysctl("ipv6/conf/all/disable_ipv6", "1")
        other = self.node.dir / "four.yaml"
        try:
            done = run(bed.BUILD / "meshd", "--config", self.node.config, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, r"^meshd: pool.ipv6 is on, but IPv6 is switched off")
            self.assertRegex(done.stderr, r"set pool.ipv6 to off")
            text = self.node.config.read_text().replace("/run/state", "/run/state4")
            other.write_text(text + 'pool: {ipv6: "off"}\n')
            self.node.config, good = other, self.node.config
            try:
                self.node.start()
            finally:
                self.node.config = good
            self.node.kill()
        finally:
            set_sysctl("ipv6/conf/all/disable_ipv6", "0")
            run("ip", "addr", "replace", "2001:db8:1::1/64", "dev", "up0", "nodad")


if __name__ == "__main__":
    unittest.main(verbosity=2)
