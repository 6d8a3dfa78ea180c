#include "pki/join_ticket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pki/secret.h"
#include "proto/controller.pb.h"
#include "tests/support/pki_samples.h"

namespace meshd::pki {
namespace {

JoinTicket sample() {
  static const SampleAuthority authority;
  return {.join_addresses = {"192.0.2.1:7401", "[2001:db8::1]:7401", "c1.example.org:7401"},
          .addresses = {"192.0.2.1:7400"},
          .authorities = {{authority.certificate}, "lab"},
          .token = "00112233.aabb"};
}

std::string why_not(std::string_view text) {
  const auto read = decode_ticket(text);
  return read ? "" : read.error().what;
}

TEST(JoinTicketTest, SurvivesTheWayThroughText) {
  const auto text = encode_ticket(sample());
  ASSERT_TRUE(text) << text.error().what;
  EXPECT_EQ(text->find_first_of(" \n"), std::string::npos);
  for (const auto& around : {*text, *text + "\n", " \r\n" + *text + "\t\n\n"}) {
    const auto read = decode_ticket(around);
    ASSERT_TRUE(read) << read.error().what;
    EXPECT_EQ(read->join_addresses, sample().join_addresses);
    EXPECT_EQ(read->addresses, sample().addresses);
    EXPECT_EQ(read->token, sample().token);
    EXPECT_EQ(read->authorities.cluster, "lab");
    EXPECT_EQ(read->authorities.certificates[0].der, sample().authorities.certificates[0].der);
  }
}

TEST(JoinTicketTest, WhatIsNoTicketIsRefused) {
  const auto text = encode_ticket(sample()).value();
  EXPECT_EQ(why_not(""), "join ticket: empty");
  EXPECT_EQ(why_not(" \n"), "join ticket: empty");
  EXPECT_EQ(why_not(text.substr(0, 40) + "\n" + text.substr(40)),
            "join ticket: not one line without blanks");
  EXPECT_EQ(why_not(text.substr(1)), "join ticket: not base64");
  EXPECT_EQ(why_not("-----BEGIN"), "join ticket: not base64");
  EXPECT_EQ(why_not(to_base64("\xff\xff\xff")), "join ticket: not what mesh-controller wrote");
  EXPECT_EQ(why_not(std::string(kMaxTicketBytes + 1, 'A')), "join ticket: too long");
}

TEST(JoinTicketTest, EveryPartIsChecked) {
  for (const auto& spoil : std::initializer_list<void (*)(mesh::v1::JoinTicket&)>{
           [](auto& t) { t.clear_join_addresses(); }, [](auto& t) { t.clear_addresses(); },
           [](auto& t) { t.clear_ca(); }, [](auto& t) { t.clear_token(); },
           [](auto& t) { t.set_addresses(0, "192.0.2.1"); },
           [](auto& t) { t.set_token("id.secret\n"); },
           [](auto& t) { t.set_token(std::string(kMaxTokenBytes + 1, 'a')); },
           [](auto& t) { t.set_ca("no certificate"); },
           [](auto& t) {
             for (std::size_t i = 0; i < kMaxTicketAddresses; ++i) t.add_addresses("a:1");
           }}) {
    mesh::v1::JoinTicket message;
    message.ParseFromString(parse_base64(encode_ticket(sample()).value()).value());
    spoil(message);
    EXPECT_NE(why_not(to_base64(message.SerializeAsString())), "");
  }
}

TEST(JoinTicketTest, NoTicketIsMadeThatCouldNotBeRead) {
  auto ticket = sample();
  ticket.token = "with blank";
  EXPECT_FALSE(encode_ticket(ticket));
  ticket = sample();
  ticket.authorities.certificates.clear();
  EXPECT_FALSE(encode_ticket(ticket));
  ticket = sample();
  ticket.addresses = {"http://c1:80"};
  EXPECT_FALSE(encode_ticket(ticket));
}

TEST(JoinTicketTest, EndpointsCanBeConnectedTo) {
  for (const std::string_view text : {"a:1", "10.0.0.1:65535", "[::1]:7400", "c1.example:80"}) {
    EXPECT_EQ(endpoint_problem(text), "") << text;
  }
  for (const std::string_view text :
       {"",        ":",     ":1",        "a",    "a:",     "a:0",
        "a:65536", "a:-1",  "a:+1",      "a: 1", "::1:80", "[10.0.0.1]:80",
        "[::1]",   "[]:80", "10.0.1:80", "1:80", "a/b:80", "unix:/run/x:1",
        "A:1",     "a..b:1"}) {
    EXPECT_NE(endpoint_problem(text), "") << text;
  }
  EXPECT_NE(endpoint_problem(std::string(300, 'a') + ":1"), "");
}

}  // namespace
}  // namespace meshd::pki
