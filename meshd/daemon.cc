#include "meshd/daemon.h"

#include <fmt/format.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "base/log.h"
#include "dns/name.h"
#include "meshd/listeners.h"
#include "meshd/refusal_text.h"

namespace meshd {
namespace {

// Full comparisons without a cause: links and routes, whose changes events mostly tell.
constexpr auto kAuditEvery = std::chrono::seconds(10);
// And after an event: others come with it.
constexpr auto kAuditDelay = std::chrono::milliseconds(100);
// Many calls at once leave room for timers and for the kernel's events in between.
constexpr auto kJobsTurn = std::chrono::milliseconds(5);
// TXT why.<zone> may be that late; a flood of refusals makes one change of names.
constexpr auto kWhyDelay = std::chrono::milliseconds(50);
// The group that our table logs to. Configurable groups would have to be told to the
// table's rules; nothing else on a node uses this one.
constexpr std::uint16_t kLogGroup = 88;

}  // namespace

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
  CHECK_OK(daemon->watch_table());
  CHECK_OK(daemon->start_api());
  daemon->settle();
  malloc_trim(0);  // the first plan of everything took memory that is not needed again
  return daemon;
}

Daemon::~Daemon() {
  if (!admin_ || admin_->shutdown(*this)) return;
  // Its threads still hold what it owns, and the process is about to end.
  log::error("stop: some calls did not end");
  [[maybe_unused]] const auto* const left = admin_.release();
}

Status Daemon::open_store() {
  store_ = std::make_unique<Store>(TRY(Store::open(config_.state_dir)));
  return {};
}

Status Daemon::learn_node() {
  settings_ = TRY(settings_of(config_, store_->ula()));
  kernel_ = TRY(LinuxKernel::make(settings_));
  auto& topology = kernel_->topology();
  CHECK_OK(
      check_routes({settings_.pool4, settings_.pool6, settings_.vip_pool4, settings_.vip_pool6},
                   TRY(topology.routes())));
  // Nothing of the node is changed before it is known that this can be a mesh node.
  policy::TableOptions options{
      .forwarding4_was_off = true, .forwarding6_was_off = true, .log_group = kLogGroup};
  kernel_->set_table(settings_, options);
  CHECK_OK(kernel_->check());
  if (const auto kept = kernel_->keep_seal(config_.run_dir, store_->boot_id()); !kept) {
    log::warning("start: {}; the next one reads the whole table back", kept.error().what);
  }
  topology.set_memory(TRY(store_->load()).sysctls,
                      [this](const auto& old) { return remember(old); });
  CHECK_OK(kernel_->prepare_node());
  auto network = TRY(topology.node_network());
  settings_.node_addresses = std::move(network.addresses);
  settings_.publish_addresses = config_.publish_addresses;
  if (config_.publish_addresses.empty()) settings_.publish_addresses = std::move(network.global);
  bridges_ = std::move(network.bridges);
  options.forwarding4_was_off = topology.forwarding_was_off(Family::kV4);
  options.forwarding6_was_off = topology.forwarding_was_off(Family::kV6);
  kernel_->set_table(settings_, options);
  return {};
}

// What was on the node before us, for --purge.
Status Daemon::remember(const std::vector<OldSysctl>& old) {
  std::vector<StoreChange> changes;
  for (const auto& one : old) changes.push_back(PutSysctl{one.key, one.value});
  return store_->amend(changes);
}

