// What a controller may send, and what is refused with which words.
#include "meshd/slice.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/from_proto.h"
#include "policy/slice_hash.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using Kind = mesh::v1::SliceKey::Kind;

class SliceTest : public testing::Test {
 protected:
  SliceTest() {
    mesh::v1::Welcome welcome;
    welcome.set_cluster("test");
    welcome.set_zone("mesh.internal");
    welcome.set_pool4("10.213.0.0/16");
    welcome.set_vip4("10.214.0.0/16");
    welcome.set_block4("10.213.7.0/24");
    welcome_ = welcome;
    terms_ = read_terms(welcome).value();
    change_.set_revision(3);
  }

  template <class Message>
  mesh::v1::SliceItem& add(Kind::Value kind, const std::string& key, const Message& message) {
    auto& item = *change_.add_items();
    item.mutable_key()->set_kind(kind);
    item.mutable_key()->set_key(key);
    item.set_value(message.SerializeAsString());
    return item;
  }
  static mesh::v1::SliceWorkload workload(const std::string& id, const std::string& address = "",
                                          const std::string& node = "n2") {
    mesh::v1::SliceWorkload message;
    message.mutable_declaration()->set_id(id);
    message.mutable_declaration()->set_owner("ada");
    if (!address.empty()) {
      message.set_node(node);
      message.add_addresses(address);
    }
    return message;
  }
  void add_workload(const mesh::v1::SliceWorkload& message) {
    add(Kind::WORKLOAD, message.declaration().id(), message);
  }
  [[nodiscard]] Result<SliceUpdate> read() const {
    return SliceReader{terms_, node_, now_}.change(change_);
  }
  [[nodiscard]] std::string refusal() {
    const auto update = read();
    change_.clear_items();
    change_.clear_gone();
    change_.clear_confirmed();
    return update ? "taken" : update.error().what;
  }
  [[nodiscard]] std::string terms_refusal() const {
    const auto terms = read_terms(welcome_);
    return terms ? "taken" : terms.error().what;
  }

  mesh::v1::Welcome welcome_;
  ClusterTerms terms_;
  const std::string node_ = "n1";
  const TimePoint now_{1000s};
  mesh::v1::SliceChange change_;
};

TEST_F(SliceTest, EveryKindOfItemBecomesAValue) {
  auto own = workload("mine");
  own.set_own(true);
  own.mutable_declaration()->add_publish()->set_port(80);
  own.add_opened(8888);
  own.set_drained(true);
  add_workload(own);
  auto far = workload("far", "10.213.9.1");
  far.set_ready(true);
  auto& port = *far.add_ready_ports();
  port.set_port(80);
  port.set_v4(true);
  add_workload(far);
  mesh::v1::SliceService service;
  service.set_owner("ada");
  service.add_vips("10.214.0.5");
  add(Kind::SERVICE, "r1/db", service).set_declared_ago_ms(2000);
  mesh::v1::SliceNode node;
  node.add_blocks("10.213.9.0/24");
  node.add_underlay("192.0.2.9");
  add(Kind::NODE, "n2", node);
  const auto update = read();
  ASSERT_TRUE(update) << update.error().what;
  EXPECT_EQ(update->own.at("mine").declaration.publish.size(), 1U);
  EXPECT_THAT(update->own.at("mine").opened, ElementsAre(8888));
  EXPECT_TRUE(update->own.at("mine").drained);
  EXPECT_EQ(update->others.at("far").remote->node, "n2");
  EXPECT_TRUE(update->others.at("far").tcp_ready.at(80).v4);
  const policy::ServiceKey key{policy::Scope::kWorkflow, "r1", "db"};
  EXPECT_EQ(update->services.at(key).declared_at, now_ - 2s);
  EXPECT_EQ(update->services.at(key).endpoint_lost_at, TimePoint());
  EXPECT_EQ(update->nodes.at("n2").blocks.size(), 1U);
  EXPECT_EQ(slice_hash(update->bytes),
            policy::slice_item_hash(0, "mine", own.SerializeAsString()) +
                policy::slice_item_hash(0, "far", far.SerializeAsString()) +
                policy::slice_item_hash(1, "r1/db", service.SerializeAsString()) +
                policy::slice_item_hash(2, "n2", node.SerializeAsString()));
}

TEST_F(SliceTest, AnItemOfALaterKindIsKeptAndMeansNothing) {
  add(static_cast<Kind::Value>(9), "x", mesh::v1::SliceNode());
  const auto update = read();
  ASSERT_TRUE(update) << update.error().what;
  EXPECT_THAT(update->bytes, ElementsAre(Pair(SliceKey{9, "x"}, "")));
  EXPECT_THAT(update->others, IsEmpty());
}

