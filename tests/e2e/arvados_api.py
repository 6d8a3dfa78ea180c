#!/usr/bin/env python3
"""A stand-in of the Arvados API for tests: HTTPS, and exactly the questions that arvados/ asks, in
the shapes and with the errors of Arvados 3.2. It holds a small world (users, tokens, container
requests, containers, links, groups, permissions), answers each user by what they may read, keeps
count of what it was asked, and can be made to fail in every way a server can.

As a program it takes one JSON command a line and answers each with one line: see COMMANDS.

    arvados_api.py --cert CERT.pem --key KEY.pem [--address 127.0.0.1] [--port 0]

Source: services/api and lib/controller of Arvados: list parameters (filters, select, order, limit,
count), readability by permissions on the object or its owner, errors of the Go controller and of
Rails, scopes of tokens."""

import argparse
import http.server
import json
import re
import socket
import ssl
import sys
import threading
import time
import urllib.parse

UUID = re.compile(r"[0-9a-z]{5}-([0-9a-z]{5})-[0-9a-z]{15}")
LEVELS = ["none", "can_read", "can_write", "can_manage"]
LIVE = ("Queued", "Locked", "Running")
# These the Go controller answers itself, and wraps the errors of; the others come from Rails.
WRAPPED = ("container_requests", "users", "groups", "links")

COLUMNS = {
    "container_requests": {
        "uuid": None, "owner_uuid": None, "modified_by_user_uuid": None, "container_uuid": None,
        "requesting_container_uuid": None, "state": "Committed", "priority": 500,
        "created_at": "2026-01-01T00:00:00.000000000Z", "name": None, "service": False,
        "use_existing": False, "published_ports": {}, "properties": {}, "container_count": 1},
    "containers": {
        "uuid": None, "state": "Running", "priority": 500, "gateway_address": "",
        "published_ports": {}, "service": False},
    "links": {
        "uuid": None, "owner_uuid": None, "link_class": "published_port", "name": None,
        "head_uuid": None, "tail_uuid": None, "properties": {}},
    "groups": {
        "uuid": None, "owner_uuid": None, "name": None, "group_class": "project",
        "frozen_by_uuid": None},
    "users": {
        "uuid": None, "owner_uuid": None, "username": None, "email": None, "is_active": True,
        "is_admin": False},
    "computed_permissions": {"user_uuid": None, "target_uuid": None, "perm_level": None},
}
JSON_COLUMNS = ("published_ports", "properties")


