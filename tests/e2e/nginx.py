"""A real nginx with a file of ours, in a folder of its own, and connections to it."""
import pathlib
import socket
import ssl
import subprocess

from node import run, until

PORT = 8443


class Nginx:
    """`text`: our file. The site's certificate is site.pem in the folder. `inside`: makes of a
    command one that runs where nginx is to be."""

    def __init__(self, folder, text, address, inside=list, more="", connections=512,
                 user="root"):
        self.dir, self.address = pathlib.Path(folder), address
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "1", "-subj", "/CN=mesh.example.org", "-keyout",
            self.file("site.key"), "-out", self.file("site.pem"))
        (self.dir / "mesh.conf").write_text(text)
        paths = "".join(f"  {name}_temp_path {self.file(name)};\n" for name in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.dir / "nginx.conf").write_text(
            f"user {user};\nworker_processes 1;\nworker_rlimit_nofile 65536;\n"
            f"pid {self.file('nginx.pid')};\nerror_log {self.file('error.log')} info;\n"
            f"events {{ worker_connections {connections}; }}\n"
            f"http {{\n{paths}  include {self.file('mesh.conf')};\n{more}}}\n")
        command = ["/usr/sbin/nginx", "-p", str(self.dir), "-e", self.file("error.log"), "-c",
                   self.file("nginx.conf")]
        tested = run(*inside([*command, "-t"]), check=False)
        assert tested.returncode == 0 and "warn" not in tested.stderr, tested.stderr
        self.process = subprocess.Popen(inside([*command, "-g", "daemon off;"]))
        until(self.listens, "nginx listens")

    def file(self, name):
        return str(self.dir / name)

    def read(self, name):
        try:
            return (self.dir / name).read_text(encoding="latin-1")
        except FileNotFoundError:
            return ""

    def collected(self):
        """What lies in its temporary folders, and when something was last put there."""
        folders = [self.dir / name for name in ("client_body", "proxy")]
        return ([file for folder in folders for file in folder.iterdir()],
                [folder.stat().st_mtime_ns for folder in folders])

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


def connect(address, host, port=PORT, protocols=()):
    """`protocols`: what else than HTTP/1.1 the client speaks, as ALPN calls it."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(protocols)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection((address, port), timeout=20),
                               server_hostname=host)
