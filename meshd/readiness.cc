#include "meshd/readiness.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <memory>

namespace meshd {
namespace {

using policy::FamilyReady;

bool same(const netlink::NetnsId& a, const policy::Netns& b) {
  return a.dev == b.dev && a.ino == b.ino;
}

std::string proc_path(int pid) { return "/proc/" + std::to_string(pid) + "/ns/net"; }

}  // namespace

std::vector<std::uint16_t> ports_to_watch(const policy::Declaration& declaration) {
  std::vector<std::uint16_t> ports;
  if (declaration.ready == policy::ReadyMode::kHttp) return {declaration.ready_http_port};
  if (declaration.ready == policy::ReadyMode::kNone) return {};
  for (const auto& served : declaration.serves) {
    if (served.ports.proto == Proto::kTcp && served.ports.single()) {
      ports.push_back(served.ports.first);
    }
  }
  for (const auto& publication : declaration.publish) {
    if (publication.proto == Proto::kTcp) ports.push_back(publication.port);
  }
  std::ranges::sort(ports);
  ports.erase(std::ranges::unique(ports).begin(), ports.end());
  return ports;
}

Listening judge(const policy::Declaration& declaration, const policy::Attachment& attachment,
                const std::vector<netlink::Listener>& listeners) {
  Listening result;
  for (const auto port : ports_to_watch(declaration)) {
    FamilyReady ready;
    bool elsewhere = false;
    std::string where;
    for (const auto& listener : listeners) {
      if (listener.port != port) continue;
      if (attachment.v4 && netlink::serves(listener, *attachment.v4)) {
        ready.v4 = true;
      } else if (attachment.v6 && netlink::serves(listener, *attachment.v6)) {
        ready.v6 = true;
      } else {
        elsewhere = true;
        where = listener.address.to_string();
      }
      // "::" without the v6-only flag serves both.
      if (attachment.v6 && netlink::serves(listener, *attachment.v6)) ready.v6 = true;
    }
    if (ready.any()) {
      result.ready[port] = ready;
    } else if (elsewhere) {
      result.problems.push_back(fmt::format("{}/tcp listens on {} only", port, where));
    }
  }
  return result;
}

std::optional<Listening> HttpLook::end(Family family, std::uint16_t port, std::string problem) {
  --under_way_;
  Listening seen;
  if (problem.empty()) {
    ready_ = true;
    seen.ready[port] = {family == Family::kV4, family == Family::kV6};
    return seen;
  }
  // "answered 503" twice says no more than once.
  if (std::ranges::find(problems_, problem) == problems_.end()) {
    problems_.push_back(std::move(problem));
  }
  if (!over() || ready_) return std::nullopt;
  seen.problems = problems_;
  return seen;
}

bool is_ready(const policy::Workload& workload) {
  if (!workload.attachment) return false;
  return std::ranges::all_of(ports_to_watch(workload.declaration), [&](std::uint16_t port) {
    const auto found = workload.tcp_ready.find(port);
    return found != workload.tcp_ready.end() && found->second.any();
  });
}

bool worth_watching(const policy::Workload& workload) {
  if (!workload.attachment) return false;
  const FamilyReady all{workload.attachment->v4.has_value(), workload.attachment->v6.has_value()};
  return std::ranges::any_of(ports_to_watch(workload.declaration), [&](std::uint16_t port) {
    const auto found = workload.tcp_ready.find(port);
    return found == workload.tcp_ready.end() || found->second != all;
  });
}

Duration next_look(bool ready, Duration since_ready, Duration previous) {
  if (ready) return since_ready < kSettling ? Duration(kLookSettling) : Duration(kLookSlow);
  return std::clamp<Duration>(previous * 3 / 2, kLookFirst, kLookLast);
}

Result<netlink::Netns> NetnsFinder::open(const policy::Attachment& attachment, TimePoint now) {
  const auto& wanted = attachment.netns;
  if (attachment.netns_path.starts_with('/')) {
    auto netns = netlink::Netns::open(attachment.netns_path);
    if (netns && same(netns->id(), wanted)) return netns;
  }
  const auto by_process = [&]() -> Result<netlink::Netns> {
    const auto known = pids_.find(wanted);
    if (known == pids_.end()) return fail(ErrorCode::kNotFound, "no process of ours to see");
    auto netns = TRY(netlink::Netns::open(proc_path(known->second)));
    // The process id may be somebody else's by now.
    if (!same(netns.id(), wanted)) return fail(ErrorCode::kNotFound, "the process is gone");
    return netns;
  };
  if (auto netns = by_process()) return netns;
  if (now - scanned_at_ < kScanInterval) {
    return fail(ErrorCode::kNotFound, "no process lives in the container yet");
  }
  scanned_at_ = now;
  scan();
  if (auto netns = by_process()) return netns;
  return fail(ErrorCode::kNotFound, "no process lives in the container yet");
}

void NetnsFinder::scan() {
  pids_.clear();
  const auto close = [](DIR* directory) { closedir(directory); };
  const std::unique_ptr<DIR, decltype(close)> directory(opendir("/proc"), close);
  if (!directory) return;
  while (const dirent* entry = readdir(directory.get())) {
    int pid = 0;
    const std::string_view name = entry->d_name;
    if (std::from_chars(name.begin(), name.end(), pid).ec != std::errc()) continue;
    struct stat status{};
    if (stat(proc_path(pid).c_str(), &status) != 0) continue;
    pids_.emplace(policy::Netns{status.st_dev, status.st_ino}, pid);
  }
}

Result<std::vector<netlink::Listener>> read_listeners(const netlink::Netns& netns) {
  auto poller = TRY(netlink::ListenerPoller::open(netns.fd()));
  return poller.poll();
}

}  // namespace meshd