class Refused(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status, self.text = status, text


class World:
    """What there is, and who may read it. Guarded by the one lock of the server."""

    def __init__(self):
        self.rows = {kind: {} for kind in COLUMNS if kind != "computed_permissions"}
        self.tokens = {}  # token -> {"uuid", "user", "scopes", "expired"}
        self.permissions = {}  # (user, target) -> index into LEVELS

    def put(self, kind, row):
        unknown = set(row) - set(COLUMNS[kind])
        if unknown:
            raise ValueError(f"{kind} has no {sorted(unknown)}")
        before = self.rows[kind].get(row["uuid"], COLUMNS[kind])
        self.rows[kind][row["uuid"]] = {**before, **row}

    def level(self, user, target):
        """What `user` has on `target`, as materialized_permissions would say."""
        if user == target:
            return 3
        return self.permissions.get((user, target), 0)

    def can(self, user, row, level):
        """User#can? of Rails: on the object or its owner, by the user or whom the user manages."""
        if self.rows["users"][user]["is_admin"]:
            return True
        subjects = {user} | {target for (by, target), has in self.permissions.items()
                             if by == user and has == 3 and "-tpzed-" in target}
        for subject in subjects:
            if self.level(subject, row["uuid"]) >= level:
                return True
            owner = row.get("owner_uuid")
            has = self.level(subject, owner) if owner else 0
            if has >= level and ("-tpzed-" not in owner or has == 3):
                return True
        return False

    def readable(self, user, kind, row):
        if kind == "containers":  # by whoever can read a request on it
            return self.rows["users"][user]["is_admin"] or any(
                request["container_uuid"] == row["uuid"] and self.can(user, request, 1)
                for request in self.rows["container_requests"].values())
        if kind == "links" and not self.rows["users"][user]["is_admin"]:
            head = self.rows["container_requests"].get(row["head_uuid"])
            return row["owner_uuid"] == user or (head is not None and self.can(user, head, 1))
        return self.can(user, row, 1)

    def list_permissions(self):
        pairs = {(user, user): 3 for user in self.rows["users"]} | self.permissions
        return [{"user_uuid": user, "target_uuid": target, "perm_level": LEVELS[level]}
                for (user, target), level in sorted(pairs.items())]


def compare(have, operator, operand):
    if operator == "=":
        return have == operand
    if operator == "!=":
        return have != operand
    if operator in ("in", "not in"):
        if not isinstance(operand, list):
            raise Refused(422, f"Invalid operand type for '{operator}' operator in filters")
        return (have in operand) == (operator == "in")
    if have is None or not isinstance(operand, type(have)):
        return False
    return {"<": have < operand, "<=": have <= operand, ">": have > operand,
            ">=": have >= operand}[operator]


def matches(world, kind, row, condition):
    if not isinstance(condition, list) or len(condition) != 3:
        raise Refused(422, f"Invalid element in filters array: {condition}")
    attribute, operator, operand = condition
    if kind == "container_requests" and attribute.startswith("container."):
        container = world.rows["containers"].get(row["container_uuid"])  # an inner join
        return container is not None and matches(world, "containers", container,
                                                 [attribute[len("container."):], operator, operand])
    column, _, path = attribute.partition(".")
    if column not in COLUMNS[kind] or (path and column not in JSON_COLUMNS):
        raise Refused(422, f"Invalid attribute '{attribute}' in filter")
    if kind == "computed_permissions" and column == "perm_level":
        raise Refused(422, "Invalid attribute 'perm_level' in filter")
    if operator == "exists" and path:
        return (path in row[column]) == operand
    if operator not in ("=", "!=", "<", "<=", ">", ">=", "in", "not in"):
        raise Refused(422, f"Invalid operator '{operator}'")
    return compare(row[column].get(path) if path else row[column], operator, operand)


def structured(query, name, kind):
    if name not in query:
        return None
    try:
        value = json.loads(query[name])
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise Refused(422, f'Could not parse "{name}" param as an array')
    return value


def select(kind, row, fields):
    if fields is None:
        return dict(row, kind=f"arvados#{kind}", etag="0")
    unknown = [field for field in fields if field not in COLUMNS[kind]]
    if unknown:
        raise Refused(422, f"Invalid attribute(s) in select: {unknown}")
    return {field: row[field] for field in fields}


def order_rows(rows, kind, query):
    order = query.get("order", "")
    fields = json.loads(order) if order.startswith("[") else [o for o in order.split(",") if o]
    default = ["user_uuid", "target_uuid"] if kind == "computed_permissions" else ["uuid"]
    for field in reversed(fields + default):
        name, _, direction = field.partition(" ")
        if name in COLUMNS[kind]:
            rows.sort(key=lambda row, n=name: (row[n] is not None, row[n]),
                      reverse=direction == "desc")
    return rows


def list_of(world, kind, rows, query, most):
    limit, offset = query.get("limit", "100"), query.get("offset", "0")
    if not limit.isdigit() or not offset.isdigit():
        raise Refused(422, "Invalid value for limit parameter")
    if query.get("count", "exact") not in ("exact", "none"):
        raise Refused(422, "count parameter must be 'exact' or 'none'")
    conditions = structured(query, "filters", list) or []
    rows = [row for row in rows if all(matches(world, kind, row, c) for c in conditions)]
    rows = order_rows(rows, kind, query)
    limit = min(int(limit), most)
    fields = structured(query, "select", list)
    answer = {"kind": f"arvados#{kind}List", "etag": "", "self_link": "", "offset": int(offset),
              "limit": limit,
              "items": [select(kind, r, fields) for r in rows[int(offset):int(offset) + limit]]}
    if query.get("count", "exact") == "exact":
        answer["items_available"] = len(rows)
    return answer


class Answers:
    """One question to one answer: (status, value). No sockets."""

    def __init__(self, world):
        self.world = world
        self.most = 1000  # MaxItemsPerResponse; less stands for MaxIndexDatabaseRead

    def user_of(self, token, path):
        if token is None:
            raise Refused(401, "Not logged in")
        parts = token.split("/")
        known = "/".join(parts[:3]) if parts[0] == "v2" and len(parts) == 4 else token
        entry = self.world.tokens.get(known)
        if entry is None or entry["expired"] or (len(parts) == 4 and not UUID.fullmatch(parts[3])):
            raise Refused(401, "Not logged in")
        everything = entry["scopes"] == ["all"]
        if path != "api_client_authorizations/current" and not everything:
            wanted = f"GET /arvados/v1/{path}"
            if not any(wanted == s or (s.endswith("/") and wanted.startswith(s))
                       for s in entry["scopes"]):
                raise Refused(403, "Forbidden")
        return entry

    def answer(self, token, path, query):
        entry = self.user_of(token, path)
        user = self.world.rows["users"][entry["user"]]
        if path == "users/current":
            return select("users", user, structured(query, "select", list))
        if path == "api_client_authorizations/current":
            return {"kind": "arvados#apiClientAuthorization", "uuid": entry["uuid"],
                    "owner_uuid": entry["user"], "scopes": entry["scopes"], "expires_at": None,
                    "api_token": token.split("/")[-1]}
        if not user["is_active"]:
            raise Refused(403, "Forbidden")
        what, _, uuid = path.partition("/")
        if what == "permissions" and uuid:
            return self.permissions_on(user["uuid"], uuid)
        if what == "computed_permissions" and not uuid:
            return self.computed(user, query)
        if what not in self.world.rows:
            raise Refused(404, "Path not found")
        rows = self.world.rows[what]
        if uuid:
            if uuid not in rows or not self.world.readable(user["uuid"], what, rows[uuid]):
                raise Refused(404, "Path not found")
            return select(what, rows[uuid], structured(query, "select", list))
        readable = [row for row in rows.values() if self.world.readable(user["uuid"], what, row)]
        return list_of(self.world, what, readable, query, self.most)

    def permissions_on(self, user, uuid):
        for kind in ("container_requests", "groups"):
            row = self.world.rows[kind].get(uuid)
            if row is None or not self.world.readable(user, kind, row):
                continue
            if not self.world.can(user, row, 3):
                raise Refused(403, "Forbidden")
            links = [{"uuid": f"zzzzz-o0j2j-{number:015d}", "link_class": "permission",
                      "tail_uuid": by, "head_uuid": uuid, "name": LEVELS[level]}
                     for number, ((by, target), level) in enumerate(self.world.permissions.items())
                     if target == uuid]
            return {"kind": "arvados#linkList", "etag": "", "self_link": "", "offset": 0,
                    "limit": len(links), "items": links, "items_available": len(links)}
        raise Refused(404, "Path not found")

    def computed(self, user, query):
        if not user["is_admin"]:
            raise Refused(403, "Forbidden")
        if query.get("count", "none") not in ("none", ""):
            raise Refused(422, "count parameter must be 'none'")
        if query.get("offset", "0") != "0":
            raise Refused(422, "non-zero offset parameter is not supported")
        rows = self.world.list_permissions()
        return list_of(self.world, "computed_permissions", rows, {**query, "count": "none"},
                       self.most)


def error_body(path, status, text):
    """Of the Go controller, or of Rails: they differ in what a client must not look at."""
    if path.partition("/")[0] in WRAPPED:
        return {"errors": [text]}
    token = f"{int(time.time())}+{status:08x}"
    return {"errors": [f"{text} (req-{status:020d})"], "error_token": token}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True  # status line and body are two writes

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        path = url.path.removeprefix("/arvados/v1/")
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        bearer = self.headers.get("Authorization", "")
        token = bearer.removeprefix("Bearer ") if bearer.startswith("Bearer ") else None
        api = self.server.api
        fault = api.note(self.path, path, query, token)
        if fault is None or not self.fail(fault, path):
            with api.lock:
                status, value = self.decide(api, token, path, query)
            self.send(status, json.dumps(value).encode())

    @staticmethod
    def decide(api, token, path, query):
        try:
            return 200, api.answers.answer(token, path, query)
        except Refused as refused:
            return refused.status, error_body(path, refused.status, refused.text)

    def send(self, status, body, content_type="application/json; charset=utf-8", extra=(),
             length=None):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in extra:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def fail(self, fault, path):
        """True when the fault was the answer."""
        kind = fault["kind"]
        if kind == "hang":  # until released, or the client has gone
            self.server.api.released.wait(60)
            return False
        if kind == "lose":
            self.close_connection = True
            return True
        if kind == "cut":
            body = b'{"items":[' + b" " * 1000
            self.send(200, body, length=len(body) + 1000)
            self.close_connection = True
            return True
        if kind == "status":
            self.send(fault["status"],
                      json.dumps(error_body(path, fault["status"], fault.get("text", "no"))).encode())
            return True
        if kind == "redirect":
            self.send(302, b"{}", extra=[("Location", fault["to"])])
            return True
        if kind == "headers":
            self.send(200, b"{}", extra=[(f"X-{n}", "x" * 8000) for n in range(20)])
            return True
        if kind == "endless":
            self.send(200, b"", length=1 << 40)
            try:
                while True:
                    self.wfile.write(b" " * 65536)
            except OSError:
                self.close_connection = True
            return True
        self.send(fault.get("status", 200), fault["body"].encode(),
                  content_type=fault.get("type", "application/json"))
        return True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET
    request_queue_size = 128

    def __init__(self, address, context, api):
        self.context, self.api = context, api
        self.open = set()  # connections
        super().__init__(address, Handler)

    def finish_request(self, request, client_address):
        # In the connection's own thread: a client that does not shake hands holds up nobody.
        try:
            request.settimeout(60)
            with self.context.wrap_socket(request, server_side=True) as secure:
                with self.api.lock:
                    self.open.add(secure)
                try:
                    self.RequestHandlerClass(secure, client_address, self)
                finally:
                    with self.api.lock:
                        self.open.discard(secure)
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            pass  # it went away

    def cut_all(self):
        with self.api.lock:
            for secure in self.open:
                try:
                    secure.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def shutdown_request(self, request):
        try:
            request.close()
        except OSError:
            pass


class ArvadosApi:
    """The stand-in, running. For tests in Python; programs in other languages use main()."""

    def __init__(self, cert, key, address="127.0.0.1", port=0):
        self.lock = threading.Lock()
        self.world = World()
        self.answers = Answers(self.world)
        self.asked, self.faults = [], []
        self.released = threading.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.address, self.context = address, context
        self.server = None
        self.port = port
        self.start()

    def start(self):
        self.server = Server((self.address, self.port), self.context, self)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        """Down: the port refuses, and what was connected is cut. start() brings it back, with the world as it was."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server.cut_all()
            self.server = None
        self.released.set()

    def note(self, target, path, query, token):
        """Writes a question down; the fault that it meets, if any."""
        with self.lock:
            entry = self.world.tokens.get(token)
            self.asked.append({"target": target, "path": path, "query": query,
                               "user": entry["user"] if entry else None})
            for fault in self.faults:
                if re.search(fault.get("path", ""), path):
                    fault["times"] = fault.get("times", -1) - 1
                    if fault["times"] == 0:
                        self.faults.remove(fault)
                    return fault
        return None

    # --- what tests say -----------------------------------------------------------------------

    def put(self, kind, **row):
        with self.lock:
            self.world.put(kind, row)

    def remove(self, kind, uuid):
        with self.lock:
            del self.world.rows[kind][uuid]

    def token(self, token, user, scopes=("all",), expired=False):
        with self.lock:
            parts = token.split("/")
            uuid = parts[1] if parts[0] == "v2" else "zzzzz-gj3su-000000000000000"
            self.world.tokens[token] = {"uuid": uuid, "user": user, "scopes": list(scopes),
                                        "expired": expired}

    def permit(self, user, target, level):
        with self.lock:
            self.world.permissions[user, target] = LEVELS.index(level)

    def fault(self, kind, **how):
        """The next `times` questions (all, if absent) whose path matches `path` meet it."""
        with self.lock:
            self.released.clear()
            self.faults.append({"kind": kind, **how})

    def heal(self):
        with self.lock:
            self.faults.clear()
        self.released.set()

    def most(self, rows):
        self.answers.most = rows

    def take_asked(self):
        with self.lock:
            asked, self.asked = self.asked, []
        return asked


# The methods above, by name: {"do": "put", "args": ["users"], "with": {"uuid": ...}}.
COMMANDS = ("put", "remove", "token", "permit", "fault", "heal", "most", "take_asked", "stop",
            "start")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    api = ArvadosApi(options.cert, options.key, options.address, options.port)
    print(json.dumps({"port": api.port}), flush=True)
    for line in sys.stdin:  # its end is ours
        command = json.loads(line)
        if command["do"] not in COMMANDS:
            raise SystemExit(f"no command {command['do']}")
        result = getattr(api, command["do"])(*command.get("args", []), **command.get("with", {}))
        print(json.dumps(result), flush=True)
    api.stop()


if __name__ == "__main__":
    main()
