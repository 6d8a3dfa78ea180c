"""What HTTP/2 has a client say in other words, through the nginx that is shipped and the real
verdict endpoint. The frames are written by hand: no client's library sends what is forbidden."""

import threading
import unittest

from nginx import PORT, connect
from node import until
from outside import DB, OutsideTest, cookie, opening
from test_outside_hostile import UNREADABLE
from web import LIMIT_S, headers_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
INDEXED = {0x88: 200, 0x89: 204, 0x8a: 206, 0x8b: 304, 0x8c: 400, 0x8d: 404, 0x8e: 500}
HIDDEN = f"GET /hidden HTTP/1.1\r\nHost: {DB}:{PORT}\r\n\r\n".encode()


def frame(kind, flags, payload=b"", stream=1):
    return (len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
            + payload)


def packed(fields):
    """As HPACK's literals without an index (RFC 7541, 6.2.2); each is shorter than 127 bytes."""
    return b"".join(b"\0" + b"".join(bytes([len(part)]) + part.encode("latin-1") for part in field)
                    for field in fields)


def status_of(block):
    """It is the first field. nginx announces a table before it, and writes digits as they are."""
    block = block.removeprefix(b"\x20")
    return INDEXED.get(block[0]) or int(block[2:5])


class Stream:
    """One request, in a connection of its own; `data` are its frames of a body."""

    def __init__(self, fields, *data):
        self.connection = connect("127.0.0.1", DB, protocols=["h2"])
        last = 0 if data else END_STREAM
        frames = [PREFACE, frame(SETTINGS, 0, stream=0),
                  frame(HEADERS, END_HEADERS | last, packed(fields))]
        frames += [frame(DATA, END_STREAM if one is data[-1] else 0, one) for one in data]
        self.connection.sendall(b"".join(frames))
        self.file = self.connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.connection.close()

    def read(self, *kinds):
        """The next frame of one of these: its kind and what it holds; None at the end."""
        while len(head := self.file.read(9)) == 9:
            payload = self.file.read(int.from_bytes(head[:3], "big"))
            if head[3] in kinds:
                return head[3], payload
        return None, b""

    def status(self):
        """None: it was refused without an answer."""
        kind, payload = self.read(HEADERS, RST_STREAM, GOAWAY)
        return status_of(payload) if kind == HEADERS else None


