"""The verdict endpoint as a program behind the nginx of web.py, with what a test says may be opened
and by whom."""

import base64
import hashlib
import json
import os
import secrets
import subprocess
import threading
import unittest

from nginx import PORT
from node import until
from web import LIMIT_S, Container, Nginx, get, reply_with

HOST = os.path.join(os.environ["MESHD_BUILD"], "tests", "endpoint_host")
ZONE = "mesh.example.org"
DB = f"db.svc.{ZONE}"


class Endpoint:
    """The endpoint's program, with what may be opened and who may sign in."""

    def __init__(self, nginx):
        self.nginx, self.openings, self.people = nginx, {}, {}
        self.wanted = []
        self.write_people()
        self.write_openings()
        self.start()

    def start(self):
        self.process = subprocess.Popen([HOST, self.nginx.file("host.json")], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.reads = 0
        threading.Thread(target=self.listen, args=(self.process.stdout,), daemon=True).start()
        until(lambda: os.path.exists(self.nginx.socket), "the endpoint listens")

    def listen(self, lines):
        for line in lines:
            if line == "read\n":
                self.reads += 1
            elif line.startswith("open "):
                self.wanted.append(line.split()[1:])

    def write_openings(self):
        with open(self.nginx.file("host.json"), "w", encoding="utf-8") as file:
            json.dump({"zone": ZONE, "port": PORT, "listen": self.nginx.socket,
                       "relay_dir": self.nginx.file("relay"),
                       "people": self.nginx.file("web-tokens"),
                       "openings": list(self.openings.values())}, file)

    def change(self, *openings, gone=()):
        for opening in openings:
            self.openings[opening["id"]] = opening
        for name in gone:
            self.openings.pop(name)
        self.write_openings()
        before = self.reads
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        until(lambda: self.reads > before, "the openings are read")

    def write_people(self):
        path = self.nginx.file("web-tokens")
        with open(path + ".new", "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.writelines(self.people.values())
        os.rename(path + ".new", path)

    def sign_up(self, user, terms=""):
        token = "mesh_" + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        digest = hashlib.sha256(token.encode()).hexdigest()
        self.people[token] = f"{digest[:12]} {digest} {user} never {terms}".rstrip() + "\n"
        self.write_people()
        until(lambda: get("/", cookie(token), host=f"known.svc.{ZONE}").status == 200,
              "the token is known")
        return token

    def remove(self, token):
        del self.people[token]
        self.write_people()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(LIMIT_S)
        self.process.stdout.close()


def cookie(token):
    return "Cookie: __Host-mesh_token=" + base64.urlsafe_b64encode(token.encode()).decode()


def opening(name, container, service=None, access="CAN_READ", state="READY", port=8888, **more):
    node_port = int(container.address.split(":")[1]) if container else 1
    return {"id": name, "owner": "alice", "service": service or "", "state": state,
            "ports": [{"port": port, "node_port": node_port, "access": access, **more}]}


class OutsideTest(unittest.TestCase):
    """alice owns what is opened; bob may read it, carol knows of nothing."""

    @classmethod
    def setUpClass(cls):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        cls.nginx = Nginx()
        cls.endpoint = Endpoint(cls.nginx)
        # Everybody's who has signed up: how a test knows that a token is.
        cls.known = Container(reply_with())
        known = opening("known", cls.known, "known")
        cls.endpoint.change({**known, "owner": "everybody"})
        cls.alice = cls.endpoint.sign_up("alice", "CAN_READ:everybody")
        cls.bob = cls.endpoint.sign_up("bob", "CAN_READ:alice CAN_READ:everybody")
        cls.carol = cls.endpoint.sign_up("carol", "CAN_READ:everybody")

    @classmethod
    def tearDownClass(cls):
        cls.endpoint.stop()
        cls.known.close()
        cls.nginx.close()

    def tearDown(self):
        self.endpoint.change(gone=[name for name in self.endpoint.openings if name != "known"])

    def container(self, reply=None):
        container = Container(reply or reply_with())
        self.addCleanup(container.close)
        return container
