"""Programs that people use, in containers, opened from outside: a Jupyter notebook by nginx, whose
kernel answers over its websocket, and psql and ssh by a gateway."""
import json
import os
import pwd
import subprocess
import unittest

from cluster import ClusterTest, Host
from node import PYTHON, run, until
from postgres import programs
from proxied import PORT, ZONE, Nginx, Visitor, new_token, web

MORE = web(more='gateway: {ports: "30000-30009", nodes: [n2]}\n')
WORKLOADS = """
- {id: lab-1, owner: ada, name: lab, scope: CLUSTER, publish: [{port: 8888, http: true, path: /tree}]}
- {id: db-1, owner: ada, workflow: r1, name: db, publish: [{port: 5432, allow_from: [192.0.2.100]}]}
- {id: shell-1, owner: ada, workflow: r1, name: shell, publish: [{port: 22, allow_from: [192.0.2.100]}]}
"""
# As a browser's page does: asks a kernel over its websocket, and waits for what it prints.
ASK_KERNEL = """
import asyncio, json, ssl, sys, uuid
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect
url, host, cookie, code = sys.argv[1:]
def message(kind, content):
    return json.dumps({"header": {"msg_id": uuid.uuid4().hex, "username": "", "session": "s",
                                  "msg_type": kind, "version": "5.3"}, "parent_header": {},
                       "metadata": {}, "content": content, "channel": "shell", "buffers": []})
async def main():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    socket = await websocket_connect(HTTPRequest(
        url, headers={"Host": host, "Origin": f"https://{host}", "Cookie": cookie},
        ssl_options=context))
    await socket.write_message(message("execute_request", {
        "code": code, "silent": False, "store_history": False, "user_expressions": {},
        "allow_stdin": False}))
    while True:
        got = json.loads(await socket.read_message())
        if got["msg_type"] == "stream":
            return print(got["content"]["text"], end="")
asyncio.run(asyncio.wait_for(main(), 60))
"""


class ProgramsTest(ClusterTest):
    OPTIONS = {"more": MORE}

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.n1, cls.n2 = cls.cluster.machines
        cls.c1 = cls.cluster.controllers[0]
        with open(cls.n2.config, "a", encoding="utf-8") as config:
            config.write("gateway: true\n")

    @classmethod
    def prepare(cls):
        cls.nginx = Nginx(cls.cluster, cls.c1)
        cls.processes = []
        cls.cluster.apply(WORKLOADS)
        for name in ("lab-1", "db-1", "shell-1"):
            cls.n1.prepare(name)
        cls.outside = Host(cls.cluster, "outside", 100)

    @classmethod
    def tearDownClass(cls):
        for process in cls.processes:
            process.terminate()
            process.wait(30)
        cls.nginx.close()
        super().tearDownClass()

    def begin(self, name, *argv, **options):
        with open(self.cluster.dir / f"{name}.log", "w", encoding="utf-8") as log:
            self.processes.append(subprocess.Popen(self.n1.command(name, *argv), stdout=log,
                                                   stderr=log, **options))
        self.n1.ctl("wait", name, timeout=120)

    def gateway(self, name):
        """Where it is reached from outside."""
        def published():
            rows = [row for row in self.cluster.json("list", "published")["published"]
                    if row["id"] == name and row["gateway_port"]]
            return rows and (rows[0]["gateway_addresses"][0], rows[0]["gateway_port"])
        return until(published, f"{name} has a gateway")

    def test_jupyter(self):
        home = self.cluster.dir / "jupyter"
        home.mkdir()
        self.begin("lab-1", "env", f"HOME={home}", f"JUPYTER_RUNTIME_DIR={home}", "jupyter-notebook",
                   "--allow-root", "--no-browser", "--ip=0.0.0.0", "--port=8888",
                   f"--notebook-dir={home}", "--NotebookApp.token=", "--NotebookApp.password=")
        host = f"lab.svc.{ZONE}"
        origin = f"https://{host}:{PORT}"
        ada = Visitor(self.nginx.address, new_token(self.c1, "ada"))
        page = until(lambda: (reply := ada.open(host, "/tree")).status == 200 and reply,
                     "the notebook's page", 60)
        self.assertIn("Jupyter", page.text)
        xsrf = ada.cookies[host]["_xsrf"]
        made = ada.get(host, "/api/kernels", "POST", body="{}",
                       headers=[f"Origin: {origin}", f"X-XSRFToken: {xsrf}"])
        self.assertEqual(made.status, 201, made.text)
        kernel = json.loads(made.text)["id"]
        told = run(*self.c1.inside(
            *PYTHON, "-c", ASK_KERNEL,
            f"wss://{self.nginx.address}:{PORT}/api/kernels/{kernel}/channels", f"{host}:{PORT}",
            ada.cookie(host), "print(6 * 7)"), timeout=90)
        self.assertEqual(told.stdout, "42\n", told.stderr)
        with_another_page = ada.get(host, "/api/kernels", "POST", body="{}",
                                    headers=["Origin: https://evil.example", f"X-XSRFToken: {xsrf}"])
        self.assertEqual(with_another_page.status, 403)

    def test_psql(self):
        nobody = pwd.getpwnam("nobody")
        data = self.cluster.dir / "pg"
        data.mkdir()
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        unprivileged = {"user": "nobody", "group": nobody.pw_gid, "extra_groups": []}
        subprocess.run([programs() / "initdb", "-D", data, "-U", "mesh", "-A", "trust", "--no-sync",
                        "--no-instructions"], check=True, cwd="/", stdout=subprocess.DEVNULL,
                       **unprivileged)
        with open(data / "pg_hba.conf", "a", encoding="utf-8") as rules:
            rules.write("host all all all trust\n")
        self.begin("db-1", "setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}",
                   "--clear-groups", programs() / "postgres", "-D", data, "-k", data,
                   "--listen_addresses=*", "--dynamic_shared_memory_type=mmap",
                   "--shared_buffers=8MB", cwd="/")
        address, port = self.gateway("db-1")
        asks = ("psql", "-h", address, "-p", port, "-U", "mesh", "-d", "postgres", "-tAc",
                "SELECT 6 * 7")
        self.assertEqual(self.outside.run(*asks).stdout, "42\n")
        refused = self.c1.run(*asks, check=False)
        self.assertIn("Connection refused", refused.stderr)

    def test_ssh(self):
        home = self.cluster.dir / "ssh"
        home.mkdir()
        for name in ("host", "ada"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name)
        os.makedirs("/run/sshd", exist_ok=True)
        (home / "config").write_text(
            f"HostKey {home}/host\nAuthorizedKeysFile {home}/ada.pub\nStrictModes no\nUsePAM no\n"
            f"PidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n")
        self.begin("shell-1", "/usr/sbin/sshd", "-D", "-e", "-f", home / "config")
        address, port = self.gateway("shell-1")
        said = self.outside.run("ssh", "-F", "none", "-i", home / "ada", "-p", port, "-o",
                                "StrictHostKeyChecking=accept-new", "-o",
                                f"UserKnownHostsFile={home}/known", "-o", "BatchMode=yes",
                                f"root@{address}", "hostname; echo $((6 * 7))")
        self.assertEqual(said.stdout.split()[-1], "42", said.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
