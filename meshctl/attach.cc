#include "meshctl/attach.h"

#include <fmt/format.h>
#include <unistd.h>

#include "meshctl/netns.h"
#include "meshctl/resolv_conf.h"
#include "meshctl/signals.h"

namespace meshd::ctl {
namespace {

// The daemon finds the namespace by our pid and descriptor and compares its identity;
// `netns` stays open until the answer is there.
pb::AttachRequest request_for(const std::string& id, const Netns& netns) {
  pb::AttachRequest request;
  request.set_id(id);
  request.set_pid(getpid());
  request.set_fd(netns.fd.get());
  request.set_netns_dev(netns.dev);
  request.set_netns_ino(netns.ino);
  request.set_netns(netns.path);
  request.set_ifname("eth0");
  return request;
}

Outcome<pb::AttachReply> attach_prepared(ControlClient& client, const std::string& id,
                                         const std::string& path, bool made_now) {
  const auto netns = TRY(open_netns(path));
  auto request = request_for(id, netns);
  request.set_prepared(made_now);
  return client.attach(request);
}

Outcome<bool> is_attached_at(const std::string& id, const std::string& path,
                             const std::string& run_dir, const Timeouts& timeouts) {
  auto client = TRY(StatusClient::connect(run_dir, timeouts));
  const auto list = TRY(client.workloads());
  for (const auto& workload : list.workloads()) {
    if (workload.declaration().id() == id) return workload.attachment().netns() == path;
  }
  return false;
}

// `where` names the command in errors: "attach web".
Outcome<pb::AttachReply> with_resolv_conf(pb::AttachReply reply, const std::string& path,
                                          const std::string& where) {
  if (path.empty()) return reply;
  const ResolvConf conf{.nameservers = {reply.resolvers().begin(), reply.resolvers().end()},
                        .search = {reply.search().begin(), reply.search().end()}};
  if (auto written = write_resolv_conf(path, conf); !written) {
    // Not undone: it may have been attached before, and repeating the command is harmless.
    return std::unexpected(std::move(written).error().in(
        fmt::format("{}: it is attached, but has no resolv.conf", where)));
  }
  return reply;
}

// Until the daemon has heard of it, it would ask for the removal again.
Outcome<void> confirm_removed(ControlClient& client, const std::string& id, std::uint64_t ino) {
  pb::DetachRequest request;
  request.set_id(id);
  request.set_removed_netns_ino(ino);
  CHECK_OK(client.detach(request));
  return {};
}

// Removes what a `prepare` made that was detached by a command which did not come to its
// end. False: what is at `path` is not that.
Outcome<bool> clear_left(ControlClient& client, const std::string& id, const std::string& path) {
  pb::DetachRequest request;
  request.set_id(id);
  request.set_left_only(true);
  const auto left = TRY(client.detach(request));
  if (!left.prepared() || left.netns() != path) return false;
  if (!TRY(remove_named_netns(path, left.netns_dev(), left.netns_ino()))) return false;
  CHECK_OK(confirm_removed(client, id, left.netns_ino()));
  return true;
}

// What is still to be done once `reply` says that `id` is detached.
Outcome<void> remove_prepared(ControlClient& client, const std::string& id,
                              const pb::DetachReply& reply, const std::string& netns_dir,
                              std::string_view verb) {
  if (!reply.prepared()) return {};
  // The path comes from the daemon's store. Only what prepare() can have made is removed.
  const auto path = named_netns_path(netns_dir, id);
  if (!path || *path != reply.netns()) {
    return fail(Exit::kRefused,
                fmt::format("{} {}: it is detached; {} was left, since prepare would have made it "
                            "in {}",
                            verb, id, reply.netns(), netns_dir));
  }
  if (auto removed = remove_named_netns(*path, reply.netns_dev(), reply.netns_ino()); !removed) {
    return std::unexpected(std::move(removed).error().in(
        fmt::format("{} {}: it is detached, but its namespace is left", verb, id)));
  }
  return confirm_removed(client, id, reply.netns_ino());
}

}  // namespace

Outcome<pb::AttachReply> attach(ControlClient& client, const Attach& command) {
  auto netns = command.netns.empty() ? open_netns_of(command.pid) : open_netns(command.netns);
  if (!netns) return std::unexpected(std::move(netns).error().in("attach " + command.id));
  auto request = request_for(command.id, *netns);
  request.set_ifname(command.ifname);
  request.set_no_default_route(command.no_default_route);
  auto reply = TRY(client.attach(request));
  return with_resolv_conf(std::move(reply), command.resolv_conf, "attach " + command.id);
}

Outcome<pb::AttachReply> prepare(ControlClient& client, const Prepare& command,
                                 const std::string& netns_dir, const std::string& run_dir,
                                 const Timeouts& timeouts) {
  const auto where = "prepare " + command.id;
  const auto path = named_netns_path(netns_dir, command.id);
  if (!path) return fail(Exit::kUsage, fmt::format("prepare: {}", path.error().what));
  // Killed in between, the namespace would stay behind with nobody to own it.
  const SignalsHeld held;
  auto made = create_named_netns(*path);
  if (!made && made.error().code == ErrorCode::kConflict) {
    if (TRY(is_attached_at(command.id, *path, run_dir, timeouts))) {
      return with_resolv_conf(TRY(attach_prepared(client, command.id, *path, false)),
                              command.resolv_conf, where);
    }
    if (!TRY(clear_left(client, command.id, *path))) {
      return fail(Exit::kRefused,
                  fmt::format("{}: {} exists and is not this workload's; attach it with --netns, "
                              "or `ip netns delete {}` first",
                              where, *path, command.id));
    }
    made = create_named_netns(*path);
  }
  if (!made) return std::unexpected(std::move(made).error().in(where));
  auto reply = attach_prepared(client, command.id, *path, true);
  if (reply) return with_resolv_conf(*std::move(reply), command.resolv_conf, where);
  // Whatever the daemon did after we lost it, a namespace that vanishes is a detach.
  if (const auto removed = remove_named_netns(*path); !removed) {
    reply.error().what +=
        fmt::format("; moreover {} is left over: {}", *path, removed.error().what);
  }
  return reply;
}

Outcome<pb::DetachReply> detach(ControlClient& client, const Detach& command,
                                const std::string& netns_dir) {
  const SignalsHeld held;
  pb::DetachRequest request;
  request.set_id(command.id);
  auto reply = TRY(client.detach(request));
  CHECK_OK(remove_prepared(client, command.id, reply, netns_dir, "detach"));
  return reply;
}

Outcome<pb::DetachReply> remove(ControlClient& client, const Delete& command,
                                const std::string& netns_dir) {
  const SignalsHeld held;
  pb::DeleteRequest request;
  request.set_id(command.id);
  request.set_force(command.force);
  auto reply = TRY(client.remove(request));
  CHECK_OK(remove_prepared(client, command.id, reply, netns_dir, "delete"));
  return reply;
}

}  // namespace meshd::ctl
