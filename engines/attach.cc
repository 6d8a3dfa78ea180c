#include "engines/attach.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "engines/client.h"
#include "engines/limits.h"
#include "engines/notes.h"

namespace meshd::engines {
namespace {

using Kind = Decision::Kind;
using Attachment = std::optional<pb::AttachReply>;

// Of the deadline's 4 s: a daemon is replaced in less than one, and the call itself
// needs its time.
constexpr auto kPatience = std::chrono::milliseconds(2500);
// A daemon that goes on says that something is not in force at most half a second before the
// caller's deadline: a longer time ahead of it only one that ends does, or that has not joined its
// cluster, which is asked once more for nothing.
constexpr auto kTooEarly = std::chrono::seconds(1);
// glibc reads the first three (MAXNS, resolv.h).
constexpr int kMaxNameservers = 3;

pb::ApplyRequest declaration_of(const Decision& decision) {
  pb::ApplyRequest request;
  auto& file = *request.add_files();
  file.set_name(std::string(kDeclarationKey));
  file.set_text(decision.declaration);
  file.mutable_launched()->set_id(decision.id);
  file.mutable_launched()->set_owner(decision.owner);
  file.mutable_launched()->set_workflow(decision.workflow);
  return request;
}

// The daemon finds the namespace by our descriptor and compares its identity.
pb::AttachRequest request_for(const std::string& id, const Netns& netns, const Place& place) {
  pb::AttachRequest request;
  request.set_id(id);
  request.set_pid(getpid());
  request.set_fd(netns.fd.get());
  request.set_netns_dev(netns.dev);
  request.set_netns_ino(netns.ino);
  request.set_netns(place.key);
  request.set_ifname(place.ifname);
  request.set_no_default_route(!place.default_route);
  return request;
}

std::unexpected<Error> not_started(const Decision& decision, Error error) {
  const auto* how = decision.declaration.empty() ? "is declared" : "brings its declaration";
  if (decision.kind == Kind::kAsk) how = "may be declared, which only a controller knows,";
  return std::unexpected(std::move(error).in(
      fmt::format("container {} {} and does not start without the mesh", decision.id, how)));
}

Result<Attachment> without(const Decision& decision, const Netns& netns) {
  if (decision.kind == Kind::kLeave) return Attachment();
  if (decision.kind == Kind::kRefuse) {
    return fail(ErrorCode::kConflict,
                "nobody declared this container, and engines.undeclared is REFUSE");
  }
  const auto links = TRY(links_in(netns));
  if (links.empty()) return Attachment();
  std::vector<std::string_view> names;
  for (const auto& link : links) names.emplace_back(link.name);
  return fail(ErrorCode::kConflict,
              fmt::format("nobody declared this container, engines.undeclared is CLOSED, and it "
                          "has another network: {}",
                          fmt::join(names, ", ")));
}

// It ended over our question: the one that takes its place is asked again, which is harmless.
bool is_lost(const Error& error) { return error.sys_errno == ECONNRESET; }

Result<pb::AttachReply> with(const Decision& decision, const Netns& netns, const Place& place,
                             const Places& places, TimePoint by) {
  if (TRY(is_own(netns))) {
    return fail(ErrorCode::kConflict, "it uses the node's own network");
  }
  const auto once = [&]() -> Result<pb::AttachReply> {
    auto client = TRY(Client::connect(places.run_dir, by, kPatience));
    if (!decision.declaration.empty()) CHECK_OK(client.apply(declaration_of(decision)));
    return client.attach(request_for(decision.id, netns, place));
  };
  auto reply = once();
  const bool is_cut_short =
      !reply && reply.error().code == ErrorCode::kNotInForce && by - BootClock::now() > kTooEarly;
  if (is_cut_short || (!reply && is_lost(reply.error()))) return once();
  return reply;
}

}  // namespace

Result<Attachment> attach(const Launch& launch, const Netns& netns, const Place& place,
                          const Places& places, TimePoint by) {
  const auto notes = TRY(read_notes(places.state_dir, ids_of(launch)));
  const auto decision = TRY(decide(launch, notes));
  if (decision.kind != Kind::kAttach && decision.kind != Kind::kAsk) {
    return without(decision, netns);
  }
  auto reply = with(decision, netns, place, places, by);
  if (reply) return Attachment(*std::move(reply));
  const bool is_nobodys = decision.kind == Kind::kAsk && reply.error().code == ErrorCode::kNotFound;
  if (is_nobodys) return without(undeclared(notes), netns);
  return not_started(decision, std::move(reply).error());
}

Result<bool> has_other_links(const Netns& netns, std::string_view ifname) {
  if (TRY(is_own(netns))) return false;  // which attach() refuses
  const auto links = TRY(links_in(netns));
  return std::ranges::any_of(links, [&](const auto& link) { return link.name != ifname; });
}

std::string container_key(std::string_view id) { return fmt::format("container:{}", id); }

Status expect_attach(const Launch& launch, const Places& places, TimePoint by) {
  const auto notes = TRY(read_notes(places.state_dir, ids_of(launch)));
  const auto decision = TRY(decide(launch, notes));
  if (decision.kind != Kind::kAttach && decision.kind != Kind::kAsk) {
    return fail(ErrorCode::kConflict, "nobody declared this container");
  }
  auto alive = ask_whether_alive(places.run_dir, by, kPatience);
  if (!alive && is_lost(alive.error())) alive = ask_whether_alive(places.run_dir, by, kPatience);
  if (!alive) return not_started(decision, alive.error());
  return {};
}

Result<bool> concerns_us(const Launch& launch, const Places& places) {
  const auto notes = TRY(read_notes(places.state_dir, ids_of(launch)));
  const auto decision = TRY(decide(launch, notes));
  return decision.kind == Kind::kAttach || decision.kind == Kind::kAsk;
}

Result<std::vector<Attached>> attached_under(const std::string& prefix, const Places& places,
                                             TimePoint by) {
  const auto list = TRY(list_workloads(places.run_dir, by));
  std::vector<Attached> found;
  for (const auto& workload : list.workloads()) {
    const auto& key = workload.attachment().netns();
    if (key.starts_with(prefix)) found.push_back({key, workload.declaration().id()});
  }
  return found;
}

Status detach(const std::string& key, const Places& places, TimePoint by) {
  const auto attached = TRY(attached_under(key, places, by));
  const auto found = std::ranges::find(attached, key, &Attached::key);
  if (found == attached.end()) return {};
  auto client = TRY(Client::connect(places.run_dir, by));
  pb::DetachRequest request;
  request.set_id(found->id);
  request.set_only_netns(key);
  CHECK_OK(client.detach(request));
  return {};
}

std::string resolv_conf_of(const pb::AttachReply& reply) {
  std::string text = "# written by meshd's shim for this engine\n";
  for (int i = 0; i < std::min(reply.resolvers_size(), kMaxNameservers); ++i) {
    text += fmt::format("nameserver {}\n", reply.resolvers(i));
  }
  if (reply.search_size() > 0) text += fmt::format("search {}\n", fmt::join(reply.search(), " "));
  // As meshctl writes it: the resolver is one hop away, and names with a dot are whole.
  return text + "options ndots:1 timeout:2 attempts:2\n";
}

}  // namespace meshd::engines
