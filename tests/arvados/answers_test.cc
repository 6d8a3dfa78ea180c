// What is believed of the API's bytes, and what is not.
#include "arvados/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arvados/json.h"
#include "arvados/limits.h"
#include "tests/arvados/samples.h"

namespace meshd::arvados {
namespace {

using testing::HasSubstr;
using testing::Not;

template <class T>
Fault fault_of(const Answer<T>& answer) {
  return answer ? Fault{255} : answer.error().fault;
}

TEST(AnswersTest, AUserIsReadWithWhatItMay) {
  const auto user = read_user(user_reply(user_uuid(7), true)).value();
  EXPECT_EQ(user.uuid, user_uuid(7));
  EXPECT_TRUE(user.is_admin);
  EXPECT_TRUE(user.is_active);
  EXPECT_EQ(user.name, "who");
}

TEST(AnswersTest, AStatusIsBelievedOnlyWithTheApisOwnBody) {
  EXPECT_EQ(fault_of(read_user(error_reply(401))), Fault::kBadToken);
  EXPECT_EQ(fault_of(read_user(error_reply(403))), Fault::kForbidden);
  EXPECT_EQ(fault_of(read_user(error_reply(404))), Fault::kNotFound);
  EXPECT_EQ(fault_of(read_user(error_reply(500))), Fault::kAway);
  // Some proxy's page in between says nothing of who may read what.
  for (const int status : {401, 403, 404}) {
    Reply page{.status = status, .is_json = false, .body = "<html>no</html>"};
    EXPECT_EQ(fault_of(read_user(page)), Fault::kAway);
    EXPECT_EQ(fault_of(read_user(json_reply("{}", status))), Fault::kAway);
    EXPECT_EQ(fault_of(read_user(json_reply(R"({"errors":[]})", status))), Fault::kAway);
  }
}

TEST(AnswersTest, WhatIsNotExactlyAUserIsNone) {
  const auto good = user_reply(user_uuid(1)).body;
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"zzzzz-tpzed", "zzzzz-j7d0g"},
           {"\"is_active\":true", "\"is_active\":\"true\""},
           {"\"is_admin\":false", "\"is_admin\":null"},
           {"\"is_admin\":false", "\"is_admin\":1"},
           {"\"is_admin\":false", "\"is_admin\":false,\"is_admin\":true"},
           {"{\"uuid\"", "[\"uuid\""},
           {"\"uuid\":", "\"uuid2\":"}}) {
    auto body = good;
    body.replace(body.find(from), from.size(), to);
    EXPECT_EQ(fault_of(read_user(json_reply(body))), Fault::kAway) << body;
  }
  EXPECT_EQ(fault_of(read_user(json_reply(good.substr(0, good.size() - 3)))), Fault::kAway);
  auto as_html = user_reply(user_uuid(1));
  as_html.is_json = false;
  EXPECT_EQ(fault_of(read_user(as_html)), Fault::kAway);
  EXPECT_EQ(fault_of(read_user({.trouble = "down"})), Fault::kAway);
}

TEST(AnswersTest, OnlyATokenForEverythingIsOne) {
  const auto scopes = [](const char* text) {
    return read_token_scope(
        json_reply(fmt::format(R"({{"owner_uuid":"{}","scopes":{}}})", user_uuid(1), text)));
  };
  EXPECT_TRUE(scopes(R"(["all"])")->everything);
  EXPECT_FALSE(scopes(R"(["GET /arvados/v1/users/current"])")->everything);
  EXPECT_FALSE(scopes(R"(["all","GET /"])")->everything);
  EXPECT_FALSE(scopes("[]")->everything);
  EXPECT_EQ(fault_of(scopes("\"all\"")), Fault::kAway);
}

TEST(AnswersTest, ARecordIsTheOneThatWasAskedFor) {
  const auto reply = json_reply(fmt::format(R"({{"uuid":"{}"}})", request_uuid(1)));
  EXPECT_TRUE(read_record(reply, request_uuid(1)));
  EXPECT_EQ(fault_of(read_record(reply, request_uuid(2))), Fault::kAway);
}

TEST(AnswersTest, OwnersCountOnlyWhenAllOfThemCame) {
  const auto one = fmt::format(R"({{"uuid":"{}","modified_by_user_uuid":"{}","owner_uuid":"{}"}})",
                               request_uuid(1), user_uuid(1), user_uuid(1));
  EXPECT_EQ(read_owners(items_reply(one, R"(,"items_available":1)"))->size(), 1U);
  EXPECT_EQ(fault_of(read_owners(items_reply(one, R"(,"items_available":2)"))), Fault::kAway);
  EXPECT_EQ(fault_of(read_owners(items_reply(one))), Fault::kAway);
  EXPECT_EQ(fault_of(read_owners(items_reply("", R"(,"items_available":1)"))), Fault::kAway);
}

TEST(AnswersTest, ARequestIsReadWithPortsAndDeclaration) {
  SampleRequest sample;
  sample.workflow = '"' + container_uuid(9) + '"';
  sample.published = R"({"80":{"access":"public","label":"Web","initial_path":""}})";
  sample.properties = R"({"other":[1,2],"meshd":{"name":"db"}})";
  const auto request = sample.value();
  EXPECT_EQ(request.container, container_uuid(1));
  EXPECT_EQ(request.owner, user_uuid(1));
  EXPECT_EQ(request.workflow, container_uuid(9));
  EXPECT_TRUE(request.is_committed);
  EXPECT_EQ(request.priority, 500);
  EXPECT_FALSE(request.is_service);
  EXPECT_EQ(request.problem, "");
  ASSERT_TRUE(request.published.contains(80));
  EXPECT_TRUE(request.published.at(80).is_public);
  ASSERT_TRUE(request.declaration);
  EXPECT_EQ(find(*request.declaration, "name")->text, "db");
}

