// The constant part of the node's table as text, with the elements that follow from its
// configuration alone; and what of it depends on the configuration, as a difference.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "policy/base_table.h"
#include "policy/plan.h"
#include "policy/render.h"
#include "tests/support/golden.h"
#include "tests/support/golden_node.h"

namespace meshd {
namespace {

std::string text_of(const policy::World& world, const policy::TableOptions& options) {
  policy::Compiler compiler;
  [[maybe_unused]] const auto delta = compiler.rebuild(world);
  return policy::render(policy::base_table(world.settings, options), compiler.elements());
}

std::string table_text(std::string_view config, const policy::TableOptions& options = {}) {
  const auto settings = golden_settings("config", config);
  EXPECT_TRUE(settings) << settings.error().what;
  if (!settings) return {};
  policy::World world;
  world.settings = *settings;
  return text_of(world, options);
}

// Of a node that knows two others, by their blocks and the addresses of themselves.
std::string cluster_text(std::string_view trunk, bool is_tunnel, bool is_gateway = false) {
  policy::World world;
  world.settings = golden_settings("config", "").value();
  world.settings.in_cluster = true;
  world.settings.trunks = {std::string(trunk)};
  if (is_tunnel) world.settings.tunnel = trunk;
  const auto ip = [](std::string_view text) { return IpAddress::parse(text).value(); };
  const auto prefix = [](std::string_view text) { return Prefix::parse(text).value(); };
  world.nodes["n2"] = {"n2",
                       {prefix("10.213.16.0/20"), prefix("fd00:0:0:1:2::/80")},
                       {ip("192.0.2.2"), ip("2001:db8::2")}};
  world.settings.gateway = is_gateway;
  if (is_gateway) {
    world.outside[{Proto::kTcp, 30000}] = {
        "db", 5432, ip("192.0.2.2"), ip("2001:db8::2"), 20000, {prefix("198.51.100.0/24")}};
  }
  world.nodes["n3"] = {"n3", {prefix("10.213.32.0/20")}, {ip("192.0.2.3")}};
  return text_of(world, {});
}

TEST(TableTest, IsAsWanted) { expect_golden("tests/golden/table/want.nft", table_text("")); }

TEST(TableTest, ConfigurationChangesWhatItShould) {
  const auto usual = table_text("");
  std::string text;
  const auto add = [&](std::string_view title, const std::string& table) {
    text += fmt::format("{}\n{}\n", title, line_diff(usual, table));
  };
  add("IPv4 was not forwarded before us", table_text("", {.forwarding4_was_off = true}));
  add("IPv6 was not forwarded before us", table_text("", {.forwarding6_was_off = true}));
  add("another log group", table_text("", {.log_group = 5}));
  add("pool: {ipv6: off}", table_text("pool: {ipv6: off}"));
  add("pool: {ipv4: off}", table_text("pool: {ipv4: off}"));
  add("dns: {client_rate: 50}", table_text("dns: {client_rate: 50}"));
  add("node: {allow_users: [daemon]}", table_text("node: {allow_users: [daemon]}"));
  add("a cluster whose nodes route each other's blocks", cluster_text("eth0", false));
  text += fmt::format("such a cluster, with a tunnel\n{}\n",
                      line_diff(cluster_text("eth0", false), cluster_text("mesh0", true)));
  text += fmt::format("such a cluster, and the node is a gateway\n{}\n",
                      line_diff(cluster_text("eth0", false), cluster_text("eth0", false, true)));
  expect_golden("tests/golden/table/want.variants", text);
}

}  // namespace
}  // namespace meshd
