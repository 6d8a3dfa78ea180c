"""Containers of an Arvados site, opened from outside by its people: real nginx, controller and
nodes, and a stand-in of the API. What Arvados' own proxy says to whom, ours says as well."""
import contextlib
import http.client
import json
import subprocess
import threading
import time
import unittest

from arvados_cluster import SECRET, TOKEN, ArvadosClusterTest, container, uuid
from cluster import ADMIN
from node import PYTHON, until
from proxied import PORT, PROXY, QUICKLY, SERVER, ZONE, Nginx, Visitor, connect, web

HOST = "mesh.example.net"
WEB = web(host=HOST, more=QUICKLY)
PAGE = f"mesh.{ZONE}"
KEEP_GOOD_S = 1  # as QUICKLY has it
SLACK_S = 10  # sanitizers on a busy machine
WHO = "api_client_authorizations/current"
# Who they are to user 1's requests.
OWNER, MANAGER, WRITER, READER, STRANGER, ANONYMOUS, ADMINISTRATOR, INACTIVE = range(1, 9)
PEOPLE = {OWNER: {}, MANAGER: {}, WRITER: {}, READER: {}, STRANGER: {},
          ANONYMOUS: {"username": "anonymous"}, ADMINISTRATOR: {"is_admin": True},
          INACTIVE: {"is_active": False}}
LEVELS = ("OWNER", "CAN_MANAGE", "CAN_WRITE", "CAN_READ", "PUBLIC")
PRIVATE = {"access": "private", "label": "Lab", "initial_path": ""}
PUBLIC = {"access": "public", "label": "Page", "initial_path": ""}


def secret(user):
    return f"secretofuser{user}" * 4


def token(user):
    return f"v2/{uuid('gj3su', user)}/{secret(user)}"


def wild(name, port=PORT):
    """A place: host, and port."""
    return f"{name}.{ZONE}", port


