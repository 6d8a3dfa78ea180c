#include "meshd/daemon.h"

#include <fmt/format.h>
#include <pwd.h>
#include <signal.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "dns/name.h"
#include "netlink/netns.h"
#include "netlink/nft_features.h"

namespace meshd {
namespace {

std::string rfc3339(std::chrono::system_clock::time_point when) {
  const auto seconds = std::chrono::system_clock::to_time_t(when);
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// Full comparisons without a cause: links and routes, whose changes events mostly tell.
constexpr auto kAuditEvery = std::chrono::seconds(10);
// TXT why.<zone> may be that late; a flood of refusals makes one change of names.
constexpr auto kWhyDelay = std::chrono::milliseconds(50);
// The group that our table logs to. Configurable groups would have to be told to the
// table's rules; nothing else on a node uses this one.
constexpr std::uint16_t kLogGroup = 88;

IpAddress resolver4(int number) {
  return IpAddress::parse(fmt::format("169.254.1.{}", number + 1)).value();
}

// The resolver's addresses of IPv6 come from the node's own /48 (RFC 4193).
IpAddress resolver6(const Prefix& ula, int number) {
  const auto subnet = IpAddress::parse(fmt::format("::53:0:0:0:{:x}", 0x53 + number)).value();
  std::array<std::uint8_t, 16> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = ula.address().bytes()[i] | subnet.bytes()[i];
  }
  return IpAddress::v6(std::span<const std::uint8_t, 16>(bytes));
}

}  // namespace

Status purge(const Config& config) {
  const auto lock = TRY(RunLock::take(config.run_dir));
  std::vector<OldSysctl> restore;
  // A store that cannot be read is no reason to leave rules and links behind.
  auto store = Store::open(config.state_dir);
  std::optional<Prefix> ula;
  if (store) {
    ula = store->ula();
    if (const auto stored = store->load()) {
      for (const auto& [key, value] : stored->sysctls) restore.push_back({key, value});
    }
  }
  std::vector<IpAddress> resolvers;
  for (int i = 0; i < 2; ++i) {
    resolvers.push_back(resolver4(i));
    if (ula) resolvers.push_back(resolver6(*ula, i));
  }
  // Links first: without them nothing depends on the table any more.
  CHECK_OK(Topology::purge(restore, resolvers));
  CHECK_OK(LinuxKernel::purge_table());
  if (!store) return {};
  // The namespaces live on, but nobody is attached now.
  std::vector<StoreChange> changes;
  const auto stored = TRY(store->load());
  for (const auto& [id, workload] : stored.workloads) {
    if (workload.attachment) changes.push_back(DropAttachment{id});
  }
  for (const auto& old : restore) changes.push_back(DropSysctl{old.key});
  if (changes.empty()) return {};
  return store->apply(changes, stored.generation + 1);
}

Result<std::unique_ptr<Daemon>> Daemon::start(Config config) {
  std::unique_ptr<Daemon> daemon(new Daemon(std::move(config)));
  daemon->loop_ = TRY(Loop::make());
  daemon->lock_ = TRY(RunLock::take(daemon->config_.run_dir));
  CHECK_OK(daemon->open_store());
  CHECK_OK(daemon->learn_node());
  CHECK_OK(daemon->start_node());
  CHECK_OK(daemon->start_dns());
  CHECK_OK(daemon->start_events());
  // What went wrong here is tried again; meanwhile the stored rules stand.
  if (const auto status = daemon->node_->converge(BootClock::now()); !status) {
    log::error("start: rules: {}", status.error().what);
  }
  CHECK_OK(daemon->start_api());
  daemon->settle();
  return daemon;
}

Daemon::~Daemon() {
  if (admin_) admin_->shutdown();
}

Status Daemon::open_store() {
  store_ = std::make_unique<Store>(TRY(Store::open(config_.state_dir)));
  return {};
}

Result<policy::Settings> Daemon::read_settings() {
  policy::Settings settings;
  const auto pools = TRY(resolve_pools(config_.pools, store_->ula()));
  settings.node_name = config_.node_name;
  settings.zone = config_.zone;
  settings.pool4 = pools.pool4;
  settings.pool6 = pools.pool6;
  settings.vip_pool4 = pools.vip4;
  settings.vip_pool6 = pools.vip6;
  for (int i = 0; i < 2; ++i) {
    settings.resolver4[i] = resolver4(i);
    settings.resolver6[i] = resolver6(store_->ula(), i);
  }
  settings.allow_uids = config_.allow_uids;
  settings.publish_first = config_.publish_first;
  settings.publish_last = config_.publish_last;
  settings.publish_allow_from = config_.publish_allow_from;
  settings.proxies = config_.proxies;
  settings.reserved_names = config_.reserved_names;
  settings.dns_client_rate = config_.dns_client_rate;
  return settings;
}

Status Daemon::learn_node() {
  settings_ = TRY(read_settings());
  const auto features = TRY(netlink::probe_features());
  for (const auto& feature : features.all) {
    if (feature.required && !feature.present) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("this kernel lacks {}, needed for {}: {}", feature.name,
                              feature.needed_for, feature.why));
    }
  }
  kernel_ = TRY(LinuxKernel::make(settings_));
  auto& topology = kernel_->topology();
  std::vector<HostRoute> routes;
  for (const auto& prefix : TRY(topology.routes())) routes.push_back({prefix, "a host route"});
  CHECK_OK(check_routes(
      {settings_.pool4, settings_.pool6, settings_.vip_pool4, settings_.vip_pool6}, routes));
  std::vector<OldSysctl> changed;
  CHECK_OK(kernel_->prepare_node(changed));
  const auto stored = TRY(store_->load());
  CHECK_OK(remember(changed, stored));
  auto network = TRY(topology.node_network());
  settings_.node_addresses = std::move(network.addresses);
  settings_.publish_addresses =
      config_.publish_addresses.empty() ? std::move(network.global) : config_.publish_addresses;
  bridges_ = std::move(network.bridges);
  policy::TableOptions options;
  auto was = stored.sysctls;
  for (const auto& old : changed) was.emplace(old.key, old.value);
  options.forwarding_was_off = was.contains("net/ipv4/ip_forward");
  options.log_group = kLogGroup;
  kernel_->set_table(settings_, options);
  return {};
}

