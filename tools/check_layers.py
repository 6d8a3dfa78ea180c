#!/usr/bin/env python3
"""Who may include what. The layers of docs/architecture.md as data: each folder's permissions,
and for every refusal a reason, which is printed with file and line."""

import fnmatch
import re

import tree

# A folder may include itself and these.
MAY_INCLUDE = {
    "base": set(),
    "proto": set(),
    "policy": {"base", "proto"},
    "dns": {"base"},
    "netlink": {"base"},
    "pki": {"base", "proto"},
    "metrics": {"base"},
    "proxy": {"base", "policy", "pki"},
    "arvados": {"base", "policy"},
    "meshd": {"base", "proto", "policy", "dns", "netlink", "pki", "metrics"},
    "controller": {"base", "proto", "policy", "pki", "metrics", "proxy", "arvados"},
    "meshctl": {"base", "proto", "pki"},
    "engines": {"base", "proto"},
    "bench": {"base", "proto", "policy", "dns", "netlink", "pki", "metrics", "proxy", "arvados",
              "meshd", "controller", "meshctl"},
    "tests": {"base", "proto", "policy", "dns", "netlink", "pki", "metrics", "proxy", "arvados",
              "meshd", "controller", "meshctl", "engines", "bench"},
}
SIBLINGS = "policy, dns and netlink do not know each other; meshd/lower_* brings them together"
PKI = "pki knows who speaks, not what about; the programs put the two together"
WHY_NOT = {
    ("base", "*"): "base is the bottom: whatever it includes, everybody includes",
    ("policy", "dns"): SIBLINGS, ("policy", "netlink"): SIBLINGS,
    ("dns", "policy"): SIBLINGS, ("dns", "netlink"): SIBLINGS,
    ("netlink", "policy"): SIBLINGS, ("netlink", "dns"): SIBLINGS,
    ("pki", "policy"): PKI, ("pki", "dns"): PKI, ("pki", "netlink"): PKI,
    ("policy", "pki"): PKI, ("dns", "pki"): PKI, ("netlink", "pki"): PKI,
    ("metrics", "*"): "metrics prints what it is given; what is counted, the programs know",
    ("proxy", "*"): "proxy decides on values who may open what; the controller asks and serves",
    ("arvados", "*"): "arvados turns the API's answers into values; what becomes of them, and who is "
                      "told, the controller decides",
    ("policy", "arvados"): "policy knows declarations, not where they were written",
    ("dns", "proto"): "the resolver answers from snapshots and never sees a declaration",
    ("netlink", "proto"): "netlink speaks the kernel's language only",
    ("*", "meshd"): "nobody includes the daemon: clients speak to its sockets",
    ("*", "controller"): "nobody includes the controller: nodes speak to it over gRPC",
    ("meshctl", "*"): "meshctl is a thin client of the daemon's sockets; decisions live there",
    ("engines", "*"): "the shims are thin clients of the daemon's sockets; decisions live there",
    ("*", "tests"): "nobody sees the tests", ("*", "bench"): "nobody sees the benchmarks",
    ("controller", "*"): "the controller decides on values; only nodes touch kernels and DNS",
}

