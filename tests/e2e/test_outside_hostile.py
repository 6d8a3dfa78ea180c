"""What strangers send to get in, or to have others sent astray, through the nginx that is shipped and
the real verdict endpoint: addresses that lead elsewhere, hosts that are not one name, tokens that
are nearly good, requests that two programs could read differently."""

import contextlib
import os
import unittest
import urllib.parse

from nginx import PORT
from node import until
from outside import DB, ZONE, OutsideTest, cookie, opening
from web import connect, get, headers_of, read_head, reply_of, send

# How nginx answers what it cannot read.
UNREADABLE = (400, 414, 431, 494, 501)
PAGE = f"mesh.{ZONE}"


def shown(reply):
    return b"".join(f"{name}: {value}\n".encode() for name, values in reply.headers.items()
                    for value in values) + reply.body


class HostileTest(OutsideTest):
    def setUp(self):
        self.db = self.container()
        self.endpoint.change(opening("w1", self.db, "db"))

    def ask(self, text):
        """One request, written as it is; its answer, none if the connection was cut."""
        with send(text) as connection:
            try:
                return reply_of(connection)
            except OSError:
                return None

    # --- redirects ---

    def test_a_redirect_leads_to_this_host_and_nowhere_else(self):
        for path in ("//evil.example/", "///evil.example/", "/\\evil.example/", "\\\\evil.example/",
                     "/\\/evil.example/", "//evil.example/%2e%2e", "/./\\evil.example/",
                     "//\\evil.example", "/%2f%2fevil.example/", "/%5cevil.example/", "/@evil.example",
                     "/.evil.example", "//alice@evil.example/", "https:evil.example", "//", "/\\",
                     "/;@evil.example", "/?next=//evil.example", "/%0d%0aX-Planted:%201",
                     "/%E5%98%8A%E5%98%8DX-Planted:1", "/%00", "/x\ty", "/x\x0by", "/\x7f"):
            mark = "&" if "?" in path else "?"
            for host in (DB, PAGE):
                with self.subTest(path=path, host=host):
                    self.leads_nowhere_else(f"{path}{mark}api_token={self.alice}", host)
        self.assertFalse(self.db.heads)

    def leads_nowhere_else(self, path, host):
        reply = self.ask(f"GET {path} HTTP/1.1\r\nHost: {host}:{PORT}\r\n\r\n")
        self.assertNotIn(self.alice.encode(), shown(reply))
        if reply.status != 303:
            self.assertIn(reply.status, UNREADABLE)
            return
        place = reply.header("location")
        # As browsers read it: '\' is '/', control characters are left out.
        read = "".join(c for c in place if c > " ").replace("\\", "/")
        self.assertTrue(read.startswith("/") and not read.startswith("//"), place)
        there = urllib.parse.urlsplit(urllib.parse.urljoin(f"https://{host}:{PORT}/x", read))
        self.assertEqual(there.netloc, f"{host}:{PORT}")
        self.assertNotIn("x-planted", reply.headers)

    def test_what_the_page_opens_is_on_this_site(self):
        for signed in (cookie(self.alice), "Accept: */*"):
            for rest in ("/evil.example", "//evil.example/80", "https://evil.example/",
                         "w1/8888@evil.example", "w1/8888//evil.example/", "..//evil.example",
                         "\\evil.example/8888", "%2f%2fevil.example/8888", "evil.example/443",
                         "w1/8888?next=//evil.example"):
                reply = get("/open/" + rest, signed, host=PAGE)
                self.assertEqual((reply.status, reply.headers["location"]), (303, ["/"]), rest)

    # --- hosts ---

    def test_a_host_is_one_name_of_this_site(self):
        good = cookie(self.alice)
        large = f"DB.Svc.{ZONE.upper()}:{PORT}"
        self.assertEqual(self.ask(f"GET / HTTP/1.1\r\nHost: {large}\r\n{good}\r\n\r\n").status, 200)
        self.db.heads.clear()
        for hosts in ([f"{DB}:444"], [f"{DB}.evil.example:{PORT}"], [f"evil.example:{PORT}"],
                      [f"{DB}@evil.example:{PORT}"], [f"evil.example#{DB}:{PORT}"],
                      [f"{DB}:{PORT}", f"{DB}:{PORT}"], [f"{DB}:{PORT}", "evil.example"], [],
                      [f"{DB}:{PORT}x"], [f"{DB}:{PORT}:{PORT}"], [f"..{ZONE}:{PORT}"],
                      [f"db..svc.{ZONE}:{PORT}"], [f"x.db.svc.{ZONE}:{PORT}"],
                      [f"{'a' * 64}.svc.{ZONE}:{PORT}"], [f"{'a.' * 200}svc.{ZONE}:{PORT}"],
                      [f"d\xfcb.svc.{ZONE}:{PORT}"], [f"db%2esvc.{ZONE}:{PORT}"],
                      [f"db/.svc.{ZONE}:{PORT}"], ["127.0.0.1"], ["[::1]"], ["localhost"],
                      ["x" * 9000], [f"db\x00.svc.{ZONE}:{PORT}"], [f"db--8888--1.svc.{ZONE}:{PORT}"],
                      [f"db--0.svc.{ZONE}:{PORT}"], [f"db--65536.svc.{ZONE}:{PORT}"],
                      [f"db--+8888.svc.{ZONE}:{PORT}"]):
            with self.subTest(hosts=hosts):
                lines = "".join(f"Host: {host}\r\n" for host in hosts)
                reply = self.ask(f"GET / HTTP/1.1\r\n{lines}{good}\r\n\r\n")
                self.assertTrue(reply is None or reply.status in (400, 404, 421, *UNREADABLE),
                                reply and reply.status)
        for line in (f"GET https://evil.example/ HTTP/1.1\r\nHost: {DB}:{PORT}",
                     f"GET https://{DB}:{PORT}/ HTTP/1.1\r\nHost: evil.example",
                     "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443"):
            with self.subTest(line=line):
                self.assertIn(self.ask(f"{line}\r\n{good}\r\n\r\n").status, (400, 405, 421))
        self.assertFalse(self.db.heads)

    def test_a_dot_at_the_end_makes_no_other_site_of_it(self):
        """Browsers keep other cookies for it; whoever is let in is let in by the same rules."""
        for header, status in (("A: 1", 401), (cookie(self.carol), 404), (cookie(self.bob), 200)):
            for host in (f"{DB}.", f"{DB.upper()}.", DB):
                self.assertEqual(get("/", header, host=host).status, status, (host, header))
        self.assertEqual(len(self.db.heads), 3)
        reply = get(f"/x?api_token={self.bob}", host=f"{DB}.")
        self.assertEqual((reply.status, reply.headers["location"]), (303, ["/x"]))
        self.assertFalse([one for one in reply.headers["set-cookie"] if "omain" in one])
        for dots in ("..", "...", ".%2e"):
            self.assertIn(get("/", cookie(self.bob), host=DB + dots).status, (400, 421), dots)
        self.assertEqual(len(self.db.heads), 3)

    def test_names_leave_nothing_behind(self):
        """Whatever is asked for, it becomes no file, and no text of nginx's."""
        before = sorted(os.listdir(self.nginx.dir)), self.nginx.read("mesh.conf")
        for name in ("$host", "${host}", "a;b", "a{", "a}", "a'b", 'a"b', "`id`", "a\\b", "../../etc",
                     "..%2f..%2fetc", "a|b", "a&b", "*", "~", "a b", "a\tb", "<script>", "%00", "a_b"):
            with self.subTest(name=name):
                reply = self.ask(f"GET / HTTP/1.1\r\nHost: {name}.svc.{ZONE}:{PORT}\r\n"
                                 f"Accept: text/html\r\n{cookie(self.alice)}\r\n\r\n")
                self.assertIn(reply.status, (400, 404, 421))
                self.assertNotIn(b"<script>", reply.body)
        self.assertEqual((sorted(os.listdir(self.nginx.dir)), self.nginx.read("mesh.conf")), before)
        self.assertFalse(self.db.heads)

    # --- tokens and users ---

    def test_a_token_that_is_nearly_good_is_none(self):
        good = self.alice
        near = [good + "garbage", good + "/garbage", good + "%00", good[:-1], good.upper(), good[5:],
                "mesh_", good + "a" * 65536, f"v2/{good}", "../" + good, good + "," + self.bob]
        for token in near:
            for lines in (f"GET /?api_token={token} HTTP/1.1\r\n",
                          f"GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\n",
                          f"GET / HTTP/1.1\r\n{cookie(token)}\r\n"):
                with self.subTest(token=token[:60], lines=lines[:30]):
                    reply = self.ask(f"{lines}Host: {DB}:{PORT}\r\n\r\n")
                    if reply.status == 303:  # it has left the address; it opens nothing all the same
                        planted = [one.partition(";")[0] for one in reply.headers["set-cookie"]]
                        reply = get("/", f"Cookie: {'; '.join(planted)}", host=DB)
                    self.assertIn(reply.status, (401, *UNREADABLE))
                    self.assertNotIn(good.encode(), shown(reply))
        self.assertFalse(self.db.heads)

    def test_an_expired_token_is_none(self):
        line = self.endpoint.people[self.bob]
        try:
            self.endpoint.people[self.bob] = line.replace(" never", " 2020-01-31T00:00:00Z")
            self.endpoint.write_people()
            self.until_status(cookie(self.bob), 401)
        finally:
            self.endpoint.people[self.bob] = line
            self.endpoint.write_people()
            self.until_status(cookie(self.bob), 200)

    def until_status(self, header, status):
        until(lambda: get("/", header, host=DB).status == status, f"it is told {status}")

    def test_a_cookie_that_a_neighbour_planted_opens_nothing(self):
        """Two of the name: nobody knows whose is whose."""
        mine, other = cookie(self.alice), cookie(self.carol).partition(": ")[2]
        public = self.container()
        self.endpoint.change(opening("w2", public, "public", access="PUBLIC"))
        for both in (f"{mine}; {other}", f"Cookie: {other}; {mine.partition(': ')[2]}",
                     f"{mine}\r\nCookie: {other}"):
            self.assertIn(get("/", both, host=DB).status, (400, 401), both)
            # Whom it is open to all the same, it is shown to without either.
            self.assertEqual(get("/", f"{both}; a=1", host=f"public.svc.{ZONE}").status, 200)
            self.assertEqual(headers_of(public.heads[-1])["cookie"], ["a=1"])
        self.assertFalse(self.db.heads)
        for own in ("__host-mesh_token=x", "__HOST-MESH_TOKEN=x", "__Host-mesh_anything=x",
                    "__secure-mesh_pass=x", "ARVADOS_API_TOKEN=x", " __Host-mesh_token =x"):
            self.assertEqual(get("/", f"{mine}; {own}; a=1", host=DB).status, 200, own)
            self.assertEqual(headers_of(self.db.heads[-1])["cookie"], ["a=1"])

    def test_who_it_is_is_said_by_us_alone(self):
        forged = [f"{name}: root" for name in (
            "X-Mesh-User", "x-mesh-user", "X_Mesh_User", "X-MESH_USER", "X-Arvados-User-UUID",
            "X_Arvados_User_UUID", "x-arvados-user-uuid", "X-Mesh-User ", "X-Forwarded-User")]
        lines = "\r\n".join(forged[:-2])
        reply = self.ask(f"GET / HTTP/1.1\r\nHost: {DB}:{PORT}\r\n{lines}\r\n{lines}\r\n"
                         f"{cookie(self.bob)}\r\n\r\n")
        self.assertEqual(reply.status, 200)
        head = headers_of(self.db.heads[-1])
        users = [value for name, values in head.items() for value in values
                 if name.replace("_", "-") in ("x-mesh-user", "x-arvados-user-uuid")]
        self.assertEqual(set(users), {"bob"})
        self.assertNotIn(b"root", self.db.heads[-1])
        # A blank before the colon: one program's header is another's nonsense.
        self.db.heads.clear()
        for line in (forged[-2], "X-Mesh-User\t: root", "X-Mesh-User\x00: root",
                     "\x01X-Mesh-User: root", "X-Mesh-User\x7f: root", " X-Mesh-User: root",
                     "X Mesh-User: root"):
            reply = self.ask(f"GET / HTTP/1.1\r\nHost: {DB}:{PORT}\r\n{line}\r\n"
                             f"{cookie(self.bob)}\r\n\r\n")
            self.assertIn(reply.status, UNREADABLE, line)
        self.assertFalse(self.db.heads)
        # Others are no names to nginx, and go no further.
        for name in ("X.Mesh.User", "(X-Mesh-User)", "X-Mesh-User;", "X-Mesh-User,", "X/Mesh/User",
                     '"X-Mesh-User"', "X-Mesh-\xdcser", "X-Mesh-User\xa0", "$X-Mesh-User"):
            self.assertEqual(get("/", f"{name}: root", cookie(self.bob), host=DB).status, 200, name)
            self.assertNotIn(b"root", self.db.heads[-1])

    # --- two requests in one ---

    def test_no_second_request_hides_in_a_first(self):
        inner = f"GET /hidden HTTP/1.1\r\nHost: {DB}:{PORT}\r\n\r\n"
        size = len(inner)
        for framing in (f"Content-Length: {size}\r\nTransfer-Encoding: chunked",
                        f"Transfer-Encoding: chunked\r\nContent-Length: {size}",
                        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                        "Transfer-Encoding: identity, chunked", "Transfer-Encoding : chunked",
                        "Transfer-Encoding: \x0bchunked", "Transfer-Encoding:\r\n chunked",
                        f"Content-Length: {size}\r\nContent-Length: 0", f"Content-Length: +{size}",
                        f"Content-Length: 0x{size:x}", f"Content-Length: {size},0", "Content-Length: -1",
                        f"Content-Length: {size} 0", "Content-Length: 99999999999999999999"):
            with self.subTest(framing=framing):
                reply = self.ask(f"POST / HTTP/1.1\r\nHost: {DB}:{PORT}\r\n"
                                 f"Authorization: Bearer {self.bob}\r\n{framing}\r\n\r\n"
                                 f"0\r\n\r\n{inner}")
                self.assertTrue(reply is None or reply.status in UNREADABLE, reply and reply.status)
        self.assertFalse(self.db.heads)

    def test_what_nginx_reads_leniently_it_passes_on_strictly(self):
        """Bare line feeds and extensions of chunks do not reach the container."""
        got = []

        def keep(connection, rest):
            connection.settimeout(5)
            while b"0\r\n\r\n" not in rest:
                rest += connection.recv(4096)
            got.append(rest)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        container = self.container(keep)
        self.endpoint.change(opening("w1", container, "db"))
        reply = self.ask(f"POST / HTTP/1.1\nHost: {DB}:{PORT}\nAuthorization: Bearer {self.bob}\n"
                         "Transfer-Encoding: chunked\n\n5;a=\"b\nc\"\r\nhello\r\n0;x\r\nT: 1\r\n\r\n")
        if reply is not None and reply.status == 200:
            self.assertEqual(got, [b"5\r\nhello\r\n0\r\n\r\n"])
            self.assertNotIn(b"\n", container.heads[0].replace(b"\r\n", b""))
        else:
            self.assertFalse(container.heads)

    def test_a_refused_body_is_no_request(self):
        """What follows a refusal on the same connection is not read as one of somebody else's."""
        inner = f"GET /hidden HTTP/1.1\r\nHost: {DB}:{PORT}\r\n{cookie(self.alice)}\r\n\r\n"
        with connect("127.0.0.1", DB) as connection:
            connection.sendall(f"POST / HTTP/1.1\r\nHost: {DB}:{PORT}\r\n"
                               f"Content-Length: {len(inner)}\r\n\r\n{inner}".encode())
            connection.settimeout(5)
            told = b""
            try:
                while more := connection.recv(65536):
                    told += more
                    if told.count(b"HTTP/1.1 ") and told.endswith(b"}\n"):
                        break
            except OSError:
                pass
        self.assertEqual(told.count(b"HTTP/1.1 "), 1, told)
        self.assertIn(b" 401 ", told.split(b"\r\n")[0])
        self.assertFalse(self.db.heads)

    def test_who_says_nothing_waits_for_nobody(self):
        """Fifty who have begun a request keep nobody from making another."""
        held = [send(f"GET / HTTP/1.1\r\nHost: {DB}") for _ in range(50)]
        try:
            self.assertEqual(get("/", cookie(self.bob), host=DB).status, 200)
        finally:
            for connection in held:
                connection.close()

    def test_nothing_of_it_is_logged_with_a_token(self):
        for text in (f"GET /?api_token={self.alice} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                     f"GET /?api_token={self.alice} HTTP/9.9\r\n\r\n",
                     f"GET /{'x' * 70000}?api_token={self.alice} HTTP/1.1\r\nHost: {DB}\r\n\r\n",
                     f"FOO /?api_token={self.alice} HTTP/1.1\r\nHost: {DB}:1\r\n\r\n"):
            with send(text) as connection, contextlib.suppress(ConnectionResetError):
                read_head(connection)
        for log in ("access.log", "error.log"):
            self.assertNotIn(self.alice, self.nginx.read(log))


if __name__ == "__main__":
    unittest.main(verbosity=2)