// What was on the node before us; what an earlier run found counts, not what it left.
Status Daemon::remember(const std::vector<OldSysctl>& changed, const StoredState& stored) {
  std::vector<StoreChange> changes;
  for (const auto& old : changed) {
    if (!stored.sysctls.contains(old.key)) changes.push_back(PutSysctl{old.key, old.value});
  }
  if (changes.empty()) return {};
  return store_->apply(changes, stored.generation + 1);
}

Status Daemon::start_node() {
  names_ = std::make_unique<Names>(zone_settings());
  node_ = std::make_unique<Node>(settings_, *store_, *kernel_, *names_,
                                 [this](mesh::v1::Event event) { on_event(std::move(event)); });
  node_->set_mtu(TRY(kernel_->topology().uplink_mtu()));
  return node_->load(BootClock::now());
}

dns::ZoneSettings Daemon::zone_settings() const {
  dns::ZoneSettings zone;
  zone.zone = dns::to_wire(config_.zone).value_or(std::string(1, '\0'));
  zone.engine_prefixes = config_.engine_prefixes.empty() ? bridges_ : config_.engine_prefixes;
  for (const auto& range :
       {settings_.pool4, settings_.pool6, settings_.vip_pool4, settings_.vip_pool6}) {
    if (!range) continue;
    zone.own_ranges.push_back(*range);
    zone.filtered.push_back(*range);
  }
  for (const auto* text :
       {"127.0.0.0/8", "0.0.0.0/8", "169.254.0.0/16", "::1/128", "::/128", "fe80::/10"}) {
    zone.filtered.push_back(Prefix::parse(text).value());
  }
  for (const auto& address : settings_.node_addresses) {
    zone.filtered.push_back(Prefix::of(address, address.is_v4() ? 32 : 128));
  }
  zone.resolver4 = settings_.resolver4[0];
  if (settings_.pool6) zone.resolver6 = settings_.resolver6[0];
  return zone;
}