TEST_F(SliceTest, WhatCannotBeTrueHereIsRefused) {
  const auto refused = [&](const mesh::v1::SliceWorkload& message) {
    add_workload(message);
    return refusal();
  };
  EXPECT_EQ(refused(workload("far", "10.213.7.1")),
            "WORKLOAD far: addresses: 10.213.7.1 is of this node's own block");
  EXPECT_EQ(refused(workload("far", "192.0.2.1")),
            "WORKLOAD far: addresses[0]: 192.0.2.1 is not in 10.213.0.0/16");
  EXPECT_THAT(refused(workload("far", "fd00::1")), HasSubstr("does not have that family"));
  EXPECT_THAT(refused(workload("far", "10.213.9.1", "n1")), HasSubstr("node: is this node"));
  auto two = workload("far", "10.213.9.1");
  two.add_addresses("10.213.9.2");
  EXPECT_THAT(refused(two), HasSubstr("addresses[1]: a second one of its family"));
  auto nowhere = workload("far", "10.213.9.1");
  nowhere.clear_node();
  EXPECT_THAT(refused(nowhere), HasSubstr("node: is missing"));
  EXPECT_THAT(refused(workload("BAD")), HasSubstr("id: "));
  add(Kind::WORKLOAD, "other", workload("far"));
  EXPECT_THAT(refusal(), HasSubstr("declaration.id: \"far\" is not the key"));
  auto port = workload("far", "10.213.9.1");
  port.add_ready_ports()->set_port(65536);
  EXPECT_THAT(refused(port), HasSubstr("ready_ports: must be 1 to 65535"));
}

TEST_F(SliceTest, ServicesAndNodesAreChecked) {
  mesh::v1::SliceService service;
  service.set_owner("ada");
  service.add_vips("10.213.0.5");
  add(Kind::SERVICE, "db", service);
  EXPECT_EQ(refusal(), "SERVICE db: vips[0]: 10.213.0.5 is not in 10.214.0.0/16");
  add(Kind::SERVICE, "r1/", mesh::v1::SliceService());
  EXPECT_THAT(refusal(), HasSubstr("SERVICE r1/: name: "));
  add(Kind::SERVICE, "db", mesh::v1::SliceService());
  EXPECT_EQ(refusal(), "SERVICE db: owner: \"\" is missing");
  mesh::v1::SliceNode node;
  node.add_blocks("10.213.7.128/25");
  add(Kind::NODE, "n2", node);
  EXPECT_EQ(refusal(), "NODE n2: blocks[0]: 10.213.7.128/25 overlaps this node's 10.213.7.0/24");
  node.set_blocks(0, "10.0.0.0/8");
  add(Kind::NODE, "n2", node);
  EXPECT_THAT(refusal(), HasSubstr("is not in the cluster's pool"));
  node.clear_blocks();
  node.add_underlay("10.213.9.1");
  add(Kind::NODE, "n2", node);
  EXPECT_THAT(refusal(), HasSubstr("underlay[0]: 10.213.9.1 is a container's"));
  add(Kind::NODE, "n1", mesh::v1::SliceNode());
  EXPECT_THAT(refusal(), HasSubstr("name: is this node's own"));
}

TEST_F(SliceTest, NothingIsNamedTwice) {
  add_workload(workload("far"));
  add_workload(workload("far"));
  EXPECT_EQ(refusal(), "WORKLOAD far: key: is named twice");
  add_workload(workload("far"));
  change_.add_gone()->set_key("far");
  EXPECT_EQ(refusal(), "WORKLOAD far: key: is named twice");
}

TEST_F(SliceTest, TenThousandServicesAreTooManyForOneMessage) {
  for (int i = 0; i < 10'000; ++i) {
    auto& key = *change_.add_items()->mutable_key();
    key.set_kind(Kind::SERVICE);
    key.set_key(fmt::format("s{}", i));
  }
  EXPECT_THAT(refusal(), HasSubstr("items: has 10000 entries"));
}

TEST_F(SliceTest, BytesThatAreNoMessageAreRefused) {
  auto& item = *change_.add_items();
  item.mutable_key()->set_key("far");
  item.set_value("\xff\xff");
  EXPECT_EQ(refusal(), "WORKLOAD far: value: is no workload");
  change_.add_items()->mutable_key()->set_key("\n");
  EXPECT_EQ(refusal(), "WORKLOAD \"\\x0a\": key: is no name");
}

TEST_F(SliceTest, AConfirmationIsForTwoAddresses) {
  auto& said = *change_.add_confirmed();
  said.set_consumer("a");
  said.set_provider("b");
  said.add_from("10.213.7.1");
  said.add_to("10.213.9.1");
  said.add_ports()->set_port(81);
  said.add_ports()->set_port(80);
  const auto update = read();
  ASSERT_TRUE(update) << update.error().what;
  const auto& taken = update->confirmed.at("a").at("b");
  EXPECT_EQ(taken.to4, IpAddress::parse("10.213.9.1").value());
  EXPECT_THAT(taken.ranges, ElementsAre(policy::PortRange{Proto::kTcp, 80, 81}));
  change_.mutable_confirmed(0)->add_ports()->set_port(0);
  EXPECT_EQ(refusal(), "confirmation \"a\" -> \"b\": ports[2]: 0-0 is no range of ports");
}

