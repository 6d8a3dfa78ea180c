"""From a browser to a container and back: the configuration that is shipped in a real nginx, the
real verdict endpoint behind it, and what people who may and may not come get to see."""

import json
import subprocess
import threading
import time
import unittest

import proxied
from cluster import ClusterTest
from nginx import PORT
from node import PYTHON, until
from outside import DB, ZONE, OutsideTest, cookie, opening
from web import LIMIT_S, Container, get, headers_of, read_head, reply_of, reply_with, send

CACHE_S = 60
# Longer than nginx, left to itself, waits for a container's answer or for a websocket's next word.
PATIENCE_S = 62
PATIENT = f"known--9000.svc.{ZONE}"

# Of a query: what is sent with a token, and what is left of it.
SPELLINGS = [("?arvados_api_token={}", ""), ("?ARVADOS_API_TOKEN={}&a=1", "?a=1"),
             ("?arvados%5Fapi_token={}", ""), ("?x=%2f&API%5FTOKEN={}", "?x=%2f"),
             ("?%61%70i_tok%65n={}&y", "?y"), ("?api_token=%20{}%0d%0a", ""),
             ("?a;api_token={}", "?a"), ("?;api_token={};b", "?;b"),
             ("?a&api_token={0}&api_token={0}&b", "?a&b"),
             ("?api_token=&y", "?y"), ("?API_TOKEN", ""), ("?api%5ftoken=&api_token={}", "")]


def echo(connection, _):
    connection.sendall(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n"
                       b"Connection: Upgrade\r\n\r\n")
    while data := connection.recv(4096):
        connection.sendall(data)


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