std::vector<dns::UpstreamAddress> Daemon::upstreams() const {
  std::vector<Upstream> servers = config_.upstreams;
  if (servers.empty()) {
    const IpAddress own[] = {settings_.resolver4[0], settings_.resolver4[1], settings_.resolver6[0],
                             settings_.resolver6[1]};
    auto host = read_resolv_conf(own);
    if (!host) {
      log::warning("upstreams: {}", host.error().what);
    } else {
      servers = std::move(host->servers);
    }
  }
  std::vector<dns::UpstreamAddress> result;
  for (const auto& server : servers) result.push_back({server.address, server.port});
  return result;
}

// Those that an earlier run left with the service manager, new ones for the rest.
Result<std::vector<dns::Listener>> Daemon::listeners() {
  std::vector<IpAddress> addresses(std::begin(settings_.resolver4), std::end(settings_.resolver4));
  if (settings_.pool6) {
    addresses.insert(addresses.end(), std::begin(settings_.resolver6),
                     std::end(settings_.resolver6));
  }
  std::vector<dns::Listener> kept;
  for (auto& stored : TRY(take_stored_fds())) {
    auto listener = dns::adopt_listener(std::move(stored.fd), stored.name);
    if (listener && std::ranges::find(addresses, listener->address) != addresses.end()) {
      kept.push_back(*std::move(listener));
    } else {
      log::warning("start: a stored descriptor is not ours any more: {}", stored.name);
    }
  }
  std::erase_if(addresses, [&](const IpAddress& address) {
    return std::ranges::find(kept, address, &dns::Listener::address) != kept.end();
  });
  auto made = TRY(dns::open_listeners(addresses, 53, static_cast<int>(config_.dns_workers)));
  for (auto& listener : made) {
    const int fd = listener.fd.get();
    if (const auto stored = store_fds(listener.name(), {&fd, 1}); !stored) {
      log::warning("start: {}", stored.error().what);
    }
    kept.push_back(std::move(listener));
  }
  return kept;
}

Status Daemon::start_dns() {
  listeners_ = TRY(listeners());
  dns::ServerOptions options;
  options.workers = static_cast<int>(config_.dns_workers);
  options.cache_bytes = std::size_t{config_.dns_cache_mib} << 20;
  options.upstreams = upstreams_ = upstreams();
  dns_ = TRY(dns::Server::start(listeners_, names_->published(), std::move(options)));
  return {};
}

Status Daemon::start_events() {
  const auto on = [&](int fd, void (Daemon::*handler)()) -> Status {
    sources_.push_back(TRY(loop_->on_readable(fd, [this, handler] { (this->*handler)(); })));
    return {};
  };
  nft_monitor_ = std::make_unique<netlink::NftMonitor>(
      TRY(netlink::NftMonitor::make(std::string(policy::kTableName))));
  link_monitor_ =
      std::make_unique<netlink::LinkMonitor>(TRY(netlink::LinkMonitor::open(kLinkGroup)));
  nflog_ = std::make_unique<netlink::NflogReader>(TRY(netlink::NflogReader::open(kLogGroup)));
  CHECK_OK(on(nft_monitor_->fd(), &Daemon::on_table_events));
  CHECK_OK(on(link_monitor_->fd(), &Daemon::on_link_events));
  CHECK_OK(on(nflog_->fd(), &Daemon::on_log_packets));
  CHECK_OK(on(dns_->refusals().fd(), &Daemon::on_refused_names));
  node_timer_ = TRY(loop_->make_timer([this] {
    node_->on_timer(BootClock::now());
    settle();
  }));
  audit_timer_ = TRY(loop_->make_timer([this] { on_audit(); }));
  audit_timer_->set(BootClock::now() + kAuditEvery);
  why_timer_ = TRY(loop_->make_timer([this] { publish_why(); }));
  ready_ = TRY(ReadyWatch::make(
      *loop_, node_->world(), [this](const std::string& id, Listening seen, TimePoint now) {
        node_->on_listening(id, seen.ready, std::move(seen.problems), now);
        settle();
      }));
  for (const int number : {SIGTERM, SIGINT}) {
    sources_.push_back(TRY(loop_->on_signal(number, [this] {
      [[maybe_unused]] const auto told = notify_stopping();
      loop_->quit();
    })));
  }
  return {};
}

