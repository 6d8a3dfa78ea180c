#include "meshd/listeners.h"

#include <map>
#include <set>
#include <utility>

#include "base/log.h"
#include "meshd/notify.h"

namespace meshd {
namespace {

constexpr std::uint16_t kDnsPort = 53;

void keep(const dns::Listener& listener) {
  const int fd = listener.fd.get();
  if (const auto stored = store_fds(listener.name(), {&fd, 1}); !stored) {
    log::warning("start: {}", stored.error().what);
  }
}

void forget(const std::string& name) {
  if (const auto gone = forget_fds(name); !gone) log::warning("start: {}", gone.error().what);
}

}  // namespace

dns::ServerOptions server_options(const Config& config) {
  dns::ServerOptions options;
  options.workers = static_cast<int>(config.dns_workers);
  options.cache_bytes = std::size_t{config.dns_cache_mib} << 20;
  // The kernel limits containers; who comes over an engine's bridge is the server's to limit.
  options.plain_rate = config.dns_client_rate;
  return options;
}

Result<std::vector<dns::Listener>> take_listeners(const std::vector<IpAddress>& addresses,
                                                  int workers) {
  std::map<std::string, dns::Listener> missing;  // by name, without descriptors
  for (const auto& address : addresses) {
    for (int worker = 0; worker < workers; ++worker) {
      for (const bool udp : {true, false}) {
        dns::Listener one{.fd = {}, .udp = udp, .address = address, .worker = worker};
        missing.emplace(one.name(), std::move(one));
      }
    }
  }
  std::vector<dns::Listener> listeners;
  std::set<std::string> surplus;
  for (auto& stored : TRY(take_stored_fds())) {
    auto listener = dns::adopt_listener(std::move(stored.fd), stored.name);
    if (listener && missing.erase(listener->name()) > 0) {
      listeners.push_back(*std::move(listener));
      continue;
    }
    // Of an address or a worker that is no more, the second of a name, or somebody else's.
    log::warning("start: a stored descriptor is not needed any more: {}", stored.name);
    surplus.insert(stored.name);
  }
  // The manager forgets by name, and so perhaps one that is needed: that one is left anew.
  for (const auto& name : surplus) forget(name);
  for (const auto& listener : listeners) {
    if (surplus.contains(listener.name())) keep(listener);
  }
  for (const auto& [name, wanted] : missing) {
    listeners.push_back(
        TRY(dns::open_listener(wanted.address, kDnsPort, wanted.udp, wanted.worker)));
    keep(listeners.back());
  }
  return listeners;
}

}  // namespace meshd
