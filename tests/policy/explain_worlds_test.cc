// Explanations over random worlds: they say what the oracle says, and whoever does what they
// advise gets further, until the way is open.
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <regex>

#include "policy/explain.h"
#include "policy/from_text.h"
#include "policy/name.h"
#include "tests/support/oracle.h"
#include "tests/support/policy_world.h"
#include "tests/support/random_declarations.h"

namespace meshd::policy {
namespace {

using enum FlowVerdict;

class ExplainWorldsTest : public testing::TestWithParam<unsigned> {
 protected:
  unsigned draw(unsigned below) { return random_.draw(below); }

  void make_world() {
    for (int i = 0; i < 12; ++i) {
      const auto text = random_.declaration(fmt::format("w{}", draw(7)));
      if (w_.plan(text)) w_.apply(text);
    }
    for (auto& [id, workload] : w_.world.workloads) {
      if (draw(6) == 0) continue;
      w_.attach(id);
      for (const auto port : {std::uint16_t{80}, std::uint16_t{81}}) {
        w_.listens(id, port, {draw(3) == 0, draw(3) == 0});
      }
      if (draw(6) == 0) w_.drain(id);
    }
    w_.world.now += std::chrono::seconds(draw(2) == 0 ? 1 : 200);
  }

  [[nodiscard]] std::vector<std::string> ids() const {
    std::vector<std::string> result;
    for (const auto& [id, workload] : w_.world.workloads) result.push_back(id);
    return result;
  }
  [[nodiscard]] Explanation ask(const std::string& source, const std::string& destination,
                                Proto proto, int port) const {
    auto result = explain(w_.world, source, destination, proto, static_cast<std::uint16_t>(port));
    if (result) return *std::move(result);
    ADD_FAILURE() << result.error().what;
    return {};
  }

  // --- what must be the case ------------------------------------------------------------

  void check_instances(const Workload& c, Proto proto, int port) {
    for (const auto& [id, s] : w_.world.workloads) {
      const bool open = oracle::may_reach_address(c.declaration, s.declaration, proto, port) &&
                        c.attachment && s.attachment && !s.draining;
      const auto answer = ask(c.declaration.id, id, proto, port);
      EXPECT_EQ(answer.verdict, open ? kAllowed : kRefused)
          << c.declaration.id << " -> " << id << " " << port << ": " << answer.reason;
      verdicts_[answer.verdict] += 1;
    }
  }

  // By name over both families, by VIP over one: who is led on to a replica that grants it
  // may; nobody waits where a replica answers.
  void check_services(const Workload& c, Proto proto, int port) {
    for (const auto& [key, service] : w_.world.services) {
      const oracle::NamedService named(w_.world, c.declaration, key);
      const auto expected = [&](std::initializer_list<Family> families) {
        bool open = false, there = false, held = false;
        for (const auto family : families) {
          held = held || named.held(proto, port, family);
          for (const auto& [id, s] : w_.world.workloads) {
            if (s.declaration.service() != key) continue;
            if (!oracle::stands_behind(s, proto, port, family)) continue;
            there = true;
            open = open || oracle::may_reach(c.declaration, s.declaration, proto, port);
          }
        }
        return open ? kAllowed : held && !there ? kHeld : kRefused;
      };
      const auto check = [&](const std::string& text, FlowVerdict verdict) {
        const auto answer = ask(c.declaration.id, text, proto, port);
        EXPECT_EQ(answer.verdict, c.attachment ? verdict : kRefused)
            << c.declaration.id << " -> " << text << " " << port << ": " << answer.reason;
        EXPECT_TRUE(answer.verdict == kRefused || answer.missing.empty()) << answer.missing;
        verdicts_[answer.verdict] += 1;
      };
      if (!c.attachment) continue;
      check(service_fqdn(w_.world.settings.zone, key), expected({Family::kV4, Family::kV6}));
      check(service.vip4->to_string(), expected({Family::kV4}));
      check(service.vip6->to_string(), expected({Family::kV6}));
    }
  }

  // --- doing what was advised -----------------------------------------------------------

  // The declaration with the field's entries added, as its author would write them in.
  std::string with(const std::string& id, const std::string& path, const std::string& entries) {
    auto message = to_proto(w_.world.workloads.at(id).declaration);
    mesh::v1::Workload more;
    static const std::regex kNested(R"((\w+)\[(\d+)\]\.(\w+))");
    std::smatch parts;
    const bool nested = std::regex_match(path, parts, kNested);
    const auto text = nested
                          ? fmt::format("{{{}: [{{{}: {}}}]}}", parts.str(1), parts.str(3), entries)
                          : fmt::format("{{{}: {}}}", path, entries);
    const auto parsed = parse_text("advice", text, more);
    if (!parsed) ADD_FAILURE() << parsed.error().what;
    if (!nested) {
      message.MergeFrom(more);
    } else if (parts.str(1) == "peers") {
      message.mutable_peers(std::stoi(parts.str(2)))->MergeFrom(more.peers(0));
    } else {
      message.mutable_publish(std::stoi(parts.str(2)))->MergeFrom(more.publish(0));
    }
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    std::string json;
    EXPECT_TRUE(google::protobuf::util::MessageToJsonString(message, &json, options).ok());
    return json;
  }

