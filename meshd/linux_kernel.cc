#include "meshd/linux_kernel.h"

#include <fstream>

#include "meshd/lower_ruleset.h"
#include "meshd/table_repair.h"
#include "netlink/netns.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_dump.h"
#include "netlink/sock_diag.h"

namespace meshd {
namespace {

// Local ports of /proc/net/udp and udp6: sock_diag lists unconnected UDP sockets only by a
// walk over all of them, and this is asked once an apply.
void read_udp_ports(const char* path, policy::ListeningPorts& ports) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);  // headings
  while (std::getline(file, line)) {
    // "  12: 0100007F:0035 00000000:0000 07 ..."
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos || second + 5 > line.size()) continue;
    const auto port = std::strtoul(line.substr(second + 1, 4).c_str(), nullptr, 16);
    if (port > 0 && port <= 65535) ports.emplace(Proto::kUdp, static_cast<std::uint16_t>(port));
  }
}

}  // namespace

Result<std::unique_ptr<LinuxKernel>> LinuxKernel::make(const policy::Settings& settings) {
  auto topology = TRY(Topology::make(settings));
  auto nft = TRY(netlink::Socket::open());
  auto conntrack = TRY(netlink::Conntrack::open());
  return std::unique_ptr<LinuxKernel>(
      new LinuxKernel(std::move(topology), std::move(nft), std::move(conntrack)));
}

Status LinuxKernel::prepare_node(std::vector<OldSysctl>& changed) {
  CHECK_OK(topology_.ensure_node(changed));
  return {};
}

void LinuxKernel::set_table(const policy::Settings& settings, const policy::TableOptions& options) {
  table_ = policy::base_table(settings, options);
}

Status LinuxKernel::connect(const LinkPlan& plan, int netns_fd) {
  return topology_.connect(plan, netns_fd);
}

Status LinuxKernel::disconnect(const std::string& host_ifname) {
  return topology_.disconnect(host_ifname);
}

Result<bool> LinuxKernel::link_exists(const std::string& host_ifname) {
  return topology_.link_exists(host_ifname);
}

Status LinuxKernel::commit(const policy::Delta& delta) {
  netlink::NftBatch batch{std::string(policy::kTableName)};
  CHECK_OK(put_delta(batch, delta));
  return std::move(batch).commit(nft_);
}

Result<Repairs> LinuxKernel::converge(const std::vector<policy::Element>& wanted) {
  for (int attempt = 1;; ++attempt) {
    const auto dump = netlink::NftDump::read(nft_, policy::kTableName);
    if (!dump && dump.error().code != ErrorCode::kNotFound) return std::unexpected(dump.error());
    netlink::NftBatch batch(std::string(policy::kTableName),
                            dump ? std::optional(dump->generation) : std::nullopt);
    Repairs repairs;
    repairs.what = TRY(put_repair(batch, table_, wanted, 0, dump ? &*dump : nullptr));
    if (repairs.what.empty()) return repairs;
    auto status = std::move(batch).commit(nft_);
    if (status) return repairs;
    const bool again =
        status.error().code == ErrorCode::kConflict || netlink::outcome_unknown(status.error());
    if (!again || attempt == kMaxConverge) return std::unexpected(std::move(status).error());
  }
}

Result<Repairs> LinuxKernel::audit(const std::vector<LinkPlan>& links) {
  return topology_.audit(links);
}

Result<policy::ListeningPorts> LinuxKernel::listening() {
  const auto own = TRY(netlink::Netns::own());
  auto poller = TRY(netlink::ListenerPoller::open(own.fd()));
  policy::ListeningPorts ports;
  for (const auto& listener : TRY(poller.poll())) ports.emplace(Proto::kTcp, listener.port);
  read_udp_ports("/proc/thread-self/net/udp", ports);
  read_udp_ports("/proc/thread-self/net/udp6", ports);
  return ports;
}

Status LinuxKernel::erase_conntrack(const EraseRequest& request) {
  netlink::EraseWish wish;
  wish.addresses = request.addresses;
  for (const auto& t : request.translations) {
    wish.translations.push_back({t.proto, t.from, t.first, t.last, t.to});
  }
  CHECK_OK(conntrack_.erase(wish));
  return {};
}

Result<std::vector<ElementCount>> LinuxKernel::counters(policy::SetId set) {
  const auto list = TRY(netlink::read_elements(nft_, policy::kTableName, lower_set(set)));
  std::vector<ElementCount> counts;
  counts.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto view = list[i];
    if (const auto element = raise_element(set, view)) {
      counts.push_back({*element, view.packets, view.bytes});
    }
  }
  return counts;
}

Status LinuxKernel::purge_table() {
  auto socket = TRY(netlink::Socket::open());
  netlink::NftBatch batch{std::string(policy::kTableName)};
  // Made first, so that removing it cannot fail where it is not there.
  CHECK_OK(batch.put_table());
  CHECK_OK(batch.delete_table());
  return std::move(batch).commit(socket);
}

}  // namespace meshd
