"""From a browser to a container and back: the configuration that is shipped in a real nginx, the
real verdict endpoint behind it, and what people who may and may not come get to see."""

import json
import statistics
import threading
import time
import unittest

from nginx import PORT
from node import until
from outside import DB, ZONE, OutsideTest, cookie, opening
from web import LIMIT_S, get, headers_of, read_head, reply_of, reply_with, send

CACHE_S = 60


def echo(connection, _):
    connection.sendall(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n"
                       b"Connection: Upgrade\r\n\r\n")
    while data := connection.recv(4096):
        connection.sendall(data)


class OutsideWebTest(OutsideTest):
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
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            reply = get(f"/?api_token={self.bob}", "Content-Length: 0", method=method, host=DB)
            self.assertEqual(reply.status, 303, method)

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
        self.assertEqual(get("/x", both, "Content-Length: 0", method="POST", host=DB).status, 410)
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

    def upgraded(self, token):
        connection = send(f"GET /ws HTTP/1.1\r\nHost: {DB}:{PORT}\r\nConnection: Upgrade\r\n"
                          f"Upgrade: websocket\r\n{cookie(token)}\r\n\r\n")
        self.addCleanup(connection.close)
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

    def test_no_websocket_is_opened_by_a_page_of_another_site(self):
        container = self.container(echo)
        self.endpoint.change(opening("w1", container, "db"))
        with send(f"GET /ws HTTP/1.1\r\nHost: {DB}:{PORT}\r\nConnection: Upgrade\r\n"
                  f"Upgrade: websocket\r\nOrigin: https://evil.svc.{ZONE}\r\n{cookie(self.bob)}"
                  "\r\n\r\n") as connection:
            self.assertEqual(reply_of(connection).status, 403)
        self.assertFalse(container.heads)

    def test_events_arrive_within_50_ms(self):
        had = threading.Semaphore()

        def events(connection, _):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while had.acquire(timeout=LIMIT_S):
                connection.sendall(b"data: %.6f\n\n" % time.monotonic())
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
        self.assertLess(statistics.median(late), 0.05)

    def test_a_large_upload_is_streamed(self):
        size, block = 256 << 20, bytes(1 << 20)
        arrived = [0]

        def take(connection, rest):
            arrived[0] = len(rest)
            while arrived[0] < size:
                arrived[0] += len(connection.recv(1 << 20))
            reply_with()(connection, b"")
        container = self.container(take)
        self.endpoint.change(opening("w1", container, "db"))
        with send(f"PUT / HTTP/1.1\r\nHost: {DB}:{PORT}\r\nContent-Length: {size}\r\n"
                  f"{cookie(self.alice)}\r\n\r\n") as connection:
            connection.sendall(block)
            until(lambda: arrived[0] >= len(block), "the beginning has arrived")
            for _ in range(size // len(block) - 1):
                connection.sendall(block)
            self.assertEqual(reply_of(connection).status, 200)
        self.assertEqual(arrived[0], size)
        with send(f"PUT / HTTP/1.1\r\nHost: {DB}:{PORT}\r\nContent-Length: {size}\r\n"
                  f"{cookie(self.carol)}\r\n\r\n") as connection:
            self.assertEqual(reply_of(connection).status, 404)  # unread

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
        reply = get("/", cookie(self.bob), host=DB)
        self.assertEqual(reply.status, 503)
        self.assertIn(b"Closed for the moment", reply.body)
        self.endpoint.start()
        self.carries(self.upgraded(self.bob))


if __name__ == "__main__":
    unittest.main(verbosity=2)
