// meshd's two sockets, or a controller, as plain calls: one connection, one deadline for each
// call, and every way to fail turned into the exit code that the user sees.
//
// Threads: one caller at a time.
// Owns:    the connection; it is closed with the object.
// Errors:  kUnreachable when nothing listens, permission is missing, the connection breaks
//          or no answer comes in time; kRefused with the daemon's own words otherwise.
//          Nothing is ever repeated: a change that got no answer may have been done.
// Source:  measured with gRPC 1.51: wait_for_ready without a deadline blocks for ever on a
//          socket that the user may not write to. So the socket is connected here, by hand
//          and at once, and gRPC gets the descriptor.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "meshctl/controller.h"
#include "meshctl/failure.h"
#include "proto/node.pb.h"

namespace meshd::ctl {

namespace pb = mesh::v1;

// The daemon answers changes within 5 s, even if only with "stored, not in force"; many at
// a time queue up in it.
inline constexpr auto kChangeTimeout = std::chrono::seconds(30);
// Reading 100,000 flows with their counters is the longest of these.
inline constexpr auto kReadTimeout = std::chrono::seconds(15);
// What `wait` gives the daemon beyond the time that it was asked to wait for.
inline constexpr auto kWaitGrace = std::chrono::seconds(5);
// Largest answer taken: 100,000 flows are some 10 MiB, 1,000 workloads of 64 KiB are 64.
inline constexpr int kMaxReplyBytes = 128 << 20;

struct Timeouts {
  std::chrono::milliseconds change = kChangeTimeout;
  std::chrono::milliseconds read = kReadTimeout;
  std::chrono::milliseconds wait_grace = kWaitGrace;
};

// control.sock: everything that changes something.
class ControlClient {
 public:
  [[nodiscard]] static Outcome<ControlClient> connect(const std::string& run_dir,
                                                      const Timeouts& timeouts = {});
  [[nodiscard]] static Outcome<ControlClient> connect(const Controller& controller,
                                                      const Timeouts& timeouts = {});
  ControlClient(ControlClient&&) noexcept;
  ControlClient& operator=(ControlClient&&) noexcept;
  ~ControlClient();

  [[nodiscard]] Outcome<pb::ApplyReply> apply(const pb::ApplyRequest& request);
  [[nodiscard]] Outcome<pb::AttachReply> attach(const pb::AttachRequest& request);
  [[nodiscard]] Outcome<pb::DetachReply> detach(const pb::DetachRequest& request);
  [[nodiscard]] Outcome<pb::Empty> drain(const pb::WorkloadRequest& request);
  [[nodiscard]] Outcome<pb::DetachReply> remove(const pb::DeleteRequest& request);
  [[nodiscard]] Outcome<pb::Empty> release_name(const pb::NameRequest& request);

 private:
  struct Impl;
  explicit ControlClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// status.sock: everything that only reads.
class StatusClient {
 public:
  [[nodiscard]] static Outcome<StatusClient> connect(const std::string& run_dir,
                                                     const Timeouts& timeouts = {});
  [[nodiscard]] static Outcome<StatusClient> connect(const Controller& controller,
                                                     const Timeouts& timeouts = {});
  StatusClient(StatusClient&&) noexcept;
  StatusClient& operator=(StatusClient&&) noexcept;
  ~StatusClient();

  [[nodiscard]] Outcome<pb::PlanReply> plan(const pb::ApplyRequest& request);
  [[nodiscard]] Outcome<pb::WorkloadList> workloads();
  [[nodiscard]] Outcome<pb::ServiceList> services();
  [[nodiscard]] Outcome<pb::FlowList> flows();
  [[nodiscard]] Outcome<pb::PublishedList> published();
  [[nodiscard]] Outcome<pb::NodeList> nodes();
  [[nodiscard]] Outcome<pb::RefusedList> refused();
  [[nodiscard]] Outcome<pb::ExplainReply> explain(const pb::ExplainRequest& request);
  [[nodiscard]] Outcome<pb::ResolveReply> resolve(const pb::ResolveRequest& request);
  [[nodiscard]] Outcome<pb::StatusReply> status();
  [[nodiscard]] Outcome<pb::WaitReply> wait(const pb::WaitRequest& request);

  using OnEvent = std::function<Outcome<void>(const pb::Event&)>;
  // Hands over every event until `stop_fd` becomes readable (done), `on_event` fails (its
  // failure) or the daemon goes away (kUnreachable). The one call without a deadline: it
  // has no natural end, and a daemon that dies closes the socket under it.
  [[nodiscard]] Outcome<void> watch(const pb::WatchRequest& request, int stop_fd,
                                    const OnEvent& on_event);

 private:
  struct Impl;
  explicit StatusClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace meshd::ctl
