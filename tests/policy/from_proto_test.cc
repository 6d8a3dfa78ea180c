// From messages to declarations: what each field may be, what an absent one means, and
// that nothing is lost on the way back.
#include "policy/from_proto.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "policy/limits.h"

namespace meshd::policy {
namespace {

// `fields` of one workload, which has id, owner and workflow already.
Result<Declaration> read(std::string_view fields, std::string_view workflow = ", workflow: run") {
  auto declarations = read_declarations(
      "f", fmt::format("workloads: [{{id: w, owner: ada{}{}}}]", workflow, fields));
  if (!declarations) return std::unexpected(declarations.error());
  return declarations->at(0);
}
// The refusal without file, line and the workload's number.
std::string refusal(std::string_view fields, std::string_view workflow = ", workflow: run") {
  const auto declaration = read(fields, workflow);
  if (declaration) return "taken";
  constexpr std::string_view kFront = "f:1: workloads[0].";
  EXPECT_TRUE(declaration.error().what.starts_with(kFront)) << declaration.error().what;
  EXPECT_EQ(declaration.error().code, ErrorCode::kInvalid);
  return declaration.error().what.substr(kFront.size());
}

TEST(FromProtoTest, DefaultsWithinAWorkflow) {
  const auto d = read(", name: db, serves: [{port: 1}], peers: [{name: x}], publish: [{port: 2}]");
  ASSERT_TRUE(d) << d.error().what;
  EXPECT_EQ(d->scope, Scope::kWorkflow);
  EXPECT_EQ(d->admit, Admit::kWorkflow);
  EXPECT_EQ(d->serves[0].ports, (PortRange{Proto::kTcp, 1, 1}));
  EXPECT_EQ(d->peers[0].scope, Scope::kWorkflow);
  EXPECT_FALSE(d->publish[0].node_port);
  EXPECT_FALSE(d->publish[0].allow_from);
  EXPECT_EQ(d->publish[0].access, Access::kOwner);
  EXPECT_EQ(d->ready, ReadyMode::kListening);
  EXPECT_EQ(d->hold, std::chrono::seconds(120));
  EXPECT_TRUE(d->egress.empty());
}

TEST(FromProtoTest, DefaultsWithoutAWorkflow) {
  const auto d = read(", name: db, scope: CLUSTER, peers: [{name: x}]", "");
  ASSERT_TRUE(d) << d.error().what;
  EXPECT_EQ(d->admit, Admit::kOwner);
  EXPECT_EQ(d->peers[0].scope, Scope::kCluster);
  EXPECT_EQ(read(", scope: CLUSTER, name: db")->admit, Admit::kOwner);
  EXPECT_EQ(read("", "")->scope, Scope::kCluster);
}

TEST(FromProtoTest, IdentityIsChecked) {
  const auto whole = [](std::string_view fields) {
    const auto all = read_declarations("f", fmt::format("workloads: [{{{}}}]", fields));
    return all ? "taken" : all.error().what;
  };
  const std::string at = "f:1: workloads[0].";
  EXPECT_EQ(whole("owner: ada"), at + "id: is missing");
  EXPECT_EQ(whole("id: w"), at + "owner: is missing");
  EXPECT_EQ(whole("id: W, owner: ada"),
            at + "id: \"W\" is not a DNS label: a-z, 0-9 and inner hyphens");
  EXPECT_EQ(whole("id: a/b, owner: ada"),
            at + "id: \"a/b\" is not a DNS label: a-z, 0-9 and inner hyphens");
  EXPECT_EQ(whole("id: w, owner: a b"),
            at + "owner: \"a b\" may contain a-z, 0-9 and . _ @ - only");
  EXPECT_EQ(whole("id: w, owner: ada, workflow: why"), at + "workflow: \"why\" is a reserved word");
  EXPECT_EQ(refusal(", name: \"a\\nb\""),
            "name: \"a\\x0ab\" is not a DNS label: a-z, 0-9 and inner hyphens");
  EXPECT_EQ(refusal(", name: localhost"), "name: \"localhost\" is a reserved word");
}

TEST(FromProtoTest, ScopesNeedWhatTheyAreScopesOf) {
  EXPECT_EQ(refusal(", name: db", ""), "scope: without a workflow a name needs scope: CLUSTER");
  EXPECT_EQ(refusal(", scope: WORKFLOW", ""), "scope: WORKFLOW needs a workflow");
  EXPECT_EQ(refusal(", admit: WORKFLOW", ""), "admit: WORKFLOW needs a workflow");
  EXPECT_EQ(refusal(", peers: [{name: db, scope: WORKFLOW}]", ""),
            "peers[0].scope: WORKFLOW needs a workflow");
}

TEST(FromProtoTest, PortsThatContradictEachOther) {
  EXPECT_EQ(refusal(", serves: [{port: 80, end_port: 79}]"),
            "serves[0].end_port: 79 is before port 80");
  EXPECT_EQ(refusal(", serves: [{port: 80, end_port: 90}, {port: 90}]"),
            "serves[1].port: overlaps 80-90");
  EXPECT_EQ(refusal(", serves: [{port: 80}, {port: 80, protocol: UDP}]"), "taken");
  EXPECT_EQ(refusal(", serves: [{port: 80, name: a}, {port: 81, name: a}]"),
            "serves[1].name: \"a\" stands twice");
  EXPECT_EQ(refusal(", serves: [{name: a}]"), "serves[0].port: must be 1 to 65535, not 0");
  EXPECT_EQ(refusal(", publish: [{port: 80}, {port: 80}]"),
            "publish[1].port: 80/tcp is published twice");
  EXPECT_EQ(refusal(", publish: [{port: 80}, {port: 80, protocol: UDP}]"), "taken");
  EXPECT_EQ(refusal(", publish: [{port: 80, node_port: 9}, {port: 81, node_port: 9}]"),
            "publish[1].node_port: 9 is asked for twice");
}

TEST(FromProtoTest, PeersAreSomebodyElseAndStandOnce) {
  EXPECT_EQ(refusal(", peers: [{id: w}]"), "peers[0].id: is the workload itself");
  EXPECT_EQ(refusal(", peers: [{ports: [{port: 1}]}]"), "peers[0]: needs either a name or an id");
  EXPECT_EQ(refusal(", peers: [{id: v, name: db}]"), "peers[0]: needs either a name or an id");
  EXPECT_EQ(refusal(", peers: [{id: v, scope: CLUSTER}]"),
            "peers[0].scope: goes with a name, not with an id");
  EXPECT_EQ(refusal(", peers: [{name: db}, {name: db, scope: WORKFLOW}]"),
            "peers[1]: names a peer that stands there already; join their ports");
  EXPECT_EQ(refusal(", peers: [{name: db}, {name: db, scope: CLUSTER}]"), "taken");
  EXPECT_EQ(refusal(", name: db, peers: [{name: db}]"), "taken") << "the other replicas";
}

TEST(FromProtoTest, PublicationsText) {
  EXPECT_EQ(refusal(", publish: [{port: 1, http: true, protocol: UDP}]"),
            "publish[0].http: needs protocol TCP");
  EXPECT_EQ(refusal(", publish: [{port: 1, path: lab}]"),
            "publish[0].path: \"lab\" does not begin with /");
  EXPECT_EQ(refusal(", publish: [{port: 1, path: \"/a b\"}]"),
            "publish[0].path: has characters that must be percent-encoded");
  EXPECT_EQ(refusal(", publish: [{port: 1, label: " + std::string(65, 'x') + "}]"),
            "publish[0].label: is longer than 64 bytes");
  for (const auto* label : {"a\\nb", "a\\0b", "a\\x7f", "\\x9b2J", "\\x85"}) {
    EXPECT_EQ(refusal(fmt::format(", publish: [{{port: 1, label: \"{}\"}}]", label)),
              "publish[0].label: has control characters")
        << label;
  }
  EXPECT_EQ(refusal(", publish: [{port: 1, label: \"Caf\u00e9 \u00a0\u65e5\"}]"), "taken");
  EXPECT_NE(refusal(", publish: [{port: 1, allow_from: [10.0.0.1/8]}]").find("10.0.0.0/8"),
            std::string::npos);
}

TEST(FromProtoTest, EgressGoesByAddress) {
  for (const auto* name : {"pypi.org", "PYPI.ORG", "abc.de", "cafe", "localhost", "a", "1.2.3.4a",
                           "pypi.org/32", "pypi.org:443", "https://pypi.org/simple",
                           "*.arvados.org", "http://10.0.0.1/", "xn--bcher-kva.example"}) {
    EXPECT_EQ(refusal(fmt::format(", egress: [{{cidr: \"{}\"}}]", name)),
              fmt::format("egress[0].cidr: \"{}\" is a name; egress goes by address, since what a "
                          "name means changes behind the rule's back",
                          name));
  }
  for (const auto* other : {"10.0.0", "10.0.0.0/33", "", "fe80::zz", "2001:db8::/129", "::g",
                            "fe80::1%eth0", "10.0.0.0/8x"}) {
    const auto text = refusal(fmt::format(", egress: [{{cidr: \"{}\"}}]", other));
    EXPECT_TRUE(text.starts_with("egress[0].cidr: ")) << text;
    EXPECT_EQ(text.find("is a name"), std::string::npos) << text;
  }
  EXPECT_TRUE(refusal(", egress: [{cidr: 10.0.0.0/33}]").starts_with("egress[0].cidr: "));
  EXPECT_TRUE(refusal(", egress: [{ports: [{port: 1}]}]").starts_with("egress[0].cidr: "));
  EXPECT_EQ(refusal(", egress: [{cidr: \"1\\n2\"}]"),
            "egress[0].cidr: \"1\\x0a2\" is not a prefix");
  EXPECT_EQ(refusal(", publish: [{port: 1, allow_from: [\"\\e[2J\"]}]"),
            "publish[0].allow_from[0]: \"\\x1b[2J\" is not a prefix");
  EXPECT_EQ(refusal(", egress: [{cidr: \"2001:db8::/32\"}]"), "taken");
}

TEST(FromProtoTest, ReadinessByHttpNeedsItsPort) {
  EXPECT_EQ(refusal(", ready: HTTP"), "ready_http: is missing with ready: HTTP");
  EXPECT_EQ(refusal(", ready_http: {port: 1}"), "ready_http: goes with ready: HTTP only");
  EXPECT_EQ(refusal(", ready: HTTP, ready_http: {path: /}"),
            "ready_http.port: must be 1 to 65535, not 0");
  EXPECT_EQ(read(", ready: HTTP, ready_http: {port: 1}")->ready_http_path, "/");
}

// Messages come over the socket too, where no reader of text looked at them first.
TEST(FromProtoTest, MessagesOfAnyMaking) {
  mesh::v1::Workload message;
  message.set_id("w");
  message.set_owner("ada");
  message.mutable_hold()->set_seconds(-1);
  EXPECT_EQ(from_proto(message).error().what, "hold: must be 0s to 86400s");
  message.mutable_hold()->set_seconds(std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(from_proto(message).error().what, "hold: must be 0s to 86400s");
  message.clear_hold();
  message.add_serves()->set_port(65536 + 80);
  EXPECT_EQ(from_proto(message).error().what, "serves[0].port: must be 1 to 65535, not 65616");
  message.mutable_serves(0)->set_port(80);
  message.mutable_serves(0)->set_end_port(70000);
  EXPECT_EQ(from_proto(message).error().what, "serves[0].end_port: must be 1 to 65535, not 70000");
  message.clear_serves();
  message.set_id(std::string("w\0x", 3));
  EXPECT_EQ(from_proto(message).error().what,
            "id: \"w\\x00x\" is not a DNS label: a-z, 0-9 and inner hyphens");
}

TEST(FromProtoTest, WayBackLosesNothing) {
  for (const auto* fields :
       {"", ", name: db, scope: CLUSTER, admit: CLUSTER, admit_owners: [bob, eve]",
        ", serves: [{port: 1, end_port: 9, name: a}, {port: 53, protocol: UDP}], hold: 0s",
        ", peers: [{name: x}, {name: y, scope: CLUSTER, ports: [{port: 1, end_port: 2}]}, {id: v}]",
        ", publish: [{port: 1, http: true, label: L, path: /p, access: PUBLIC}, {port: 2, "
        "protocol: UDP, node_port: 25000, allow_from: [192.0.2.0/24, \"::/0\"]}]",
        ", egress: [{cidr: 0.0.0.0/0}, {cidr: \"::/0\", ports: [{port: 5, protocol: UDP}]}]",
        ", ready: HTTP, ready_http: {port: 80, path: /x}", ", ready: NONE"}) {
    for (const auto* workflow : {", workflow: run", ""}) {
      const auto d = read(fields, workflow);
      ASSERT_TRUE(d) << d.error().what;
      const auto message = to_proto(*d);
      const auto again = from_proto(message);
      ASSERT_TRUE(again) << again.error().what;
      EXPECT_EQ(*again, *d) << fields;
      EXPECT_EQ(to_proto(*again).SerializeAsString(), message.SerializeAsString());
    }
  }
}

TEST(FromProtoTest, AccessKeepsItsName) {
  for (const auto access :
       {Access::kOwner, Access::kCanManage, Access::kCanWrite, Access::kCanRead, Access::kPublic}) {
    Declaration d;
    d.id = "w";
    d.owner = "ada";
    d.scope = Scope::kCluster;
    d.admit = Admit::kOwner;
    d.publish.push_back({Proto::kTcp, 80, true, {}, {}, {}, {}, access});
    EXPECT_EQ(from_proto(to_proto(d))->publish[0].access, access);
  }
}

}  // namespace
}  // namespace meshd::policy
