// Declarations by lot: few owners, names and ports, so that everything has to do with everything.
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <random>
#include <string>

namespace meshd::policy {

class RandomDeclarations {
 public:
  explicit RandomDeclarations(unsigned seed) : random_(seed) {}

  unsigned draw(unsigned below) { return static_cast<unsigned>(random_() % below); }
  const char* pick(std::initializer_list<const char*> words) {
    return words.begin()[draw(static_cast<unsigned>(words.size()))];
  }

  // As YAML. Not all of them are taken: replicas may contradict each other, owners as well.
  std::string declaration(const std::string& id) {
    const bool run = draw(3) != 0;
    auto text = fmt::format("{{id: {}, owner: {}", id, pick({"ada", "ada", "ada", "ada", "bob"}));
    if (run) text += fmt::format(", workflow: {}", pick({"r1", "r1", "r2"}));
    if (draw(3) != 0) {
      const bool cluster = !run || draw(3) == 0;
      text += fmt::format(", name: {}, scope: {}", pick({"db", "api"}),
                          cluster ? "CLUSTER" : "WORKFLOW");
      text += run ? pick({", admit: WORKFLOW", ", admit: OWNER", ", admit: CLUSTER"})
                  : pick({"", ", admit: CLUSTER"});
    }
    text += pick({"", ", serves: [{port: 80, name: web}]", ", serves: [{port: 80}, {port: 81}]",
                  ", serves: [{port: 80}, {port: 17, end_port: 50}]",
                  ", serves: [{port: 32, end_port: 47, protocol: UDP}, {port: 81}]"});
    // By the default scope without a workflow: CLUSTER.
    text += pick({"", ", peers: [{name: db}, {name: api}]", ", peers: [{name: db}, {id: w1}]",
                  ", peers: [{name: db, scope: CLUSTER, ports: [{port: 30, end_port: 81}]}]",
                  ", peers: [{name: db, ports: [{port: 80, end_port: 81}]}]",
                  ", peers: [{name: api, ports: [{port: 80}]}, {id: w2}, {id: gone}]"});
    text += pick({"", "", ", publish: [{port: 80}]", ", publish: [{port: 81, http: true}]",
                  ", publish: [{port: 81}, {port: 80, allow_from: [10.9.0.0/16]}]"});
    text += pick({"", "", ", egress: [{cidr: 198.18.0.0/15, ports: [{port: 80}]}]",
                  ", egress: [{cidr: 10.0.0.0/8}, {cidr: 10.1.0.0/16, ports: [{port: 1}]}]"});
    text += pick({"", "", ", ready: NONE", ", hold: 0s"});
    return text + "}";
  }

 private:
  std::mt19937 random_;
};

}  // namespace meshd::policy
