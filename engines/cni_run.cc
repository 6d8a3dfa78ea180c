#include "engines/cni_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/ip.h"
#include "engines/files.h"
#include "engines/limits.h"
#include "engines/netns.h"
#include "engines/program.h"

namespace meshd::engines {
namespace {

constexpr int kMaxAncestors = 32;
constexpr std::size_t kMaxCommandLine = 64 << 10;

CniError to_error(const Error& error) {
  // Away, or about to come: the specification's word for it.
  const bool away = error.code == ErrorCode::kSystem || error.code == ErrorCode::kNotInForce;
  return {away ? CniError::kTryAgain : CniError::kRefused, error.what};
}

struct Ancestor {
  pid_t parent = 0;
  bool is_root = false;  // by all four uids
};

Ancestor ancestor_at(pid_t pid) {
  const auto text = read_file(fmt::format("/proc/{}/status", pid), kMaxCommandLine);
  if (!text) return {};
  Ancestor ancestor;
  ancestor.is_root = text->contains("\nUid:\t0\t0\t0\t0\n");
  constexpr std::string_view kField = "\nPPid:\t";
  if (const auto at = text->find(kField); at != std::string::npos) {
    std::from_chars(text->data() + at + kField.size(), text->data() + text->size(),
                    ancestor.parent);
  }
  return ancestor;
}

// Singularity says nothing but a process's number; who started it is an ancestor of ours. Only
// root's word counts: a user who may start containers could else be anybody's. (Files of /proc are
// root's also where a process has made itself undumpable, and a setuid program's words its user's.)
std::string find_crunch() {
  Ancestor at{.parent = getppid()};
  for (int i = 0; i < kMaxAncestors && at.parent > 1; ++i) {
    const auto pid = at.parent;
    at = ancestor_at(pid);
    if (!at.is_root) continue;
    const auto text = read_file(fmt::format("/proc/{}/cmdline", pid), kMaxCommandLine);
    auto container = text ? crunch_container(*text) : std::string();
    if (!container.empty()) return container;
  }
  return {};
}

CniResult<std::string> add(const CniCall& call, const CniNetwork& network, TimePoint by) {
  if (auto why = not_done(call, network); !why.empty()) {
    return std::unexpected(CniError{CniError::kRefused, std::move(why)});
  }
  const auto netns = open_netns(call.netns);
  if (!netns) {
    return std::unexpected(CniError{CniError::kEnvironment, "CNI_NETNS: " + netns.error().what});
  }
  Place place{.key = key_of(call, network), .ifname = call.ifname};
  if (network.previous) place.ifname = kSecondName;
  const auto others = has_other_links(*netns, place.ifname);
  if (!others) return std::unexpected(to_error(others.error()));
  place.default_route = !network.previous && !*others;
  const auto reply =
      attach(launch_of(call, network, find_crunch()), *netns, place, network.places, by);
  if (!reply) return std::unexpected(to_error(reply.error()));
  return render_result(call, network, place.default_route, *reply);
}

Status is_there(const OurLink& ours, const Netns& netns) {
  const auto links = TRY(links_in(netns));
  const auto link = std::ranges::find(links, ours.name, &Link::name);
  if (link == links.end()) return fail(ErrorCode::kConflict, "its interface is gone");
  for (const std::string_view text : ours.addresses) {
    const auto address = IpAddress::parse(text.substr(0, text.find('/')));
    if (!address) return std::unexpected(Error(address.error()).in("prevResult: ips"));
    if (std::ranges::find(link->addresses, *address) == link->addresses.end()) {
      return fail(ErrorCode::kConflict,
                  fmt::format("its address {} is gone", address->to_string()));
    }
  }
  return {};
}

// Right when what the result said is there still: the attachment, its link, and its addresses.
CniResult<std::string> check(const CniCall& call, const CniNetwork& network, TimePoint by) {
  const auto key = key_of(call, network);
  const auto attached = attached_under(key, network.places, by);
  if (!attached) return std::unexpected(to_error(attached.error()));
  const auto ours = network.previous ? our_link(*network.previous) : OurLink{call.ifname, {}};
  if (std::ranges::find(*attached, key, &Attached::key) == attached->end()) {
    // Nobody declared it, and so it was never attached.
    if (!network.previous || ours.name.empty()) return std::string();
    return std::unexpected(CniError{CniError::kRefused, "it is not attached any more"});
  }
  const auto netns = open_netns(call.netns);
  if (!netns) return std::unexpected(to_error(netns.error()));
  const auto status = is_there(ours, *netns);
  if (!status) return std::unexpected(to_error(status.error()));
  return std::string();
}

// Whatever is wrong with one, the others are looked at.
CniResult<std::string> collect(const CniNetwork& network, TimePoint by) {
  if (!network.valid) {
    return std::unexpected(
        CniError{CniError::kConfiguration, "cni.dev/valid-attachments: missing"});
  }
  const auto prefix = key_prefix(network);
  const auto attached = attached_under(prefix, network.places, by);
  if (!attached) return std::unexpected(to_error(attached.error()));
  std::string problems;
  for (const auto& one : *attached) {
    if (std::ranges::find(*network.valid, one.key.substr(prefix.size())) != network.valid->end()) {
      continue;
    }
    if (const auto status = detach(one.key, network.places, by); !status) {
      problems +=
          fmt::format("{}{}: {}", problems.empty() ? "" : "; ", one.id, status.error().what);
    }
  }
  if (problems.empty()) return std::string();
  return std::unexpected(CniError{CniError::kRefused, "not all could be detached", problems});
}

CniResult<std::string> carry_out(const CniCall& call, const CniNetwork& network, TimePoint by) {
  if (call.command == "ADD") return add(call, network, by);
  if (call.command == "CHECK") return check(call, network, by);
  if (call.command == "GC") return collect(network, by);
  if (call.command == "STATUS") {
    const auto list = attached_under(key_prefix(network), network.places, by);
    if (list) return std::string();
    return std::unexpected(CniError{CniError::kUnavailable, list.error().what});
  }
  [[maybe_unused]] const auto detached = detach(key_of(call, network), network.places, by);
  return std::string();
}

}  // namespace

CniAnswer run_cni(const Variables& environment, int input, TimePoint by) {
  std::string version;
  const auto failed = [&](const CniError& error) {
    return CniAnswer{render_error(error, version) + "\n", 1};
  };
  const auto call = parse_call(environment);
  if (!call) return failed(call.error());
  const auto text = read_input(input, kMaxInputBytes, by);
  if (!text) return failed({CniError::kInput, text.error().what});
  if (const auto json = read_json(*text)) version = json->text_at("cniVersion");
  // Podman asks with each of its commands: no daemon is needed for that.
  if (call->command == "VERSION") return {render_versions(version) + "\n"};
  std::vector<std::string> none;
  const auto places = take_places(none);
  if (!places) return failed({CniError::kEnvironment, places.error().what});
  const auto network = parse_network(*text, *places);
  if (!network) return failed(network.error());
  const auto answer = carry_out(*call, *network, by);
  if (!answer) return failed(answer.error());
  return {answer->empty() ? std::string() : *answer + "\n"};
}

}  // namespace meshd::engines
