// What is sent to the kernel, message by message, as libnftnl reads it, and the bytes of those
// that libnftnl does not print whole. No socket, no privilege.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "meshd/lower_ruleset.h"
#include "meshd/table_repair.h"
#include "netlink/attributes.h"
#include "netlink/nft_batch.h"
#include "policy/base_table.h"
#include "policy/plan.h"
#include "tests/support/golden.h"
#include "tests/support/golden_node.h"
#include "tests/support/node_script.h"

extern "C" {
#include <libnftnl/chain.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
}

namespace meshd {
namespace {

using netlink::MessageView;

// What a golden file is compared with on another machine must not hang on its byte order.
static_assert(std::endian::native == std::endian::little, "libnftnl prints registers as numbers");

// libnftnl's lines end in spaces, here and there, and some are set in by a tab.
std::string indented(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    line.remove_suffix(line.size() - (line.find_last_not_of(' ') + 1));
    if (!line.empty()) result += fmt::format("  {}\n", line);
  }
  return result;
}

// One kind of object: how libnftnl reads and prints it.
template <class T>
std::string object_text(const MessageView& view, T* (*alloc)(), void (*free)(const T*),
                        int (*parse)(const nlmsghdr*, T*),
                        int (*print)(char*, std::size_t, const T*, std::uint32_t, std::uint32_t)) {
  const std::unique_ptr<T, void (*)(const T*)> object(alloc(), free);
  const auto* header = reinterpret_cast<const nlmsghdr*>(view.whole.data());
  if (parse(header, object.get()) < 0) return "  cannot be read by libnftnl\n";
  std::vector<char> text(65'536);
  const int length = print(text.data(), text.size(), object.get(), NFTNL_OUTPUT_DEFAULT, 0);
  if (length < 0 || static_cast<std::size_t>(length) >= text.size()) return "  too long to print\n";
  return indented(text.data());
}

std::string libnftnl_text(const MessageView& view) {
  switch (view.type & 0xff) {
    case NFT_MSG_NEWTABLE:
      return object_text(view, nftnl_table_alloc, nftnl_table_free, nftnl_table_nlmsg_parse,
                         nftnl_table_snprintf);
    case NFT_MSG_NEWCHAIN:
      return object_text(view, nftnl_chain_alloc, nftnl_chain_free, nftnl_chain_nlmsg_parse,
                         nftnl_chain_snprintf);
    case NFT_MSG_NEWRULE:
      return object_text(view, nftnl_rule_alloc, nftnl_rule_free, nftnl_rule_nlmsg_parse,
                         nftnl_rule_snprintf);
    case NFT_MSG_NEWSET:
      return object_text(view, nftnl_set_alloc, nftnl_set_free, nftnl_set_nlmsg_parse,
                         nftnl_set_snprintf);
    case NFT_MSG_NEWSETELEM:
    case NFT_MSG_DELSETELEM:
      return object_text(view, nftnl_set_alloc, nftnl_set_free, nftnl_set_elems_nlmsg_parse,
                         nftnl_set_snprintf);
    case NFT_MSG_NEWOBJ:
      return object_text(view, nftnl_obj_alloc, nftnl_obj_free, nftnl_obj_nlmsg_parse,
                         nftnl_obj_snprintf);
    default:
      return "  of no kind that is expected here\n";
  }
}

std::string kind_text(const MessageView& view) {
  if (view.type == NFNL_MSG_BATCH_BEGIN) return "BATCH_BEGIN";
  if (view.type == NFNL_MSG_BATCH_END) return "BATCH_END";
  static const std::vector<std::pair<int, std::string_view>> kKinds = {
      {NFT_MSG_NEWTABLE, "NEWTABLE"},     {NFT_MSG_NEWCHAIN, "NEWCHAIN"},
      {NFT_MSG_NEWRULE, "NEWRULE"},       {NFT_MSG_NEWSET, "NEWSET"},
      {NFT_MSG_NEWSETELEM, "NEWSETELEM"}, {NFT_MSG_DELSETELEM, "DELSETELEM"},
      {NFT_MSG_NEWOBJ, "NEWOBJ"},
  };
  for (const auto& [number, name] : kKinds) {
    if (view.type == (NFNL_SUBSYS_NFTABLES << 8 | number)) return std::string(name);
  }
  return fmt::format("type {:#x}", view.type);
}

std::string flags_text(const MessageView& view) {
  std::string text;
  constexpr std::array<std::pair<int, std::string_view>, 5> kFlags = {{{NLM_F_REQUEST, "request"},
                                                                       {NLM_F_ACK, "ack"},
                                                                       {NLM_F_CREATE, "create"},
                                                                       {NLM_F_APPEND, "append"},
                                                                       {NLM_F_EXCL, "excl"}}};
  for (const auto& [bit, name] : kFlags) {
    if ((view.flags & bit) != 0) text += fmt::format(" {}", name);
  }
  return text;
}

// 32 bytes a line, in groups of 4: attributes are aligned to that.
std::string hex_text(netlink::AttributeBytes bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i % 32 == 0) text += i == 0 ? "  |" : "\n  |";
    if (i % 4 == 0) text += ' ';
    text += fmt::format("{:02x}", std::to_integer<unsigned>(bytes[i]));
  }
  return text + "\n";
}

