// JSON goes in and comes out as it was.
#include "engines/json.h"

#include <gtest/gtest.h>

#include "engines/limits.h"

namespace meshd::engines {
namespace {

TEST(JsonTest, WhatIsReadIsWrittenBackAsItWas) {
  for (const std::string text :
       {R"({"b":1,"a":[true,false,null,-7,1.50,18446744073709551615,"x"],"c":{}})",
        R"({"path":"/tmp/\"x\"\\y","line":"a\u000ab"})", R"("äöü")", "[]", "12"}) {
    const auto json = read_json(text);
    ASSERT_TRUE(json) << text;
    EXPECT_EQ(render(*json), text);
  }
}

TEST(JsonTest, WhatIsNotJsonIsRefused) {
  for (const auto* text : {"", "{", "{\"a\":}", "nul", "{} {}", "\"\x80\"", "{'a':1}", "[1,]"}) {
    const auto json = read_json(text);
    ASSERT_FALSE(json) << text;
    EXPECT_EQ(json.error().code, ErrorCode::kInvalid);
  }
}

TEST(JsonTest, AKeyTwiceIsRefused) {
  EXPECT_FALSE(read_json(R"({"id":"a","id":"b"})"));
  EXPECT_TRUE(read_json(R"({"id":"a","in":{"id":"b"}})"));
}

TEST(JsonTest, DepthIsLimited) {
  const std::string opened(kMaxDepth, '['), closed(kMaxDepth, ']');
  EXPECT_TRUE(read_json(opened + closed));
  EXPECT_EQ(read_json("[" + opened + closed + "]").error().code, ErrorCode::kExhausted);
}

TEST(JsonTest, CountOfValuesIsLimited) {
  std::string text = "[0";
  for (std::size_t i = 0; i < kMaxValues; ++i) text += ",0";
  EXPECT_EQ(read_json(text + "]").error().code, ErrorCode::kExhausted);
}

TEST(JsonTest, KeysAreFoundInAnyCaseWhereEnginesDiffer) {
  const auto json = read_json(R"({"HostPort":1,"hostport":2,"Servers":["x"]})").value();
  EXPECT_EQ(json.find_any_case("hostport")->text, "2");
  EXPECT_EQ(json.find_any_case("servers")->items.size(), 1U);
  EXPECT_EQ(json.find("servers"), nullptr);
  EXPECT_EQ(Json::string("x").find("x"), nullptr);
}

TEST(JsonTest, SetReplacesOrAppends) {
  auto json = read_json(R"({"a":1,"b":2})").value();
  json.set("a", Json::string("x"));
  json.set("c", Json::number(-3));
  EXPECT_EQ(render(json), R"({"a":"x","b":2,"c":-3})");
}

}  // namespace
}  // namespace meshd::engines
