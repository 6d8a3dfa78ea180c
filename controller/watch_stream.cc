#include "controller/watch_stream.h"

#include <deque>
#include <memory>
#include <utility>

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;

// All of its state is the loop's: gRPC's threads post what happened. `self_` keeps it alive until
// gRPC is done with it.
class Watcher final : public grpc::ServerWriteReactor<pb::Event>, public EventStream {
 public:
  explicit Watcher(Shared& shared) : shared_(shared) {}

  void start(std::shared_ptr<Watcher> self, bool refused_only) {
    self_ = std::move(self);
    started_ = true;
    shared_.post(
        [self = self_, refused_only](Handler& handler) { handler.watch(self, refused_only); });
  }
  void refuse(std::shared_ptr<Watcher> self, grpc::Status status) {
    self_ = std::move(self);
    Finish(std::move(status));
  }

  bool send(const pb::Event& event) override {
    if (finished_) return false;
    if (unread_.size() >= kMaxUnreadEvents) {
      finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "watch: this client reads too slowly"});
      return false;
    }
    unread_.push_back(event);
    write_next();
    return true;
  }

  void OnWriteDone(bool ok) override {
    shared_.post([watcher = self_, ok](Handler&) {
      watcher->writing_ = false;
      watcher->unread_.pop_front();
      if (!ok) return watcher->finish(grpc::Status::CANCELLED);
      watcher->write_next();
    });
  }
  void OnCancel() override {
    if (!started_) return;
    shared_.post([watcher = self_](Handler& handler) {
      watcher->finish(grpc::Status::CANCELLED);
      handler.unwatch(*watcher);
    });
  }
  void OnDone() override {
    shared_.watchers.fetch_sub(1);
    self_.reset();
  }

 private:
  void write_next() {
    if (writing_ || finished_ || unread_.empty()) return;
    writing_ = true;
    StartWrite(&unread_.front());
  }
  void finish(grpc::Status status) {
    if (std::exchange(finished_, true)) return;
    Finish(std::move(status));
  }

  Shared& shared_;
  bool started_ = false;  // set before gRPC calls anything
  std::shared_ptr<Watcher> self_;
  std::deque<pb::Event> unread_;  // the front one is being written
  bool writing_ = false, finished_ = false;
};

}  // namespace

grpc::ServerWriteReactor<pb::Event>* start_watch(Shared& shared, const Context& context,
                                                 const pb::WatchRequest& request) {
  auto watcher = std::make_shared<Watcher>(shared);
  auto* const reactor = watcher.get();
  const bool room = shared.watchers.fetch_add(1) < kMaxWatchers;
  if (const auto refusal = refusal_of(context, shared, May::kRead)) {
    reactor->refuse(std::move(watcher), *refusal);
  } else if (!room) {
    reactor->refuse(std::move(watcher),
                    {grpc::StatusCode::RESOURCE_EXHAUSTED, "watch: too many watchers"});
  } else {
    reactor->start(std::move(watcher), request.refused_only());
  }
  return reactor;
}

}  // namespace meshd::controller
