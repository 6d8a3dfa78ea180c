"""The configuration that is shipped, in a real nginx: what it asks, what it lets through, what it
says when it does not, and what it leaves in its logs."""

import base64
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from nginx import PORT, connect
from node import until
from web import (HOST, LIMIT_S, ROOT, Container, Endpoint, Nginx, get, headers_of, listen_unix,
                 read_head, reply_of, reply_with, send)

SHIPPED = os.path.join(ROOT, "packaging/nginx/mesh.conf")
SYSCTLS = os.path.join(ROOT, "packaging/sysctl/50-mesh-controller.conf")
FAR = "192.0.2.77"  # loopback's own addresses are reused without being told
# As docs/outside.md has it, in a Debian machine's own folders; those are put aside meanwhile.
AS_DOCUMENTED = """
for folder in /etc/nginx/conf.d /var/log/nginx /etc/ssl/private; do
  mount -t tmpfs none $folder
done
mount -t tmpfs none $1
mkdir $1/upper $1/work
mount -t overlay none -o lowerdir=/etc/ssl/certs,upperdir=$1/upper,workdir=$1/work /etc/ssl/certs
cp $3.pem /etc/ssl/certs/mesh.example.org.pem
cp $3.key /etc/ssl/private/mesh.example.org.key
cp $2 /etc/nginx/conf.d/mesh.conf
nginx -t
"""
TOKEN = "mesh_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


class NginxTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        cls.nginx = Nginx()

    @classmethod
    def tearDownClass(cls):
        cls.nginx.close()

    def setUp(self):
        self.endpoint = Endpoint(self.nginx.socket)
        self.addCleanup(lambda: self.endpoint and self.endpoint.close())

    def close_endpoint(self):
        self.endpoint.close()
        self.endpoint = None

    def container(self, reply, listener=None):
        container = Container(reply, listener)
        self.addCleanup(container.close)
        return container

    def allow(self, upstream, *headers):
        self.endpoint.auth = (200, [("X-Mesh-Upstream", upstream), *headers], b"")

    def refuse(self, status, *headers, body=b"page", said=()):
        self.endpoint.auth = (403, [("X-Mesh-Status", status), *said], b"")
        self.endpoint.answer = (status, headers, body)

    def served(self, *headers, reply=None):
        container = self.container(reply or reply_with())
        self.allow(container.address, *headers)
        return container

    def asked(self, path):
        return [headers for asked, headers in self.endpoint.asked if asked == path]

    def test_it_goes_into_debians_own_configuration(self):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                ["unshare", "--mount", "sh", "-euc", AS_DOCUMENTED, "sh", folder, SHIPPED,
                 self.nginx.file("site")], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("test is successful", done.stderr)
        self.assertNotIn("[warn]", done.stderr)

    def test_what_is_asked_is_what_was_sent(self):
        self.served()
        get("/a%20b//c?x=%2f&api_token=" + TOKEN, "Cookie: a=1; b=2", "Authorization: Bearer x",
            "Origin: https://evil.example", "Accept: text/html", method="PUT")
        asked = self.asked("/auth")[0]
        for name, value in [("host", f"{HOST}:{PORT}"), ("line-host", HOST), ("method", "PUT"),
                            ("uri", "/a%20b//c?x=%2f&api_token=" + TOKEN), ("cookie", "a=1; b=2"),
                            ("authorization", "Bearer x"), ("client", "127.0.0.1"),
                            ("origin", "https://evil.example")]:
            self.assertEqual(asked["x-mesh-" + name], [value])
        self.assertNotIn("x-mesh-upgrade", asked)

    def test_a_client_puts_no_word_into_nginxs_mouth(self):
        self.served()
        get("/", "X-Mesh-Host: evil", "X-Mesh-Client: 192.0.2.1", "X-Mesh-Status: 502",
            "X-Mesh-Cookie: a")
        asked = self.asked("/auth")[0]
        self.assertEqual(asked["x-mesh-host"], [f"{HOST}:{PORT}"])
        self.assertEqual(asked["x-mesh-client"], ["127.0.0.1"])
        self.assertFalse({"x-mesh-status", "x-mesh-cookie"} & set(asked))

    def test_the_container_gets_the_request_as_it_was_and_who_it_is(self):
        container = self.served(("X-Mesh-User", "alice"), ("X-Arvados-User-UUID", "u1"),
                                ("X-Mesh-Cookie", "a=1"), ("X-Mesh-Authorization", "Basic x"))
        reply = get("//a%20b/../c%2f?x=%2f&&y", "Cookie: a=1; token=secret", "Authorization: secret")
        self.assertEqual((reply.status, reply.body), (200, b"hello"))
        head = container.heads[0]
        self.assertTrue(head.startswith(b"GET //a%20b/../c%2f?x=%2f&&y HTTP/1.1\r\n"), head)
        got = headers_of(head)
        for name, value in [("host", f"{HOST}:{PORT}"), ("x-mesh-user", "alice"), ("cookie", "a=1"),
                            ("x-arvados-user-uuid", "u1"), ("authorization", "Basic x"),
                            ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https")]:
            self.assertEqual(got[name], [value])
        self.assertNotIn(b"secret", head)

    def test_a_forged_user_is_stripped_in_every_spelling(self):
        container = self.served()
        get("/", "X-Arvados-User-UUID: root", "x-arvados-user-uuid: root", "X-MESH-USER: root",
            "X_Arvados_User_UUID: root", "X-Arvados_User-UUID: root", "X_Mesh_User: root",
            "X.Mesh.User: root", "X-Mesh-User : root", "Forwarded: for=root", "Proxy: root",
            "X-Forwarded-For: root", "X-Real-IP: root", "X-Forwarded-Host: root")
        heads = b"".join(container.heads)
        self.assertNotIn(b"root", heads)

    def test_a_refusal_is_the_endpoints_own(self):
        for status in (400, 401, 403, 404, 410, 421, 503):
            self.refuse(status, ("Retry-After", "2"), ("Cache-Control", "no-store"), body=b"why")
            reply = get("/", "Accept: text/html")
            self.assertEqual((reply.status, reply.body), (status, b"why"))
            self.assertEqual(reply.headers["cache-control"], ["no-store"])
            self.assertEqual(self.asked("/answer")[-1]["accept"], ["text/html"])

    def test_a_redirect_comes_out_byte_by_byte_with_all_its_cookies(self):
        self.refuse(303, ("Location", "/a%20b?c=%2f"), ("Set-Cookie", "a=1; Path=/"),
                    ("Set-Cookie", "b=2; Path=/"), ("Clear-Site-Data", '"cache"'))
        for method in ("GET", "POST", "DELETE"):
            reply = get("/a%20b?c=%2f&api_token=x", "Content-Length: 0", method=method)
            self.assertEqual(reply.status, 303)
            self.assertEqual(reply.headers["location"], ["/a%20b?c=%2f"])
            self.assertEqual(reply.headers["set-cookie"], ["a=1; Path=/", "b=2; Path=/"])
            self.assertEqual(reply.headers["clear-site-data"], ['"cache"'])
            self.assertEqual(self.asked("/answer")[-1]["x-mesh-method"], [method])

    def test_a_containers_own_refusals_are_its_own(self):
        for status in (401, 403, 404, 500, 502):
            self.served(reply=reply_with(status=f"{status} X", body=b"mine"))
            reply = get()
            self.assertEqual((reply.status, reply.body), (status, b"mine"))
        self.assertFalse(self.asked("/answer"))

    def test_no_log_holds_a_token(self):
        query = "/?api_token=" + TOKEN
        self.refuse(303, ("Location", "/"))
        get(query)
        self.allow("127.0.0.1:1")
        get(query)
        self.endpoint.auth = (200, [], b"")
        get(query)
        self.close_endpoint()
        self.assertEqual(get(query).status, 503)
        send(f"GET {query} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").close()
        send(f"GET {query} HTTP/1.1\r\nHost: {HOST}\r\nBad Header: x\r\n" + "x: y" * 40000).close()
        lines = until(lambda: '"GET /" 503' in self.nginx.read("access.log") and
                      self.nginx.read("access.log"), "all are logged")
        self.assertNotIn(TOKEN[10:], lines)
        self.assertNotIn(TOKEN[10:], self.nginx.read("error.log"))
        for folder, _, files in os.walk(self.nginx.dir):
            for name in files:
                with open(os.path.join(folder, name), "rb") as file:
                    self.assertNotIn(TOKEN[10:].encode(), file.read(), name)

    def test_without_the_endpoint_nobody_is_let_in(self):
        container = self.served()
        self.assertEqual(get().status, 200)
        self.close_endpoint()
        for host in (HOST, "mesh.mesh.example.org"):
            for accept in ("Accept: text/html,*/*", "Accept: application/json", "Accept: */*",
                           "A: 1"):
                with self.subTest(host=host, accept=accept):
                    self.closed(get("/", accept, host=host), "html" in accept)
        self.closed(get("/", "Content-Length: 0", method="POST"), False)
        self.assertEqual(len(container.heads), 1)

    def closed(self, reply, to_a_person):
        self.assertEqual(reply.status, 503)
        self.assertEqual(reply.header("retry-after"), "5")
        self.assertEqual(reply.header("cache-control"), "no-store")
        if to_a_person:
            self.assertIn(b"<h1>Closed for the moment</h1>", reply.body)
        else:
            self.assertIn("does not answer", json.loads(reply.body)["errors"][0])
        kind = "text/html" if to_a_person else "application/json"
        self.assertEqual(reply.headers["content-type"], [kind])

    def test_an_endpoint_that_makes_no_sense_lets_nobody_in(self):
        container = self.served()
        for auth, status in [((200, [], b""), 503), ((500, [], b""), 503),
                             ((302, [("Location", "/")], b""), 503),
                             ((200, [("X-Mesh-Upstream", "no such thing")], b""), 502)]:
            self.endpoint.auth, self.endpoint.answer = auth, (502, [], b"")
            self.assertEqual(get().status, status, auth)
        self.assertFalse(container.heads)

    def test_a_container_that_does_not_answer_has_a_page(self):
        self.allow("127.0.0.1:1")
        self.endpoint.answer = (502, [], b"does not answer")
        reply = get()
        self.assertEqual((reply.status, reply.body), (502, b"does not answer"))
        self.assertEqual(self.asked("/answer")[-1]["x-mesh-status"], ["502"])
        lines = until(lambda: [line for line in self.nginx.read("access.log").splitlines()
                               if "127.0.0.1:1:" in line], "it is logged")
        self.assertIn("upstream=127.0.0.1:1:502", lines[-1])

    def test_closed_connections_to_a_container_do_not_use_up_the_ports(self):
        """Each request has a connection of its own, whose port rests for a minute."""
        ports = 32
        self.narrow(ports)
        subprocess.run(["ip", "addr", "add", f"{FAR}/32", "dev", "lo"], check=True)
        self.addCleanup(subprocess.run, ["ip", "addr", "del", f"{FAR}/32", "dev", "lo"], check=True)

        def reply(connection, _):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            connection.recv(1)  # whoever closes first has the port to rest
        listener = socket.create_server((FAR, 0))
        container = self.container(reply, listener)
        self.allow(f"{FAR}:{listener.getsockname()[1]}")
        self.endpoint.answer = (502, [], b"no port")
        with connect("127.0.0.1", HOST) as connection:
            def status():
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n\r\n".encode())
                return reply_of(connection).status
            before = [status() for _ in range(ports + 4)]
            served = before.count(200)
            self.assertEqual(before, [200] * served + [502] * (len(before) - served))
            self.assertIn(served, range(ports - 4, ports + 1))  # the client has one as well
            self.assertEqual(len(container.heads), served, "the others never left nginx")
            subprocess.run(["sysctl", "-q", "-p", SYSCTLS], check=True)
            # A port rests for a second even so.
            for number in range(3 * ports):
                until(lambda: status() == 200, f"request {number}")

    def narrow(self, ports):
        """Outgoing connections have so few ports from here on, until the test is over."""
        for name, value in (("tcp_tw_reuse", None),
                            ("ip_local_port_range", f"40000 {40000 + ports - 1}")):
            path = f"/proc/sys/net/ipv4/{name}"
            with open(path, encoding="ascii") as file:
                before = file.read()
            self.addCleanup(self.put, path, before)
            if value:
                self.put(path, value)

    @staticmethod
    def put(path, value):
        with open(path, "w", encoding="ascii") as file:
            file.write(value)

    def upgrade(self, protocol):
        return send(f"GET /ws HTTP/1.1\r\nHost: {HOST}:{PORT}\r\nConnection: Upgrade, HTTP2-Settings"
                    f"\r\nUpgrade: {protocol}\r\nHTTP2-Settings: x\r\n\r\n")

    @staticmethod
    def echo(connection, _):
        connection.sendall(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n"
                           b"Connection: Upgrade\r\n\r\n")
        while data := connection.recv(4096):
            connection.sendall(data)

    def test_a_websocket_is_passed_through(self):
        container = self.served(reply=self.echo)
        with self.upgrade("websocket") as connection:
            self.assertIn(b"101", read_head(connection)[0])
            for word in (b"one", b"two"):
                connection.sendall(word)
                self.assertEqual(connection.recv(4096), word)
        self.assertEqual(headers_of(container.heads[0])["upgrade"], ["websocket"])
        self.assertEqual(self.asked("/auth")[0]["x-mesh-upgrade"], ["websocket"])

    def test_a_websocket_goes_by_a_socket_of_the_controllers(self):
        path = self.nginx.file("relay.sock")
        container = self.container(self.echo, listen_unix(path))
        self.addCleanup(os.unlink, path)
        self.allow(f"unix:{path}")
        with self.upgrade("websocket") as connection:
            self.assertIn(b"101", read_head(connection)[0])
            self.assertTrue(container.heads[0].startswith(b"GET /ws HTTP/1.1\r\n"))
            connection.sendall(b"one")
            self.assertEqual(connection.recv(4096), b"one")
            container.close()
            self.assertEqual(connection.recv(4096), b"", "cut when access is taken away")

    def test_no_other_protocol_is_passed_on(self):
        container = self.served()
        for protocol in ("h2c", "h2c, websocket", "websocket, h2c", "tcp"):
            with self.upgrade(protocol) as connection:
                self.assertEqual(reply_of(connection).status, 200)
        for head in container.heads:
            self.assertFalse({"upgrade", "http2-settings"} & set(headers_of(head)), head)

    def test_events_arrive_as_they_are_sent(self):
        had = threading.Semaphore()

        def events(connection, _):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while had.acquire(timeout=LIMIT_S):
                connection.sendall(b"data: %.6f\n\n" % time.monotonic())
        self.served(reply=events)
        with send(f"GET / HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n\r\n") as connection:
            _, rest = read_head(connection)
            for number in range(20):
                while b"\n\n" not in rest:
                    rest += connection.recv(4096)
                late = time.monotonic() - float(rest.split(b"data: ")[1].split()[0])
                self.assertLess(late, 0.5, f"event {number}")  # what is collected never comes
                rest = b""
                had.release()

    def test_an_upload_arrives_while_it_is_sent(self):
        arrived = []

        def take(connection, rest):
            arrived.append(rest)
            while len(b"".join(arrived)) < 10:
                arrived.append(connection.recv(4096))
            reply_with()(connection, b"")
        self.served(reply=take)
        with send(f"POST / HTTP/1.1\r\nHost: {HOST}:{PORT}\r\nContent-Length: 10\r\n\r\nfirst") \
                as connection:
            until(lambda: b"first" in b"".join(arrived), "the first half is there")
            connection.sendall(b"other")
            self.assertEqual(reply_of(connection).status, 200)

    def test_who_is_refused_uploads_nothing(self):
        self.refuse(401, said=[("X-Mesh-Text", "Please sign in")])
        for length in ("Content-Length: 99999999999", "Transfer-Encoding: chunked",
                       "Content-Length: 99999999999\r\nExpect: 100-continue"):
            with send(f"POST / HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n{length}\r\n\r\n") as connection:
                reply = reply_of(connection)
            self.assertEqual((reply.status, reply.body), (401, b'{"errors":["Please sign in"]}\n'))
            self.assertEqual(reply.header("content-type"), "application/json")
        self.assertFalse(self.asked("/answer"))

    def test_an_upload_with_a_token_in_its_address_is_redirected_too(self):
        self.refuse(303, said=[("X-Mesh-Location", "/a%20b"), ("X-Mesh-Set-Cookie", "a=1; Path=/")])
        with send(f"POST / HTTP/1.1\r\nHost: {HOST}:{PORT}\r\nContent-Length: 99999999999\r\n\r\n") \
                as connection:
            reply = reply_of(connection)
        self.assertEqual(reply.status, 303)
        self.assertEqual(reply.headers["location"], ["/a%20b"])
        self.assertEqual(reply.headers["set-cookie"], ["a=1; Path=/"])

    def test_a_small_body_is_refused_with_a_page(self):
        self.refuse(401, body=b"page")
        with send(f"POST / HTTP/1.1\r\nHost: {HOST}:{PORT}\r\nContent-Length: 5\r\n\r\nhello") \
                as connection:
            reply = reply_of(connection)
        self.assertEqual((reply.status, reply.body), (401, b"page"))
        self.assertNotIn("content-length", self.asked("/answer")[0])

    def test_the_host_of_an_absolute_line_is_told(self):
        self.refuse(400)
        with send(f"GET https://other.example/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n") as connection:
            self.assertEqual(reply_of(connection).status, 400)
        asked = self.asked("/auth")[0]
        self.assertEqual(asked["x-mesh-host"], [HOST])
        self.assertEqual(asked["x-mesh-line-host"], ["other.example"])
        self.assertEqual(asked["x-mesh-uri"], ["/x"])

    def test_what_two_programs_could_read_differently_is_refused(self):
        container = self.served()
        for lines in (f"Host: {HOST}\r\nHost: other.example", "", "Host: a b", f"Host: {HOST}/x",
                      f"Host: {HOST}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
                      f"Host: {HOST}\r\nContent-Length: 3\r\nContent-Length: 4",
                      f"Host: {HOST}\r\nTransfer-Encoding: chunked, identity",
                      f"Host: {HOST}\r\nTransfer-Encoding: xchunked"):
            with send(f"POST / HTTP/1.1\r\n{lines}\r\n\r\n") as connection:
                self.assertIn(reply_of(connection).status, (400, 501), lines)
        self.assertFalse(container.heads)

    def test_the_endpoints_own_paths_are_not_for_clients(self):
        self.served()
        self.assertEqual(get("/__mesh_auth").status, 404)
        self.assertFalse(self.asked("/auth"))

    def test_a_container_sends_nginx_nowhere(self):
        self.served(reply=reply_with("X-Accel-Redirect: /__mesh_auth"))
        reply = get()
        self.assertEqual((reply.status, reply.body), (200, b"hello"))
        self.assertEqual(len(self.asked("/auth")), 1)

    def test_a_container_plants_no_cookies_at_its_neighbours(self):
        self.served(("X-Mesh-Set-Cookie", "ours=1; Path=/"),
                    reply=reply_with("Set-Cookie: a=1; Domain=mesh.example.org; Path=/",
                                     "Set-Cookie: b=2; Path=/"))
        cookies = get().headers["set-cookie"]
        self.assertIn("b=2; Path=/", cookies)
        self.assertIn("ours=1; Path=/", cookies)
        self.assertTrue(any(cookie.startswith("a=1; ") for cookie in cookies))
        self.assertFalse(any("omain=mesh.example.org" in cookie for cookie in cookies), cookies)

    def test_a_containers_redirects_stay_on_the_site(self):
        self.served(reply=reply_with(f"Location: http://{HOST}:{PORT}/login", status="302 Found"))
        self.assertEqual(get().headers["location"], ["/login"])
        self.served(reply=reply_with("Location: https://elsewhere.example/", status="302 Found"))
        self.assertEqual(get().headers["location"], ["https://elsewhere.example/"])

    def test_a_long_cookie_comes_and_goes(self):
        cookie = "a=" + base64.b64encode(os.urandom(9000)).decode()
        container = self.served(("X-Mesh-Cookie", f"{cookie}; b={cookie}; c={cookie}"))
        self.assertEqual(get("/", f"Cookie: {cookie}").status, 200)
        self.assertEqual(self.asked("/auth")[0]["x-mesh-cookie"], [cookie])
        self.assertEqual(headers_of(container.heads[0])["cookie"],
                         [f"{cookie}; b={cookie}; c={cookie}"])

    def test_http2_asks_the_same(self):
        self.served()
        done = subprocess.run(["curl", "-ksS", "--http2", "--resolve", f"{HOST}:{PORT}:127.0.0.1",
                               "-w", " %{http_version}", "-H", "Cookie: a=1",
                               f"https://{HOST}:{PORT}/x?y"], capture_output=True, text=True,
                              check=True)
        self.assertEqual(done.stdout, "hello 2")
        asked = self.asked("/auth")[0]
        self.assertEqual(asked["x-mesh-host"], [f"{HOST}:{PORT}"])
        self.assertEqual(asked["x-mesh-line-host"], [HOST])
        self.assertEqual(asked["x-mesh-uri"], ["/x?y"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
