#!/usr/bin/env python3
"""What it costs to be reached from outside. Prints JSON.

A container with a web server on one node, nginx and the controller on a host of their own. The same
requests by wrk: to the published port itself; by an nginx that asks nobody; by the one that asks
the controller, with one token, whose verdict is known, and with a new one each time. Slices
alternate, so that a busy machine is busy for all of them. Then verdicts alone, websockets that
stay open, and a raw stream through a gateway. Runs in mount, network and pid namespaces of its own
(bench/run makes them).
"""
import base64
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import resource
import socket
import ssl
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))
import node as bed  # noqa: E402
import underlay  # noqa: E402
from cluster import Cluster, Host  # noqa: E402
from proxied import PORT, Nginx  # noqa: E402

ROUNDS, SLICE_S = 5, 2
CONNECTIONS = 32
WEBSOCKETS, CALLERS = 1000, 50
STREAMS = 6
ZONE, ENDPOINT, ALONE = "mesh.example.org", "127.0.0.1:9480", 8444
WEB = f"""proxy: {{addresses: [192.0.2.251]}}
gateway: {{ports: "30000-30009", nodes: [n2]}}
web:
  zone: {ZONE}
  port: {PORT}
  listen: {ENDPOINT}
  relay_dir: /run/test/relay
  certificate: /run/test/site.pem
  certificate_key: /run/test/site.key
  access_log: /run/test/access.log
  keep_good_s: 1
"""
LAB = """
- id: lab
  owner: ada
  name: lab
  scope: CLUSTER
  publish:
  - {port: 8888, http: true}
  - {port: 8889, http: true}
  - {port: 5432, allow_from: ["192.0.2.0/24"]}
"""
KIBIBYTE = "x" * 1024
# As many as the token file holds: at some thousand requests a second each is old when it comes
# again.
TOKENS = 4000
ROTATE = """
local tokens, next = {}, 0
for line in io.lines("%s") do tokens[#tokens + 1] = "Bearer " .. line end
request = function()
  next = next %% #tokens + 1
  wrk.headers["Authorization"] = tokens[next]
  return wrk.format()
end
"""
UPGRADE = """import socket, sys, threading
def serve(peer):
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n"
                 b"Connection: Upgrade\\r\\n\\r\\n")
    open_ones.append(peer)
open_ones = []
server = socket.create_server(("0.0.0.0", 8889), backlog=1024)
print("ready", flush=True)
while True:
    serve(server.accept()[0])
"""


