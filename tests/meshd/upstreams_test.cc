#include "meshd/upstreams.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ResolvConfTest : public testing::Test {
 protected:
  HostUpstreams read(std::string_view text, std::string_view behind = {}) {
    std::ofstream(path_) << text;
    if (!behind.empty()) std::ofstream(resolved_) << behind;
    auto result = read_resolv_conf(own_, path_, resolved_);
    EXPECT_TRUE(result) << result.error().what;
    return result ? *result : HostUpstreams();
  }
  static std::vector<std::string> texts(const HostUpstreams& from) {
    std::vector<std::string> result;
    for (const auto& server : from.servers) result.push_back(server.to_string());
    return result;
  }

  TempDir temp_;
  const std::string path_ = temp_ / "resolv.conf", resolved_ = temp_ / "resolved.conf";
  const std::vector<IpAddress> own_ = {IpAddress::parse("169.254.1.1").value()};
};

TEST_F(ResolvConfTest, ServersInTheirOrder) {
  const auto got = read(
      "# nameserver 192.0.2.9\n; nameserver 192.0.2.9\nsearch example.org\n"
      "nameserver 192.0.2.1\nnameserver\t2001:db8::1 # trailing\r\nnameserver 192.0.2.1\n"
      "options ndots:1\nnameserver 127.0.0.1");
  EXPECT_THAT(texts(got), ElementsAre("192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.1:53"));
  EXPECT_THAT(got.skipped, IsEmpty());
  EXPECT_EQ(got.source, path_);
}

TEST_F(ResolvConfTest, BehindTheStubTheRealServersAreFound) {
  const auto got = read("nameserver 127.0.0.53\noptions edns0 trust-ad\n",
                        "nameserver 192.0.2.1\nnameserver 192.0.2.2\n");
  EXPECT_THAT(texts(got), ElementsAre("192.0.2.1:53", "192.0.2.2:53"));
  EXPECT_EQ(got.source, resolved_);
  EXPECT_THAT(got.skipped, ElementsAre("127.0.0.53: systemd-resolved's stub"));
}

TEST_F(ResolvConfTest, StubBesideARealServerIsLeftOut) {
  const auto got = read("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "nameserver 192.0.2.2\n");
  EXPECT_THAT(texts(got), ElementsAre("192.0.2.1:53"));
}

TEST_F(ResolvConfTest, StubWithNothingBehindItLeavesNobody) {
  EXPECT_THAT(texts(read("nameserver 127.0.0.54\n")), IsEmpty());
  EXPECT_THAT(texts(read("nameserver 127.0.0.53\n", "nameserver 127.0.0.53\n")), IsEmpty());
}

TEST_F(ResolvConfTest, WithoutAStubTheOtherFileIsNotRead) {
  EXPECT_THAT(texts(read("search example.org\n", "nameserver 192.0.2.2\n")), IsEmpty());
}

TEST_F(ResolvConfTest, WhatCannotBeAskedIsSkippedAndSaid) {
  const auto got = read(
      "nameserver fe80::1%eth0\nnameserver fe80::1\nnameserver 169.254.1.1\nnameserver nonsense\n"
      "nameserver\nnameserver \nnameserverx 192.0.2.3\nnameserver 0.0.0.0\n");
  EXPECT_THAT(texts(got), IsEmpty());
  ASSERT_EQ(got.skipped.size(), 5U);
  EXPECT_EQ(got.skipped[2], "169.254.1.1: our own address");
}

TEST_F(ResolvConfTest, MissingFileIsNoErrorAndAHugeOneIs) {
  const auto missing = read_resolv_conf(own_, temp_ / "none", temp_ / "none");
  ASSERT_TRUE(missing);
  EXPECT_THAT(missing->servers, IsEmpty());
  std::ofstream(path_) << std::string(kMaxResolvConfBytes + 1, '\n');
  const auto huge = read_resolv_conf(own_, path_, resolved_);
  ASSERT_FALSE(huge);
  EXPECT_THAT(huge.error().what, HasSubstr("more than"));
  EXPECT_FALSE(read_resolv_conf(own_, temp_.path(), resolved_));
}

TEST_F(ResolvConfTest, ManyServersAreBounded) {
  std::string text;
  for (int i = 1; i < 200; ++i) text += fmt::format("nameserver 192.0.2.{}\n", i);
  const auto got = read(text);
  EXPECT_EQ(got.servers.size(), kMaxUpstreams);
  EXPECT_EQ(got.skipped.size(), kMaxUpstreams);
}

TEST(UpstreamTest, TextFormsAreTakenAndGivenBack) {
  for (const auto* text : {"192.0.2.1:53", "192.0.2.1:5353", "[2001:db8::1]:53", "[::1]:5353"}) {
    const auto upstream = parse_upstream(text);
    ASSERT_TRUE(upstream) << text;
    EXPECT_EQ(upstream->to_string(), text);
  }
  EXPECT_EQ(parse_upstream("[2001:db8::1]")->port, 53);
}

TEST(UpstreamTest, OtherTextsAreRefused) {
  for (const auto* text : {"",
                           ":",
                           ":53",
                           "[",
                           "[]",
                           "[]:53",
                           "[::1",
                           "[::1]53",
                           "[::1]:",
                           "::1]:53",
                           "[192.0.2.1]:53",
                           "192.0.2.1:",
                           "192.0.2.1:65536",
                           "192.0.2.1:-1",
                           "192.0.2.1:53 ",
                           "192.0.2",
                           "host",
                           "fe80::1%eth0",
                           "::",
                           "ff02::1"}) {
    EXPECT_FALSE(parse_upstream(text)) << text;
  }
}

}  // namespace
}  // namespace meshd