  void follow(const std::string& advice) {
    static const std::regex kForm(R"(in (.+?): ([\w.\[\]]+): (\[.*\]))");
    static const std::regex kReplicas(R"(every replica of (\w+)(?: of workflow (\w+))?)");
    std::smatch parts, service;
    ASSERT_TRUE(std::regex_match(advice, parts, kForm)) << advice;
    const auto who = parts.str(1);
    if (who == "the node's configuration") {
      ASSERT_EQ(parts.str(2), "publish.proxies");
      const auto list = parts.str(3);
      w_.world.settings.proxies.push_back(Prefix::parse(list.substr(2, list.size() - 4)).value());
      return;
    }
    std::vector<std::string> targets = {who};
    if (std::regex_match(who, service, kReplicas)) {
      const auto workflow = service.str(2);
      targets = members(w_.world, {workflow.empty() ? Scope::kCluster : Scope::kWorkflow, workflow,
                                   service.str(1)});
    }
    std::string texts;
    for (const auto& id : targets) {
      texts += (texts.empty() ? "" : ",") + with(id, parts.str(2), parts.str(3));
    }
    w_.apply(texts);  // fails the test where it is refused
    ++followed_;
  }

  // Until nothing is missing any more.
  void follow_to_the_end(const std::string& source, const std::string& destination, Proto proto,
                         int port) {
    std::string last;
    for (int round = 0; round < 20 && !HasFailure(); ++round) {
      const auto answer = ask(source, destination, proto, port);
      if (answer.missing.empty()) return;
      EXPECT_EQ(answer.verdict, kRefused);
      EXPECT_NE(answer.missing, last) << "it was done, and helped nothing";
      last = answer.missing;
      follow(last);
    }
    if (!HasFailure()) ADD_FAILURE() << "no end of advice: " << last;
  }

  PolicyWorld w_;
  RandomDeclarations random_{GetParam()};
  std::map<FlowVerdict, int> verdicts_;
  int followed_ = 0;
};

TEST_P(ExplainWorldsTest, SaysWhatTheOracleSays) {
  for (int i = 0; i < 80 && !HasFailure(); ++i) {
    w_ = PolicyWorld();
    make_world();
    SCOPED_TRACE(i);
    for (const auto& [id, c] : w_.world.workloads) {
      for (const int port : {16, 17, 32, 47, 50, 51, 80, 81}) {
        for (const auto proto : {Proto::kTcp, Proto::kUdp}) {
          check_instances(c, proto, port);
          check_services(c, proto, port);
        }
      }
    }
  }
  for (const auto verdict : {kAllowed, kRefused, kHeld}) EXPECT_GT(verdicts_[verdict], 50);
}

TEST_P(ExplainWorldsTest, AdviceOpensTheWayToAnInstance) {
  for (int i = 0; i < 40 && !HasFailure(); ++i) {
    w_ = PolicyWorld();
    make_world();
    SCOPED_TRACE(i);
    const auto all = ids();
    const auto source = all[draw(static_cast<unsigned>(all.size()))];
    const auto target = all[draw(static_cast<unsigned>(all.size()))];
    const int port = draw(2) == 0 ? 80 : 40;
    const auto proto = draw(2) == 0 ? Proto::kTcp : Proto::kUdp;
    follow_to_the_end(source, target, proto, port);
    EXPECT_EQ(oracle::may_reach_address(w_.world.workloads.at(source).declaration,
                                        w_.world.workloads.at(target).declaration, proto, port),
              source != target)
        << source << " -> " << target;
  }
  EXPECT_GT(followed_, 30);
}

TEST_P(ExplainWorldsTest, AdviceOpensTheWayToAService) {
  for (int i = 0; i < 40 && !HasFailure(); ++i) {
    w_ = PolicyWorld();
    make_world();
    SCOPED_TRACE(i);
    if (w_.world.services.empty()) continue;
    auto service = w_.world.services.begin();
    std::advance(service, draw(static_cast<unsigned>(w_.world.services.size())));
    const auto key = service->first;
    if (members(w_.world, key).empty()) continue;
    const auto all = ids();
    const auto source = all[draw(static_cast<unsigned>(all.size()))];
    const int port = draw(2) == 0 ? 80 : 40;
    follow_to_the_end(source, service_fqdn(w_.world.settings.zone, key), Proto::kTcp, port);
    const auto& c = w_.world.workloads.at(source).declaration;
    EXPECT_TRUE(std::ranges::any_of(
        members(w_.world, key),
        [&](const std::string& id) {
          return oracle::may_reach(c, w_.world.workloads.at(id).declaration, Proto::kTcp, port);
        }))
        << source << " -> " << service_fqdn("z", key);
  }
  EXPECT_GT(followed_, 30);
}

TEST_P(ExplainWorldsTest, AdviceOpensTheWayOutAndIn) {
  int open = 0;
  for (int i = 0; i < 40 && !HasFailure(); ++i) {
    w_ = PolicyWorld();
    make_world();
    SCOPED_TRACE(i);
    const auto all = ids();
    const auto source = all[draw(static_cast<unsigned>(all.size()))];
    for (const auto* outside : {"198.18.0.9", "2001:db8:9::"}) {
      follow_to_the_end(source, outside, draw(2) == 0 ? Proto::kTcp : Proto::kUdp, 443);
    }
    for (const auto& [key, node_port] : std::map(w_.world.node_ports)) {
      for (const auto* client : {"203.0.113.77", "2001:db8:77::"}) {
        const std::string node = client[4] == ':' ? "2001:db8::1" : "192.0.2.1";
        follow_to_the_end(client, node, key.proto, node_port);
        const auto& server = w_.world.workloads.at(key.id);
        const bool there = server.attachment && !server.draining;
        EXPECT_EQ(ask(client, node, key.proto, node_port).verdict, there ? kAllowed : kRefused);
        // Whom the settings admit by default stays admitted.
        if (there && ask("198.51.100.7", "192.0.2.1", key.proto, node_port).verdict == kAllowed) {
          ++open;
        }
      }
    }
  }
  EXPECT_GT(followed_, 60);
  EXPECT_GT(open, 10);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ExplainWorldsTest, testing::Range(1U, 5U));

}  // namespace
}  // namespace meshd::policy
