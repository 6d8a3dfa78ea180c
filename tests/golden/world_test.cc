// From declarations to what a node makes of them. Each folder with a world.yaml is a case:
//
//   config:     the node's configuration, as in meshd.yaml; absent: the defaults
//   workloads:  declarations, as `meshctl apply` reads them
//   happened:   what happens then, in the words of tests/support/node_script.h
//
// and what is wanted of it:
//
//   want.nft     elements in the kernel, set by set; those that follow from the configuration
//                alone stand in table/want.nft, and here only where the case has a config
//   want.names   what each container is answered for every name there is
//   want.report  what `meshctl list` says, an object a line as its JSON has it
#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "meshd/report.h"
#include "policy/name.h"
#include "policy/read_yaml.h"
#include "policy/truth.h"
#include "tests/support/golden.h"
#include "tests/support/golden_node.h"
#include "tests/support/node_script.h"
#include "tests/support/text_file.h"

namespace meshd {
namespace {

constexpr const char* kFolder = "tests/golden";

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& name : names_in(kFolder)) {
    if (names_in(fmt::format("{}/{}", kFolder, name)).contains("world.yaml")) {
      names.push_back(name);
    }
  }
  return names;
}

// The sections of world.yaml, each as text in which the others are empty lines: whoever
// reads one names the right line.
struct World {
  std::string file, config, workloads;
  std::vector<ScriptLine> happened;
};

Result<World> read_world(const std::string& file, const std::string& text) {
  World world{file, {}, {}, {}};
  const auto tree = TRY(policy::read_yaml(file, text));
  const auto section = [&](std::size_t index, bool with_key) {
    const int first = tree.keys[index].line + (with_key ? 0 : 1);
    const int end = index + 1 < tree.keys.size() ? tree.keys[index + 1].line : 1'000'000;
    std::string result;
    int number = 1;
    for (std::size_t at = 0; at < text.size(); ++number) {
      const auto next = std::min(text.find('\n', at), text.size() - 1) + 1;
      result += number >= first && number < end ? text.substr(at, next - at) : "\n";
      at = next;
    }
    return result;
  };
  for (std::size_t i = 0; i < tree.keys.size(); ++i) {
    const auto& key = tree.keys[i];
    if (key.text == "config") {
      world.config = section(i, false);
    } else if (key.text == "workloads") {
      world.workloads = section(i, true);
    } else if (key.text == "happened") {
      for (const auto& item : tree.items[i].items) {
        if (item.text.empty()) {
          return fail(ErrorCode::kInvalid, fmt::format("{}:{}: says nothing", file, item.line));
        }
        world.happened.push_back({file, item.line, item.text});
      }
    } else {
      return fail(ErrorCode::kInvalid,
                  fmt::format("{}:{}: config, workloads or happened, and not {}", file, key.line,
                              key.text));
    }
  }
  return world;
}

class WorldTest : public NodeScript, public testing::WithParamInterface<std::string> {
 protected:
  [[nodiscard]] static std::string path(std::string_view name) {
    return fmt::format("{}/{}/{}", kFolder, GetParam(), name);
  }
  Status make(const World& world);
  [[nodiscard]] std::string nft_text(bool with_node) const;
  [[nodiscard]] std::string names_text() const;
  [[nodiscard]] std::string report_text() const;

 private:
  [[nodiscard]] std::set<std::string> questions() const;
  [[nodiscard]] std::string answers_text(const IpAddress& client, const std::string& name,
                                         std::span<const std::uint16_t> types) const;
};

Status WorldTest::make(const World& world) {
  settings_ = TRY(golden_settings(world.file, world.config));
  restart();
  names_->set_settings(golden_zone(settings_));
  CHECK_OK(declare(world.file, world.workloads));
  if (told(answer_) != "OK") return fail(ErrorCode::kInvalid, told(answer_));
  for (const auto& line : world.happened) {
    CHECK_OK(happen(line));
    if (!answer_ || told(answer_) == "OK") continue;
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", line.where(), told(answer_)));
  }
  return {};
}

