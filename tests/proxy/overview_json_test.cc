#include "proxy/overview_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/read_yaml.h"
#include "tests/proxy/overview_samples.h"

namespace meshd::proxy {
namespace {

using testing::HasSubstr;
using testing::Not;

class OverviewJsonTest : public testing::Test {
 protected:
  OverviewJsonTest() { site_.zone = "mesh.example.org"; }
  std::string json(const Viewer& who) {
    const auto overview = bed_.overview();
    return state_json(overview, visible(overview, who, {}), who, site_);
  }
  static PageLink link(Target target, policy::Access access = policy::Access::kCanRead) {
    return {8888, std::move(target), "Notebook", "/lab", access, true};
  }

  Site site_;
  OverviewBed bed_;
};

TEST_F(OverviewJsonTest, SaysWhoLooksAndWhatTheySee) {
  bed_.traffic = {{"worker", "db", Proto::kTcp, 5432, 100, 4}};
  bed_.refusals = {sample_refusal("spy", "carol", "db", "ada", ShownRefusal::Whose::kProvider)};
  const auto text = json(viewer("ada"));
  EXPECT_THAT(text, HasSubstr(R"("zone":"mesh.example.org","now":1000000)"));
  EXPECT_THAT(text, HasSubstr(R"("you":{"owner":"ada","name":"ada","admin":false})"));
  EXPECT_THAT(text, HasSubstr(R"("id":"worker","owner":"ada","workflow":"","service":"")"));
  EXPECT_THAT(text, HasSubstr(R"({"from":"worker","to":"db","open":true,"ports":["tcp/5432"],)"
                              R"("bytes_s":100,"packets_s":4,"flows":[{"port":"tcp/5432",)"));
  EXPECT_THAT(text, HasSubstr(R"({"key":"service store","kind":"service","label":"store"})"));
  EXPECT_THAT(text,
              HasSubstr(R"("missing":"in somewhere: something","whose":"provider","yours":true)"));
  EXPECT_THAT(text, Not(HasSubstr("bob")));
}

TEST_F(OverviewJsonTest, IsOneValueWhateverTheTextsHold) {
  const std::string odd = "\"},</script><!-- \\ \n\x01\x7f & ' \xc3\xa4 \xff\xc3( \xed\xa0\x80";
  for (auto& one : bed_.shape.workloads) {
    one.service = one.workflow = one.node = odd;
    one.serves = one.outside = {odd, odd};
    one.links = {link(ServiceTarget{odd, std::nullopt})};
    one.links[0].label = one.links[0].path = odd;
  }
  bed_.shape.wishes = {{3, odd, ""}};
  bed_.refusals = {sample_refusal("worker", "ada", odd, odd, ShownRefusal::Whose::kNobody)};
  bed_.refusals[0].missing = odd;
  const auto text = json(administrator());
  // YAML takes JSON, keys twice or what is no UTF-8 it does not.
  const auto read = policy::read_yaml("state", text);
  EXPECT_TRUE(read) << read.error().what;
  EXPECT_THAT(text, Not(HasSubstr("<")));
}

TEST_F(OverviewJsonTest, TextIsWhatItWasAndWhatIsNoneIsMarked) {
  EXPECT_EQ(json_text("caf\xc3\xa9 \xf0\x9f\x90\xa2"), "\"caf\xc3\xa9 \xf0\x9f\x90\xa2\"");
  EXPECT_EQ(json_text("a\"b\\c\nd"), R"("a\u0022b\u005cc\u000ad")");
  EXPECT_EQ(json_text("</script>"), R"("\u003c/script\u003e")");
  const std::string mark = "\xef\xbf\xbd";
  EXPECT_EQ(json_text("\xff"), "\"" + mark + "\"");
  EXPECT_EQ(json_text("\xc3"), "\"" + mark + "\"");                        // cut off
  EXPECT_EQ(json_text("\xc0\xaf"), "\"" + mark + mark + "\"");             // longer than need be
  EXPECT_EQ(json_text("\xed\xa0\x80"), "\"" + mark + mark + mark + "\"");  // half a pair
  EXPECT_EQ(json_text("\xf4\x90\x80\x80"), "\"" + mark + mark + mark + mark + "\"");
}

TEST_F(OverviewJsonTest, ALinkGoesByThePageWhereTheServiceHasASignInOfItsOwn) {
  EXPECT_EQ(link_href(site_, "lab-1", link(ServiceTarget{"lab", {}})), "/open/lab-1/8888");
}

TEST_F(OverviewJsonTest, ALinkToWhatIsOpenToAllTellsNobodyWhoComes) {
  EXPECT_EQ(link_href(site_, "lab-1", link(ServiceTarget{"lab", {}}, policy::Access::kPublic)),
            "https://lab.svc.mesh.example.org/lab");
}

TEST_F(OverviewJsonTest, AtASiteOfOneHostALinkGoesStraightThere) {
  site_ = {};
  site_.host = "mesh.example.org";
  site_.first_port = 8400;
  site_.last_port = 8499;
  EXPECT_EQ(link_href(site_, "lab-1", link(PortTarget{8400})), "https://mesh.example.org:8400/lab");
  EXPECT_EQ(link_href(site_, "lab-1", link(ServiceTarget{"lab", {}})), "");
}

TEST_F(OverviewJsonTest, WhatTheyCanAddIsTheirs) {
  using Whose = ShownRefusal::Whose;
  const auto yours = [&](Whose whose, const std::string& who) {
    bed_.refusals = {sample_refusal("spy", "carol", "db", "ada", whose)};
    return json(viewer(who)).find("\"yours\":true") != std::string::npos;
  };
  EXPECT_TRUE(yours(Whose::kConsumer, "carol"));
  EXPECT_FALSE(yours(Whose::kConsumer, "ada"));
  EXPECT_TRUE(yours(Whose::kProvider, "ada"));
  EXPECT_FALSE(yours(Whose::kProvider, "carol"));
  EXPECT_FALSE(yours(Whose::kNobody, "carol"));
}

}  // namespace
}  // namespace meshd::proxy
