"""nginx beside a controller, with the text that `mesh-controller proxy-config` prints, who comes
through it, and whom they come to."""
import http.client
import pathlib
import socket
import ssl
import subprocess

from node import BUILD, run, until

PORT = 8443
# Says who it is and what it was sent.
SERVER = """
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{sys.argv[1]} {self.path}\\n{self.headers}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(sys.argv[2])), Handler).serve_forever()
"""


def admin(controller, *argv, **options):
    return run(BUILD / "mesh-controller", *argv, "--config", controller.config, **options)


def new_token(controller, user, *options):
    return admin(controller, "token", "add", user, *options).stdout.strip()


class Nginx:
    """In the controller's network. The site's certificate is /run/test/site.pem."""

    def __init__(self, cluster, controller, more="", connections=512):
        self.address, folder = controller.address, cluster.dir
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "1", "-subj", "/CN=mesh.example.org", "-keyout", folder / "site.key",
            "-out", folder / "site.pem")
        (folder / "mesh.conf").write_text(admin(controller, "proxy-config").stdout)
        paths = "".join(f"  {name}_temp_path {folder}/{name};\n" for name in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"user root;\nworker_processes 1;\nworker_rlimit_nofile 65536;\n"
            f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log info;\n"
            f"events {{ worker_connections {connections}; }}\n"
            f"http {{\n{paths}  include {folder}/mesh.conf;\n{more}}}\n")
        command = ["/usr/sbin/nginx", "-p", folder, "-e", folder / "error.log", "-c",
                   folder / "nginx.conf"]
        tested = controller.run(*command, "-t", check=False)
        assert tested.returncode == 0 and "warn" not in tested.stderr, tested.stderr
        self.process = subprocess.Popen(controller.inside(*command, "-g", "daemon off;"))
        until(self.listens, "nginx listens")

    def listens(self):
        assert self.process.poll() is None, "nginx has ended"
        try:
            socket.create_connection((self.address, PORT)).close()
            return True
        except OSError:
            return False

    def pids(self):
        """Its master's, and its worker's."""
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def close(self):
        self.process.terminate()
        self.process.wait(20)


def connect(address, host, port=PORT):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection((address, port), timeout=20),
                               server_hostname=host)


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
            assert reply.status == 303 and reply.headers["Location"] == path, reply.text
        for _ in range(3):
            reply = self.get(host, path, port=port)
            if reply.status != 303:
                return reply
        raise AssertionError("redirected for ever")