def ticks(pid):
    """CPU time in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_kib(pids):
    return sum(int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])
               for pid in pids)


def make_tokens(path, secrets):
    """As `mesh-controller token add` writes them, thousands at once."""
    tokens = ["mesh_" + base64.urlsafe_b64encode(hashlib.sha256(b"%d" % n).digest()).decode()
              .rstrip("=") for n in range(TOKENS)]
    digests = [hashlib.sha256(token.encode()).hexdigest() for token in tokens]
    path.write_text("".join(f"{digest[:12]} {digest} ada never\n" for digest in digests))
    path.chmod(0o600)
    secrets.write_text("\n".join(tokens) + "\n")
    return tokens


class Lab:
    """The cluster, and what it is opened with."""

    def __init__(self):
        self.cluster = Cluster(more=WEB)
        self.cluster.make()
        self.n1, self.n2 = self.cluster.machines
        self.c1 = self.cluster.controllers[0]
        self.secrets = self.cluster.dir / "secrets"
        self.tokens = make_tokens(self.c1.store / "web-tokens", self.secrets)
        with open(self.n2.config, "a", encoding="utf-8") as config:
            config.write("gateway: true\n")
        self.cluster.start()
        self.processes = []
        self.cluster.apply(LAB)
        self.n1.prepare("lab")
        self.begin_nginx_inside()
        self.upgrades = subprocess.Popen(self.n1.command("lab", *bed.PYTHON, "-c", UPGRADE),
                                         stdout=subprocess.PIPE, text=True)
        self.processes.append(self.upgrades)
        self.upgrades.stdout.readline()
        self.ports = bed.until(self.published, "all is published")
        # As the head of nginx's text recommends.
        self.c1.run("sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1")
        self.nginx = Nginx(self.cluster, self.c1, more=self.alone(), connections=8192)

    def begin_nginx_inside(self):
        folder = self.cluster.dir / "inside"
        folder.mkdir()
        (folder / "nginx.conf").write_text(
            f"pid {folder}/nginx.pid;\nerror_log stderr;\nuser root;\n"
            f"events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n"
            f"  server {{ listen 8888; location / {{ return 200 '{KIBIBYTE}'; }} }}\n}}\n")
        self.processes.append(subprocess.Popen(self.n1.command(
            "lab", "/usr/sbin/nginx", "-p", folder, "-c", folder / "nginx.conf", "-g",
            "daemon off;"), stderr=subprocess.DEVNULL))

    def published(self):
        """Once those for browsers are ready and the raw one has its gateway."""
        rows = {row["port"]: row for row in self.cluster.json("list", "published")["published"]}
        if all(rows[port]["ready"] for port in (8888, 8889)) and rows[5432]["gateway_port"]:
            return rows
        return None

    def upstream(self):
        row = self.ports[8888]
        return f"{underlay.v4(row['node_addresses'])}:{row['node_port']}"

    def alone(self):
        """A server that asks nobody, beside the one that does."""
        return (f"server {{ listen {ALONE} ssl http2;\n  ssl_certificate /run/test/site.pem;\n"
                f"  ssl_certificate_key /run/test/site.key;\n  access_log /run/test/alone.log;\n"
                f"  location / {{ proxy_pass http://{self.upstream()}; "
                f"proxy_set_header Host $host; }} }}\n")

    def close(self):
        self.nginx.close()
        for process in self.processes:
            process.terminate()
            process.wait()
        self.cluster.close()


# --- requests -------------------------------------------------------------------------------


def in_ms(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def wrk(host, url, connections, *options):
    """Requests a second, and percentiles of latency in milliseconds."""
    told = host.run("wrk", "-t1", f"-c{connections}", f"-d{SLICE_S}s", "--latency", *options, url,
                    timeout=SLICE_S + 30).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    errors = re.search(r"Socket errors: .*", told)
    if bad or errors:
        raise AssertionError(f"{url}: {told}")
    return {"per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1]),
            "requests": int(re.search(r"(\d+) requests in", told)[1]),
            **{f"p{n}_ms": in_ms(re.search(rf"(?m)^ +{n}% +(\S+)$", told)[1]) for n in (50, 99)}}


def ways(lab):
    """What each way asks for, and with what."""
    rotate = lab.cluster.dir / "rotate.lua"
    rotate.write_text(ROTATE % lab.secrets)
    name = ["-H", f"Host: lab.svc.{ZONE}:{PORT}"]
    asking = f"https://{lab.c1.address}:{PORT}/"
    return {"direct": (f"http://{lab.upstream()}/", []),
            "nginx": (f"https://{lab.c1.address}:{ALONE}/", []),
            "known": (asking, [*name, "-H", f"Authorization: Bearer {lab.tokens[0]}"]),
            "new": (asking, [*name, "-s", rotate])}


def measure_requests(lab):
    rows = {way: {"many": [], "one": []} for way in ways(lab)}
    for _ in range(ROUNDS):
        for way, (url, options) in ways(lab).items():
            rows[way]["many"].append(wrk(lab.c1, url, CONNECTIONS, *options))
            rows[way]["one"].append(wrk(lab.c1, url, 1, *options))

    def median(way, how, what):
        return statistics.median(row[what] for row in rows[way][how])
    return {way: {"per_second": round(median(way, "many", "per_second")),
                  "p50_ms": round(median(way, "one", "p50_ms"), 3),
                  "p99_ms": round(median(way, "one", "p99_ms"), 3)} for way in rows}


def measure_verdicts(lab):
    """Asked as nginx does, without it."""
    asked = {"Host": f"lab.svc.{ZONE}:{PORT}", "Line-Host": f"lab.svc.{ZONE}", "Uri": "/",
             "Method": "GET", "Client": "192.0.2.7",
             "Authorization": f"Bearer {lab.tokens[0]}"}
    options = [word for name, value in asked.items() for word in ("-H", f"X-Mesh-{name}: {value}")]
    rows = []
    for _ in range(ROUNDS):
        before = ticks(lab.c1.process.pid)
        row = wrk(lab.c1, f"http://{ENDPOINT}/auth", CONNECTIONS, *options)
        row["cpu_us"] = (ticks(lab.c1.process.pid) - before) / row["requests"] * 1e6
        rows.append(row)
    return {"per_second": round(statistics.median(row["per_second"] for row in rows)),
            "cpu_us": round(statistics.median(row["cpu_us"] for row in rows), 1)}


# --- websockets -----------------------------------------------------------------------------


def open_websocket(lab, token):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    name = f"lab--8889.svc.{ZONE}"
    peer = context.wrap_socket(socket.create_connection((lab.c1.address, PORT), timeout=20),
                               server_hostname=name)
    peer.sendall(f"GET / HTTP/1.1\r\nHost: {name}:{PORT}\r\nUpgrade: websocket\r\n"
                 f"Connection: Upgrade\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    told = peer.recv(4096)
    if not told.startswith(b"HTTP/1.1 101 "):
        raise AssertionError(f"no websocket: {told[:500]}")
    return peer


def measure_websockets(lab):
    """By a controller that has just begun: memory that was used before would be used again."""
    lab.c1.kill()
    lab.c1.start()
    lab.cluster.settled()
    bed.until(lab.published, "all is published")
    controller, nginx = [lab.c1.process.pid], lab.nginx.pids()
    open_websocket(lab, lab.tokens[0]).close()
    before = rss_kib(controller), rss_kib(nginx)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        peers = list(pool.map(lambda n: open_websocket(lab, lab.tokens[n % CALLERS]),
                              range(WEBSOCKETS)))
    after = rss_kib(controller), rss_kib(nginx)
    for peer in peers:
        peer.close()
    return {"open": WEBSOCKETS,
            "controller_kib": round((after[0] - before[0]) / WEBSOCKETS, 1),
            "nginx_kib": round((after[1] - before[1]) / WEBSOCKETS, 1)}


# --- a raw stream ---------------------------------------------------------------------------


def measure_raw(lab):
    Host(lab.cluster, "outside", 100)
    row = lab.ports[5432]
    way = {"from": "/run/netns/outside", "to": "/run/netns/lab", "listen": "0.0.0.0"}
    rows = {"direct": [], "gateway": []}
    targets = {"direct": (underlay.v4(row["node_addresses"]), row["node_port"]),
               "gateway": (underlay.v4(row["gateway_addresses"]), row["gateway_port"])}
    for _ in range(STREAMS):
        for name, (address, port) in targets.items():
            rows[name].append(underlay.stream(way | {"address": address, "port": port}))
    return {name: {"mb_per_s": round(statistics.median(rate for rate, _ in row)),
                   "cpu_ns_per_byte": round(statistics.median(cpu for _, cpu in row), 3)}
            for name, row in rows.items()}


def main():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lab = Lab()
    try:
        result = {"requests": measure_requests(lab), "verdicts": measure_verdicts(lab),
                  "websockets": measure_websockets(lab), "raw": measure_raw(lab)}
    finally:
        lab.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
