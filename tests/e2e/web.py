"""What stands around nginx in a test: an endpoint that says what it is told to, a container that
keeps what it gets, and a client that writes bytes. nginx itself runs with the file that is shipped
(packaging/nginx/mesh.conf), with this test's paths and port in it."""

import contextlib
import http.client
import os
import shutil
import socket
import tempfile
import threading

import nginx
from nginx import PORT, connect

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOST = "db.svc.mesh.example.org"
LIMIT_S = 20


def read_head(connection):
    """Bytes up to the empty line, and what came behind it."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = connection.recv(65536)
        if not more:
            return got, b""
        got += more
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest


def headers_of(head):
    """Name in lower case -> all its values."""
    headers = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), []).append(value.strip())
    return headers


class Server:
    """One thread a connection; `serve` gets each."""

    def __init__(self, listener, serve):
        self.listener, self.serve, self.open = listener, serve, []
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(connection)
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        with connection:
            try:
                self.serve(connection)
            except OSError:
                pass

    def close(self):
        """Harmless when done before."""
        for connection in (self.listener, *self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.listener.close()


def listen_unix(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    return listener


def listen_tcp():
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    return listener, f"127.0.0.1:{listener.getsockname()[1]}"


class Endpoint:
    """Keeps what nginx asks, and answers what the test wants: `auth` and `answer` are each
    (status, headers, body)."""

    def __init__(self, path):
        self.path, self.asked = path, []
        self.auth = (200, [], b"")
        self.answer = (404, [], b"page")
        self.server = Server(listen_unix(path), self.serve)

    def serve(self, connection):
        while True:
            head, _ = read_head(connection)
            if not head:
                return
            path = head.split()[1].decode()
            self.asked.append((path, headers_of(head)))
            status, headers, body = self.auth if path == "/auth" else self.answer
            text = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n"
            text += "".join(f"{name}: {value}\r\n" for name, value in headers)
            connection.sendall(text.encode("latin-1") + b"\r\n" + body)

    def close(self):
        self.server.close()
        os.unlink(self.path)


class Container:
    """Keeps the head of each request; `reply` writes the answer to the connection."""

    def __init__(self, reply, listener=None):
        self.heads, self.reply = [], reply
        self.address = None
        if listener is None:
            listener, self.address = listen_tcp()
        self.server = Server(listener, self.serve)

    def serve(self, connection):
        head, rest = read_head(connection)
        if head:
            self.heads.append(head)
            self.reply(connection, rest)

    def close(self):
        self.server.close()


def reply_with(*headers, status="200 OK", body=b"hello"):
    def reply(connection, _):
        text = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        text += "".join(f"{header}\r\n" for header in headers)
        connection.sendall(text.encode() + b"\r\n" + body)
    return reply


class Nginx(nginx.Nginx):
    def __init__(self):
        folder = tempfile.mkdtemp(prefix="meshd-test-")
        self.socket = os.path.join(folder, "web.sock")
        with open(os.path.join(ROOT, "packaging/nginx/mesh.conf"), encoding="utf-8") as shipped:
            text = shipped.read()
        for old, new in [("listen 443 ", f"listen {PORT} "), ("listen [::]:443 ", f"listen [::]:{PORT} "),
                         ("/etc/ssl/certs/mesh.example.org.pem", f"{folder}/site.pem"),
                         ("/etc/ssl/private/mesh.example.org.key", f"{folder}/site.key"),
                         ("/run/mesh-controller/web.sock", self.socket),
                         ("/var/log/nginx/mesh.log", f"{folder}/access.log")]:
            if old not in text:
                raise AssertionError(f"{old} is not in packaging/nginx/mesh.conf")
            text = text.replace(old, new)
        super().__init__(folder, text, "127.0.0.1")

    def close(self):
        super().close()
        shutil.rmtree(self.dir)


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.headers = {}
        for name, value in response.getheaders():
            self.headers.setdefault(name.lower(), []).append(value)
        self.body = response.read() if response.status != 101 else b""

    def header(self, name):
        return self.headers.get(name, [None])[0]


def send(text):
    """Writes a request byte by byte as it is given; the connection stays open, unless nginx has
    answered and left before it was whole."""
    connection = connect("127.0.0.1", HOST)
    with contextlib.suppress(OSError):
        connection.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))
    return connection


def reply_of(connection):
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Reply(response)


def get(path="/", *headers, method="GET", host=HOST):
    lines = "".join(f"{header}\r\n" for header in headers)
    with send(f"{method} {path} HTTP/1.1\r\nHost: {host}:{PORT}\r\nConnection: close\r\n{lines}\r\n") \
            as connection:
        return reply_of(connection)
