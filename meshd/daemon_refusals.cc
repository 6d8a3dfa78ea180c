// What Daemon does with refusals and with events: tells who watches, keeps what people ask for, and
// reports refused pairs to the controller.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "meshd/daemon.h"
#include "meshd/refusal_text.h"
#include "policy/base_table.h"
#include "policy/refused_list.h"

namespace meshd {
namespace {

// TXT why.<zone> may be that late; a flood of refusals makes one change of names.
constexpr auto kWhyDelay = std::chrono::milliseconds(50);
// Between reports of refused pairs: they are for people, and there are many nodes.
constexpr auto kReportRefusedEvery = std::chrono::seconds(5);

std::int64_t wall_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

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
  if (event.kind() == Kind::DELETED) pairs_.forget(event.id());
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
    // Who does not learn the address sends no packet: this is all that there is of the pair.
    if (!event.missing().empty()) {
      auto name = refusal.name;
      if (name.ends_with('.')) name.pop_back();
      note_pair({refusal.client, std::move(name), Proto::kTcp, 0}, event.missing());
    }
    ++counts_.refused_names;
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
    const auto refusal = describe(
        node_->world(), {packet.source, packet.destination, packet.proto, packet.destination_port,
                         packet.prefix.starts_with(policy::kSpoofPrefix)});
    mesh::v1::Event event;
    event.set_kind(mesh::v1::Event::Kind::REFUSED_FLOW);
    event.set_id(refusal.consumer);
    event.set_peer(refusal.provider);
    event.set_detail(refusal.detail);
    event.set_missing(refusal.missing);
    const auto source = node_->id_at(packet.source);
    if (!source.empty()) note_refusal(source, refusal.provider + " " + refusal.detail);
    if (refusal.is_pair) {
      note_pair({refusal.consumer, refusal.provider,
                 packet.proto == std::to_underlying(Proto::kUdp) ? Proto::kUdp : Proto::kTcp,
                 packet.destination_port},
                refusal.missing);
    }
    ++counts_.refused_flows;
    on_event(std::move(event));
  }
}

void Daemon::note_pair(const policy::RefusedPair& pair, const std::string& missing) {
  auto& entry = pairs_.add(pair, 1, wall_ms());
  entry.missing = missing;
  entry.node = config_.node_name;
  const auto consumer = node_->world().workloads.find(pair.consumer);
  if (consumer != node_->world().workloads.end()) {
    entry.owner = consumer->second.declaration.owner;
    entry.workflow = consumer->second.declaration.workflow;
  }
  if (node_->cluster() == nullptr || std::exchange(pairs_timer_set_, true)) return;
  pairs_timer_->set(BootClock::now() + kReportRefusedEvery);
}

// Without a session they are kept, as many as there is room for.
void Daemon::report_pairs() {
  pairs_timer_set_ = false;
  auto* const cluster = node_->cluster();
  if (cluster->is_connected()) {
    cluster->tell_refused(refused_flows(pairs_.take_untold(kMaxReportedPairs)));
  }
  if (!pairs_.has_untold()) return;
  pairs_timer_set_ = true;
  pairs_timer_->set(BootClock::now() + kReportRefusedEvery);
}

void Daemon::list_refused(const mesh::v1::Empty&, Reply<mesh::v1::RefusedList> reply) {
  reply(policy::refused_list(pairs_));
}

}  // namespace meshd