Status Daemon::start_api() {
  admin_ = TRY(Admin::make(config_.run_dir));
  sources_.push_back(TRY(loop_->on_readable(admin_->jobs().fd(), [this] { on_jobs(); })));
  if (const auto interval = watchdog_interval()) {
    watchdog_timer_ = TRY(loop_->make_timer([this, every = *interval / 3] {
      [[maybe_unused]] const auto told = notify_watchdog();
      watchdog_timer_->set(BootClock::now() + every);
    }));
    watchdog_timer_->set(BootClock::now());
  }
  if (const auto told = notify_ready(); !told) log::warning("start: {}", told.error().what);
  log::info("meshd {} serves {} on node {}: {} workloads, {} attached", kVersion, config_.zone,
            config_.node_name, node_->world().workloads.size(), node_->links().size());
  return {};
}

// --- events --------------------------------------------------------------------------

void Daemon::settle() {
  ready_->refresh(BootClock::now());
  node_timer_->set(node_->next_timer());
}

void Daemon::on_jobs() {
  for (auto& job : admin_->jobs().drain()) job(*this);
  settle();
}

void Daemon::on_table_events() {
  const auto events = nft_monitor_->read_events();
  if (!events) return log::warning("nftables events: {}", events.error().what);
  for (const auto& event : *events) {
    const bool own =
        event.kind == netlink::TableEvent::Kind::kChanged && event.port_id == kernel_->nft_port();
    if (own) continue;
    if (event.kind == netlink::TableEvent::Kind::kChanged) {
      log::warning("table meshd was changed by {} (pid {})", event.process, event.pid);
    }
    node_->on_drift(BootClock::now());
    return settle();  // one comparison for all of them
  }
}

void Daemon::on_link_events() {
  const auto events = link_monitor_->read();
  if (!events) return log::warning("link events: {}", events.error().what);
  using Kind = netlink::LinkEvent::Kind;
  bool addresses = false, audit = false;
  for (const auto& event : *events) {
    if (event.kind == Kind::kUnknown) addresses = audit = true;
    if (event.kind == Kind::kAddress) addresses = audit = true;
    if (event.kind == Kind::kLink && event.removed && event.ours) {
      node_->on_link_gone(event.name, BootClock::now());
    }
    if (event.ours && event.removed && event.kind != Kind::kLink) audit = true;
  }
  if (addresses) follow_addresses();
  if (audit) audit_timer_->set(BootClock::now() + std::chrono::milliseconds(100));
  settle();
}

void Daemon::follow_addresses() {
  auto next = settings_;
  auto network = kernel_->topology().node_network();
  if (!network) return;  // the next audit looks again
  next.node_addresses = std::move(network->addresses);
  if (config_.publish_addresses.empty()) next.publish_addresses = std::move(network->global);
  if (next.node_addresses == settings_.node_addresses &&
      next.publish_addresses == settings_.publish_addresses && network->bridges == bridges_) {
    return;
  }
  bridges_ = std::move(network->bridges);
  settings_ = std::move(next);
  names_->set_settings(zone_settings());
  node_->set_settings(settings_, BootClock::now());
}

