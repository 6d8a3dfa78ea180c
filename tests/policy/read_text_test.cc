// Texts that people and programs hand in: each bad one is refused with file, line, field
// and reason, in one line, and none of them takes the process down or long.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "policy/from_proto.h"
#include "policy/limits.h"
#include "policy/read_yaml.h"

namespace meshd::policy {
namespace {

std::string repeat(std::string_view text, std::size_t times) {
  std::string result;
  for (std::size_t i = 0; i < times; ++i) result += text;
  return result;
}

std::string refusal(std::string_view text) {
  const auto read = read_declarations("f.yaml", text);
  return read ? "taken" : read.error().what;
}

// One workload in flow style: its fields on line 2.
std::string workload(std::string_view fields) {
  return fmt::format("workloads:\n- {{id: w, owner: ada, workflow: run{}}}\n", fields);
}

struct Row {
  const char* what;
  std::string text;
  std::string error;
};

void expect_refusals(const std::vector<Row>& rows) {
  for (const auto& row : rows) EXPECT_EQ(refusal(row.text), row.error) << row.what;
}

TEST(ReadTextTest, WholeFormatIsTaken) {
  const auto read = read_declarations("f.yaml", R"(workloads:
- id: zzzzz-dz642-a1b2c3d4e5f6g7h
  owner: zzzzz-tpzed-000000000000000
  workflow: zzzzz-dz642-00000000000000a
  name: db
  scope: WORKFLOW
  serves:
  - {port: 5432, name: sql}
  - {port: 8000, end_port: 8100, protocol: UDP}
  admit: WORKFLOW
  admit_owners: [zzzzz-tpzed-00000000000000b]
  peers:
  - {name: cache}
  - {name: ollama, scope: CLUSTER, ports: [{port: 11434}]}
  - {id: zzzzz-dz642-zzzzzzzzzzzzzzz, ports: [{port: 22}]}
  publish:
  - {port: 8888, http: true, label: Notebook, path: /lab, access: CAN_READ}
  - {port: 5432, node_port: 25432, allow_from: ["192.0.2.0/24"]}
  egress: [{cidr: "0.0.0.0/0"}, {cidr: "2001:db8::/32", ports: [{port: 443}]}]
  ready: HTTP
  ready_http: {port: 8888, path: /healthz}
  hold: 90s
)");
  ASSERT_TRUE(read) << read.error().what;
  const auto& d = read->at(0);
  EXPECT_EQ(d.serves, (std::vector<ServedPort>{{{Proto::kTcp, 5432, 5432}, "sql"},
                                               {{Proto::kUdp, 8000, 8100}, ""}}));
  EXPECT_EQ(d.peers[0], (Peer{"", "cache", Scope::kWorkflow, {}}));
  EXPECT_EQ(d.peers[1], (Peer{"", "ollama", Scope::kCluster, {{Proto::kTcp, 11434, 11434}}}));
  EXPECT_EQ(d.peers[2].id, "zzzzz-dz642-zzzzzzzzzzzzzzz");
  EXPECT_EQ(d.publish[0].access, Access::kCanRead);
  EXPECT_FALSE(d.publish[0].allow_from);
  EXPECT_EQ(d.publish[1].node_port, 25432);
  EXPECT_EQ(d.publish[1].allow_from->at(0).to_string(), "192.0.2.0/24");
  EXPECT_EQ(d.egress.size(), 2U);
  EXPECT_EQ(d.ready, ReadyMode::kHttp);
  EXPECT_EQ(d.ready_http_path, "/healthz");
  EXPECT_EQ(d.hold, std::chrono::seconds(90));
}

TEST(ReadTextTest, JsonGoesTheSameWay) {
  const auto read = read_declarations(
      "f.json", R"({"workloads": [{"id": "w", "owner": "ada", "serves": [{"port": 80}]}]})");
  ASSERT_TRUE(read) << read.error().what;
  EXPECT_EQ(read->at(0).serves.at(0).ports.first, 80);
  EXPECT_EQ(read->at(0).scope, Scope::kCluster);
}

TEST(ReadTextTest, NoDeclarationAtAll) {
  expect_refusals({
      {"empty", "", "f.yaml:1: is empty"},
      {"blank", " \n\n", "f.yaml:1: is empty"},
      {"a comment", "# nothing\n", "f.yaml:1: is empty"},
      {"a word", "hello", "f.yaml:1: must be a mapping, not a single value"},
      {"a list", "\n- id: w\n", "f.yaml:2: must be a mapping, not a list"},
      {"null", "null", "f.yaml:1: must be a mapping, not null"},
      {"no fields", "{}", "f.yaml: no workloads"},
      {"no workloads", "workloads: []", "f.yaml: no workloads"},
      {"null workloads", "workloads:\n\n\n", "f.yaml:1: workloads: must be a list, not null"},
      {"null workload", "workloads: [null]", "f.yaml:1: workloads[0]: must be a mapping, not null"},
      {"two documents", "workloads: []\n---\nworkloads: []\n", "f.yaml:2: a file is one document"},
      {"no YAML", "workloads: [\n", "f.yaml:2: is not YAML: end of sequence flow not found"},
      {"NUL", std::string("workloads: \0", 12), "f.yaml:1: has the control character 0x00"},
      {"escape", "a:\n\x1b[2J", "f.yaml:2: has the control character 0x1b"},
      {"ELF",
       "\x7f"
       "ELF\x02\x01",
       "f.yaml:1: has the control character 0x7f"},
      {"not UTF-8", "a: \xff\xfe", "f.yaml:1: is not UTF-8 text"},
      {"overlong", "a: \xc0\xaf", "f.yaml:1: is not UTF-8 text"},
      {"surrogate", "a: \xed\xa0\x80", "f.yaml:1: is not UTF-8 text"},
      {"beyond Unicode", "a: \xf4\x90\x80\x80", "f.yaml:1: is not UTF-8 text"},
      {"cut in a character", "a: \xe2\x82", "f.yaml:1: is not UTF-8 text"},
      {"gzip", "\x1f\x8b\x08", "f.yaml:1: has the control character 0x1f"},
      {"1 MiB + 1", "#" + std::string(kMaxFileBytes, 'x'), "f.yaml:1: is larger than 1 MiB"},
  });
}

TEST(ReadTextTest, FieldsThatAreNotOursOrTwice) {
  expect_refusals({
      {"a typo", workload(", serve: []"),
       "f.yaml:2: workloads[0]: unknown field \"serve\"; did you mean serves?"},
      {"unknown", workload(", volumes: []"), "f.yaml:2: workloads[0]: unknown field \"volumes\""},
      {"unknown inside", workload(", serves: [{port: 80, prot: UDP}]"),
       "f.yaml:2: workloads[0].serves[0]: unknown field \"prot\"; did you mean port?"},
      {"at the top", "workload: []",
       "f.yaml:1: unknown field \"workload\"; did you mean "
       "workloads?"},
      {"camel case", workload(", admitOwners: [bob]"),
       "f.yaml:2: workloads[0]: unknown field \"admitOwners\"; did you mean admit_owners?"},
      {"control characters", workload(", \"a\\nb\": 1"),
       "f.yaml:2: workloads[0]: unknown field \"a\\x0ab\""},
      {"twice", "workloads:\n- id: w\n  owner: ada\n  id: v\n", "f.yaml:4: \"id\" stands twice"},
      {"twice at the top", "workloads: []\nworkloads: []\n",
       "f.yaml:2: \"workloads\" stands twice"},
      {"a list as key", "? [a]\n: b\n", "f.yaml:1: a key must be a word"},
      {"null as key", "null: b\n", "f.yaml:1: a key must be a word"},
  });
}

TEST(ReadTextTest, EgressByNameIsNotOfferedWhateverTheKey) {
  const std::string why =
      "; egress goes by address, since what a name means changes behind the "
      "rule's back";
  for (const auto* key : {"name", "host", "hostname", "fqdn", "domain", "dns"}) {
    EXPECT_EQ(refusal(workload(fmt::format(", egress: [{{{}: pypi.org}}]", key))),
              fmt::format("f.yaml:2: workloads[0].egress[0]: unknown field \"{}\"{}", key, why));
  }
  EXPECT_EQ(refusal(workload(", egress: [{prefix: 10.0.0.0/8}]")),
            "f.yaml:2: workloads[0].egress[0]: unknown field \"prefix\"");
  EXPECT_EQ(refusal(workload(", serves: [{host: a}]")),
            "f.yaml:2: workloads[0].serves[0]: unknown field \"host\"; did you mean port?");
}

// What YAML reads as a number or a truth value is no text, in JSON neither.
TEST(ReadTextTest, TextIsNoNumberAndNoTruth) {
  const auto owner = [](std::string_view value) {
    return refusal(fmt::format("workloads: [{{id: w, owner: {}}}]", value));
  };
  const auto json = [](std::string_view value) {
    return refusal(fmt::format(R"({{"workloads": [{{"id": "w", "owner": {}}}]}})", value));
  };
  for (const auto* truth : {"true", "false", "True", "FALSE"}) {
    const auto why = fmt::format(
        "f.yaml:1: workloads[0].owner: must be text, and {} is a truth value unless it stands in "
        "quotes",
        truth);
    EXPECT_EQ(owner(truth), why);
    EXPECT_EQ(json(truth), why);
  }
  for (const auto* number : {"5", "0", "123", "-1", "+1", "1.5", ".5", "5.", "1.5e3", "1e+5",
                             "-1e5", "0x1f", "0o17", ".inf", "-.inf", ".nan", "007"}) {
    const auto why = fmt::format(
        "f.yaml:1: workloads[0].owner: must be text, and {} is a number unless it stands in quotes",
        number);
    EXPECT_EQ(owner(number), why);
    EXPECT_EQ(json(number), why);
  }
  EXPECT_EQ(owner("null"), "f.yaml:1: workloads[0].owner: is null; leave the field out instead");
  EXPECT_EQ(json("null"), "f.yaml:1: workloads[0].owner: is null; leave the field out instead");
  EXPECT_EQ(owner("~"), "f.yaml:1: workloads[0].owner: is null; leave the field out instead");
  for (const auto* text : {"\"123\"", "'1.5'", "\"true\"", "4e0123456789", "123456789e12", "yes",
                           "no", "on", "1.2.3", "1_000", "2024-01-02", "a5", "1-", "e5"}) {
    EXPECT_EQ(owner(text), "taken") << text;
  }
  EXPECT_EQ(refusal(workload(", admit_owners: [bob, 5]")),
            "f.yaml:2: workloads[0].admit_owners[1]: must be text, and 5 is a number unless it "
            "stands in quotes");
  EXPECT_EQ(refusal(workload(", publish: [{port: 1, label: 2024}]")),
            "f.yaml:2: workloads[0].publish[0].label: must be text, and 2024 is a number unless it "
            "stands in quotes");
  EXPECT_EQ(refusal(workload(", publish: [{port: 1, label: \"2024\"}]")), "taken");
  EXPECT_EQ(refusal(workload(", publish: [{port: 1, allow_from: [null]}]")),
            "f.yaml:2: workloads[0].publish[0].allow_from[0]: must be text, not null");
}

TEST(ReadTextTest, WrongTypesAndEmptiness) {
  const std::string at = "f.yaml:2: workloads[0].";
  expect_refusals({
      {"quoted number", workload(", serves: [{port: \"80\"}]"),
       at + "serves[0].port: must be a whole number, not \"80\""},
      {"octal", workload(", serves: [{port: 0100}]"),
       at + "serves[0].port: must be a whole number, not \"0100\""},
      {"hexadecimal", workload(", serves: [{port: 0x50}]"),
       at + "serves[0].port: must be a whole number, not \"0x50\""},
      {"fraction", workload(", serves: [{port: 80.0}]"),
       at + "serves[0].port: must be a whole number, not \"80.0\""},
      {"exponent", workload(", serves: [{port: 8e1}]"),
       at + "serves[0].port: must be a whole number, not \"8e1\""},
      {"sign", workload(", serves: [{port: -1}]"),
       at + "serves[0].port: must be a whole number, not \"-1\""},
      {"beyond 32 bits", workload(", serves: [{port: 4294967376}]"),
       at + "serves[0].port: must be a whole number, not \"4294967376\""},
      {"port 0", workload(", serves: [{port: 0}]"),
       at + "serves[0].port: must be 1 to 65535, not 0"},
      {"port 65536", workload(", serves: [{port: 65536}]"),
       at + "serves[0].port: must be 1 to 65535, not 65536"},
      {"end_port 0", workload(", serves: [{port: 1, end_port: 0}]"),
       at + "serves[0].end_port: must be 1 to 65535, not 0"},
      {"node_port 0", workload(", publish: [{port: 1, node_port: 0}]"),
       at + "publish[0].node_port: must be 1 to 65535, not 0"},
      {"list for a word", workload(", name: [db]"), at + "name: must be text, not a list"},
      {"mapping for a number", workload(", serves: [{port: {}}]"),
       at + "serves[0].port: must be a number, not a mapping"},
      {"word for a list", workload(", serves: 80"),
       at + "serves: must be a list, not a single value"},
      {"word for a mapping", workload(", serves: [80]"),
       at + "serves[0]: must be a mapping, not a single value"},
      {"yes", workload(", publish: [{port: 1, http: yes}]"),
       at + "publish[0].http: must be true or false"},
      {"quoted true", workload(", publish: [{port: 1, http: \"true\"}]"),
       at + "publish[0].http: must be true or false"},
      {"enum in lower case", workload(", admit: owner"),
       at + "admit: must be one of WORKFLOW, OWNER, CLUSTER, not \"owner\""},
      {"enum by number", workload(", scope: 1"),
       at + "scope: must be one of WORKFLOW, CLUSTER, not \"1\""},
      {"enum unspecified", workload(", scope: UNSPECIFIED"),
       at + "scope: must be one of WORKFLOW, CLUSTER, not \"UNSPECIFIED\""},
      {"null scalar", workload(", name: null"), at + "name: is null; leave the field out instead"},
      {"null by tilde", workload(", hold: ~"), at + "hold: is null; leave the field out instead"},
      {"null list", workload(", peers: null"), at + "peers: must be a list, not null"},
      {"empty ports", workload(", peers: [{name: db, ports: []}]"),
       at + "peers[0].ports: is an empty list; leave the field out instead"},
      {"null ports", workload(", peers: [{name: db, ports: }]"),
       at + "peers[0].ports: must be a list, not null"},
      {"empty allow_from", workload(", publish: [{port: 1, allow_from: []}]"),
       at + "publish[0].allow_from: is an empty list; leave the field out instead"},
      {"hold without unit", workload(", hold: 120"),
       at + "hold: must be a time in seconds like 120s"},
      {"hold in minutes", workload(", hold: 2m"), at + "hold: must be a time in seconds like 120s"},
      {"hold negative", workload(", hold: -1s"), at + "hold: must be a time in seconds like 120s"},
      {"hold empty", workload(", hold: s"), at + "hold: must be a time in seconds like 120s"},
      {"hold in parts", workload(", hold: 1.5s"), at + "hold: must be whole seconds"},
      {"hold beyond a day", workload(", hold: 86401s"), at + "hold: must be 0s to 86400s"},
      {"hold beyond reason", workload(", hold: 9223372036854775807s"),
       at + "hold: must be 0s to 86400s"},
      {"hold beyond 64 bits", workload(", hold: 99999999999999999999s"),
       at + "hold: must be a time in seconds like 120s"},
  });
}

TEST(ReadTextTest, YamlThatDeclarationsDoNotNeed) {
  expect_refusals({
      {"anchor", "workloads: &a []", "f.yaml:1: anchors are not allowed"},
      {"anchor on a word", "workloads:\n- id: &a w\n", "f.yaml:2: anchors are not allowed"},
      {"unknown alias", "workloads: *a",
       "f.yaml:1: is not YAML: the referenced anchor is not "
       "defined"},
      {"tag", "workloads: !!set []", "f.yaml:1: tags are not allowed"},
      {"tag on a word", "workloads:\n- id: !!str w\n", "f.yaml:2: tags are not allowed"},
      {"alias bomb",
       "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\n",
       "f.yaml:1: anchors are not allowed"},
  });
}

TEST(ReadTextTest, DepthIsBounded) {
  constexpr std::size_t kDeep = 100'000;
  std::string stairs;
  for (int i = 0; i < 1000; ++i) stairs += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  std::string lists;
  for (int i = 0; i < 1000; ++i) lists += std::string(static_cast<std::size_t>(i), ' ') + "-\n";
  for (const auto& text :
       {repeat("[", kDeep), repeat("{a: ", kDeep), repeat("[{a: ", kDeep), repeat("- ", kDeep),
        repeat("? ", kDeep), repeat("-\t", kDeep), repeat("- ? ", kDeep), repeat(": ", kDeep),
        stairs, lists, "a: " + repeat("[", 60) + repeat("]", 60)}) {
    const auto error = refusal(text);
    EXPECT_TRUE(error.ends_with("is nested too deeply") || error.starts_with("f.yaml:1: is not"))
        << text.substr(0, 20) << ": " << error;
  }
  EXPECT_EQ(refusal("\n" + repeat("[", kDeep)), "f.yaml:2: is nested too deeply");
}

TEST(ReadTextTest, SizesAreBounded) {
  const auto peers = [](int count) {
    std::string text = ", peers: [";
    for (int i = 0; i < count; ++i) text += fmt::format("{{name: p{}}},", i);
    return workload(text + "]");
  };
  EXPECT_EQ(refusal(peers(256)), "taken");
  EXPECT_EQ(refusal(peers(257)), "f.yaml:2: workloads[0].peers: has 257 entries, 256 are allowed");
  std::string ports;
  for (int i = 1; i <= 65; ++i) ports += fmt::format("{{port: {}}},", i);
  const std::string at = "f.yaml:2: workloads[0].";
  std::string cidrs, sources, owners;
  for (int i = 0; i < 65; ++i) {
    cidrs += fmt::format("{{cidr: 10.{}.0.0/16}},", i);
    sources += fmt::format("10.{}.0.0/16,", i);
    owners += fmt::format("o{},", i);
  }
  expect_refusals({
      {"serves", workload(", serves: [" + ports + "]"),
       at + "serves: has 65 entries, 64 are allowed"},
      {"publish", workload(", publish: [" + ports + "]"),
       at + "publish: has 65 entries, 64 are allowed"},
      {"egress", workload(", egress: [" + cidrs + "]"),
       at + "egress: has 65 entries, 64 are allowed"},
      {"a peer's ports", workload(", peers: [{name: db, ports: [" + ports + "]}]"),
       at + "peers[0].ports: has 65 entries, 64 are allowed"},
      {"allow_from", workload(", publish: [{port: 1, allow_from: [" + sources + "]}]"),
       at + "publish[0].allow_from: has 65 entries, 64 are allowed"},
      {"admit_owners", workload(", admit_owners: [" + owners + "]"),
       at + "admit_owners: has 65 entries, 64 are allowed"},
      {"64 KiB + 1",
       workload(", publish: [{port: 1, path: /" + std::string(kMaxWorkloadBytes, 'x') + "}]"),
       at + "id: the workload is larger than 64 KiB"},
  });
}

TEST(ReadTextTest, LineIsThatOfTheFieldOrTheNearestAroundIt) {
  expect_refusals({
      {"a field", "workloads:\n- id: w\n  owner: ada\n  serves:\n  - port: 5\n    end_port: 4\n",
       "f.yaml:6: workloads[0].serves[0].end_port: 4 is before port 5"},
      {"missing",
       "workloads:\n- id: w\n  owner: ada\n- id: v\n  owner: ada\n  serves:\n  - name: "
       "a\n",
       "f.yaml:7: workloads[1].serves[0].port: must be 1 to 65535, not 0"},
      {"no id", "workloads:\n\n- owner: ada\n", "f.yaml:3: workloads[0].id: is missing"},
  });
}

TEST(ReadTextTest, ErrorIsOneLineOfText) {
  for (const auto* text : {"workloads:\n- id: \"a\\nb\"\n  owner: x\n",
                           "workloads:\n- id: a\n  owner: \"x\\e[2Jy\\x85z\\u2028\"\n",
                           "workloads:\n- id: a\n  owner: x\n  \"k\\r\\nk\": 1\n", "a: \"b\\",
                           "a: \"\\\t\"", "a: \"\\\xc3\xa9\""}) {
    const auto error = refusal(text);
    EXPECT_NE(error, "taken");
    for (const char c : error) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << error;
    EXPECT_EQ(error.find("\xc2\x85"), std::string::npos) << "NEL ends a line too";
    EXPECT_EQ(error.find("\xe2\x80\xa8"), std::string::npos) << "so does LS";
  }
}

TEST(ReadTextTest, QuoteIsPlainAndShort) {
  EXPECT_EQ(quote("a\"b\\"), "\"a\\\"b\\\\\"");
  EXPECT_EQ(quote(std::string("\0\x7f", 2)), "\"\\x00\\x7f\"");
  EXPECT_EQ(quote("\xc3\xa9"), "\"\\xc3\\xa9\"");
  EXPECT_EQ(quote(std::string(61, 'a')), "\"" + std::string(60, 'a') + "...\"");
}

}  // namespace
}  // namespace meshd::policy