// The slots of a VIP's port one after another: "10.214.0.1 . tcp . 80 . 0-15 : 10.213.0.1"
// where they lead to the same endpoint.
std::vector<std::string> lines_of(std::span<const policy::Element> elements) {
  std::vector<std::string> lines;
  std::string key, data;  // of the run of slots that the last line stands for
  int first = 0, next = -1;
  for (const auto& element : elements) {
    auto text = policy::element_text(element);
    const auto middle = text.find(" : "), slot_at = text.rfind(" . ", middle) + 3;
    const bool vip = policy::set_name(element.set).starts_with("vip");
    const int slot = vip ? std::stoi(text.substr(slot_at)) : 0;
    if (!vip) {
      lines.push_back(std::move(text));
    } else if (slot == next && key == text.substr(0, slot_at) && data == text.substr(middle)) {
      lines.back() = fmt::format("{}{}-{}{}", key, first, slot, data);
    } else {
      key = text.substr(0, slot_at);
      data = text.substr(middle);
      first = slot;
      lines.push_back(std::move(text));
    }
    next = slot + 1;
  }
  return lines;
}

std::string WorldTest::nft_text(bool with_node) const {
  policy::World empty;
  empty.settings = settings_;
  policy::Compiler compiler;
  [[maybe_unused]] const auto delta = compiler.rebuild(empty);
  auto elements = kernel_.elements();
  if (!with_node) std::erase_if(elements, [&](const auto& e) { return compiler.contains(e); });
  std::string text;
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    const auto set = static_cast<policy::SetId>(i);
    const auto own = std::ranges::equal_range(elements, set, {}, &policy::Element::set);
    if (own.empty()) continue;
    text += fmt::format("{}\n  {}\n", policy::set_name(set), fmt::join(lines_of(own), "\n  "));
  }
  return text;
}

// Every name that somebody declares or asks for, and two that nobody does.
std::set<std::string> WorldTest::questions() const {
  const auto& zone = settings_.zone;
  std::set<std::string> names = {"nobody." + zone, "www.example.org"};
  const auto add_service = [&](const policy::ServiceKey& key) {
    names.insert(policy::service_fqdn(zone, key));
    names.insert(key.name);
  };
  for (const auto& [id, workload] : node_->world().workloads) {
    names.insert(policy::instance_fqdn(zone, id));
    const auto& declaration = workload.declaration;
    if (const auto key = declaration.service()) add_service(*key);
    for (const auto& peer : declaration.peers) {
      if (const auto key = policy::peer_service(declaration, peer)) {
        add_service(*key);
      } else {
        names.insert(policy::instance_fqdn(zone, peer.id));
      }
    }
    for (const auto& served : declaration.serves) {
      if (served.name.empty()) continue;
      const auto label = fmt::format("_{}._{}", served.name, proto_name(served.ports.proto));
      names.insert(fmt::format("{}.{}", label, policy::instance_fqdn(zone, id)));
      if (const auto key = declaration.service()) {
        names.insert(fmt::format("{}.{}", label, policy::service_fqdn(zone, *key)));
      }
    }
  }
  return names;
}

// "5 A 10.214.0.1, 5 AAAA fd00:0:0:2::1", "NXDOMAIN (Prohibited: you declare no peer db)".
std::string WorldTest::answers_text(const IpAddress& client, const std::string& name,
                                    std::span<const std::uint16_t> types) const {
  std::vector<std::string> answers;
  for (const auto type : types) {
    const auto resolved = names_->resolve(client, name, type);
    for (const auto& record : resolved.answers) {
      answers.push_back(fmt::format("{} {} {}", record.ttl, record.type, record.data));
    }
    if (!resolved.answers.empty()) continue;
    auto none = resolved.rcode == "NOERROR" ? "NODATA" : resolved.rcode;
    if (!resolved.ede.empty()) none += fmt::format(" ({}: {})", resolved.ede, resolved.reason);
    // Said once when it is the same for all types.
    if (answers.empty() || answers.back() != none) answers.push_back(std::move(none));
  }
  return fmt::format("{}", fmt::join(answers, ", "));
}