std::string batch_text(const netlink::NftBatch& batch) {
  std::string text;
  netlink::for_each_message(batch.bytes(), [&](const MessageView& view) {
    text += fmt::format("#{} {}{}\n", view.sequence, kind_text(view), flags_text(view));
    const bool ours = view.type >> 8 == NFNL_SUBSYS_NFTABLES;
    const auto object = ours ? libnftnl_text(view) : std::string();
    text += object;
    // What libnftnl does not print: user data and component lengths of sets, the padding of
    // elements, the number of a set that is written in a rule.
    const int kind = view.type & 0xff;
    const bool whole = ours && kind != NFT_MSG_NEWSET && kind != NFT_MSG_NEWSETELEM &&
                       kind != NFT_MSG_DELSETELEM && object.find("__set%d") == std::string::npos;
    if (!whole) text += hex_text(view.payload);
  });
  return text;
}

TEST(BatchTest, WholeTable) {
  const auto settings = golden_settings("config", "");
  ASSERT_TRUE(settings) << settings.error().what;
  policy::World world;
  world.settings = *settings;
  policy::Compiler compiler;
  [[maybe_unused]] const auto delta = compiler.rebuild(world);
  netlink::NftBatch batch{std::string(policy::kTableName)};
  const auto differed =
      put_repair(batch, policy::base_table(*settings, {}), compiler.elements(), 0, nullptr);
  ASSERT_TRUE(differed) << differed.error().what;
  expect_golden("tests/golden/batch/want.table", batch_text(batch));
}

class BatchDeltaTest : public NodeScript {};

TEST_F(BatchDeltaTest, OneChangeAfterAnother) {
  const auto settings = golden_settings("config", "publish: {allow_from: [198.51.100.0/24]}");
  ASSERT_TRUE(settings) << settings.error().what;
  settings_ = *settings;
  restart();
  std::string text;
  kernel_.on_commit = [&](const policy::Delta& delta) {
    netlink::NftBatch batch{std::string(policy::kTableName)};
    const auto put = put_delta(batch, delta);
    text += put ? batch_text(batch) : put.error().what;
  };
  const auto lines = read_script("story", R"(
apply
  workloads:
  - id: db
    owner: ada
    workflow: w
    name: db
    serves: [{port: 5432}, {port: 8000, end_port: 8015}]
  - {id: worker, owner: ada, workflow: w, peers: [{name: db, ports: [{port: 5432}]}]}
  - id: web
    owner: ada
    workflow: w
    publish: [{port: 80}]
    egress: [{cidr: 10.0.0.0/8, ports: [{port: 443}]}]
attach worker
attach web
attach db
listens db 5432
detach worker
)");
  ASSERT_TRUE(lines);
  for (const auto& line : *lines) {
    text += fmt::format("== {}\n", line.text.substr(0, line.text.find('\n')));
    const auto happened = happen(line);
    ASSERT_TRUE(happened) << happened.error().what;
  }
  expect_golden("tests/golden/batch/want.delta", text);
}

}  // namespace
}  // namespace meshd
