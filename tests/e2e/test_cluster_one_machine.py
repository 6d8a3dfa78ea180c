"""Controller, nginx and a node on one machine, as a small site has it: what runs there and what runs
on another node is opened by name all the same, also by nginx's own user."""
import subprocess
import unittest

from cluster import ClusterTest
from node import PYTHON, until
from proxied import PORT, SERVER, ZONE, Nginx, Visitor, connect, new_token, web

SITE = "192.0.2.251"  # what browsers call; n1's other address
WEB = web(f"addresses: [{SITE}, 192.0.2.1], node: n1", more="  group: www-data\n")
LAB = "- {{id: {id}, owner: ada, name: {id}, scope: CLUSTER, publish: [{{port: 8888, http: true}}]}}\n"


class OneMachineTest(ClusterTest):
    OPTIONS = {"more": WEB}

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.c1 = cls.cluster.controllers[0]
        cls.n1, cls.n2 = cls.cluster.machines
        cls.c1.run("ip", "addr", "del", f"{SITE}/24", "dev", "up0")
        cls.n1.run("ip", "addr", "add", f"{SITE}/24", "dev", "up0")
        cls.c1.netns = cls.n1.netns
        cls.n1.config.write_text(cls.n1.config.read_text().replace(
            "node: {name: n1}", "node: {name: n1, allow_users: [www-data]}"))
        cls.nginx = Nginx(cls.cluster, cls.c1, user="www-data")

    @classmethod
    def prepare(cls):
        cls.ada = Visitor(SITE, new_token(cls.c1, "ada"))
        cls.servers = []
        for machine, id_ in ((cls.n1, "here"), (cls.n2, "there")):
            cls.cluster.apply(LAB.format(id=id_))
            machine.prepare(id_)
            cls.servers.append(subprocess.Popen(
                machine.command(id_, *PYTHON, "-c", SERVER, id_, 8888)))
            machine.ctl("wait", id_)

    @classmethod
    def tearDownClass(cls):
        cls.nginx.close()
        for server in cls.servers:
            server.kill()
            server.wait()
        super().tearDownClass()

    def test_both_are_opened_by_name(self):
        for name in ("here", "there"):
            def answered(host=f"{name}.svc.{ZONE}"):
                reply = self.ada.open(host)
                return reply if reply.status == 200 else None
            reply = until(answered, f"{name} answers")
            self.assertTrue(reply.text.startswith(f"{name} /\n"), reply.text)
        # What runs beside nginx is called at its own address, no node port between.
        flows = self.n1.run("conntrack", "-L", "-p", "tcp").stdout
        for name, port in (("here", 8888), ("there", self.node_port("there"))):
            address = {"here": self.n1.address_of("here"), "there": "192.0.2.2"}[name]
            self.assertRegex(flows, rf" dst={address} sport=[0-9]+ dport={port} ")
        self.assertNotRegex(flows, rf" dst=192.0.2.(1|251) sport=[0-9]+ "
                                   rf"dport={self.node_port('here')} ")

    def node_port(self, name):
        return next(row["node_port"] for row in self.cluster.json("list", "published")["published"]
                    if row["id"] == name)

    def test_websockets_too(self):
        for name in ("here", "there"):
            host = f"{name}.svc.{ZONE}"
            with connect(SITE, host) as peer:
                peer.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{PORT}\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\n"
                             f"Authorization: Bearer {self.ada.token}\r\n\r\n".encode())
                head = peer.recv(4096)
                self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
                peer.sendall(b"hello")
                self.assertEqual(peer.recv(5), b"hello")

    def test_nobody_elses_program_on_it_gets_there(self):
        """Other users of the machine are not let into its containers."""
        address = self.n1.address_of("here")
        for user, got in (("www-data", 0), ("nobody", 1)):
            tried = self.n1.run("setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups",
                                "bash", "-c", f"exec 3<>/dev/tcp/{address}/8888", check=False)
            self.assertEqual(tried.returncode, got, tried.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