TEST(AnswersTest, WhatAnAuthorWroteWrongIsThatRequestsProblemAlone) {
  const auto problem = [](SampleRequest sample) { return sample.value().problem; };
  EXPECT_EQ(problem({.published = R"({"0":{"access":"public","label":"","initial_path":""}})"}),
            "published_ports: \"0\" is not a port");
  EXPECT_EQ(problem({.published = R"({"80":{"access":"all","label":"","initial_path":""}})"}),
            "published_ports.80: access is neither public nor private");
  EXPECT_EQ(problem({.published = R"({"80":{"access":"public","label":7,"initial_path":""}})"}),
            "published_ports.80: label is not text");
  EXPECT_EQ(problem({.published = R"({"80":7})"}), "published_ports.80: is no record");
  const auto large = fmt::format(R"({{"meshd":{{"name":"{}"}}}})", std::string(70'000, 'a'));
  EXPECT_EQ(problem({.properties = large}), "properties.meshd: is larger than 64 KiB");
  EXPECT_EQ(problem({.priority = "null"}), "");
  EXPECT_EQ(problem({.service = "true"}), "");
}

TEST(AnswersTest, AnItemThatIsNoneMakesThePageNone) {
  const auto good = SampleRequest{}.json();
  EXPECT_EQ(fault_of(read_requests(items_reply(good + ",7"), false)), Fault::kAway);
  auto bad = good;
  bad.replace(bad.find("dz642"), 5, "xvhdp");
  EXPECT_EQ(fault_of(read_requests(items_reply(bad), false)), Fault::kAway);
  EXPECT_EQ(fault_of(read_requests(json_reply(R"({"items":{}})"), false)), Fault::kAway);
  EXPECT_EQ(fault_of(read_requests(json_reply("[]"), false)), Fault::kAway);
}

TEST(AnswersTest, ANumberThatNothingHoldsIsAReasonToAskForLess) {
  EXPECT_EQ(fault_of(read_requests(
                items_reply(SampleRequest{.properties = R"({"a":1e999})"}.json()), false)),
            Fault::kTooLarge);
  EXPECT_EQ(fault_of(read_requests(
                items_reply(SampleRequest{.priority = "99999999999999999999"}.json()), false)),
            Fault::kAway);
}

TEST(AnswersTest, ALinkThatSaysNothingUsefulStopsNoOther) {
  const auto link = [](std::string_view name, std::string_view head, std::string_view properties) {
    return fmt::format(
        R"({{"uuid":"{}","owner_uuid":"{}","name":{},"head_uuid":{},"properties":{}}})",
        uuid("o0j2j", 1), user_uuid(1), name, head, properties);
  };
  const auto head = '"' + request_uuid(1) + '"';
  const auto links = read_links(items_reply(link("\"ollama\"", head, R"({"port":11434})") + "," +
                                            link("null", head, R"({"port":80})") + "," +
                                            link("\"a\"", "null", R"({"port":80})") + "," +
                                            link("\"a\"", head, R"({"port":"80"})") + "," +
                                            link("\"a\"", head, R"({"port":65536})") + "," +
                                            link("\"a\"", head, "null")))
                         .value();
  ASSERT_EQ(links.size(), 6U);
  EXPECT_EQ(links[0].port, 11434);
  EXPECT_EQ(links[0].problem, "");
  EXPECT_EQ(links[1].name, "");
  EXPECT_EQ(links[2].problem, "head_uuid: is not a container request");
  for (std::size_t i = 3; i < 6; ++i) EXPECT_EQ(links[i].problem, "properties.port: is not a port");
}

TEST(JsonTest, DepthAndNumberOfValuesAreLimited) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(read_json(nested(kMaxDepth)));
  EXPECT_EQ(read_json(nested(kMaxDepth + 1)).error().code, ErrorCode::kExhausted);
  std::string many = "[1";
  for (std::size_t i = 0; i < kMaxNodes; ++i) many += ",1";
  EXPECT_EQ(read_json(many + "]").error().code, ErrorCode::kExhausted);
}

TEST(JsonTest, WhatIsNotJsonIsRefused) {
  for (const auto* text : {"", "{", "{}{}", "nul", "{\"a\":}", "{'a':1}", "[1,]", "\"\xff\"",
                           "\"\\ud800\"", "{\"a\":1,\"a\":2}", "NaN", "01"}) {
    const auto tree = read_json(text);
    ASSERT_FALSE(tree) << text;
    EXPECT_EQ(tree.error().code, ErrorCode::kInvalid) << text;
  }
}

TEST(JsonTest, TextsAreToldFromNumbersAndTruthValues) {
  const auto tree = read_json(R"({"a":"1","b":1,"c":true,"d":null,"e":[18446744073709551616]})");
  ASSERT_TRUE(tree);
  EXPECT_TRUE(find(*tree, "a")->quoted);
  EXPECT_FALSE(find(*tree, "b")->quoted);
  EXPECT_EQ(find(*tree, "c")->text, "true");
  EXPECT_EQ(find(*tree, "d")->kind, policy::YamlNode::Kind::kNull);
  EXPECT_EQ(find(*tree, "e")->items.front().text, "18446744073709551616");
  EXPECT_EQ(find(*tree, "f"), nullptr);
}

}  // namespace
}  // namespace meshd::arvados