class Http2Test(OutsideTest):
    def setUp(self):
        self.got = []
        self.db = self.container(self.keep)
        self.endpoint.change(opening("w1", self.db, "db"))
        self.signed = ("authorization", f"Bearer {self.bob}")

    def keep(self, connection, rest):
        """All that comes, whatever it says of its length."""
        connection.settimeout(LIMIT_S)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        while more := connection.recv(4096):
            rest += more
        self.got.append(rest)

    def stream(self, *fields, data=(), **pseudo):
        """`pseudo` replaces what stands in every request; None leaves it out."""
        first = {"method": "GET", "scheme": "https", "authority": f"{DB}:{PORT}", "path": "/",
                 **pseudo}
        return Stream([(f":{name}", value) for name, value in first.items() if value is not None]
                      + list(fields), *data)

    def asked(self, *fields, **more):
        with self.stream(*fields, **more) as stream:
            return stream.status()

    def test_who_it_is_is_said_by_us_alone(self):
        for name in ("x-mesh-user", "x_mesh_user", "x-mesh_user", "x.mesh.user",
                     "x-arvados-user-uuid", "x_arvados_user_uuid", "x-arvados_user-uuid"):
            self.assertEqual(self.asked(self.signed, (name, "root"), (name, "root")), 200, name)
        for head in self.db.heads:
            self.assertEqual(headers_of(head)["x-mesh-user"], ["bob"])
            self.assertNotIn(b"root", head)

    def test_what_would_be_other_lines_in_http_1_is_refused(self):
        forged = "\r\nX-Mesh-User: root"
        for fields, pseudo in (
                *([[(name, "root")], {}] for name in ("X-Arvados-User-UUID", "X-Mesh-User",
                                                      "x-mesh-user ", "x-mesh-user:",
                                                      "x: a" + forged, "x\0")),
                *([[("x", value)], {}] for value in ("a" + forged, "a\nX-Mesh-User: root", "a\0")),
                *([[], {"method": method}] for method in ("GET / HTTP/1.1" + forged, "GET /hidden",
                                                          "get", "CONNECT")),
                *([[], {"path": path}] for path in ("/ HTTP/1.1" + forged, "/ x", "/\tx", "*", "",
                                                    "http://evil.example/", "/x#y")),
                ([], {"scheme": "https://evil.example/"}), ([(":path", "/hidden")], {})):
            with self.subTest(fields=fields, **pseudo):
                self.assertIn(self.asked(self.signed, *fields, **pseudo), (None, 405, *UNREADABLE))
        self.assertFalse(self.db.heads)
        self.assertEqual(self.asked(self.signed, ("x", "a"), path="/x"), 200)

    def test_no_request_becomes_a_websocket(self):
        """HTTP/2 has no header for that, and nginx lets it pass."""
        self.assertEqual(self.asked(self.signed, ("connection", "upgrade"),
                                    ("upgrade", "websocket")), 200)
        for head in self.db.heads:
            self.assertNotIn("upgrade", headers_of(head))

    def test_the_host_is_said_once(self):
        good, evil = f"{DB}:{PORT}", "evil.example"
        for authority, hosts in ((good, [evil]), (evil, [good]), (good, [good]), (evil, []),
                                 (None, [good, evil]), (None, [evil]), (None, []),
                                 (f"alice@{good}", [])):
            with self.subTest(authority=authority, hosts=hosts):
                fields = [("host", host) for host in hosts]
                self.assertIn(self.asked(self.signed, *fields, authority=authority), (400, 421))
        self.assertIn(self.asked(self.signed, (":authority", evil)), (None, 400))
        self.assertFalse(self.db.heads)
        self.assertEqual(self.asked(self.signed, ("host", good), authority=None), 200)

    def test_a_body_is_as_long_as_its_frames(self):
        body = b"0\r\n\r\n" + HIDDEN
        for field in (("x", "y"), ("content-length", f"{len(body)}"),
                      ("transfer-encoding", "chunked")):
            with self.subTest(field=field):
                self.db.heads.clear()
                self.got.clear()
                status = self.asked(self.signed, field, method="POST", data=(body[:9], body[9:]))
                self.assertEqual(status, 200)
                until(lambda: self.got, "the container has it")
                self.assertEqual(self.got, [body])
                head = headers_of(self.db.heads[0])
                self.assertEqual(head["content-length"], [f"{len(body)}"])
                self.assertNotIn("transfer-encoding", head)
        self.db.heads.clear()
        for fields in (*([("content-length", length)] for length in (
                           "0", "5", "99", "-1", "+66", "66 66", "66,66", f"{len(body)}x")),
                       [("content-length", f"{len(body)}"), ("content-length", "5")],
                       [("content-length", f"{len(body)}"), ("transfer-encoding", "chunked")],
                       [("transfer-encoding", "gzip")], [("transfer-encoding", "identity")]):
            with self.subTest(fields=fields):
                status = self.asked(self.signed, *fields, method="POST", data=(body[:9], body[9:]))
                self.assertIn(status, (None, *UNREADABLE))
        self.assertFalse(self.db.heads)

    def test_a_cookie_that_a_neighbour_planted_opens_nothing(self):
        mine, other = [cookie(token).partition(": ")[2] for token in (self.alice, self.carol)]
        crumbs = ("cookie", "a=1"), ("cookie", "b=2")
        self.assertEqual(self.asked(("cookie", mine), *crumbs), 200)
        for both in ((mine, other), (other, mine)):
            self.assertEqual(self.asked(*[("cookie", one) for one in both]), 401)
        self.assertEqual(len(self.db.heads), 1)
        self.endpoint.change(opening("w1", self.db, "db", access="PUBLIC"))
        self.assertEqual(self.asked(("cookie", mine), *crumbs, ("cookie", other)), 200)
        for head in self.db.heads:
            self.assertEqual(headers_of(head)["cookie"], ["a=1; b=2"])

    def test_events_arrive_as_they_are_sent(self):
        had = threading.Semaphore()

        def events(connection, _):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while had.acquire(timeout=LIMIT_S):
                connection.sendall(b"data: x\n\n")
        self.endpoint.change(opening("w1", self.container(events), "db"))
        with self.stream(self.signed) as stream:
            self.assertEqual(stream.status(), 200)
            for _ in range(20):  # each is sent when the one before is here
                self.assertEqual(stream.read(DATA), (DATA, b"data: x\n\n"))
                had.release()


if __name__ == "__main__":
    unittest.main(verbosity=2)
