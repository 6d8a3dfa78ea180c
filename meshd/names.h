// From the plan's views to the resolver's snapshot: one changed view is one new View, the
// rest is shared with the snapshot before.
//
// Threads: the main loop; readers take published() from any thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/published.h"
#include "dns/answer.h"
#include "dns/snapshot.h"
#include "policy/plan.h"

namespace meshd {

// Changes of views that wait for their rules; a later one replaces an earlier one.
struct NameChanges {
  std::map<IpAddress, std::shared_ptr<const policy::ViewPlan>> views;  // null: gone
  void merge(std::vector<std::shared_ptr<const policy::ViewPlan>> changed,
             std::vector<IpAddress> gone);
};

[[nodiscard]] dns::View lower_view(const policy::ViewPlan& plan, std::string_view zone);

class Names {
 public:
  explicit Names(dns::ZoneSettings settings);

  void publish(NameChanges changes);
  void set_settings(dns::ZoneSettings settings);
  // TXT why.<zone> of one container; nothing is kept for one without views.
  void set_why(const std::string& client, std::vector<std::string> lines);

  [[nodiscard]] const Published<dns::Snapshot>& published() const { return published_; }
  [[nodiscard]] dns::Resolved resolve(const IpAddress& client, std::string_view name,
                                      std::uint16_t type) const {
    return dns::resolve(current_, client, name, type);
  }

 private:
  // Views made in one call: both addresses of a container share one.
  using Lowered = std::map<const policy::ViewPlan*, std::shared_ptr<const dns::View>>;
  void set(const IpAddress& client, const std::shared_ptr<const policy::ViewPlan>& plan,
           Lowered& lowered);
  void forget(const IpAddress& client);
  void publish_current();

  std::shared_ptr<const dns::ZoneSettings> settings_;
  dns::Snapshot current_;
  std::map<IpAddress, std::shared_ptr<const policy::ViewPlan>> plans_;
  std::map<std::string, std::set<IpAddress>> addresses_;  // of each client with a plan
  std::map<std::string, std::vector<std::string>> why_;   // by client
  Published<dns::Snapshot> published_;
};

}  // namespace meshd