# An include as it is written -> the files that may have it, and why only they.
ONLY_IN = [
    (r'"base/log\.h"', ["base/*", "meshd/*", "controller/*", "meshctl/*", "engines/*",
                        "proxy/endpoint.cc"],
     "library folders never log: they return an Error, and the program logs it once (the verdict "
     "endpoint's thread has nobody to return one to)"),
    (r'"proto/.*\.grpc\.pb\.h"|<grpc(pp)?/.*>',
     ["meshd/admin*.*", "meshd/controller_link_rpc.*", "meshctl/client.*", "controller/*",
      "engines/client.cc", "pki/grpc_credentials.cc", "pki/controller_channel.cc"],
     "gRPC costs seconds for each file that sees it: one file a program speaks it"),
    (r'"proto/.*\.pb\.h"|<google/protobuf/.*>',
     ["policy/from_proto.*", "policy/from_text.*", "policy/authored.cc",
      "policy/refused_list.*", "meshd/*", "controller/*", "meshctl/*",
      "engines/*", "pki/join_ticket.cc"],
     "policy is pure values; messages become values in from_proto and from_text, once"),
    (r"<yaml-cpp/.*>", ["policy/read_yaml.cc"],
     "one strict reader for declarations and configuration (docs/decisions/0003)"),
    (r"<(netlink|libnl3|libnftnl|libmnl)/.*>", ["netlink/*.cc"],
     "the C netlink libraries stay behind netlink/*.cc; in headers forward-declare the struct"),
    (r"<ares[_a-z]*\.h>", ["dns/upstream.cc"], "c-ares stays behind dns/upstream.h"),
    (r"<microhttpd\.h>", ["metrics/http.cc", "proxy/endpoint.cc", "engines/docker_serve.cc"],
     "the HTTP library stays behind metrics/http.h, proxy/endpoint.h and engines/docker_serve.h"),
    (r"<curl/.*>", ["arvados/client.cc"], "libcurl stays behind arvados/client.h"),
    (r"<nlohmann/.*>", ["arvados/json.cc", "engines/json.cc"],
     "one reader for the API's JSON and one for engines', with their limits (docs/decisions/0008)"),
    (r"<openssl/.*>", ["pki/*.cc", "pki/openssl.h"],
     "OpenSSL stays behind pki's headers, which hold values"),
    (r"<sqlite3\.h>", ["meshd/store*.cc", "controller/store*.cc"], "SQL lives in the store alone"),
    (r"<libpq-fe\.h>", ["controller/store*.cc"], "SQL lives in the store alone"),
    (r"<systemd/.*>", ["meshd/loop.cc", "meshd/main.cc", "meshd/notify.cc", "controller/main.cc",
      "engines/docker_main.cc"],
     "the event loop and the service manager stay behind loop.h and notify.h"),
    (r"<spdlog/.*>", ["base/log.cc"], "the logger stays behind base/log.h"),
    (r"<CLI/.*>", ["meshctl/*.cc", "engines/*.cc"],
     "CLI11 costs 6 s a file: for command lines only"),
    (r"<(mutex|shared_mutex|condition_variable|semaphore)>", ["base/*"],
     "threads meet in Mailbox and Published, nowhere else"),
]
# The standard library, the kernel's and the C library's headers, and fmt.
SYSTEM = re.compile(r"<([a-z0-9_]+|[a-z0-9_]+\.h|fmt/\w+\.h"
                    r"|(sys|linux|net|netinet|arpa|asm)/[\w/-]+\.h)>")
FREE = ("tests", "bench")  # they see everything
# docs/decisions/0001: a file more is a decision more.
BASE = re.compile(r"base/((result|ip|log|state_dir)\.(h|cc)|(strong|unique_fd|mailbox|published|clock)\.h)")
LOCK = re.compile(r"\bstd::(\w*mutex|condition_variable\w*|\w*lock_guard|unique_lock)\b"
                  r"|\bpthread_(mutex|cond|rwlock|spin)_")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(<[^>\n]+>|"[^"\n]+")', re.MULTILINE)


def reason(source, target):
    for key in ((source, target), (source, "*"), ("*", target)):
        if key in WHY_NOT:
            return WHY_NOT[key]
    return "an include may only point to a lower layer"


def check_include(path, include):
    folder = path.split("/")[0]
    target = include.strip('<">')
    target_folder = target.split("/")[0]
    if include.startswith('"'):
        if target_folder not in MAY_INCLUDE or "/" not in target:
            return "ours are included by their path from the root; theirs in <>"
        if target_folder != folder and target_folder not in MAY_INCLUDE[folder]:
            return reason(folder, target_folder)
    if folder in FREE:
        return None
    for pattern, allowed, why in ONLY_IN:
        if re.fullmatch(pattern, include):
            return None if any(fnmatch.fnmatch(path, a) for a in allowed) else why
    if include.startswith("<") and not SYSTEM.fullmatch(include):
        return "not among the libraries we chose; a new one needs a row in tools/check_layers.py"
    return None


def check(root):
    problems, checked = [], 0
    for path in tree.files(root, tree.CXX):
        folder = path.split("/")[0]
        text = tree.read(root, path)
        code = tree.code_only(text)
        checked += 1
        if "/" not in path or folder not in MAY_INCLUDE:
            problems.append(f"{path}:1: no such folder in the layers: see tools/check_layers.py")
            continue
        if folder == "base" and not BASE.fullmatch(path):
            problems.append(f"{path}:1: base/ is a closed list of files (docs/decisions/0001)")
        for match in INCLUDE.finditer(text):
            if not code[match.start():].lstrip().startswith("#"):
                continue  # inside a comment or a literal
            why = check_include(path, match[1])
            if why:
                line = text.count("\n", 0, match.start(1)) + 1
                problems.append(f"{path}:{line}: must not include {match[1]}: {why}")
        for match in LOCK.finditer(code):
            if folder != "base" and folder not in FREE:
                line = code.count("\n", 0, match.start()) + 1
                problems.append(f"{path}:{line}: {match[0]} outside base/: "
                                "threads meet in Mailbox and Published, nowhere else")
    return problems, checked


if __name__ == "__main__":
    tree.report("check_layers", *check(tree.root_argument()))
