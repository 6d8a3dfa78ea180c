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
#include "meshd/slice.h"

namespace meshd {
namespace {

// Full comparisons without a cause: links and routes, whose changes events mostly tell.
constexpr auto kAuditEvery = std::chrono::seconds(10);
// And after an event: others come with it.
constexpr auto kAuditDelay = std::chrono::milliseconds(100);
// Many calls at once leave room for timers and for the kernel's events in between.
constexpr auto kJobsTurn = std::chrono::milliseconds(5);
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
  daemon->follow_addresses();  // what has changed since they were read, before there were events
  CHECK_OK(daemon->start_api());
  CHECK_OK(daemon->start_controller());
  CHECK_OK(daemon->start_metrics());
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
  const auto stored = TRY(store_->load());
  if (config_.controller && config_.underlay.mode != UnderlayMode::kRouted) {
    settings_.tunnel = kTunnelName;
  }
  if (stored.cluster) settings_ = with_terms(std::move(settings_), stored.cluster->terms);
  kernel_ = TRY(LinuxKernel::make(settings_));
  auto& topology = kernel_->topology();
  CHECK_OK(
      check_routes({settings_.pool4, settings_.pool6, settings_.vip_pool4, settings_.vip_pool6},
                   TRY(topology.routes())));
  // Nothing of the node is changed before it is known that this can be a mesh node.
  table_options_ = {
      .forwarding4_was_off = true, .forwarding6_was_off = true, .log_group = kLogGroup};
  kernel_->set_table(settings_, table_options_);
  CHECK_OK(kernel_->check());
  if (const auto kept = kernel_->keep_seal(config_.run_dir, store_->boot_id()); !kept) {
    log::warning("start: {}; the next one reads the whole table back", kept.error().what);
  }
  topology.set_memory(stored.sysctls, [this](const auto& old) { return remember(old); });
  CHECK_OK(kernel_->prepare_node());
  settings_.publish_addresses = config_.publish_addresses;
  take(TRY(topology.node_network()));
  set_table();
  follow_stored(stored);
  return {};
}

void Daemon::set_table() {
  const auto& topology = kernel_->topology();
  table_options_.forwarding4_was_off = topology.forwarding_was_off(Family::kV4);
  table_options_.forwarding6_was_off = topology.forwarding_was_off(Family::kV6);
  kernel_->set_table(settings_, table_options_);
}

// What was on the node before us, for --purge.
Status Daemon::remember(const std::vector<OldSysctl>& old) {
  std::vector<StoreChange> changes;
  for (const auto& one : old) changes.push_back(PutSysctl{one.key, one.value});
  return store_->amend(changes);
}

Status Daemon::start_node() {
  names_ = std::make_unique<Names>(zone_settings());
  NodeOptions options{std::chrono::days(config_.idle_release_days)};
  if (config_.controller) {
    options.cluster = ClusterOptions{
        .version = std::string(kVersion),
        .underlay = TRY(kernel_->underlay().addresses(config_.underlay)),
        .gateway = config_.gateway,
        .adopt = [this](const policy::Settings& settings) { return adopt(settings); }};
  }
  node_ = std::make_unique<Node>(
      settings_, *store_, *kernel_, *names_,
      [this](mesh::v1::Event event) { on_event(std::move(event)); }, std::move(options));
  node_->set_mtu(TRY(kernel_->topology().uplink_mtu()));
  CHECK_OK(node_->load(BootClock::now()));
  engine_notes_ = std::make_unique<EngineNotes>(TRY(EngineNotes::open(config_.state_dir)));
  CHECK_OK(engine_notes_->write_rules(config_.undeclared, config_.controller.has_value()));
  return note_declared();
}

// A container that is not noted starts as one that nobody declared.
Status Daemon::note_declared() {
  auto noted = engine_notes_->follow(node_->world().workloads);
  const auto trouble = noted ? std::string() : noted.error().what;
  if (!trouble.empty() && trouble != engine_trouble_) log::error("engines: {}", trouble);
  engine_trouble_ = trouble;
  return noted;
}

dns::ZoneSettings Daemon::zone_settings() const {
  dns::ZoneSettings zone;
  zone.zone = dns::to_wire(settings_.zone).value_or(std::string(1, '\0'));
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
  pairs_timer_ = TRY(loop_->make_timer([this] { report_pairs(); }));
  traffic_timer_ = TRY(loop_->make_timer([this] { read_traffic(); }));
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
  firewalls_ = std::make_unique<Firewalls>(TRY(Firewalls::make()));
  follow_firewalls();
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
  log::info("meshd {} serves {} on node {}: {} workloads, {} attached", kVersion, settings_.zone,
            config_.node_name, node_->world().workloads.size(), node_->links().size());
  return {};
}

Status Daemon::start_controller() {
  if (!config_.controller) return {};
  controller_ = std::make_unique<ControllerSession>(link_options(config_), *node_);
  sources_.push_back(TRY(loop_->on_readable(controller_->link().fd(), [this] {
    controller_->link().on_readable(BootClock::now());
    settle();
  })));
  controller_timer_ = TRY(loop_->make_timer([this] {
    controller_->link().on_timer(BootClock::now());
    settle();
  }));
  return {};
}

Status Daemon::adopt(const policy::Settings& settings) {
  CHECK_OK(check_routes({settings.pool4, settings.pool6, settings.vip_pool4, settings.vip_pool6},
                        TRY(kernel_->topology().routes())));
  auto& topology = kernel_->topology();
  topology.set_settings(settings);
  // Of a family that comes with it, what was before is learned here, as at the start.
  if (auto prepared = kernel_->prepare_node(); !prepared) {
    topology.set_settings(settings_);
    return prepared;
  }
  settings_ = settings;
  set_table();
  names_->set_settings(zone_settings());
  return {};
}

// --- events --------------------------------------------------------------------------

void Daemon::settle() {
  if (node_->world().nodes != followed_nodes_) {
    followed_nodes_ = node_->world().nodes;
    follow_underlay(followed_nodes_);
  }
  [[maybe_unused]] const auto noted = note_declared();  // status() shows what is wrong
  ready_->refresh(BootClock::now());
  node_timer_->set(node_->next_timer());
  if (controller_timer_) controller_timer_->set(controller_->link().next_timer());
  follow_look(BootClock::now());
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
  // Whoever took our rules out of DOCKER-USER; on_audit() sees all else soon enough.
  if (nft_monitor_->take_filter() && config_.docker_user) follow_firewalls();
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
  if (!events) {
    // What was among the rest, nobody has heard of.
    audit_by(BootClock::now() + kAuditDelay);
    return log::warning("link events: {}", events.error().what);
  }
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
      audit |= event.name == kTunnelName;
      if (event.ours || is_attached(event.name)) node_->on_link_gone(event.name, now);
    }
    if (event.ours && event.removed && event.kind != Kind::kLink) audit = true;
    // Either may make an engine's bridge one that others' machines are on.
    addresses |= event.leads_out || (event.kind == Kind::kRoute && event.destination &&
                                     event.destination->length() == 0);
    // It may stand in the place of one of ours, which is all that is told of that.
    if (event.kind == Kind::kRoute && !event.ours && !event.removed) {
      audit |= event.destination && is_mesh(*event.destination);
    }
  }
  for (const auto& event : *events) {
    if (event.kind != Kind::kLink || event.removed || gone.contains(event.name)) continue;
    // Renamed, or out of our group.
    audit |= event.ours != is_attached(event.name);
    // An engine has given a container of ours another network.
    audit |= event.open_port_to && kernel_->topology().reaches(*event.open_port_to);
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

// Whether anything is not as it was.
bool Daemon::take(NodeNetwork network) {
  const auto put = [](auto& to, auto&& value) {
    if (to == value) return false;
    to = std::forward<decltype(value)>(value);
    return true;
  };
  bool changed = put(settings_.node_addresses, std::move(network.addresses));
  if (config_.publish_addresses.empty()) {
    changed = put(settings_.publish_addresses, std::move(network.global)) || changed;
  }
  changed = put(settings_.engines4, std::move(network.engines4)) || changed;
  changed = put(settings_.engines6, std::move(network.engines6)) || changed;
  return put(bridges_, std::move(network.bridges)) || changed;
}

void Daemon::follow_addresses() {
  auto network = kernel_->topology().node_network();
  if (!network) {
    audit_by(BootClock::now() + kAuditDelay);
    return log::warning("the node's addresses: {}", network.error().what);
  }
  if (!take(*std::move(network))) return;
  names_->set_settings(zone_settings());
  node_->set_settings(settings_, BootClock::now());
}

void Daemon::on_audit() {
  audit_at_ = TimePoint::max();
  audit_by(BootClock::now() + kAuditEvery);
  follow_addresses();
  follow_underlay(node_->world().nodes);
  follow_firewalls();
  open_log();
  // resolv.conf changes under a daemon: leases, VPNs, an administrator.
  if (auto now = upstreams(); now != upstreams_) {
    upstreams_ = now;
    dns_->set_upstreams(std::move(now));
  }
  node_->on_audit(BootClock::now());
  settle();
}

}  // namespace meshd
