// What may be a name, and how names are put together and taken apart.
#include "policy/name.h"

#include <gtest/gtest.h>

namespace meshd::policy {
namespace {

using enum LabelKind;

TEST(NameTest, LabelsThatAreTaken) {
  for (const auto kind : {kId, kName, kWorkflow, kPortName}) {
    for (const std::string_view text : {"a", "a1", "1a", "a-b", "x"}) {
      EXPECT_EQ(label_problem(kind, text), "") << text;
    }
    EXPECT_EQ(label_problem(kind, std::string(63, 'a')), "");
  }
  EXPECT_EQ(label_problem(kId, "zzzzz-dz642-a1b2c3d4e5f6g7h"), "");
  EXPECT_EQ(label_problem(kWorkflow, "zzzzz-dz642-a1b2c3d4e5f6g7h"), "");
  EXPECT_EQ(label_problem(kPortName, "443"), "");
}

TEST(NameTest, LabelsThatAreRefused) {
  for (const auto kind : {kId, kName, kWorkflow, kPortName}) {
    EXPECT_EQ(label_problem(kind, ""), "is empty");
    EXPECT_EQ(label_problem(kind, std::string(64, 'a')), "is longer than 63 characters");
    for (const std::string_view text :
         {"-a", "a-", "-", "a.b", "a_b", "A", "a b", "a\n", "a\"", "a/b", "\xc3\xa9"}) {
      EXPECT_EQ(label_problem(kind, text), "is not a DNS label: a-z, 0-9 and inner hyphens")
          << text;
    }
    EXPECT_NE(label_problem(kind, std::string_view("a\0b", 3)), "");
  }
  for (const auto kind : {kId, kName, kWorkflow}) {
    for (const std::string_view text : {"localhost", "wpad", "isatap", "id", "svc", "wf", "why"}) {
      EXPECT_EQ(label_problem(kind, text), "is a reserved word") << text;
    }
    EXPECT_EQ(label_problem(kind, "xn--bcher-kva"), "must not contain \"--\"");
    EXPECT_EQ(label_problem(kind, "a--b"), "must not contain \"--\"");
    EXPECT_EQ(label_problem(kind, "12345"), "must not be all digits");
  }
  EXPECT_EQ(label_problem(kName, "zzzzz-dz642-a1b2c3d4e5f6g7h"),
            "must not look like a container's UUID");
}

TEST(NameTest, Owners) {
  EXPECT_EQ(owner_problem("a.b_c@d-e.org"), "");
  EXPECT_EQ(owner_problem(std::string(128, 'a')), "");
  EXPECT_EQ(owner_problem(""), "is missing");
  EXPECT_EQ(owner_problem(std::string(129, 'a')), "is longer than 128 characters");
  for (const std::string_view text : {"A", "a b", "a/b", "a\n", "\xc3\xa9"}) {
    EXPECT_EQ(owner_problem(text), "may contain a-z, 0-9 and . _ @ - only") << text;
  }
}

TEST(NameTest, Zones) {
  EXPECT_EQ(zone_problem("mesh.internal"), "");
  EXPECT_EQ(zone_problem(""), "is empty");
  EXPECT_EQ(zone_problem("internal"), "must have at least two labels");
  EXPECT_EQ(zone_problem("mesh."), "is empty");
  EXPECT_EQ(zone_problem("mesh..internal"), "is empty");
  EXPECT_EQ(zone_problem("a.10"), "must not end in a number");
  EXPECT_NE(zone_problem("Mesh.internal"), "");
  // The longest name of ours, an SRV record's, is still a domain name.
  std::string zone = "a." + std::string(63, 'b');
  while (zone_problem("c" + zone).empty() && zone.size() < 300) zone = "c" + zone;
  const std::string label(63, 'x');
  const auto longest =
      "_123456789012345._tcp." + service_fqdn(zone, {Scope::kWorkflow, label, label});
  EXPECT_LE(longest.size(), 253U);
}

TEST(NameTest, PutTogetherAndTakenApart) {
  constexpr std::string_view kZone = "mesh.internal";
  const ServiceKey cluster{Scope::kCluster, {}, "db"}, run{Scope::kWorkflow, "run", "db"};
  EXPECT_EQ(instance_fqdn(kZone, "w"), "w.id.mesh.internal");
  EXPECT_EQ(service_fqdn(kZone, cluster), "db.svc.mesh.internal");
  EXPECT_EQ(service_fqdn(kZone, run), "db.run.wf.mesh.internal");
  EXPECT_EQ(parse_fqdn(kZone, "W.Id.MESH.internal.")->id, "w");
  EXPECT_EQ(parse_fqdn(kZone, "db.svc.mesh.internal")->service, cluster);
  EXPECT_EQ(parse_fqdn(kZone, "db.run.wf.mesh.internal")->service, run);
  for (const std::string_view text :
       {"", ".", "db", "mesh.internal", ".mesh.internal", "svc.mesh.internal", "db.mesh.internal",
        "a.b.svc.mesh.internal", "db.wf.mesh.internal", "db.svc.example.org",
        "db.svc.xmesh.internal", "db.svc.mesh.internal.."}) {
    EXPECT_FALSE(parse_fqdn(kZone, text)) << text;
  }
}

TEST(NameTest, SearchListBeginsWithTheWorkflow) {
  EXPECT_EQ(search_list("z.y", "run"), (std::vector<std::string>{"run.wf.z.y", "svc.z.y"}));
  EXPECT_EQ(search_list("z.y", ""), std::vector<std::string>{"svc.z.y"});
  EXPECT_EQ(service_text({Scope::kWorkflow, "run", "db"}), "db of workflow run");
  EXPECT_EQ(service_text({Scope::kCluster, {}, "db"}), "db");
}

}  // namespace
}  // namespace meshd::policy