std::string WorldTest::names_text() const {
  constexpr std::array<std::uint16_t, 2> kAddresses = {1, 28};  // A, AAAA
  constexpr std::array<std::uint16_t, 1> kSrv = {33}, kPtr = {12};
  std::set<IpAddress> addresses;
  for (const auto& [id, workload] : node_->world().workloads) {
    for (const auto family : kFamilies) {
      if (!workload.attachment || !workload.attachment->address(family)) continue;
      addresses.insert(*workload.attachment->address(family));
    }
  }
  for (const auto& [key, service] : node_->world().services) {
    for (const auto family : kFamilies) {
      if (service.vip(family)) addresses.insert(*service.vip(family));
    }
  }
  std::string text;
  for (const auto& [id, workload] : node_->world().workloads) {
    if (!workload.attachment) continue;
    const auto& a = *workload.attachment;
    const auto client = a.v4 ? *a.v4 : *a.v6;
    text += fmt::format("{} asks\n", id);
    for (const auto& name : questions()) {
      const auto types = name.starts_with('_') ? std::span<const std::uint16_t>(kSrv) : kAddresses;
      text += fmt::format("  {:<38} {}\n", name, answers_text(client, name, types));
    }
    std::vector<std::string> nobodys;
    for (const auto& address : addresses) {
      auto answer = answers_text(client, dns::to_text(dns::reverse_name(address)), kPtr);
      if (answer == "NXDOMAIN") {
        nobodys.push_back(address.to_string());
      } else {
        text += fmt::format("  {:<38} {}\n", address.to_string(), answer);
      }
    }
    if (!nobodys.empty()) text += fmt::format("  NXDOMAIN for {}\n", fmt::join(nobodys, " "));
  }
  return text;
}

std::string json(std::string_view kind, const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  return fmt::format("{} {}\n", kind, status.ok() ? text : status.ToString());
}

std::string WorldTest::report_text() const {
  const auto& world = node_->world();
  std::string text;
  auto workloads = workload_list(world, node_->problems());
  for (auto& workload : *workloads.mutable_workloads()) {
    const auto id = workload.declaration().id();
    workload.clear_declaration();  // that is world.yaml
    text += json("workload " + id, workload);
    if (workload.has_attachment()) text += json("attach", attach_reply(world, id, 1500));
  }
  const auto services = service_list(world);
  for (const auto& service : services.services()) text += json("service", service);
  std::vector<ElementCount> counts;
  for (const auto set : {policy::SetId::kAllow4, policy::SetId::kAllow6,
                         policy::SetId::kAllow4Block, policy::SetId::kAllow6Block}) {
    for (const auto& element : kernel_.elements()) {
      if (element.set == set) counts.push_back({element, 2, 120});
    }
  }
  const auto flows = flow_list(world, counts);
  for (const auto& flow : flows.flows()) text += json("flow", flow);
  const auto published = published_list(world);
  for (const auto& port : published.published()) text += json("published", port);
  return text;
}

TEST_P(WorldTest, IsAsWanted) {
  const auto text = read_file(path("world.yaml"));
  ASSERT_TRUE(text) << path("world.yaml");
  const auto world = read_world(path("world.yaml"), *text);
  ASSERT_TRUE(world) << world.error().what;
  const auto made = make(*world);
  ASSERT_TRUE(made) << made.error().what;
  EXPECT_EQ(elements_in_kernel(), elements_planned());
  expect_golden(path("want.nft"), nft_text(!world->config.empty()));
  expect_golden(path("want.names"), names_text());
  expect_golden(path("want.report"), report_text());
  // A file that nobody compares says nothing.
  const std::set<std::string> known = {"want.names", "want.nft", "want.report", "world.yaml"};
  EXPECT_EQ(names_in(path("")), known);
}

INSTANTIATE_TEST_SUITE_P(, WorldTest, testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param; });

TEST(WorldCasesTest, AreFound) { EXPECT_GE(cases().size(), 8U); }

TEST(WorldFileTest, SectionsKeepTheirLines) {
  const auto world = read_world("w",
                                "# a case\nconfig:\n  zone: x.internal\nworkloads:\n- {id: a}\n"
                                "happened:\n- attach a\n");
  ASSERT_TRUE(world) << world.error().what;
  EXPECT_EQ(world->config, "\n\n  zone: x.internal\n\n\n\n\n");
  EXPECT_EQ(world->workloads, "\n\n\nworkloads:\n- {id: a}\n\n\n");
  ASSERT_EQ(world->happened.size(), 1U);
  EXPECT_EQ(world->happened[0].where(), "w:7");
  EXPECT_EQ(world->happened[0].text, "attach a");
}

TEST(WorldFileTest, UnknownSectionsAreRefused) {
  const auto world = read_world("w", "workloads: []\nhapened: []\n");
  ASSERT_FALSE(world);
  EXPECT_EQ(world.error().what, "w:2: config, workloads or happened, and not hapened");
  const auto empty = read_world("w", "happened:\n- {attach: a}\n");
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().what, "w:2: says nothing");
}

}  // namespace
}  // namespace meshd
