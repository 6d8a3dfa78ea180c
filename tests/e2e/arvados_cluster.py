"""A cluster beside an Arvados site, whose API is a stand-in, over TLS."""
import json

from arvados_api import ArvadosApi
from cluster import ADMIN, ClusterTest
from node import run, until

SECRET = "controllersowntokencontrollersowntoken"
TOKEN = f"v2/zzzzz-gj3su-000000000000000/{SECRET}"


def uuid(kind, number):
    return f"zzzzz-{kind}-{number:015}"


def container(number):
    return uuid("dz642", number)


class ArvadosClusterTest(ClusterTest):
    SECRETS = (SECRET,)  # of all tokens

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.c1 = cls.cluster.controllers[0]
        cls.n1, cls.n2 = cls.cluster.machines
        cert, key = cls.cluster.dir / "api.pem", cls.cluster.dir / "api.key"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=test", "-addext",
            f"subjectAltName=IP:{ADMIN}", "-keyout", key, "-out", cert)
        cls.api = ArvadosApi(cert, key, ADMIN)
        cls.addClassCleanup(cls.api.stop)
        cls.api.put("users", uuid=uuid("tpzed", 0), username="root", is_admin=True)
        cls.api.token(TOKEN, uuid("tpzed", 0))
        for number in (1, 2):
            cls.api.put("users", uuid=uuid("tpzed", number), username=f"user{number}")
        token = cls.cluster.dir / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN + "\n")
        with open(cls.c1.config, "a", encoding="utf-8") as config:
            config.write(f"arvados:\n  api_host: {ADMIN}:{cls.api.port}\n  token_file: {token}\n"
                         f"  ca_file: {cert}\n  poll_s: 1\n")

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.no_token_anywhere()

    def tearDown(self):
        self.api.heal()
        super().tearDown()

    # --- the site ---

    @classmethod
    def request(cls, number, meshd=None, run_of=None, user=1, of=None, **more):
        cls.api.put("container_requests", uuid=uuid("xvhdp", number),
                    container_uuid=container(of or number),
                    modified_by_user_uuid=uuid("tpzed", user), owner_uuid=uuid("j7d0g", user),
                    requesting_container_uuid=run_of and container(run_of),
                    properties={"meshd": meshd} if meshd is not None else {}, **more)

    @classmethod
    def commit(cls, number, meshd=None, run_of=None, user=1, of=None, **more):
        """Request `number` on container `of` (the same number), a step of the run `run_of`."""
        cls.request(number, meshd, run_of, user, of, **more)
        cls.api.put("containers", uuid=container(of or number), state="Running")

    @classmethod
    def ended(cls, number, state="Complete"):
        cls.api.put("containers", uuid=container(number), state=state)

    def workload(self, number):
        return next((w for w in self.cluster.json("list", "workloads")["workloads"]
                     if w["id"] == container(number)), None)

    def declared(self, number):
        return until(lambda: self.workload(number), f"container {number} is declared")

    @classmethod
    def no_token_anywhere(cls):
        """Not in what nodes keep, what anybody logged, or what ps(1) shows."""
        for path in cls.cluster.dir.rglob("*"):
            if path.is_file() and path.name != "token":
                text = path.read_bytes()
                for secret in cls.SECRETS:
                    assert secret.encode() not in text, path

    def trouble(self):
        status = json.loads(self.cluster.ctl("status", "-o", "json", check=False).stdout)
        return next((p["detail"] for p in status["problems"] if p["subject"] == "arvados"), "")
