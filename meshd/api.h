// What the two sockets can ask of the daemon, free of transport: every call runs on the
// main loop and answers through its Reply, at once or later.
//
// Threads: the main loop only. A Reply may be called from there once, and must be.
// Errors:  a refused call changed nothing; its Error is the one line the user reads.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "policy/types.h"
#include "proto/node.pb.h"

namespace meshd {

template <class T>
using Reply = std::move_only_function<void(Result<T>)>;

// One `watch` client. It ends when the client leaves or the daemon stops.
class EventStream {
 public:
  virtual ~EventStream() = default;
  // False: the client is gone or too slow; drop the stream.
  [[nodiscard]] virtual bool send(const mesh::v1::Event& event) = 0;
  // The daemon ends it, and the client is told why.
  virtual void end(std::string_view why) = 0;
};

// Who asks for a change, by the kernel's word: never by the message's. A process of another
// pid namespace has no number here: 0. And until when it waits: an answer by then reaches it.
struct Caller {
  uid_t uid = 0;
  pid_t pid = 0;
  TimePoint deadline = TimePoint::max();
};
inline constexpr Caller kUnknownCaller{static_cast<uid_t>(-1), 0};

// A call, for what may have to be given up before it is answered.
using CallNumber = std::uint64_t;

class Api {
 public:
  virtual ~Api() = default;

  virtual void apply(std::vector<policy::Declaration>, Caller, Reply<mesh::v1::ApplyReply>) = 0;
  virtual void attach(const mesh::v1::AttachRequest&, Caller, Reply<mesh::v1::AttachReply>) = 0;
  virtual void detach(const mesh::v1::DetachRequest&, Caller, Reply<mesh::v1::DetachReply>) = 0;
  virtual void drain(const mesh::v1::WorkloadRequest&, Caller, Reply<mesh::v1::Empty>) = 0;
  virtual void remove(const mesh::v1::DeleteRequest&, Caller, Reply<mesh::v1::DetachReply>) = 0;
  virtual void release_name(const mesh::v1::NameRequest&, Caller, Reply<mesh::v1::Empty>) = 0;

  virtual void plan(std::vector<policy::Declaration>, Reply<mesh::v1::PlanReply>) = 0;
  virtual void list_workloads(const mesh::v1::Empty&, Reply<mesh::v1::WorkloadList>) = 0;
  virtual void list_services(const mesh::v1::Empty&, Reply<mesh::v1::ServiceList>) = 0;
  virtual void list_flows(const mesh::v1::Empty&, Reply<mesh::v1::FlowList>) = 0;
  virtual void list_published(const mesh::v1::Empty&, Reply<mesh::v1::PublishedList>) = 0;
  virtual void list_nodes(const mesh::v1::Empty&, Reply<mesh::v1::NodeList>) = 0;
  virtual void list_refused(const mesh::v1::Empty&, Reply<mesh::v1::RefusedList>) = 0;
  virtual void explain(const mesh::v1::ExplainRequest&, Reply<mesh::v1::ExplainReply>) = 0;
  virtual void resolve(const mesh::v1::ResolveRequest&, Reply<mesh::v1::ResolveReply>) = 0;
  virtual void get_status(const mesh::v1::Empty&, Reply<mesh::v1::StatusReply>) = 0;
  virtual void wait(const mesh::v1::WaitRequest&, CallNumber, Reply<mesh::v1::WaitReply>) = 0;
  virtual void cancel_wait(CallNumber) = 0;
  virtual void watch(const mesh::v1::WatchRequest&, std::shared_ptr<EventStream>) = 0;
  virtual void unwatch(const EventStream&) = 0;

  // The daemon stops: all that still waits is answered now, and every stream ends.
  virtual void stop(std::string_view why) = 0;
};

}  // namespace meshd