void Daemon::on_audit() {
  audit_timer_->set(BootClock::now() + kAuditEvery);
  follow_addresses();
  // resolv.conf changes under a daemon: leases, VPNs, an administrator.
  if (auto now = upstreams(); now != upstreams_) {
    upstreams_ = now;
    dns_->set_upstreams(std::move(now));
  }
  node_->on_audit(BootClock::now());
  settle();
}

void Daemon::on_event(mesh::v1::Event event) {
  using Kind = mesh::v1::Event::Kind;
  const auto now = std::chrono::system_clock::now();
  event.set_time(rfc3339(now));
  const auto name = mesh::v1::Event::Kind::Value_Name(event.kind());
  const bool refusal = event.kind() == Kind::REFUSED_FLOW || event.kind() == Kind::REFUSED_NAME;
  if (event.kind() == Kind::PROBLEM || event.kind() == Kind::REPAIRED) {
    log::warning("{} {} {}", name, event.id(), event.detail());
  } else {
    log::info("{} {} {} {}", name, event.id(), event.peer(), event.detail());
  }
  std::erase_if(watchers_, [&](const auto& stream) { return !stream->send(event); });
  if (!refusal) return;
  std::erase_if(refusal_watchers_, [&](const auto& stream) { return !stream->send(event); });
}

void Daemon::note_refusal(const std::string& id, std::string line) {
  refusals_.add(id, std::move(line), BootClock::now());
  if (why_changed_.empty()) why_timer_->set(BootClock::now() + kWhyDelay);
  why_changed_.insert(id);
}

void Daemon::publish_why() {
  const auto now = BootClock::now();
  for (const auto& id : std::exchange(why_changed_, {})) {
    if (!node_->world().workloads.contains(id)) {
      refusals_.forget(id);
      names_->set_why(id, {});
      continue;
    }
    names_->set_why(id, refusals_.lines(id, now));
  }
}

void Daemon::on_refused_names() {
  for (auto& refusal : dns_->refusals().drain()) {
    mesh::v1::Event event;
    event.set_kind(mesh::v1::Event::Kind::REFUSED_NAME);
    event.set_id(refusal.client);
    event.set_peer(refusal.name);
    event.set_detail(refusal.reason);
    note_refusal(refusal.client, refusal.name + ": " + refusal.reason);
    on_event(std::move(event));
  }
}

void Daemon::on_log_packets() {
  const auto packets = nflog_->read();
  if (!packets) return log::warning("nflog: {}", packets.error().what);
  const auto now = BootClock::now();
  for (const auto& packet : *packets) {
    const bool known = packet.proto == 6 || packet.proto == 17;
    mesh::v1::Event event;
    event.set_kind(mesh::v1::Event::Kind::REFUSED_FLOW);
    event.set_peer(packet.destination.to_string());
    const auto source = node_->id_at(packet.source);
    event.set_id(source.empty() ? packet.source.to_string() : source);
    const auto target = node_->id_at(packet.destination);
    if (!target.empty()) event.set_peer(target);
    if (packet.prefix.starts_with(policy::kSpoofPrefix)) {
      event.set_detail("a source address that is not its own");
    } else if (known) {
      const auto proto = packet.proto == 6 ? Proto::kTcp : Proto::kUdp;
      const auto why = node_->explain(packet.source.to_string(), packet.destination.to_string(),
                                      proto, packet.destination_port, now);
      event.set_detail(fmt::format("{}/{}: {}", proto_name(proto), packet.destination_port,
                                   why ? why->reason : why.error().what));
      if (why) event.set_missing(why->missing);
    } else {
      event.set_detail(fmt::format("protocol {}", packet.proto));
    }
    if (!source.empty()) note_refusal(source, event.peer() + " " + event.detail());
    on_event(std::move(event));
  }
}

}  // namespace meshd
