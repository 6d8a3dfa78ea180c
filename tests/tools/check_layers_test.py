"""The layer check refuses what it should and lets pass what it may."""

import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_layers  # noqa: E402


def problems_of(path, text):
    with tempfile.TemporaryDirectory() as root:
        file = pathlib.Path(root, path)
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
        return check_layers.check(root)[0]


class CheckLayersTest(unittest.TestCase):
    def refuses(self, path, include, reason):
        problems = problems_of(path, f"// a comment\n#include {include}\n")
        self.assertEqual(1, len(problems), problems)
        self.assertIn(f"{path}:2: ", problems[0])
        self.assertIn(reason, problems[0])

    def allows(self, path, include):
        self.assertEqual([], problems_of(path, f"#include {include}\n"))

    def test_siblings_do_not_know_each_other(self):
        self.refuses("dns/answer.cc", '"policy/types.h"', "do not know each other")
        self.refuses("netlink/link.h", '"dns/wire.h"', "do not know each other")
        self.refuses("policy/plan.h", '"netlink/link.h"', "do not know each other")

    def test_pki_knows_who_speaks_and_not_what_about(self):
        self.refuses("pki/issue.cc", '"policy/types.h"', "not what about")
        self.refuses("policy/compile.cc", '"pki/identity.h"', "not what about")
        self.refuses("engines/cni.cc", '"pki/identity.h"', "thin clients")
        self.allows("meshd/controller_link_rpc.cc", '"pki/grpc_credentials.h"')
        self.allows("controller/token.cc", '"pki/secret.h"')

    def test_nobody_includes_the_daemon(self):
        self.refuses("meshctl/main.cc", '"meshd/api.h"', "thin client")
        self.refuses("policy/compile.cc", '"meshd/api.h"', "nobody includes the daemon")
        self.refuses("base/ip.cc", '"policy/types.h"', "base is the bottom")
        self.allows("meshd/node.cc", '"policy/types.h"')
        self.allows("tests/meshd/node_test.cc", '"meshd/node.h"')

    def test_every_pair_of_folders_is_decided(self):
        for folder in check_layers.MAY_INCLUDE:
            for target in check_layers.MAY_INCLUDE:
                path = "base/ip.cc" if folder == "base" else f"{folder}/x.cc"
                allowed = target == folder or target in check_layers.MAY_INCLUDE[folder]
                found = problems_of(path, f'#include "{target}/x.h"\n')
                self.assertEqual(allowed, not found, f"{folder} -> {target}: {found}")

    def test_third_party_headers_stay_where_they_belong(self):
        self.refuses("dns/server.cc", "<ares.h>", "c-ares")
        self.refuses("netlink/link.h", "<netlink/netlink.h>", "forward-declare")
        self.refuses("meshd/node.cc", "<libnftnl/rule.h>", "netlink/*.cc")
        self.refuses("meshd/node.cc", "<sqlite3.h>", "store")
        self.refuses("meshd/node.h", "<systemd/sd-event.h>", "loop.h")
        self.refuses("policy/compile.cc", "<google/protobuf/message.h>", "pure values")
        self.refuses("policy/compile.cc", '"proto/workload.pb.h"', "pure values")
        self.refuses("policy/from_proto.cc", "<yaml-cpp/yaml.h>", "strict reader")
        self.refuses("meshd/node.cc", '"proto/node.grpc.pb.h"', "gRPC")
        self.refuses("base/ip.cc", "<spdlog/spdlog.h>", "logger")
        self.refuses("controller/token.cc", "<openssl/sha.h>", "behind pki")
        self.refuses("pki/key.h", "<openssl/evp.h>", "behind pki")
        self.refuses("pki/issue.cc", "<grpcpp/grpcpp.h>", "gRPC")
        self.allows("pki/issue.cc", "<openssl/x509.h>")
        self.refuses("dns/server.cc", "<boost/asio.hpp>", "not among the libraries")
        self.allows("netlink/link.cc", "<netlink/netlink.h>")
        self.allows("policy/from_proto.cc", '"proto/workload.pb.h"')
        self.allows("policy/read_yaml.cc", "<yaml-cpp/yaml.h>")
        self.allows("dns/upstream.cc", "<ares.h>")
        self.allows("meshd/store.cc", "<sqlite3.h>")

    def test_libraries_do_not_log(self):
        self.refuses("dns/server.cc", '"base/log.h"', "never log")
        self.allows("meshd/main.cc", '"base/log.h"')

    def test_locks_live_in_base(self):
        self.refuses("meshd/node.cc", "<mutex>", "Mailbox")
        self.assertEqual(1, len(problems_of("dns/server.cc", "std::mutex lock;\n")))
        self.assertEqual(1, len(problems_of("dns/server.cc", "std::condition_variable_any c;\n")))
        self.assertEqual([], problems_of("base/mailbox.h", "std::mutex lock;\n"))

    def test_base_is_a_closed_list(self):
        self.assertIn("closed list", problems_of("base/strings.h", "")[0])
        self.assertEqual([], problems_of("base/ip.h", ""))

    def test_a_folder_that_is_not_in_the_table_is_refused(self):
        self.assertIn("no such folder", problems_of("util/x.cc", "")[0])

    def test_comments_and_literals_are_not_includes(self):
        self.assertEqual([], problems_of("dns/a.cc", '/*\n#include "policy/types.h"\n*/\n'))
        self.assertEqual([], problems_of("dns/a.cc", 'auto x = R"(\n#include <ares.h>\n)";\n'))


if __name__ == "__main__":
    unittest.main()
