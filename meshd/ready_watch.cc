#include "meshd/ready_watch.h"

#include <fmt/format.h>

#include <algorithm>

namespace meshd {

Result<std::unique_ptr<ReadyWatch>> ReadyWatch::make(Loop& loop, const policy::World& world,
                                                     Seen seen) {
  std::unique_ptr<ReadyWatch> watch(new ReadyWatch(loop, world, std::move(seen)));
  watch->timer_ = TRY(loop.make_timer([raw = watch.get()] { raw->on_timer(); }));
  return watch;
}

void ReadyWatch::refresh(TimePoint now) {
  std::erase_if(watched_, [&](const auto& entry) {
    const auto found = world_.workloads.find(entry.first);
    return found == world_.workloads.end() || !worth_watching(found->second) ||
           found->second.attachment->netns != entry.second.netns;
  });
  for (const auto& [id, workload] : world_.workloads) {
    if (!worth_watching(workload)) continue;
    auto& watched = watched_[id];
    if (watched.netns != workload.attachment->netns) {
      watched = {};
      watched.netns = workload.attachment->netns;
      watched.next = now + kLookFirst;
    }
    // READY is for good, what is declared is not: a new port is looked for as at the start.
    const bool ready = is_ready(workload);
    if (ready && !watched.was_ready) {
      watched.ready_since = now;
      watched.next = now + kLookSettling;
    } else if (!ready && watched.was_ready) {
      watched.interval = kLookFirst;
      watched.next = now + kLookFirst;
    }
    watched.was_ready = ready;
  }
  rearm();
}

void ReadyWatch::rearm() {
  std::optional<TimePoint> next;
  for (const auto& [id, watched] : watched_) {
    if (!next || watched.next < *next) next = watched.next;
  }
  for (const auto& [number, probe] : probes_) {
    if (!next || probe.probe.deadline() < *next) next = probe.probe.deadline();
  }
  timer_->set(next);
}

void ReadyWatch::on_timer() {
  const auto now = BootClock::now();
  std::vector<std::string> due;
  for (auto& [id, watched] : watched_) {
    if (watched.next > now) continue;
    watched.interval = next_look(watched.was_ready, now - watched.ready_since, watched.interval);
    watched.next = now + watched.interval;
    due.push_back(id);
  }
  // A look can change the world, and with it what is watched.
  for (const auto& id : due) look(id, now);
  std::vector<std::uint64_t> late;
  for (const auto& [number, probe] : probes_) {
    if (probe.probe.deadline() <= now) late.push_back(number);
  }
  for (const auto number : late) advance(number);
  rearm();
}

void ReadyWatch::look(const std::string& id, TimePoint now) {
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end() || !found->second.attachment) return;
  const auto& workload = found->second;
  if (workload.declaration.ready == policy::ReadyMode::kHttp) return start_probes(id, now);
  const auto netns = finder_.open(*workload.attachment, now);
  if (!netns) return;  // nobody lives there yet
  const auto listeners = read_listeners(*netns);
  if (!listeners) return;
  seen_(id, judge(workload.declaration, *workload.attachment, *listeners), now);
}

void ReadyWatch::start_probes(const std::string& id, TimePoint now) {
  const auto& workload = world_.workloads.find(id)->second;
  const bool under_way =
      std::ranges::any_of(probes_, [&](const auto& entry) { return entry.second.id == id; });
  if (under_way) return;
  auto& look = looks_[id] = {};
  for (const auto family : kFamilies) {
    const auto& address = workload.attachment->address(family);
    if (!address) continue;
    const auto& declaration = workload.declaration;
    auto probe =
        HttpProbe::start(*address, declaration.ready_http_port, declaration.ready_http_path, now);
    if (!probe) continue;
    const auto number = next_probe_++;
    const auto [entry, added] =
        probes_.emplace(number, Probe{id, family, *std::move(probe), nullptr});
    auto& started = entry->second;
    auto source = loop_.on_events(started.probe.fd(), started.probe.events(),
                                  [this, number] { advance(number); });
    if (!source) {
      probes_.erase(number);
      continue;
    }
    started.source = *std::move(source);
    look.begin();
  }
  if (look.over()) looks_.erase(id);  // none could be started
}

void ReadyWatch::advance(std::uint64_t number) {
  const auto found = probes_.find(number);
  if (found == probes_.end()) return;
  auto& probe = found->second;
  const auto now = BootClock::now();
  const auto outcome = probe.probe.advance(now);
  if (!outcome) {
    // The step may wait for the other direction now.
    auto source = loop_.on_events(probe.probe.fd(), probe.probe.events(),
                                  [this, number] { advance(number); });
    if (source) {
      // Not destroyed here: this may be running inside it.
      loop_.later([old = std::shared_ptr<Source>(std::move(probe.source))] {});
      probe.source = *std::move(source);
      return;
    }
  }
  const auto id = probe.id;
  const auto family = probe.family;
  loop_.later([old = std::make_shared<Probe>(std::move(probe))] {});
  probes_.erase(found);
  const auto workload = world_.workloads.find(id);
  if (workload == world_.workloads.end()) {
    looks_.erase(id);
    return;
  }
  std::string problem;
  const auto port = workload->second.declaration.ready_http_port;
  if (!outcome) {
    problem = "the probe cannot be watched";
  } else if (!*outcome) {
    problem = outcome->error().what;
  } else if (**outcome < 200 || **outcome >= 400) {
    problem = fmt::format("the probe of port {} was answered {}", port, **outcome);
  }
  const auto look = looks_.find(id);
  if (look == looks_.end()) return;
  auto seen = look->second.end(family, port, std::move(problem));
  if (look->second.over()) looks_.erase(look);
  if (seen) seen_(id, *std::move(seen), now);
}

}  // namespace meshd