Status Daemon::start_node() {
  names_ = std::make_unique<Names>(zone_settings());
  node_ = std::make_unique<Node>(
      settings_, *store_, *kernel_, *names_,
      [this](mesh::v1::Event event) { on_event(std::move(event)); },
      NodeOptions{std::chrono::days(config_.idle_release_days)});
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

Status Daemon::start_dns() {
  std::vector<IpAddress> addresses(std::begin(settings_.resolver4), std::end(settings_.resolver4));
  if (settings_.pool6) std::ranges::copy(settings_.resolver6, std::back_inserter(addresses));
  listeners_ = TRY(take_listeners(addresses, static_cast<int>(config_.dns_workers)));
  auto options = server_options(config_);
  options.upstreams = upstreams_ = upstreams();
  dns_ = TRY(dns::Server::start(listeners_, names_->published(), std::move(options)));
  return {};
}

Status Daemon::start_events() {
  const auto on = [&](int fd, void (Daemon::*handler)()) -> Status {
    sources_.push_back(TRY(loop_->on_readable(fd, [this, handler] { (this->*handler)(); })));
    return {};
  };
  link_monitor_ =
      std::make_unique<netlink::LinkMonitor>(TRY(netlink::LinkMonitor::open(kLinkGroup)));
  CHECK_OK(on(link_monitor_->fd(), &Daemon::on_link_events));
  CHECK_OK(on(dns_->refusals().fd(), &Daemon::on_refused_names));
  open_log();
  node_timer_ = TRY(loop_->make_timer([this] {
    node_->on_timer(BootClock::now());
    settle();
  }));
  audit_timer_ = TRY(loop_->make_timer([this] { on_audit(); }));
  audit_by(BootClock::now() + kAuditEvery);
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

// After the first comparison: for a listener the kernel makes a message of each element, which
// took most of the time and 4 GiB of memory when 600,000 were new.
Status Daemon::watch_table() {
  nft_monitor_ = std::make_unique<netlink::NftMonitor>(
      TRY(netlink::NftMonitor::make(std::string(policy::kTableName))));
  sources_.push_back(TRY(loop_->on_readable(nft_monitor_->fd(), [this] { on_table_events(); })));
  // What was changed in between, nobody has heard of.
  const auto settled = kernel_->is_settled();
  if (!settled || !*settled) node_->on_drift(BootClock::now());
  return {};
}

// Without it nobody is told of refusals, but all else works.
void Daemon::open_log() {
  if (nflog_) return;
  auto reader = netlink::NflogReader::open(kLogGroup);
  auto watched = !reader ? Result<std::unique_ptr<Source>>(std::unexpected(reader.error()))
                         : loop_->on_readable(reader->fd(), [this] { on_log_packets(); });
  if (!watched) {
    if (log_trouble_ != watched.error().what) log::warning("refusals: {}", watched.error().what);
    log_trouble_ = std::move(watched).error().what;
    return;
  }
  nflog_ = std::make_unique<netlink::NflogReader>(*std::move(reader));
  sources_.push_back(*std::move(watched));
  log_trouble_.clear();
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
  std::ranges::move(admin_->jobs().drain(), std::back_inserter(jobs_));
  const auto end = BootClock::now() + kJobsTurn;
  while (!jobs_.empty()) {
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    job(*this);
    if (BootClock::now() >= end) break;
  }
  if (!jobs_.empty()) loop_->later([this] { on_jobs(); });
  settle();
}

void Daemon::on_table_events() {
  const auto events = nft_monitor_->read_events();
  if (!events) {
    // What was among the rest, nobody has heard of.
    log::warning("nftables events: {}", events.error().what);
    kernel_->distrust();
    node_->on_drift(BootClock::now());
    return settle();
  }
  for (const auto& event : *events) {
    const bool own =
        event.kind == netlink::TableEvent::Kind::kChanged && event.port_id == kernel_->nft_port();
    if (own) continue;
    if (event.kind == netlink::TableEvent::Kind::kChanged) {
      log::warning("table meshd was changed by {} (pid {})", event.process, event.pid);
    }
    kernel_->distrust();
    node_->on_drift(BootClock::now());
    return settle();  // one comparison for all of them
  }
  if (const auto generation = nft_monitor_->heard()) kernel_->heard(*generation);
}

void Daemon::on_link_events() {
  const auto events = link_monitor_->read();
  if (!events) return log::warning("link events: {}", events.error().what);
  using Kind = netlink::LinkEvent::Kind;
  const auto now = BootClock::now();
  const auto is_attached = [this](const std::string& name) {
    return std::ranges::any_of(node_->world().workloads, [&](const auto& entry) {
      const auto& attachment = entry.second.attachment;
      return attachment && attachment->host_ifname == name;
    });
  };
  std::set<std::string_view> gone;
  bool addresses = false, audit = false;
  for (const auto& event : *events) {
    if (event.kind == Kind::kUnknown || event.kind == Kind::kAddress) addresses = audit = true;
    if (event.kind == Kind::kLink && event.removed) {
      gone.insert(event.name);
      if (event.ours || is_attached(event.name)) node_->on_link_gone(event.name, now);
    }
    if (event.ours && event.removed && event.kind != Kind::kLink) audit = true;
    // It may stand in the place of one of ours, which is all that is told of that.
    if (event.kind == Kind::kRoute && !event.ours && !event.removed) {
      audit |= event.destination && is_mesh(*event.destination);
    }
  }
  for (const auto& event : *events) {
    if (event.kind != Kind::kLink || event.removed || gone.contains(event.name)) continue;
    // Renamed, or out of our group.
    audit |= event.ours != is_attached(event.name);
  }
  if (addresses) follow_addresses();
  if (audit) audit_by(now + kAuditDelay);
  settle();
}

bool Daemon::is_mesh(const Prefix& range) const {
  for (const auto& pool :
       {settings_.pool4, settings_.pool6, settings_.vip_pool4, settings_.vip_pool6}) {
    if (pool && pool->overlaps(range) && range.length() >= pool->length()) return true;
  }
  return false;
}

// Never later than it was to be: events that do not end would put it off for ever.
void Daemon::audit_by(TimePoint when) {
  if (audit_at_ <= when) return;
  audit_at_ = when;
  audit_timer_->set(when);
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
  audit_at_ = TimePoint::max();
  audit_by(BootClock::now() + kAuditEvery);
  follow_addresses();
  // For containers to come; the others' packets find out by themselves (path MTU).
  if (const auto mtu = kernel_->topology().uplink_mtu()) node_->set_mtu(*mtu);
  open_log();
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
  if (event.kind() == Kind::DETACHED || event.kind() == Kind::DELETED) {
    // Whoever bears the id next has been refused nothing.
    refusals_.forget(event.id());
    why_changed_.erase(event.id());
    names_->set_why(event.id(), {});
  }
  if (!refusal) return;
  std::erase_if(refusal_watchers_, [&](const auto& stream) { return !stream->send(event); });
}

void Daemon::note_refusal(const std::string& id, std::string line) {
  refusals_.add(id, std::move(line), std::chrono::system_clock::now());
  if (why_changed_.empty()) why_timer_->set(BootClock::now() + kWhyDelay);
  why_changed_.insert(id);
}

void Daemon::publish_why() {
  for (const auto& id : std::exchange(why_changed_, {})) {
    if (!node_->world().workloads.contains(id)) {
      refusals_.forget(id);
      names_->set_why(id, {});
      continue;
    }
    names_->set_why(id, refusals_.lines(id));
  }
}

void Daemon::on_refused_names() {
  for (auto& refusal : dns_->refusals().drain()) {
    mesh::v1::Event event;
    event.set_kind(mesh::v1::Event::Kind::REFUSED_NAME);
    event.set_id(refusal.client);
    event.set_peer(refusal.name);
    event.set_detail(refusal.reason);
    event.set_missing(missing_for_name(node_->world(), refusal.client, refusal.name));
    note_refusal(refusal.client, refusal.name + ": " + refusal.reason);
    on_event(std::move(event));
  }
}

void Daemon::on_log_packets() {
  const auto packets = nflog_->read();
  if (!packets) return log::warning("nflog: {}", packets.error().what);
  const auto now = BootClock::now();
  for (const auto& packet : *packets) {
    // Each costs an explanation, and a flood repeats itself.
    if (!repeats_.admit({packet.source, packet.destination, packet.proto, packet.destination_port},
                        now)) {
      continue;
    }
    const bool known = packet.proto == 6 || packet.proto == 17;
    mesh::v1::Event event;
    event.set_kind(mesh::v1::Event::Kind::REFUSED_FLOW);
    event.set_peer(packet.destination.to_string());
    const auto source = node_->id_at(packet.source);
    event.set_id(source.empty() ? packet.source.to_string() : source);
    const auto target = who_is(node_->world(), packet.destination);
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
