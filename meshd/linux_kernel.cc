#include "meshd/linux_kernel.h"

#include <linux/netfilter/nf_conntrack_tcp.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>

#include "meshd/lower_ruleset.h"
#include "meshd/table_repair.h"
#include "netlink/netns.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_dump.h"
#include "netlink/nft_features.h"
#include "netlink/sock_diag.h"

namespace meshd {
namespace {

constexpr std::uint32_t kProbeElements = 64;  // of each set that is only tried

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

// Not what only waits for its end: both sides have closed, or one has reset it.
bool is_open(const netlink::ConntrackEntry& entry) {
  switch (entry.tcp_state) {
    case TCP_CONNTRACK_LAST_ACK:
    case TCP_CONNTRACK_TIME_WAIT:
    case TCP_CONNTRACK_CLOSE:
      return false;
    default:
      return true;
  }
}

policy::LiveConnection connection_of(const netlink::ConntrackEntry& entry) {
  return {static_cast<Proto>(entry.proto), entry.original.source, entry.original.destination,
          entry.original.destination_port, entry.reply.source,    entry.reply.source_port};
}

std::uint64_t hash_of(const policy::Element& element) {
  return std::hash<policy::Element>()(element);
}

std::uint64_t sum_of(std::span<const policy::Element> elements) {
  std::uint64_t sum = 0;
  for (const auto& element : elements) sum += hash_of(element);
  return sum;
}

// Of a publication's sources, or of a way out.
bool is_profile_interval(const policy::Element& element) {
  const auto& info = policy::set_info(element.set);
  return info.interval && info.key.size() > 1;
}

}  // namespace

Result<std::unique_ptr<LinuxKernel>> LinuxKernel::make(const policy::Settings& settings) {
  auto topology = TRY(Topology::make(settings));
  auto underlay = TRY(Underlay::make());
  auto nft = TRY(netlink::Socket::open());
  auto conntrack = TRY(netlink::Conntrack::open());
  return std::unique_ptr<LinuxKernel>(new LinuxKernel(std::move(topology), std::move(underlay),
                                                      std::move(nft), std::move(conntrack)));
}

Status LinuxKernel::prepare_node() {
  CHECK_OK(topology_.ensure_node());
  return {};
}

void LinuxKernel::set_table(const policy::Settings& settings, const policy::TableOptions& options) {
  table_ = policy::base_table(settings, options);
  distrust();
  ranges_.clear();
  for (const auto family : kFamilies) {
    if (settings.pool(family)) ranges_.push_back(*settings.pool(family));
  }
}

Status LinuxKernel::check() {
  // Our own table, as another: the kernel either takes it or not.
  netlink::NftBatch batch{std::string(netlink::kProbeTable)};
  // Nobody fills them, and a start answers no name before this: the room for all that ours may
  // hold took two thirds of its time.
  batch.limit_sets(kProbeElements);
  CHECK_OK(put_repair(batch, table_, {}, 0, nullptr));
  if (auto status = std::move(batch).check(nft_); !status) {
    // One thing that it lacks makes a dozen rules fail: said by name where that is known.
    const auto features = netlink::probe_features();
    if (features) CHECK_OK(netlink::require_all(*features));
    return std::unexpected(std::move(status.error()).in("this kernel refuses our table"));
  }
  CHECK_OK(sweep_probes(nft_));
  if (auto count = conntrack_.count(); !count) {
    return std::unexpected(std::move(count.error()).in("this kernel lists no connections"));
  }
  if (auto ports = listening(); !ports) {
    return std::unexpected(std::move(ports.error()).in("this kernel lists no listeners"));
  }
  return {};
}

Status LinuxKernel::connect(const LinkPlan& plan, int netns_fd) {
  return topology_.connect(plan, netns_fd);
}

Status LinuxKernel::disconnect(const std::string& host_ifname) {
  return topology_.disconnect(host_ifname);
}

Status LinuxKernel::clean_container(const policy::Attachment& attachment) {
  return Topology::clean_container(attachment);
}

Result<bool> LinuxKernel::name_taken(const std::string& host_ifname) {
  return topology_.name_taken(host_ifname);
}

Result<bool> LinuxKernel::link_exists(const std::string& host_ifname) {
  return topology_.link_exists(host_ifname);
}

Status LinuxKernel::commit(const policy::Delta& delta) {
  // Packets see a transaction's new intervals of several components later than its other
  // elements, and whom these give a new profile has none until then: packets of open flows
  // were refused (seen on 6.18). So they go ahead, into profiles that nobody has yet. Where
  // that fails, perhaps by an almost full set, all goes at once.
  policy::Delta ahead, rest{delta.remove, {}};
  std::ranges::copy_if(delta.add, std::back_inserter(ahead.add), is_profile_interval);
  if (ahead.add.empty() || !send(ahead)) return send(delta);
  std::ranges::copy_if(delta.add, std::back_inserter(rest.add), std::not_fn(is_profile_interval));
  return rest.empty() ? Status() : send(rest);
}

Status LinuxKernel::send(const policy::Delta& delta) {
  auto status = send(delta, generation_);
  if (!status && generation_ && status.error().code == ErrorCode::kConflict) {
    generation_.reset();  // others' tables are changed without us; of ours heard() tells
    status = send(delta, std::nullopt);
  }
  if (!status) {
    if (netlink::outcome_unknown(status.error())) distrust();
    return status;
  }
  if (!content_) {
    generation_.reset();
    return status;
  }
  for (const auto& element : delta.remove) *content_ -= hash_of(element);
  for (const auto& element : delta.add) *content_ += hash_of(element);
  settle(*content_, generation_ ? std::optional(*generation_ + 1) : std::nullopt);
  return status;
}

Status LinuxKernel::send(const policy::Delta& delta, std::optional<std::uint32_t> generation) {
  netlink::NftBatch batch(std::string(policy::kTableName), generation);
  CHECK_OK(put_delta(batch, delta));
  return std::move(batch).commit(nft_);
}

Status LinuxKernel::keep_seal(const std::string& dir, std::string boot) {
  netns_ = TRY(netlink::netns_cookie(nft_.fd()));
  seal_file_ = TRY(SealFile::open(dir, std::move(boot)));
  left_ = seal_file_->read();
  return {};
}

// Of the bytes that make the table without elements. Another program version that makes
// another table so finds another hash.
Result<std::uint64_t> LinuxKernel::shape() const {
  netlink::NftBatch batch{std::string(policy::kTableName)};
  CHECK_OK(put_repair(batch, table_, {}, 0, nullptr));
  return seal_hash(batch.bytes());
}

// Whether the table is still as the process before left it, and that is what is wanted.
Result<bool> LinuxKernel::is_left_right(std::uint64_t elements, std::uint32_t generation) {
  if (seal_file_) shape_ = TRY(shape());
  const auto left = std::exchange(left_, std::nullopt);
  return left == TableSeal{netns_, shape_, elements, generation};
}

void LinuxKernel::settle(std::uint64_t elements, std::optional<std::uint32_t> generation) {
  content_ = elements;
  generation_ = generation;
  if (seal_file_ && generation_) seal_file_->write({netns_, shape_, *content_, *generation_});
}

void LinuxKernel::heard(std::uint32_t generation) {
  if (content_ && generation_ != generation) settle(*content_, generation);
}

Result<netlink::NftDump> LinuxKernel::fill(std::span<const policy::Element> wanted,
                                           std::uint32_t& generation) {
  netlink::NftBatch first(std::string(policy::kTableName), generation);
  auto dump = TRY(put_bare_table(first, 0));
  CHECK_OK(std::move(first).commit(nft_));
  ++generation;
  while (!wanted.empty()) {
    const auto some = wanted.first(std::min(kFillAtOnce, wanted.size()));
    wanted = wanted.subspan(some.size());
    netlink::NftBatch batch(std::string(policy::kTableName), generation);
    CHECK_OK(put_delta(batch, {{}, {some.begin(), some.end()}}));
    CHECK_OK(std::move(batch).commit(nft_));
    ++generation;
  }
  return dump;
}

// One transaction, in which all of the difference comes into force. Only where there is no
// table its elements may go before, since a table without chains is met by no packet.
Result<Repairs> LinuxKernel::repair(std::optional<netlink::NftDump> dump,
                                    std::span<const policy::Element> wanted,
                                    std::uint64_t elements) {
  auto generation = dump ? dump->generation : TRY(netlink::read_generation(nft_));
  Repairs repairs;
  if (!dump && wanted.size() > kFillAtOnce) {
    dump = TRY(fill(wanted, generation));
    wanted = {};
    repairs.what.emplace_back("there was no table");
  }
  netlink::NftBatch batch(std::string(policy::kTableName), generation);
  auto what = TRY(put_repair(batch, table_, wanted, 0, dump ? &*dump : nullptr));
  if (!what.empty()) {
    CHECK_OK(std::move(batch).commit(nft_));
    ++generation;
    if (repairs.what.empty()) repairs.what = std::move(what);
  }
  settle(elements, generation);
  return repairs;
}

Result<Repairs> LinuxKernel::converge(const std::vector<policy::Element>& wanted) {
  auto repairs = TRY(converge_table(wanted));
  CHECK_OK(topology_.begin_forwarding());
  return repairs;
}

Result<Repairs> LinuxKernel::converge_table(const std::vector<policy::Element>& wanted) {
  const auto elements = sum_of(wanted);
  distrust();
  const auto generation = TRY(netlink::read_generation(nft_));
  if (TRY(is_left_right(elements, generation))) {
    settle(elements, generation);
    return Repairs{};
  }
  for (int attempt = 1;; ++attempt) {
    auto dump = netlink::NftDump::read(nft_, policy::kTableName);
    const bool there = dump.has_value();
    if (!there && dump.error().code != ErrorCode::kNotFound) return std::unexpected(dump.error());
    auto repairs = repair(there ? std::optional(*std::move(dump)) : std::nullopt, wanted, elements);
    if (repairs) return repairs;
    const auto& error = repairs.error();
    const bool again = error.code == ErrorCode::kConflict || netlink::outcome_unknown(error);
    if (!again || attempt == kMaxConverge) return repairs;
  }
}

Result<bool> LinuxKernel::is_settled() {
  return TRY(netlink::read_generation(nft_)) == generation_;
}

Result<Repairs> LinuxKernel::audit(const std::vector<LinkPlan>& links) {
  auto repairs = TRY(topology_.audit(links));
  auto further = underlay_.audit();
  std::ranges::move(further.what, std::back_inserter(repairs.what));
  return repairs;
}

Status LinuxKernel::set_underlay(const UnderlayPlan& plan) { return underlay_.apply(plan); }

Result<policy::ListeningPorts> LinuxKernel::listening() {
  const auto own = TRY(netlink::Netns::own());
  auto poller = TRY(netlink::ListenerPoller::open(own.fd()));
  policy::ListeningPorts ports;
  for (const auto& listener : TRY(poller.poll())) ports.emplace(Proto::kTcp, listener.port);
  read_udp_ports("/proc/thread-self/net/udp", ports);
  read_udp_ports("/proc/thread-self/net/udp6", ports);
  return ports;
}

Result<Connections> LinuxKernel::connections() {
  const auto ours = [this](const IpAddress& address) {
    return std::ranges::any_of(ranges_,
                               [&](const Prefix& range) { return range.contains(address); });
  };
  const auto concerns_us = [&](const netlink::ConntrackEntry& entry) {
    if (entry.proto != static_cast<std::uint8_t>(Proto::kTcp) &&
        entry.proto != static_cast<std::uint8_t>(Proto::kUdp)) {
      return false;
    }
    return is_open(entry) && (ours(entry.original.source) || ours(entry.reply.source));
  };
  const auto entries = TRY(conntrack_.list(concerns_us, kMaxConnections + 1));
  Connections connections;
  connections.more = entries.size() > kMaxConnections;
  for (const auto& entry : std::span(entries).first(std::min(entries.size(), kMaxConnections))) {
    connections.list.push_back(connection_of(entry));
  }
  return connections;
}

Status LinuxKernel::erase_conntrack(const EraseRequest& request) {
  netlink::EraseWish wish;
  wish.addresses = request.addresses;
  for (const auto& t : request.translations) {
    wish.translations.push_back({t.proto, t.from, t.first, t.last, t.to, t.only_unanswered});
  }
  if (request.also) {
    wish.also = [&](const netlink::ConntrackEntry& entry) {
      return request.also(connection_of(entry));
    };
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

Result<std::vector<std::pair<std::string, std::uint64_t>>> LinuxKernel::dropped() {
  std::vector<std::pair<std::string, std::uint64_t>> counts;
  for (const auto& counter : TRY(netlink::read_counters(nft_, policy::kTableName))) {
    counts.emplace_back(counter.name, counter.packets);
  }
  return counts;
}

Status LinuxKernel::purge_table() {
  auto socket = TRY(netlink::Socket::open());
  netlink::NftBatch batch{std::string(policy::kTableName)};
  // Made first, so that removing it cannot fail where it is not there.
  CHECK_OK(batch.put_table());
  CHECK_OK(batch.delete_table());
  CHECK_OK(std::move(batch).commit(socket));
  return sweep_probes(socket);
}

Status LinuxKernel::sweep_probes(netlink::Socket& socket) {
  for (const auto& table : TRY(netlink::list_tables(socket))) {
    if (!table.starts_with(netlink::kProbeTable)) continue;
    netlink::NftBatch batch(table);
    CHECK_OK(batch.delete_table());
    CHECK_OK(std::move(batch).commit(socket));
  }
  return {};
}

}  // namespace meshd
