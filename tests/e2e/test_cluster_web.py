"""A cluster opened from outside: the real controller and nodes, nginx with what `mesh-controller
proxy-config` prints, and people with tokens of `mesh-controller token add`."""
import contextlib
import json
import pathlib
import subprocess
import time
import unittest

from cluster import ADMIN, ClusterTest, Host
from node import BUILD, PYTHON, Agent, run, until
from proxied import (PORT, PROXY, QUICKLY, SERVER, ZONE, Nginx, Visitor, admin, connect, new_token,
                     web)

HOST = "mesh.example.net"
EXAMPLE = pathlib.Path(__file__).parents[2] / "packaging/mesh-controller.yaml"
WEB = web(host=HOST, more=QUICKLY) + 'metrics: {listen: "127.0.0.1:9470"}\n'
LAB = ("- {{id: {id}, owner: ada, name: {name}, scope: CLUSTER, "
       "publish: [{{port: 8888, http: true, {more}}}]}}\n")
GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"


class WebTest(ClusterTest):
    OPTIONS = {"more": WEB}

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.c1 = cls.cluster.controllers[0]
        cls.n1, cls.n2 = cls.cluster.machines
        cls.servers = {}
        cls.nginx = Nginx(cls.cluster, cls.c1)

    @classmethod
    def tearDownClass(cls):
        cls.nginx.close()
        for server in cls.servers.values():
            server.kill()
            server.wait()
        super().tearDownClass()

    def person(self, user, *options):
        return Visitor(PROXY, new_token(self.c1, user, *options))

    def declare(self, name, number=1, more="label: Lab"):
        self.cluster.apply(LAB.format(id=f"{name}-{number}", name=name, more=more))

    def serve(self, machine, name, port=8888, says=None):
        process = subprocess.Popen(
            machine.command(name, *PYTHON, "-c", SERVER, says or name, port))
        self.servers[(name, port)] = process

    def stop_server(self, name, port=8888):
        server = self.servers.pop((name, port))
        server.kill()
        server.wait()

    def run_lab(self, name, machine=None, number=1, more="label: Lab"):
        """Declared, attached and serving; its host."""
        self.declare(name, number, more)
        machine = machine or self.n1
        machine.prepare(f"{name}-{number}")
        self.serve(machine, f"{name}-{number}")
        machine.ctl("wait", f"{name}-{number}")
        return f"{name}.svc.{ZONE}"

    def published(self, owner_id):
        return [one for one in self.cluster.json("list", "published")["published"]
                if one["id"] == owner_id]

    def fetch(self, url):
        """What is read there from the proxy's machine, past nginx."""
        return self.c1.run(*PYTHON, "-c", GET, url).stdout

    def reaches(self, browser, host, who, path="/", port=PORT):
        """Until it is answered by that container; the answer."""
        last = {}

        def asked():
            last["reply"] = reply = browser.open(host, path, port=port)
            return reply if reply.status == 200 and reply.text.startswith(who + " ") else None
        return until(asked, lambda: f"{who} answers {host}: {last['reply'].status} "
                                    f"{last['reply'].text}")

    def is_told(self, browser, host, status, path="/", port=PORT):
        last = {}

        def asked():
            last["status"] = browser.open(host, path, port=port).status
            return last["status"] == status
        until(asked, lambda: f"{host} says {status} and not {last['status']}")

    def is_stale(self, browser, host, who, port=PORT):
        """Another container than the browser's answers: nothing of the one before reaches it."""
        browser.cookies[host]["left"] = "behind"
        stale = dict(browser.cookies[host])
        for method, status in (("POST", 410), ("OPTIONS", 410), ("HEAD", 303), ("GET", 303)):
            browser.cookies[host] = dict(stale)
            reply = until(lambda m=method, s=status: (got := browser.get(
                host, method=m, port=port)).status == s and got, f"{method} is told {status}")
            self.assertEqual("Clear-Site-Data" in reply.headers, status == 303, method)
        self.reaches(browser, host, who, port=port)
        self.assertNotIn("left", browser.cookies[host])

    def test_its_owner_opens_it_by_name_and_nobody_else_does(self):
        host = self.run_lab("lab")
        ada, bob = self.person("ada"), self.person("bob")
        eve = self.person("eve", "--level", "CAN_READ:ada")
        root = self.person("root", "--admin")
        self.assertEqual(Visitor(PROXY).get(host).status, 401)
        self.is_told(bob, host, 404)
        self.is_told(eve, host, 403)
        self.is_told(Visitor(PROXY, "mesh_" + "x" * 43), host, 401)
        reply = self.reaches(ada, host, "lab-1", "/a?b=c")
        self.assertIn("X-Mesh-User: ada", reply.text)
        self.assertIn("lab-1 /a?b=c\n", reply.text)
        self.assertNotIn(ada.token, reply.text)
        self.assertNotIn("__Host-mesh", reply.text)
        self.reaches(root, host, "lab-1")
        program = Visitor(PROXY).get(host, headers=[f"Authorization: Bearer {ada.token}"])
        self.assertEqual(program.status, 200)
        self.assertNotIn(ada.token, program.text)
        self.assertEqual(Visitor(PROXY).get(f"nobody.svc.{ZONE}").status, 404)
        for log in ("access.log", "error.log"):
            self.assertNotIn("mesh_", (self.cluster.dir / log).read_text())

    def test_levels_are_those_of_the_declaration(self):
        host = self.run_lab("shared", more="access: CAN_READ")
        self.is_told(self.person("bob"), host, 404)
        levels = ("CAN_READ", "CAN_WRITE", "CAN_MANAGE")
        friends = [self.person(level.lower(), "--level", f"{level}:ada") for level in levels]
        reply = self.reaches(friends[0], host, "shared-1")
        self.assertIn("X-Mesh-User: can_read\n", reply.text)
        for number, level in enumerate(levels[1:], 1):
            self.declare("shared", more=f"access: {level}")
            for person in friends[:number]:
                self.is_told(person, host, 403)
            for person in friends[number:]:
                self.reaches(person, host, "shared-1")
        self.declare("shared", more="access: OWNER")
        self.is_told(friends[-1], host, 403)
        public = self.run_lab("public", more="access: PUBLIC")
        self.reaches(Visitor(PROXY), public, "public-1")

    def test_a_token_that_is_removed_opens_nothing(self):
        host = self.run_lab("removed")
        ada = self.person("ada")
        self.reaches(ada, host, "removed-1")
        people = admin(self.c1, "token", "people").stdout.splitlines()
        mine = [line.split()[0] for line in people if " ada " in line][-1]
        admin(self.c1, "token", "remove", mine)
        self.is_told(ada, host, 401)

    def test_a_name_follows_its_container_without_a_reload(self):
        ada = self.person("ada")
        host = f"moving.svc.{ZONE}"
        workers = self.nginx.pids()
        self.declare("moving")
        self.is_told(ada, host, 503)  # not started
        self.n1.prepare("moving-1")
        self.is_told(ada, host, 503)  # not ready
        self.serve(self.n1, "moving-1")
        self.reaches(ada, host, "moving-1")
        self.stop_server("moving-1")
        self.n1.ctl("detach", "moving-1")
        self.is_told(ada, host, 503)  # declared: it may come again
        self.n2.prepare("moving-1")
        self.serve(self.n2, "moving-1")
        self.reaches(ada, host, "moving-1")
        self.cluster.ctl("delete", "moving-1", "--force")
        self.is_told(ada, host, 410)
        self.run_lab("moving", self.n1, number=2)
        # Another container: what the one before left in the browser goes.
        self.is_stale(ada, host, "moving-2")
        self.n1.ctl("drain", "moving-2")
        self.is_told(ada, host, 410)
        self.assertEqual(self.nginx.pids(), workers)

    def test_a_port_that_nobody_published_opens_for_the_owner_on_demand(self):
        self.run_lab("board")
        self.serve(self.n1, "board-1", 6006)
        host = f"board--6006.svc.{ZONE}"
        ada, bob = self.person("ada"), self.person("bob")
        eve = self.person("eve", "--level", "CAN_READ:ada")
        for stranger, status in ((bob, 404), (eve, 403), (Visitor(PROXY), 401)):
            self.is_told(stranger, host, status)
        self.assertEqual([p["port"] for p in self.published("board-1")], [8888])
        self.assertEqual(ada.open(host).status, 503)
        self.reaches(ada, host, "board-1")
        self.is_told(eve, host, 403)
        opened = until(lambda: [p for p in self.published("board-1") if p["on_demand"]],
                       "it is listed")
        self.assertEqual(opened[0]["urls"][0], f"https://{host}:{PORT}/")
        self.assertIn("audit ada: open board-1 tcp/6006: done", self.c1.log.read_text())
        # With the container it goes.
        self.stop_server("board-1")
        self.n1.ctl("detach", "board-1")
        self.is_told(ada, host, 503)
        self.assertEqual(self.published("board-1"), [])

    def test_a_port_on_demand_is_shut_when_nobody_has_used_it_for_long(self):
        idle_s = 4
        self.run_lab("idle")
        self.serve(self.n1, "idle-1", 6006)
        host = f"idle--6006.svc.{ZONE}"
        ada = self.person("ada")

        def opened():
            return [port for port in self.published("idle-1") if port["on_demand"]]
        with self.changed_site(QUICKLY, f"{QUICKLY}  open_idle_s: {idle_s}\n"):
            self.reaches(ada, host, "idle-1")
            port, = until(opened, "it is listed")
            url = f"http://{port['node_addresses'][0]}:{port['node_port']}/"
            self.assertIn("idle-1 /", self.fetch(url))
            # A websocket uses it for as long as it is open.
            with connect(PROXY, host, PORT) as peer:
                peer.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{PORT}\r\nUpgrade: websocket\r\n"
                             f"Connection: Upgrade\r\nCookie: {ada.cookie(host)}\r\n\r\n".encode())
                self.assertIn(b" 101 ", peer.recv(4096))
                end = time.monotonic() + 4 * idle_s
                while time.monotonic() < end:
                    peer.sendall(b"word")
                    self.assertEqual(peer.recv(4096), b"word")
                    time.sleep(0.1)
                self.assertTrue(opened())
                last = time.monotonic()
            until(lambda: not opened(), "it is shut")
            self.assertGreater(time.monotonic() - last, idle_s - 1.5)  # keep_good_s, and a bit
            self.assertNotEqual(self.c1.run(*PYTHON, "-c", GET, url, check=False).returncode, 0)
            self.assertEqual(ada.open(host).status, 503)
            self.reaches(ada, host, "idle-1")

    def test_a_node_port_is_the_proxies_alone(self):
        self.run_lab("alone")
        self.serve(self.n1, "alone-1", 6006)
        self.reaches(self.person("ada"), f"alone--6006.svc.{ZONE}", "alone-1")
        ports = until(lambda: len(p := self.published("alone-1")) == 2 and p, "both are listed")
        self.assertEqual([(port["port"], port["on_demand"]) for port in ports],
                         [(6006, True), (8888, False)])
        places = [(*port["node_addresses"], port["node_port"]) for port in ports]
        self.cluster.apply('- {id: roamer, owner: ada, egress: [{cidr: "0.0.0.0/0"}]}\n')
        outside = Host(self.cluster, "outside", 100)
        strangers = {"outside": Agent("outside", outside.inside()),
                     "another node": Agent("n2", self.n2.inside())}
        for agent in strangers.values():
            self.addCleanup(agent.stop)
        strangers["outside"].serve(proto="tcp", port=80)
        for machine in (self.n1, self.n2):
            strangers["egress"] = roamer = machine.container("roamer")
            until(lambda r=roamer: r.ask(proto="tcp", to=outside.address, port=80)["result"] ==
                  "answered", "it has egress")
            for address, port in places:
                self.assertEqual(address, self.n1.address)
                for who, agent in strangers.items():
                    with self.subTest(who, at=machine.name, port=port):
                        told = agent.ask(proto="tcp", to=address, port=port)
                        self.assertEqual(told["result"], "refused")
                        self.assertLess(told["ms"], 1000)
                self.assertIn("alone-1 /who\n", self.fetch(f"http://{address}:{port}/who"))
            machine.remove("roamer")

    def test_each_published_port_has_names_by_service_and_by_id(self):
        self.declare("two", more="label: Lab}, {port: 8890, http: true")
        self.n1.prepare("two-1")
        for port in (8888, 8890):
            self.serve(self.n1, "two-1", port, says=f"at-{port}")
        ada, bob = self.person("ada"), self.person("bob")
        for label, port in (("two.svc", 8888), ("two--8888.svc", 8888), ("two--8890.svc", 8890),
                            ("two-1--8888", 8888), ("two-1--8890", 8890)):
            with self.subTest(label):
                self.reaches(ada, f"{label}.{ZONE}", f"at-{port}")
                self.is_told(bob, f"{label}.{ZONE}", 404)
        self.assertFalse(any(port["on_demand"] for port in self.published("two-1")), "void")

    def test_allow_from_is_the_clients_address(self):
        ada = self.person("ada")
        here = self.run_lab("here", more=f"allow_from: [{ADMIN}/32]")
        self.reaches(ada, here, "here-1")
        elsewhere = self.run_lab("elsewhere", more="allow_from: [198.51.100.0/24]")
        self.is_told(ada, elsewhere, 403)

    def test_a_site_without_wildcard_names_has_a_port_for_each_service(self):
        self.run_lab("ported", more="path: /lab")
        urls = until(lambda: (p := self.published("ported-1")) and len(p[0]["urls"]) == 3 and
                     p[0]["urls"], "all names of it are listed")
        self.assertEqual(urls[:2], [f"https://ported.svc.{ZONE}:{PORT}/lab",
                                    f"https://ported-1--8888.{ZONE}:{PORT}/lab"])
        self.assertIn(" ".join(urls), self.cluster.ctl("list", "published").stdout)
        host, _, port = urls[2][len("https://"):-len("/lab")].partition(":")
        self.assertEqual(host, HOST)
        ada = self.person("ada")
        self.reaches(ada, host, "ported-1", "/lab", port=int(port))
        self.is_told(self.person("bob"), host, 404, port=int(port))
        self.assertEqual(ada.get(HOST, port=8529).status, 410, "nobody's")

        self.c1.kill()
        self.assertEqual(ada.get(host, port=int(port)).status, 503)
        self.c1.start()
        self.cluster.settled()
        self.reaches(ada, host, "ported-1", "/lab", port=int(port))
        self.assertEqual(self.published("ported-1")[0]["urls"], urls)

    @contextlib.contextmanager
    def changed_site(self, old, new):
        """That stands in the configuration for this; afterwards it is as it was."""
        config = self.c1.config.read_text()
        self.restart(config.replace(old, new))
        try:
            yield
        finally:
            self.restart(config)

    def restart(self, config):
        self.assertNotEqual(self.c1.config.read_text(), config)
        self.nginx.close()
        self.c1.kill()
        self.c1.config.write_text(config)
        self.c1.start()
        type(self).nginx = Nginx(self.cluster, self.c1)
        self.cluster.settled()

    def test_a_site_of_one_name_has_all_that_others_have(self):
        self.run_lab("only")
        with self.changed_site(f"  zone: {ZONE}\n", ""):
            url, = until(lambda: (p := self.published("only-1")) and p[0]["urls"], "it is listed")
            port = int(url.removeprefix(f"https://{HOST}:").removesuffix("/"))
            self.assertIn(port, range(8500, 8530))
            ada, bob = self.person("ada"), self.person("bob")
            self.reaches(ada, HOST, "only-1", port=port)
            self.is_told(bob, HOST, 404, port=port)
            self.is_told(ada, f"only.svc.{ZONE}", 421)
            with connect(PROXY, HOST, port) as peer:
                peer.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\n"
                             f"Connection: Upgrade\r\nCookie: {ada.cookie(HOST)}\r\n\r\n".encode())
                self.assertIn(b" 101 ", peer.recv(4096))
                peer.sendall(b"word")
                self.assertEqual(peer.recv(4096), b"word")
            # Another container has the name, and its port.
            self.stop_server("only-1")
            self.n1.ctl("detach", "only-1")
            self.cluster.ctl("delete", "only-1", "--force")
            self.run_lab("only", number=2)
            self.is_stale(ada, HOST, "only-2", port)
            # The page, for whoever is signed in here.
            page = ada.get(HOST)
            self.assertIn("text/html", page.headers["Content-Type"])
            self.assertEqual(Visitor(PROXY).get(HOST, "/state.json").status, 401)
            state = until(lambda: (got := ada.get(HOST, "/state.json")).status == 200 and
                          json.loads(got.text), "the page has what to show")
            mine = next(one for one in state["workloads"] if one["id"] == "only-2")
            self.assertEqual([link["href"] for link in mine["links"]], [url])

    def test_the_example_that_is_shipped_is_good(self):
        run(BUILD / "mesh-controller", "--check-config", "--config", EXAMPLE)

    def test_what_nginx_was_told_is_counted(self):
        host = self.run_lab("counted")
        self.reaches(self.person("ada"), host, "counted-1")

        until(lambda: 'mesh_controller_web_verdicts_total{verdict="allow"}' in
              self.fetch("http://127.0.0.1:9470/metrics"), "allowed requests are counted")


if __name__ == "__main__":
    unittest.main(verbosity=2)
