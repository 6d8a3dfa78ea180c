// Whether somebody looks at the page, and what nodes say passes meanwhile: they are asked for it
// while somebody does.
//
// Threads:   the controller's loop only. Borrows the streams, between connected() and lost().
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "controller/controller_types.h"
#include "controller/traffic.h"

namespace meshd::controller {

// So long nodes say what passes once they are asked; and how often they are asked again, so that a
// lost message matters little and nobody goes on for long when nobody looks.
inline constexpr auto kLookFor = std::chrono::seconds(30);
inline constexpr auto kLookAgain = std::chrono::seconds(10);

class Looking {
 public:
  void connected(const std::string& node, NodeStream& stream, TimePoint now);
  void lost(const std::string& node);
  // Somebody looks now.
  void note(TimePoint now);
  // kInvalid: why it, or some of it, is not believed.
  [[nodiscard]] Status take(const Cluster& cluster, const std::string& node,
                            const mesh::v1::Traffic& traffic, TimePoint now);
  [[nodiscard]] std::vector<proxy::FlowRate> rates(TimePoint now) { return table_.rates(now); }
  // Nobody does any more.
  void forget() { table_.clear(); }

 private:
  std::map<std::string, NodeStream*> streams_;
  TrafficTable table_;
  TimePoint until_{}, ask_again_at_{};
};

}  // namespace meshd::controller