class OutsideWebTest(OutsideTest):
    @classmethod
    def setUpClass(cls):
        """What lasts is begun here, so that it lasts while others are at work."""
        super().setUpClass()
        cls.held = threading.Event()

        def hold(connection, rest):
            if b"Upgrade: websocket" in cls.patient.heads[-1]:
                echo(connection, rest)
            elif cls.held.wait():
                reply_with(body=b"at last")(connection, rest)
        cls.patient = Container(hold)
        cls.endpoint.openings["known"]["ports"] += opening("", cls.patient, port=9000)["ports"]
        cls.endpoint.change()
        cls.lasting = []
        for line in ("Upgrade: websocket\r\nConnection: Upgrade", "X-Poll: 1"):
            cls.lasting.append(send(f"GET / HTTP/1.1\r\nHost: {PATIENT}:{PORT}\r\n{line}\r\n"
                                    f"{cookie(cls.bob)}\r\n\r\n"))
            until(lambda: len(cls.patient.heads) == len(cls.lasting), "the container has it")
        cls.since = time.monotonic()
        read_head(cls.lasting[0])

    @classmethod
    def tearDownClass(cls):
        for connection in cls.lasting:
            connection.close()
        cls.patient.close()
        super().tearDownClass()

    def test_what_is_silent_for_long_goes_on(self):
        websocket, poll = self.lasting
        until(lambda: time.monotonic() - self.since > PATIENCE_S, "it is long", PATIENCE_S + 1)
        self.carries(websocket)
        self.held.set()
        reply = reply_of(poll)
        self.assertEqual((reply.status, reply.body), (200, b"at last"))

    def test_a_token_becomes_a_cookie_and_shows_nowhere(self):
        container = self.container()
        self.endpoint.change(opening("w1", container, "db"))
        reply = get(f"/lab/tree?x=%2f&arvados_api_token={self.alice}&y", host=DB)
        self.assertEqual(reply.status, 303)
        self.assertEqual(reply.headers["location"], ["/lab/tree?x=%2f&y"])
        self.assertEqual(reply.headers["cache-control"], ["no-store"])
        self.assertEqual(reply.headers["referrer-policy"], ["no-referrer"])
        self.assertEqual(len(reply.headers["set-cookie"]), 1)
        value, *terms = reply.headers["set-cookie"][0].split("; ")
        self.assertEqual(set(terms), {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"})
        self.assertFalse(container.heads)

        followed = get(reply.header("location"), f"Cookie: {value}; theme=dark", host=DB)
        self.assertEqual((followed.status, followed.body), (200, b"hello"))
        head = container.heads[0]
        self.assertEqual(headers_of(head)["cookie"], ["theme=dark"])
        self.assertEqual(headers_of(head)["x-mesh-user"], ["alice"])
        self.assertTrue(head.startswith(b"GET /lab/tree?x=%2f&y HTTP/1.1\r\n"))
        for secret in (self.alice, value.split("=", 1)[1]):
            self.assertNotIn(secret.encode(), head)
        until(lambda: self.nginx.read("access.log").count("/lab/tree") == 2, "both are logged")
        for name in ("access.log", "error.log"):
            self.assertNotIn(self.alice, self.nginx.read(name))

    def test_every_way_of_carrying_a_token(self):
        container = self.container()
        self.endpoint.change(opening("w1", container, "db"))
        for header in (cookie(self.bob), f"Authorization: Bearer {self.bob}",
                       f"Authorization: OAuth2 {self.bob}"):
            self.assertEqual(get("/", header, host=DB).status, 200, header)
            self.assertNotIn(self.bob.encode(), container.heads[-1])
            self.assertNotIn("authorization", headers_of(container.heads[-1]))
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            reply = get(f"/?api_token={self.bob}", "Content-Length: 0", method=method, host=DB)
            self.assertEqual((reply.status, reply.header("location")), (303, "/"), method)
            self.assertIn("__Host-mesh_token", reply.header("set-cookie"))
            self.assertIn(b"<h1>Sent on</h1>", reply.body)
        status, headers = self.by_head(f"/?api_token={self.bob}")
        self.assertEqual((status, headers["location"]), (303, ["/"]))
        self.assertIn("__Host-mesh_token", headers["set-cookie"][0])

    def test_every_spelling_of_a_tokens_parameter_is_taken_out(self):
        for access in ("CAN_READ", "PUBLIC"):
            container = self.container()
            self.endpoint.change(opening("w1", container, "db", access=access))
            for query, rest in SPELLINGS:
                with self.subTest(access=access, query=query):
                    reply = get(f"/spelt{query.format(self.alice)}", host=DB)
                    self.assertEqual(reply.status, 303)
                    self.assertEqual(reply.headers["location"], ["/spelt" + rest])
                    planted = reply.header("set-cookie")
                    self.assertTrue(planted.startswith("__Host-mesh_token="))
                    self.assertEqual("{" in query, "Max-Age=0" not in planted)
            self.assertFalse(container.heads)
        # Whom a token is no use for is not shown it either.
        self.assertEqual(get(reply.header("location"), cookie(self.alice), host=DB).status, 200)
        self.assertNotIn(b"token", container.heads[0])
        until(lambda: self.nginx.read("access.log").count("/spelt") == 2 * len(SPELLINGS) + 1,
              "all are logged")
        for name in ("access.log", "error.log"):
            self.assertNotIn(self.alice, self.nginx.read(name))

    def by_head(self, path, *headers):
        """The status and the headers, behind which comes nothing."""
        with send(f"HEAD {path} HTTP/1.1\r\nHost: {DB}:{PORT}\r\nConnection: close\r\n"
                  + "".join(f"{header}\r\n" for header in headers) + "\r\n") as connection:
            head, rest = read_head(connection)
            self.assertEqual(rest + connection.recv(4096), b"")
        return int(head.split()[1]), headers_of(head)

    def test_a_head_is_answered_as_a_get_is(self):
        container = self.container(reply_with("X-Mine: 1", body=b""))
        self.endpoint.change(opening("w1", container, "db"))
        status, headers = self.by_head("/", cookie(self.bob))
        self.assertEqual((status, headers["x-mine"]), (200, ["1"]))
        self.assertTrue(container.heads[0].startswith(b"HEAD / HTTP/1.1\r\n"))
        for accept in ("text/html", "*/*"):
            for token, status in ((self.carol, 404), ("mesh_" + "x" * 43, 401)):
                told, headers = self.by_head("/", cookie(token), f"Accept: {accept}")
                self.assertEqual(told, status)
                self.assertGreater(int(headers["content-length"][0]), 0)
        self.assertEqual(len(container.heads), 1)

    def test_what_a_page_asks_beforehand_the_container_answers(self):
        """Nobody's cookie comes with it: what is not public says no."""
        private, public = self.container(), self.container(reply_with("X-Mine: 1"))
        self.endpoint.change(opening("w1", private, "db"),
                             opening("w2", public, "public", access="PUBLIC"))
        asked = ("Origin: https://elsewhere.example", "Access-Control-Request-Method: PUT")
        reply = get("/", *asked, method="OPTIONS", host=f"public.svc.{ZONE}")
        self.assertEqual((reply.status, reply.header("x-mine")), (200, "1"))
        self.assertTrue(public.heads[0].startswith(b"OPTIONS / HTTP/1.1\r\n"))
        refused = get("/", *asked, method="OPTIONS", host=DB)
        self.assertEqual(refused.status, 401)
        self.assertFalse(private.heads)
        for one in (reply, refused):
            self.assertFalse([name for name in one.headers if name.startswith("access-control-")])

    def refused(self, status, sentence, *headers, host=DB):
        """The same in a browser and in a program."""
        page = get("/", "Accept: text/html,*/*", *headers, host=host)
        self.assertEqual(page.status, status)
        self.assertIn(f"<h1>{sentence}</h1>".encode(), page.body)
        self.assertIn("text/html", page.header("content-type"))
        told = get("/", *headers, host=host)
        self.assertEqual(told.status, status)
        self.assertIn(sentence, json.loads(told.body)["errors"][0])
        self.assertEqual(told.header("cache-control"), "no-store")
        return page

    def test_each_refusal_has_its_status_and_its_page(self):
        container = self.container()
        self.endpoint.change(opening("w1", container, "db"),
                             opening("w2", container, "mine", access="OWNER"),
                             opening("w3", container, "later", state="WAITING"),
                             opening("w4", container, "soon", ready=False),
                             opening("w5", container, "over"),
                             opening("w6", None, "dead"),
                             opening("w7", container, "near", allow_from=["192.0.2.0/24"]))
        self.endpoint.change(gone=["w5"])
        alice = cookie(self.alice)
        self.refused(401, "Please sign in")
        self.refused(401, "Please sign in again", cookie("mesh_" + "x" * 43))
        self.refused(403, "This is not shared with you", cookie(self.bob), host=f"mine.svc.{ZONE}")
        self.refused(403, "Not from where you are", alice, host=f"near.svc.{ZONE}")
        self.refused(404, "There is no such service", cookie(self.carol))
        self.refused(404, "There is no such service", alice, host=f"nobody.svc.{ZONE}")
        self.refused(410, "This service has ended", alice, host=f"w5--8888.{ZONE}")
        self.refused(502, "The service does not answer", alice, host=f"dead.svc.{ZONE}")
        later = self.refused(503, "Not started yet", alice, host=f"later.svc.{ZONE}")
        soon = self.refused(503, "Not ready yet", alice, host=f"soon.svc.{ZONE}")
        for page in (later, soon):
            self.assertIn(b'http-equiv="refresh"', page.body)
            self.assertTrue(page.header("retry-after"))
        self.refused(421, "Not an address of this site", alice, host="www.example.net")
        self.assertFalse(container.heads)

    def test_anybody_may_what_is_public(self):
        container = self.container()
        self.endpoint.change(opening("w1", container, "db", access="PUBLIC"))
        self.assertEqual(get("/", "X-Mesh-User: root", host=DB).status, 200)
        self.assertNotIn("x-mesh-user", headers_of(container.heads[0]))

    def test_another_container_behind_the_name_gets_nothing_of_the_first(self):
        first, second = self.container(), self.container()
        self.endpoint.change(opening("w1", first, "db"))
        reply = get("/", cookie(self.alice), host=DB)
        mark = next(one for one in reply.headers["set-cookie"] if "container" in one).split(";")[0]
        self.endpoint.change(opening("w2", second, "db"), gone=["w1"])
        both = f"{cookie(self.alice)}; {mark}; session=secret"
        reply = get("/x?y", both, host=DB)
        self.assertEqual(reply.status, 303)
        self.assertEqual(reply.headers["location"], ["/x?y"])
        self.assertEqual(reply.header("clear-site-data"), '"cache", "storage"')
        self.assertTrue(any(one.startswith("session=;") for one in reply.headers["set-cookie"]))
        status, headers = self.by_head("/x?y", both)
        self.assertEqual((status, headers["location"]), (303, ["/x?y"]))
        for method in ("POST", "OPTIONS", "PUT", "DELETE"):
            told = get("/x", both, "Content-Length: 0", method=method, host=DB)
            self.assertEqual(told.status, 410, method)
        self.assertFalse(second.heads)

    def test_a_port_of_ones_own_is_opened_on_demand(self):
        container = self.container()
        self.endpoint.change(opening("w1", None, "db"))
        host = f"w1--9000.{ZONE}"
        page = get("/", "Accept: text/html", cookie(self.alice), host=host)
        self.assertEqual(page.status, 503)
        self.assertIn(b"<h1>One moment</h1>", page.body)
        until(lambda: ["w1", "9000"] in self.endpoint.wanted, "it is wanted")
        self.endpoint.change(opening("w1", container, "db", access="OWNER", port=9000))
        self.assertEqual(get("/", cookie(self.alice), host=host).status, 200)
        self.assertEqual(get("/", cookie(self.bob), host=host).status, 403)

    def upgrade(self, *headers):
        connection = send(f"GET /ws HTTP/1.1\r\nHost: {DB}:{PORT}\r\nConnection: Upgrade\r\n"
                          + "".join(f"{header}\r\n" for header in ("Upgrade: websocket", *headers))
                          + "\r\n")
        self.addCleanup(connection.close)
        return connection

    def upgraded(self, token):
        connection = self.upgrade(cookie(token))
        self.assertIn(b"101", read_head(connection)[0])
        return connection

    def carries(self, connection):
        connection.sendall(b"word")
        self.assertEqual(connection.recv(4096), b"word")

    def test_access_that_is_taken_away_ends_that_persons_websockets(self):
        container = self.container(echo)
        self.endpoint.change(opening("w1", container, "db"))
        dave = self.endpoint.sign_up("dave", "CAN_READ:alice CAN_READ:everybody")
        one, two = self.upgraded(dave), self.upgraded(dave)
        other = self.upgraded(self.bob)
        for connection in (one, two, other):
            self.carries(connection)
        self.assertNotIn(b"mesh_token", b"".join(container.heads))
        self.assertEqual(headers_of(container.heads[0])["x-mesh-user"], ["dave"])
        began = time.monotonic()
        self.endpoint.remove(dave)
        for connection in (one, two):
            self.assertEqual(connection.recv(4096), b"")
        self.assertLess(time.monotonic() - began, CACHE_S)
        self.carries(other)
        self.assertEqual(get("/", cookie(dave), host=DB).status, 401)

    def test_a_service_that_drains_keeps_its_websockets_and_one_that_ended_does_not(self):
        container = self.container(echo)
        self.endpoint.change(opening("w1", container, "db"))
        connection = self.upgraded(self.bob)
        self.endpoint.change(opening("w1", container, "db", state="DRAINING"))
        self.refused(410, "This service is about to end", cookie(self.bob))
        end = time.monotonic() + 3  # looked at more than once
        until(lambda: self.carries(connection) or time.monotonic() > end, "it is looked at")
        self.endpoint.change(gone=["w1"])
        self.assertEqual(connection.recv(4096), b"")

    def test_no_websocket_is_opened_but_for_whom_may(self):
        container = self.container(echo)
        nobody, stranger = cookie("mesh_" + "x" * 43), f"Origin: https://evil.svc.{ZONE}"
        for access, whose, status in (
                ("CAN_READ", [], 401), ("CAN_READ", [nobody], 401),
                ("CAN_READ", [f"Authorization: Bearer mesh_{'x' * 43}"], 401),
                ("CAN_READ", [cookie(self.carol)], 404), ("OWNER", [cookie(self.bob)], 403),
                ("CAN_READ", [stranger, cookie(self.bob)], 403)):
            with self.subTest(access=access, whose=whose):
                self.endpoint.change(opening("w1", container, "db", access=access))
                self.assertEqual(reply_of(self.upgrade(*whose)).status, status)
        self.assertEqual(container.heads, [])

    def test_events_arrive_within_50_ms(self):
        framings = {"Connection: close": bytes, "Transfer-Encoding: chunked": chunk}
        for line, framed in framings.items():
            with self.subTest(line):
                # All but the tenth that a busy machine is late with, in one of three rounds.
                self.assertLess(min(sorted(self.delays(line, framed))[44] for _ in range(3)), 0.05)

    def delays(self, line, framed):
        """Of 50 events, each sent when the one before has arrived."""
        had = threading.Semaphore()

        def events(connection, _):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               + line.encode() + b"\r\n\r\n")
            while had.acquire(timeout=LIMIT_S):
                connection.sendall(framed(b"data: %.6f\n\n" % time.monotonic()))
        container = self.container(events)
        self.endpoint.change(opening("w1", container, "db"))
        late = []
        with send(f"GET / HTTP/1.1\r\nHost: {DB}:{PORT}\r\n{cookie(self.bob)}\r\n\r\n") \
                as connection:
            _, rest = read_head(connection)
            for _ in range(50):
                while b"\n\n" not in rest:
                    rest += connection.recv(4096)
                late.append(time.monotonic() - float(rest.split(b"data: ")[1].split()[0]))
                rest = b""
                had.release()
        return late

    def put(self, framing, token):
        return send(f"PUT / HTTP/1.1\r\nHost: {DB}:{PORT}\r\n{framing}\r\n{cookie(token)}\r\n\r\n")

    def test_an_upload_of_more_than_4_gib_is_streamed(self):
        block = bytes(1 << 20)
        size, arrived, before = (4 << 30) + len(block), [0], self.nginx.collected()

        def take(connection, rest):
            arrived[0], room = len(rest), bytearray(1 << 20)
            while arrived[0] < size and (more := connection.recv_into(room)):
                arrived[0] += more
            reply_with()(connection, b"")
        container = self.container(take)
        self.endpoint.change(opening("w1", container, "db"))
        framing = f"Content-Length: {size}"
        with self.put(framing, self.alice) as connection:
            connection.sendall(block)
            until(lambda: arrived[0] >= len(block), "the beginning has arrived")
            for _ in range(size // len(block) - 1):
                connection.sendall(block)
            self.assertEqual(reply_of(connection).status, 200)
        self.assertEqual(arrived[0], size)
        with self.put(framing, self.carol) as connection:
            self.assertEqual(reply_of(connection).status, 404)  # unread
        self.assertEqual(self.nginx.collected(), ([], before[1]))

    def test_an_upload_of_unknown_length_is_streamed(self):
        block, count, arrived = b"z" * 100000, 100, bytearray()

        def take(connection, rest):
            arrived.extend(rest)
            while not arrived.endswith(b"\r\n0\r\n\r\n"):
                arrived.extend(connection.recv(1 << 16) or b"cut\r\n0\r\n\r\n")
            reply_with()(connection, b"")
        container, before = self.container(take), self.nginx.collected()
        self.endpoint.change(opening("w1", container, "db"))
        with self.put("Transfer-Encoding: chunked", self.alice) as connection:
            for number in range(count):
                connection.sendall(chunk(block))
                until(lambda: len(arrived) > number * len(block), "the one before has arrived")
            connection.sendall(b"0\r\n\r\n")
            self.assertEqual(reply_of(connection).status, 200)
        self.assertEqual(headers_of(container.heads[0])["transfer-encoding"], ["chunked"])
        self.assertEqual(arrived.translate(None, b"0123456789abcdef\r\n"), block * count)
        self.assertEqual(self.nginx.collected(), ([], before[1]))

    def test_a_large_answer_is_streamed(self):
        block, size, before = bytes(1 << 20), 64 << 20, self.nginx.collected()

        def give(connection, _):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(block)):
                connection.sendall(block)
        self.endpoint.change(opening("w1", self.container(give), "db"))
        reply = get("/", cookie(self.bob), host=DB)
        self.assertEqual((reply.status, len(reply.body)), (200, size))
        self.assertEqual(self.nginx.collected(), ([], before[1]))

    def test_long_heads_come_through(self):
        container = self.container()
        self.endpoint.change(opening("w1", container, "db"))
        cookies = "; ".join(f"c{i}={'x' * 3000}" for i in range(4))
        reply = get("/" + "p" * 8000, f"{cookie(self.bob)}; {cookies}", host=DB)
        self.assertEqual(reply.status, 200)
        self.assertEqual(headers_of(container.heads[0])["cookie"], [cookies])

    def test_many_at_once_are_each_told_their_own(self):
        container = self.container()
        self.endpoint.change(opening("w1", container, "db"))
        got = []

        def come(number):
            token = (self.alice, self.bob, self.carol)[number % 3]
            for _ in range(10):
                got.append((number % 3, get("/", cookie(token), host=DB).status))
        threads = [threading.Thread(target=come, args=(number,)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        self.assertEqual(len(got), 300)
        self.assertEqual(set(got), {(0, 200), (1, 200), (2, 404)})

    def test_without_the_endpoint_all_is_closed_and_comes_back_with_it(self):
        container = self.container(echo)
        self.endpoint.change(opening("w1", container, "db"))
        connection = self.upgraded(self.bob)
        self.endpoint.stop()
        self.assertEqual(connection.recv(4096), b"", "nobody can say any more that they may")
        reply = get("/", cookie(self.bob), "Accept: text/html", host=DB)
        self.assertEqual(reply.status, 503)
        self.assertIn(b"Closed for the moment", reply.body)
        self.endpoint.start()
        self.carries(self.upgraded(self.bob))


class LoopbackTest(ClusterTest):
    """nginx asks at a port, as `web.listen` may have it, and not at a socket."""
    OPTIONS = {"nodes": 1, "more": proxied.web(listen="127.0.0.1:8444")}

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.controller, = cls.cluster.controllers
        cls.nginx = proxied.Nginx(cls.cluster, cls.controller)

    @classmethod
    def tearDownClass(cls):
        cls.nginx.close()
        super().tearDownClass()

    def test_an_endpoint_at_a_port_decides_as_well(self):
        self.assertIn("server 127.0.0.1:8444;", self.nginx.read("mesh.conf"))
        self.cluster.apply("- {id: lab, owner: ada, name: lab, scope: CLUSTER, "
                           "publish: [{port: 8888, http: true}]}\n")
        machine, = self.cluster.machines
        machine.prepare("lab")
        server = subprocess.Popen(
            machine.command("lab", *PYTHON, "-c", proxied.SERVER, "lab", 8888))
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        machine.ctl("wait", "lab")
        host, page = f"lab.svc.{ZONE}", f"mesh.{ZONE}"
        ada = proxied.Visitor(proxied.PROXY, proxied.new_token(self.controller, "ada"))
        until(lambda: ada.open(host).status == 200, "it is open to its owner")
        self.assertIn("X-Mesh-User: ada", ada.get(host).text)
        websocket = ada.get(host, headers=["Connection: Upgrade", "Upgrade: websocket"])
        self.assertEqual(websocket.status, 101)
        stranger = proxied.Visitor(proxied.PROXY)
        self.assertEqual(stranger.get(host).status, 401)
        self.assertEqual(stranger.get(page).status, 200)
        self.controller.kill()
        for there in (host, page):
            self.assertEqual(ada.get(there).status, 503)


if __name__ == "__main__":
    unittest.main(verbosity=2)