TEST_F(SliceTest, TermsThatDoNotFitTogetherAreRefused) {
  EXPECT_EQ(terms_refusal(), "taken");
  welcome_.set_block4("10.9.0.0/24");
  EXPECT_EQ(terms_refusal(), "welcome: block4: 10.9.0.0/24 is not in 10.213.0.0/16");
  welcome_.set_block4("");
  EXPECT_EQ(terms_refusal(), "welcome: block4: the node has no share of the pool");
  welcome_.set_block4("10.213.7.0/24");
  welcome_.set_vip4("10.213.8.0/24");
  EXPECT_THAT(terms_refusal(), HasSubstr("vip4: 10.213.8.0/24 overlaps"));
  welcome_.set_vip4("fd00::/64");
  EXPECT_THAT(terms_refusal(), HasSubstr("is of the other family"));
  welcome_.set_zone("x");
  EXPECT_THAT(terms_refusal(), HasSubstr("welcome: zone: \"x\" must have"));
}

TEST_F(SliceTest, ProxiesArePrefixesAndTheirOrderMeansNothing) {
  welcome_.add_proxies("2001:db8::/64");
  welcome_.add_proxies("192.0.2.8");
  const auto terms = read_terms(welcome_).value();
  welcome_.mutable_proxies()->SwapElements(0, 1);
  EXPECT_EQ(read_terms(welcome_).value(), terms);
  EXPECT_NE(terms, terms_);
  welcome_.add_proxies("everybody");
  EXPECT_THAT(terms_refusal(), HasSubstr("welcome: proxies[2]: "));
}

TEST_F(SliceTest, WhatIsOpenedIsAPort) {
  auto own = workload("mine");
  own.set_own(true);
  own.add_opened(65536);
  add_workload(own);
  EXPECT_EQ(refusal(), "WORKLOAD mine: opened: must be 1 to 65535, not 65536");
  own.clear_opened();
  for (int i = 0; i <= kMaxOpened; ++i) own.add_opened(8888);
  add_workload(own);
  EXPECT_THAT(refusal(), HasSubstr("opened: has 257 entries"));
}

TEST_F(SliceTest, AnOutsidePortIsReadWholeOrNotAtAll) {
  welcome_.set_gateway_ports("30000-32767");
  terms_ = read_terms(welcome_).value();
  mesh::v1::SliceOutside good;
  good.set_id("db");
  good.set_port(5432);
  good.add_node_addresses("192.0.2.2");
  good.add_node_addresses("2001:db8::2");
  good.set_node_port(20000);
  good.add_allow_from("198.51.100.0/24");
  add(Kind::OUTSIDE, "udp-30000", good);
  const auto update = read();
  ASSERT_TRUE(update) << update.error().what;
  const auto& outside = update->outside.at({Proto::kUdp, 30000});
  EXPECT_EQ(outside.id, "db");
  EXPECT_EQ(outside.v6->to_string(), "2001:db8::2");
  EXPECT_EQ(outside.node_port, 20000);
  EXPECT_THAT(outside.allow_from, ElementsAre(Prefix::parse("198.51.100.0/24").value()));
  change_.clear_items();

  const auto refused = [&](const std::string& key, auto change) {
    auto item = good;
    change(item);
    add(Kind::OUTSIDE, key, item);
    return refusal();
  };
  const auto as_it_is = [](auto&) {};
  EXPECT_EQ(refused("tcp-22", as_it_is), "OUTSIDE tcp-22: key: is not in 30000-32767");
  EXPECT_EQ(refused("icmp-30000", as_it_is), "OUTSIDE icmp-30000: key: is no outside port");
  EXPECT_THAT(refused("tcp-30000", [](auto& item) { item.set_id(""); }), HasSubstr(": id: "));
  EXPECT_THAT(refused("tcp-30000", [](auto& item) { item.set_port(0); }), HasSubstr(": port: "));
  EXPECT_THAT(refused("tcp-30000", [](auto& item) { item.set_node_port(65536); }),
              HasSubstr(": node_port: "));
  EXPECT_THAT(refused("tcp-30000", [](auto& item) { item.set_node_addresses(0, "10.213.0.1"); }),
              HasSubstr("node_addresses[0]: 10.213.0.1 is a container's"));
  EXPECT_THAT(refused("tcp-30000", [](auto& item) { item.set_node_addresses(1, "192.0.2.3"); }),
              HasSubstr("node_addresses[1]: a second one of its family"));
  EXPECT_THAT(refused("tcp-30000", [](auto& item) { item.set_allow_from(0, "all"); }),
              HasSubstr("allow_from[0]: "));
}

TEST_F(SliceTest, WhereNoPortsAreGatewaysThereAreNoOutsidePorts) {
  mesh::v1::SliceOutside item;
  add(Kind::OUTSIDE, "tcp-30000", item);
  EXPECT_EQ(refusal(), "OUTSIDE tcp-30000: key: is not in 0-0");
  welcome_.set_gateway_ports("80-90");
  EXPECT_THAT(terms_refusal(), HasSubstr("welcome: gateway_ports: "));
}

}  // namespace
}  // namespace meshd