class ArvadosWebTest(ArvadosClusterTest):
    OPTIONS = {"more": WEB}
    SECRETS = (SECRET, *map(secret, PEOPLE))

    @classmethod
    def before_start(cls):
        super().before_start()
        for user, more in PEOPLE.items():
            cls.api.put("users", uuid=uuid("tpzed", user), **{"username": f"user{user}"} | more)
            cls.api.token(token(user), uuid("tpzed", user))
        cls.api.put("groups", uuid=uuid("j7d0g", OWNER), owner_uuid=uuid("tpzed", OWNER))
        cls.api.permit(uuid("tpzed", OWNER), uuid("j7d0g", OWNER), "can_manage")
        cls.servers = {}
        cls.nginx = Nginx(cls.cluster, cls.c1)

    @classmethod
    def tearDownClass(cls):
        cls.nginx.close()
        for server in cls.servers.values():
            server.kill()
            server.wait()
        super().tearDownClass()

    # --- containers and names ---

    def run_container(self, number, published, *ports, machine=None, of=None, **more):
        """Request `number` has a container, which serves these ports."""
        self.commit(number, published_ports=published, of=of, **more)
        of, machine = of or number, machine or self.n1
        self.declared(of)
        machine.prepare(container(of))
        self.servers[of] = subprocess.Popen(
            machine.command(container(of), *PYTHON, "-c", SERVER, container(of), *ports))
        machine.ctl("wait", container(of))

    def end(self, number, machine=None):
        server = self.servers.pop(number)
        server.kill()
        server.wait()
        (machine or self.n1).ctl("detach", container(number))
        self.ended(number)

    def link(self, number, name, request, port):
        self.api.put("links", uuid=uuid("o0j2j", number), owner_uuid=uuid("tpzed", OWNER),
                     name=name, head_uuid=uuid("xvhdp", request), properties={"port": port})

    def permit(self, user, request, level):
        self.api.permit(uuid("tpzed", user), uuid("xvhdp", request), level)

    def outside_port(self, number, port):
        """Of a site without wildcard names: (its name, the port)."""
        urls = until(lambda: [url for row in self.cluster.json("list", "published")["published"]
                              if (row["id"], row["port"]) == (container(number), port)
                              for url in row["urls"] if f"//{HOST}:" in url], "it has a port")
        return HOST, int(urls[0].rpartition(":")[2].strip("/"))

    # --- who opens them ---

    def visitor(self, user):
        return Visitor(PROXY, token(user) if user else None)

    def told(self, user, place, status, what="", method="GET", **headers):
        """By status, once it has come to that."""
        visitor = user if isinstance(user, Visitor) else self.visitor(user)
        last = {}

        def asked():
            last["reply"] = reply = visitor.open(place[0], port=place[1]) if method == "GET" \
                else visitor.get(place[0], port=place[1], method=method, **headers)
            return reply if reply.status == status else None
        return until(asked, lambda: f"{what} user {user} at {place} is told {status}, and not "
                                    f"{last['reply'].status}: {last['reply'].text[:300]}")

    def hold(self, row, place):
        for user, status in row.items():
            self.told(user, place, status)

    def redirects(self, place):
        """Whoever has a token in the address, good or not, and whatever they do."""
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            reply = Visitor(PROXY).get(place[0], "/a?b=%2f&arvados_api_token=bad", method, place[1])
            self.assertEqual((reply.status, reply.headers["Location"]), (303, "/a?b=%2f"), method)
            self.assertIn("HttpOnly", reply.headers["Set-Cookie"])

    # --- what must work ---

    def test_what_arvados_own_proxy_says_to_whom(self):
        self.run_container(200, {"8888": PRIVATE, "8889": PUBLIC}, 8888, 8889, 9000)
        self.permit(READER, 200, "can_read")
        self.link(200, "matrix", 200, 8888)
        both = container(200), uuid("xvhdp", 200)
        row = {None: 401, ANONYMOUS: 404, STRANGER: 404, READER: 403, OWNER: 200, INACTIVE: 401,
               ADMINISTRATOR: 200, Visitor(PROXY, token(OWNER) + "garbage"): 401}
        for place in (wild(f"{both[0]}-8888"), wild(f"{both[1]}-8888"), wild("matrix.svc"),
                      # Without a port: the first that is published.
                      wild(both[0]), wild(both[1]), self.outside_port(200, 8888),
                      # Not listed: private too. It opens for those who may.
                      wild(f"{both[0]}-9000"), wild(f"{both[1]}-9000")):
            with self.subTest(place):
                self.hold(row, place)
                self.redirects(place)
        public = wild(f"{both[0]}-8889")
        for place in (public, wild(f"{both[1]}-8889"), self.outside_port(200, 8889)):
            self.hold({None: 200, STRANGER: 200, INACTIVE: 200}, place)
            self.told(None, place, 200, method="OPTIONS")
        self.told(None, wild(f"{both[0]}-8888"), 401, method="OPTIONS")
        self.told(None, wild("nobodys.svc"), 404)
        self.told(None, wild(f"{container(299)}-8888"), 404)
        self.told(None, wild(f"{both[0]}-0"), 400)
        self.told(None, (HOST, 8529), 410, "a port that is nobody's")
        # Somebody else's request is on the same container: no longer the owner's alone.
        self.commit(201, of=200, user=STRANGER)
        for place in (wild(f"{both[0]}-8888"), wild("matrix.svc"), wild(f"{both[0]}-9000")):
            self.told(OWNER, place, 403)
        self.told(None, public, 200)
        self.api.remove("container_requests", uuid("xvhdp", 201))
        self.told(OWNER, wild("matrix.svc"), 200)
        self.end(200)
        self.told(OWNER, wild("matrix.svc"), 410)

    def test_a_container_is_told_who_comes_and_never_their_token(self):
        self.run_container(210, {"8888": PRIVATE}, 8888)
        place = wild(f"{container(210)}-8888")
        reply = self.told(OWNER, place, 200)
        self.assertIn(f"X-Arvados-User-UUID: {uuid('tpzed', OWNER)}\n", reply.text)
        self.assertIn("X-Mesh-User: user1\n", reply.text)
        program = Visitor(PROXY)
        for word in ("Bearer", "OAuth2"):
            for text in (token(OWNER), secret(OWNER), f"{token(OWNER)}/{container(210)}"):
                # Old tokens are the secret alone; the API knows them as well.
                self.api.token(secret(OWNER), uuid("tpzed", OWNER))
                reply = program.get(place[0], headers=[f"Authorization: {word} {text}",
                                                       "X-Arvados-User-UUID: forged"])
                self.assertEqual(reply.status, 200, (word, text))
                self.assertEqual(reply.text.count("X-Arvados-User-UUID"), 1)
                self.assertNotIn("forged", reply.text)
                self.assertNotIn(secret(OWNER), reply.text)
        # What is not a token of the site's is the container's own.
        owner = self.visitor(OWNER)
        owner.open(place[0])
        reply = owner.get(place[0], headers=["Authorization: Basic dTpw"])
        self.assertIn("Authorization: Basic dTpw\n", reply.text)
        self.assertNotIn("__Host-mesh", reply.text)
        for bad in ({"expired": True}, {"scopes": ["GET /arvados/v1/users/current"]}):
            self.api.token("v2/zzzzz-gj3su-000000000000099/" + "badone" * 8,
                           uuid("tpzed", OWNER), **bad)
            self.told(Visitor(PROXY, "v2/zzzzz-gj3su-000000000000099/" + "badone" * 8), place, 401)
        self.end(210)

    def test_five_levels(self):
        ports = range(8001, 8006)
        self.run_container(220, {}, *ports, meshd={"publish": [
            {"port": port, "http": True, "access": level} for port, level in zip(ports, LEVELS)]})
        self.permit(MANAGER, 220, "can_manage")
        self.permit(WRITER, 220, "can_write")
        self.permit(READER, 220, "can_read")
        opens = {OWNER: 5, ADMINISTRATOR: 5, MANAGER: 4, WRITER: 3, READER: 2}
        for number, port in enumerate(ports):
            place = wild(f"{container(220)}-{port}")
            for user, count in opens.items():
                self.told(user, place, 200 if number >= 5 - count else 403, LEVELS[number])
            others = {STRANGER: 404, ANONYMOUS: 404, INACTIVE: 401, None: 401}
            for user, status in others.items():
                self.told(user, place, 200 if LEVELS[number] == "PUBLIC" else status,
                          LEVELS[number])
        # By their project; and taken away again.
        written = wild(f"{container(220)}-8003")
        self.api.permit(uuid("tpzed", STRANGER), uuid("j7d0g", OWNER), "can_write")
        visitor = self.visitor(STRANGER)
        self.told(visitor, written, 200)
        self.api.put("groups", uuid=uuid("j7d0g", OWNER), frozen_by_uuid=uuid("tpzed", OWNER))
        self.told(visitor, written, 403, "frozen")
        self.api.put("groups", uuid=uuid("j7d0g", OWNER), frozen_by_uuid=None)
        self.told(visitor, written, 200, "thawed")
        self.api.permit(uuid("tpzed", STRANGER), uuid("j7d0g", OWNER), "none")
        self.told(visitor, written, 404)
        self.end(220)

    def test_a_links_name_goes_where_its_owner_points_it(self):
        self.run_container(230, {"8888": PRIVATE}, 8888)
        self.run_container(231, {"8888": PRIVATE}, 8888, machine=self.n2)
        place = wild("ollama.svc")
        owner = self.visitor(OWNER)
        self.told(owner, place, 404)
        self.link(230, "ollama", 230, 8888)
        reply = self.told(owner, place, 200)
        self.assertIn(container(230), reply.text)
        # Another link of that name changes nothing, and is told.
        self.link(231, "ollama", 231, 8888)
        until(lambda: "another link" in str(self.workload(231)["problems"]), "it is told")
        self.assertIn(container(230), self.told(owner, place, 200).text)
        self.api.remove("links", uuid("o0j2j", 231))
        # Pointed to the next request: what the first left in the browser is not sent to it.
        owner.cookies[place[0]]["left"] = "behind"
        stale = dict(owner.cookies[place[0]])
        self.link(230, "ollama", 231, 8888)
        self.told(owner, place, 410, "a form is not sent again", "POST")
        self.assertEqual(owner.get(place[0], method="OPTIONS").status, 410)
        for method in ("HEAD", "GET"):
            owner.cookies[place[0]] = dict(stale)
            reply = owner.get(place[0], method=method)
            self.assertEqual((reply.status, reply.headers["Location"]), (303, "/"), method)
            self.assertIn("cache", reply.headers["Clear-Site-Data"], method)
        reply = owner.get(place[0])
        self.assertIn(container(231), reply.text)
        self.assertNotIn("behind", reply.text)
        # Without its link it is nobody's; what ended is remembered.
        self.api.remove("links", uuid("o0j2j", 230))
        self.told(owner, place, 404)
        self.link(230, "ollama", 231, 8888)
        self.told(owner, place, 200)
        self.end(231, self.n2)
        self.told(owner, place, 410)
        self.end(230)

    def test_the_next_container_of_a_request_has_its_name(self):
        self.run_container(240, {"8888": PRIVATE}, 8888)
        self.link(240, "again", 240, 8888)
        owner, place = self.visitor(OWNER), wild("again.svc")
        self.assertIn(container(240), self.told(owner, place, 200).text)
        self.end(240)
        self.told(owner, place, 410)
        self.run_container(240, {"8888": PRIVATE}, 8888, machine=self.n2, of=249)
        self.assertIn(container(249), self.told(owner, place, 200).text)
        self.end(249, self.n2)

    def socket(self, user, place):
        """A websocket, open."""
        peer = connect(PROXY, place[0])
        self.addCleanup(peer.close)
        peer.sendall(f"GET / HTTP/1.1\r\nHost: {place[0]}:{PORT}\r\nUpgrade: websocket\r\n"
                     f"Connection: Upgrade\r\nAuthorization: Bearer {token(user)}\r\n\r\n".encode())
        self.assertIn(b" 101 ", peer.recv(4096))
        self.carries(peer)
        return peer

    def carries(self, peer):
        peer.sendall(b"word")
        self.assertEqual(peer.recv(4096), b"word")

    def test_what_is_cancelled_lets_nobody_new_in_and_keeps_who_is_there(self):
        self.run_container(250, {"8888": PRIVATE}, 8888)
        place = wild(f"{container(250)}-8888")
        self.told(OWNER, place, 200)
        peer = self.socket(OWNER, place)
        self.commit(250, priority=0, published_ports={"8888": PRIVATE})
        self.told(OWNER, place, 410)
        until(lambda n=iter(range(300)): self.carries(peer) or next(n) == 299, "it goes on")
        self.commit(250, priority=500, published_ports={"8888": PRIVATE})
        self.told(OWNER, place, 200, "taken back")
        self.end(250)
        self.assertEqual(peer.recv(4096), b"")

    def test_access_that_the_api_takes_away_ends_that_persons_websocket(self):
        self.run_container(260, {}, 8888, meshd={"publish": [
            {"port": 8888, "http": True, "access": "CAN_READ"}]})
        self.permit(READER, 260, "can_read")
        place = wild(f"{container(260)}-8888")
        self.told(READER, place, 200)
        mine, theirs = self.socket(OWNER, place), self.socket(READER, place)
        self.permit(READER, 260, "none")
        since = time.monotonic()
        self.assertEqual(theirs.recv(4096), b"")
        self.assertLess(time.monotonic() - since, KEEP_GOOD_S + SLACK_S)
        self.carries(mine)
        self.told(READER, place, 404)
        self.end(260)

    def test_an_api_that_is_slow_down_or_lying_opens_nothing(self):
        self.run_container(270, {"8888": PRIVATE, "8889": PUBLIC}, 8888, 8889)
        private, public = (wild(f"{container(270)}-{port}") for port in (8888, 8889))
        owner, stranger = self.visitor(OWNER), self.visitor(STRANGER)
        self.told(owner, private, 200)
        self.told(stranger, private, 404)
        visits = "^(api_client_authorizations/current|container_requests/.*)$"
        page = {"body": "<html>200 OK</html>", "type": "text/html"}
        one = {"uuid": uuid("xvhdp", 270), "modified_by_user_uuid": uuid("tpzed", STRANGER),
               "owner_uuid": uuid("j7d0g", OWNER)}
        lies = {
            "a proxy's page": ("body", {"path": visits} | page),
            "an empty record": ("body", {"path": visits, "body": "{}"}),
            "somebody else's record": ("body", {"path": visits, "body": json.dumps(
                {"uuid": uuid("xvhdp", 1), "owner_uuid": uuid("tpzed", 1), "scopes": ["all"]})}),
            "cut": ("cut", {"path": visits}),
            "down for repair": ("status", {"path": visits, "status": 503}),
            "elsewhere": ("redirect", {"path": visits,
                                       "to": f"https://{ADMIN}:{self.api.port}/arvados/v1/users"}),
            "too long": ("endless", {"path": visits}),
            "another user than the token's": ("body", {"path": "^users/current$", "body": json.dumps(
                {"uuid": uuid("tpzed", ADMINISTRATOR), "is_active": True, "is_admin": True,
                 "username": "x", "email": "x"})}),
            "not all of the requests": ("body", {"path": "^container_requests$", "body": json.dumps(
                {"items": [one], "items_available": 2, "offset": 0, "limit": 1000})}),
            "our own token is not good": ("status", {"path": "^container_requests$",
                                                     "status": 401}),
        }
        for lie, (kind, how) in lies.items():
            with self.subTest(lie):
                self.api.fault(kind, **how)
                self.told(owner, private, 503, lie)
                self.assertNotEqual(self.told_now(stranger, private), 200)
                self.assertEqual(self.told_now(Visitor(PROXY), private), 401)
                self.assertEqual(self.told_now(Visitor(PROXY), public), 200)
                self.api.heal()
                self.told(owner, private, 200, f"after {lie}")
                self.told(stranger, private, 404, f"after {lie}")

        # Slow: who asks waits, and nobody else.
        self.api.fault("hang", path=visits)
        slow = {}
        waiting = threading.Thread(
            target=lambda: slow.update(reply=self.visitor(ADMINISTRATOR).open(private[0])))
        waiting.start()
        until(lambda: any("api_client" in asked["path"] for asked in self.api.take_asked()),
              "it is asked")
        self.assertEqual(self.told_now(Visitor(PROXY), public), 200)
        self.assertTrue(waiting.is_alive(), "void")
        self.api.heal()
        waiting.join(20)
        self.assertEqual(slow["reply"].status, 200)

        # Down: what is known counts for its second, an open websocket no longer.
        peer = self.socket(OWNER, private)
        self.api.stop()
        refused = self.told(owner, private, 503)
        self.assertIn("Cannot ask", json.loads(refused.text)["errors"][0])
        self.told(None, public, 200)
        self.assertEqual(peer.recv(4096), b"")
        self.api.start()
        self.told(owner, private, 200)
        self.carries(self.socket(OWNER, private))
        self.end(270)

    def told_now(self, visitor, place):
        return visitor.open(place[0], port=place[1]).status

    @contextlib.contextmanager
    def keeping(self, seconds):
        """What is known of a token is believed for so long; nothing is known at first."""
        config = self.c1.config.read_text()
        longer = config.replace(f"keep_good_s: {KEEP_GOOD_S}\n", f"keep_good_s: {seconds}\n")
        self.assertNotEqual(longer, config)
        self.restart(longer)
        try:
            yield
        finally:
            self.restart(config)

    def restart(self, config):
        self.c1.kill()
        self.c1.config.write_text(config)
        self.c1.start()
        self.cluster.settled()

    def questions(self):
        """Of whose tokens the API was asked since the last time."""
        return [one["user"] for one in self.api.take_asked() if one["path"] == WHO]

    def begin_get(self, user, place):
        """A program's request; its answer comes by end_get()."""
        peer = connect(PROXY, place[0])
        self.addCleanup(peer.close)
        peer.settimeout(60)  # past the controller's own limit
        peer.sendall(f"GET / HTTP/1.1\r\nHost: {place[0]}:{PORT}\r\nConnection: close\r\n"
                     f"Authorization: Bearer {token(user)}\r\n\r\n".encode())
        return peer

    def end_get(self, peer):
        response = http.client.HTTPResponse(peer)
        response.begin()
        response.text = response.read().decode()
        return response

    def test_the_api_is_asked_once_for_all_that_one_token_opens(self):
        self.run_container(310, {"8888": PRIVATE}, 8888)
        place = wild(f"{container(310)}-8888")
        with self.keeping(120):
            self.told(None, place, 401, "it is known")
            self.api.take_asked()
            at_once = [self.begin_get(OWNER, place) for _ in range(10)]
            for peer in at_once:
                self.assertEqual(self.end_get(peer).status, 200)
            self.assertEqual(self.questions(), [uuid("tpzed", OWNER)])
            for _ in range(10):
                self.assertEqual(self.end_get(self.begin_get(OWNER, place)).status, 200)
            self.assertEqual(self.questions(), [])

            # An API that never says: who is known goes on, and nobody waits for ever.
            self.api.fault("hang", path=f"^{WHO}$")
            peer, told, rounds = self.begin_get(ADMINISTRATOR, place), {}, 0
            waiting = threading.Thread(target=lambda: told.update(reply=self.end_get(peer)))
            waiting.start()
            while waiting.is_alive():
                self.assertEqual(self.end_get(self.begin_get(OWNER, place)).status, 200)
                rounds += 1
                waiting.join(0.2)
            self.assertGreater(rounds, 10, "void")
            reply = told["reply"]
            self.assertEqual(reply.status, 503)
            self.assertEqual(reply.headers["Content-Type"], "application/json")
            self.assertIn("Cannot ask", json.loads(reply.text)["errors"][0])
            self.assertEqual(set(self.questions()), {uuid("tpzed", ADMINISTRATOR)})
            self.api.heal()
            self.told(ADMINISTRATOR, place, 200)
        self.end(310)

    def state(self, visitor):
        """What the page tells them, once it has been made."""
        def asked():
            reply = visitor.get(PAGE, "/state.json")
            return json.loads(reply.text) if reply.status == 200 else None
        return until(asked, f"the page tells {visitor.token}")

    def sees(self, visitor):
        return {workload["id"] for workload in self.state(visitor)["workloads"]}

    def test_the_page_shows_people_what_the_api_lets_them_read(self):
        theirs = {OWNER: 320, STRANGER: 321}
        for user, number in theirs.items():
            self.run_container(number, {"8888": PRIVATE}, 8888, user=user)
        self.permit(READER, 320, "can_read")
        mine, other = container(320), container(321)
        self.assertEqual(Visitor(PROXY).get(PAGE, "/state.json").status, 401)
        for user, there in ((OWNER, {mine}), (READER, {mine}), (STRANGER, {other}),
                            (ADMINISTRATOR, {mine, other}), (MANAGER, set())):
            with self.subTest(user=user):
                visitor = self.visitor(user)
                self.assertIn("text/html", visitor.open(PAGE).headers["Content-Type"])
                state = self.state(visitor)
                self.assertEqual(state["you"], {"owner": uuid("tpzed", user), "name": f"user{user}",
                                                "admin": user == ADMINISTRATOR})
                self.assertEqual({w["id"] for w in state["workloads"]} & {mine, other}, there)
                for hidden in {mine, other} - there:
                    self.assertNotIn(hidden, json.dumps(state))
        inactive = self.visitor(INACTIVE)
        inactive.open(PAGE)
        self.assertEqual(inactive.get(PAGE, "/state.json").status, 401)
        reader = self.visitor(READER)
        reader.open(PAGE)
        until(lambda: mine in self.sees(reader), "a reader sees it")
        self.permit(READER, 320, "none")
        until(lambda: mine not in self.sees(reader), "and no longer")
        for number in theirs.values():
            self.end(number)

    def test_a_container_of_several_users_is_everybodys_to_read_and_nobodys_to_open(self):
        self.request(281, of=280, user=STRANGER, published_ports={"8888": PUBLIC})
        self.commit(280, published_ports={"8888": PUBLIC})
        self.api.permit(uuid("tpzed", STRANGER), uuid("xvhdp", 281), "can_manage")
        self.declared(280)
        self.n1.prepare(container(280))
        for user in (OWNER, STRANGER):
            self.told(user, wild(f"{container(280)}-8888"), 403)
        self.told(None, wild(f"{container(280)}-8888"), 401)
        self.n1.ctl("detach", container(280))
        self.ended(280)

    def test_the_controllers_own_token_is_an_administrators(self):
        self.run_container(290, {"8888": PRIVATE}, 8888)
        self.told(Visitor(PROXY, TOKEN), wild(f"{container(290)}-8888"), 200)
        self.end(290)


if __name__ == "__main__":
    unittest.main(verbosity=2)
