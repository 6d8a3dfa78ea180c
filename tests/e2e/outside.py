"""A cluster opened from outside: nginx beside the first controller, with what `mesh-controller
proxy-config` prints, people with tokens of `mesh-controller token add`, and servers in containers."""
import socket
import subprocess

from cluster import ClusterTest
from node import BUILD, PYTHON, run, until

ZONE, PORT = "mesh.example.org", 8443
PROXY = "192.0.2.251"  # nginx runs beside the first controller
WEB = f"""proxy: {{addresses: [{PROXY}]}}
metrics: {{listen: "127.0.0.1:9470"}}
web:
  zone: {ZONE}
  port: {PORT}
  listen: /run/test/web.sock
  certificate: /run/test/site.pem
  certificate_key: /run/test/site.key
  access_log: /run/test/access.log
  keep_good_s: 1
  keep_bad_s: 1
"""
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


class OutsideTest(ClusterTest):
    OPTIONS = {"more": WEB}

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.c1 = cls.cluster.controllers[0]
        cls.n1, cls.n2 = cls.cluster.machines
        cls.servers = {}
        cls.start_nginx()

    @classmethod
    def start_nginx(cls):
        folder = cls.cluster.dir
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "1", "-subj", f"/CN={ZONE}", "-keyout", folder / "site.key", "-out",
            folder / "site.pem")
        (folder / "mesh.conf").write_text(cls.admin("proxy-config").stdout)
        paths = "".join(f"  {name}_temp_path {folder}/{name};\n" for name in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"user root;\nworker_processes 1;\npid {folder}/nginx.pid;\n"
            f"error_log {folder}/error.log info;\nevents {{ worker_connections 512; }}\n"
            f"http {{\n{paths}  include {folder}/mesh.conf;\n}}\n")
        command = ["/usr/sbin/nginx", "-p", folder, "-e", folder / "error.log", "-c",
                   folder / "nginx.conf"]
        tested = cls.c1.run(*command, "-t", check=False)
        assert tested.returncode == 0 and "warn" not in tested.stderr, tested.stderr
        cls.nginx = subprocess.Popen(cls.c1.inside(*command, "-g", "daemon off;"))
        until(cls.listens, "nginx listens")

    @staticmethod
    def listens():
        try:
            socket.create_connection((PROXY, PORT)).close()
            return True
        except OSError:
            return False

    @classmethod
    def tearDownClass(cls):
        cls.nginx.terminate()
        cls.nginx.wait(20)
        for server in cls.servers.values():
            server.kill()
            server.wait()
        super().tearDownClass()

    @classmethod
    def admin(cls, *argv, **options):
        return run(BUILD / "mesh-controller", *argv, "--config", cls.c1.config, **options)

    @classmethod
    def token(cls, user, *options):
        return cls.admin("token", "add", user, *options).stdout.strip()

    @classmethod
    def serve(cls, machine, name, port=8888):
        process = subprocess.Popen(machine.command(name, *PYTHON, "-c", SERVER, name, port))
        cls.servers[(name, port)] = process
