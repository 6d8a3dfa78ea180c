"""nginx beside a controller, with the text that `mesh-controller proxy-config` prints, who comes
through it, and whom they come to."""
import http.client

import nginx
from nginx import PORT, connect
from node import BUILD, run

# Says at each port who it is and what it was sent; a websocket's bytes it sends back.
SERVER = """
import http.server, socket, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers["Upgrade"]:
            return self.echo()
        body = f"{sys.argv[1]} {self.path}\\n{self.headers}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_OPTIONS = do_GET
    def echo(self):
        self.close_connection = True
        self.send_response_only(101)
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        while data := self.connection.recv(4096):
            self.wfile.write(data)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
for port in sys.argv[2:]:
    threading.Thread(target=Server(("::", int(port)), Handler).serve_forever).start()
"""


ZONE = "mesh.example.org"
PROXY = "192.0.2.251"  # of nginx, beside the first controller


def web(proxy=f"addresses: [{PROXY}]", host="", more="", listen="/run/test/web.sock"):
    """Of mesh-controller.yaml: what makes it serve a site in ZONE, and at `host` by ports."""
    ports = f"  host: {host}\n  ports: 8500-8529\n" if host else ""
    return (f"proxy: {{{proxy}}}\nweb:\n  zone: {ZONE}\n  port: {PORT}\n{ports}"
            f"  listen: {listen}\n  certificate: /run/test/site.pem\n"
            f"  certificate_key: /run/test/site.key\n  access_log: /run/test/access.log\n{more}")


QUICKLY = "  keep_good_s: 1\n  keep_bad_s: 1\n"  # what access was taken away counts no longer


def admin(controller, *argv, **options):
    return run(BUILD / "mesh-controller", *argv, "--config", controller.config, **options)


def new_token(controller, user, *options):
    return admin(controller, "token", "add", user, *options).stdout.strip()


class Nginx(nginx.Nginx):
    """In the controller's network. The site's certificate is /run/test/site.pem."""

    def __init__(self, cluster, controller, **options):
        super().__init__(cluster.dir, admin(controller, "proxy-config").stdout, controller.address,
                         lambda command: controller.inside(*command), **options)


class Visitor:
    """A browser without pages: keeps the cookies of each host, and follows no redirect by itself."""

    def __init__(self, address, token=None):
        self.address, self.token = address, token
        self.cookies = {}

    def get(self, host, path="/", method="GET", port=PORT, headers=(), body=""):
        with connect(self.address, host, port) as connection:
            jar = self.cookies.setdefault(host, {})
            lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close",
                     *headers]
            if jar:
                lines.append("Cookie: " + self.cookie(host))
            if body:
                lines.append(f"Content-Length: {len(body.encode())}")
            connection.sendall("\r\n".join([*lines, "", body]).encode())
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            response.text = response.read().decode()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in cookie or "1970" in cookie:
                jar.pop(name, None)
            else:
                jar[name] = value
        return response

    def cookie(self, host):
        return "; ".join(f"{k}={v}" for k, v in self.cookies.get(host, {}).items())

    def open(self, host, path="/", port=PORT):
        """Signs in by the query where it is not, and follows redirects."""
        if self.token and "__Host-mesh_token" not in self.cookies.get(host, {}):
            more = "&" if "?" in path else "?"
            reply = self.get(host, f"{path}{more}api_token={self.token}", port=port)
            if reply.status != 303:  # there is nothing to sign in to
                return reply
            assert reply.headers["Location"] == path, reply.headers
        for _ in range(3):
            reply = self.get(host, path, port=port)
            if reply.status != 303:
                return reply
        raise AssertionError("redirected for ever")
