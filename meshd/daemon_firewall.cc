// The daemon and the firewalls that stand beside its own.
#include <algorithm>

#include "base/log.h"
#include "meshd/daemon.h"

namespace meshd {

void Daemon::follow_firewalls() {
  auto found = firewalls_->look(config_.docker_user, settings_);
  auto troubles = found ? *std::move(found) : std::vector{found.error().what};
  for (const auto& trouble : troubles) {
    const bool is_known = std::ranges::find(firewall_trouble_, trouble) != firewall_trouble_.end();
    if (!is_known) log::warning("firewall: {}", trouble);
  }
  firewall_trouble_ = std::move(troubles);
}

}  // namespace meshd
