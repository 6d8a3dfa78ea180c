// Writers and a follower of one store, each with a connection of its own, and what must hold of
// what they saw.
//
// Threads: run() of each in a thread of its own; the rest after they were joined.
#pragma once

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "controller/store.h"
#include "tests/support/store_samples.h"

namespace meshd::controller {

using OpenStore = std::function<Result<std::unique_ptr<Store>>()>;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Waits until `done` or `limit`, asking every few milliseconds.
template <class Done>
bool eventually(Done done, milliseconds limit = milliseconds(30'000)) {
  const auto end = steady_clock::now() + limit;
  while (!done()) {
    if (steady_clock::now() > end) return false;
    poll(nullptr, 0, 5);
  }
  return true;
}

// Commits one write after another, each with a value that no other has, and tries each until it
// is stored: after a conflict on what is there now, after doubt when it is not in the log.
class Writer {
 public:
  Writer(std::string name, OpenStore open) : name_(std::move(name)), open_(std::move(open)) {}

  void run(int commits) {
    auto store = open_();
    if (!store) return problem(store.error());
    auto revision = (*store)->load().value_or(Store::Snapshot{}).revision;
    for (int i = 0; i < commits; ++i) {
      const auto value = fmt::format("{}-{}", name_, i);
      if (!commit_one(**store, revision, value)) return;
      ++count_;
    }
  }
  [[nodiscard]] int count() const { return count_; }

  std::map<std::uint64_t, std::string> acknowledged;  // by revision
  std::vector<std::string> problems;
  int doubts = 0;
  steady_clock::duration longest{};  // between two acknowledgements

 private:
  void problem(const Error& error) { problems.push_back(name_ + ": " + error.what); }

  // False when it cannot go on.
  bool commit_one(Store& store, std::uint64_t& revision, const std::string& value) {
    const auto begun = steady_clock::now();
    bool doubt = false;
    while (steady_clock::now() - begun < std::chrono::seconds(60)) {
      if (!doubt) {
        const auto done = store.commit(revision, {put_text(kNode, name_, value)});
        if (done) {
          acknowledged[*done] = value;
          revision = *done;
          longest = std::max(longest, steady_clock::now() - begun);
          return true;
        }
        doubt = done.error().code == ErrorCode::kNotInForce;
        doubts += doubt ? 1 : 0;
        if (done.error().code == ErrorCode::kSystem) poll(nullptr, 0, 20);
      }
      const auto changes = store.changes_since(revision);
      if (!changes) {
        poll(nullptr, 0, 20);
        continue;
      }
      if (!*changes) return problem(Error{ErrorCode::kInternal, "too old"}), false;
      revision = (*changes)->revision;
      const bool there = std::ranges::any_of(
          (*changes)->writes, [&](const Write& write) { return write.value == value; });
      if (doubt && there) return true;
      doubt = false;
    }
    return problem(Error{ErrorCode::kInternal, value + " could not be stored"}), false;
  }

  std::string name_;
  OpenStore open_;
  std::atomic<int> count_ = 0;
};

// Reads on from its last revision whenever it is woken.
class Follower {
 public:
  explicit Follower(OpenStore open) : open_(std::move(open)) {}
  void run() {
    auto store = open_();
    if (!store) {
      problem = store.error().what;
      return;
    }
    while (!stop_) {
      pollfd wait{(*store)->notify_fd(), POLLIN, 0};
      poll(&wait, 1, 1000);
      (void)(*store)->hear();
      read_on(**store);
    }
    if (!eventually([&] { return read_on(**store); })) problem = "could not read to the end";
  }
  void stop() { stop_ = true; }

  std::vector<std::string> values;  // of the commits, which have one write each
  std::uint64_t revision = 0;
  std::string problem;

 private:
  bool read_on(Store& store) {
    const auto changes = store.changes_since(revision);
    if (!changes) return false;
    if (!*changes) {
      problem = "too old";
      return true;
    }
    revision = (*changes)->revision;
    for (const auto& write : (*changes)->writes) values.push_back(write.value.value_or("-"));
    return true;
  }

  OpenStore open_;
  std::atomic<bool> stop_ = false;
};

// Empty, or what was broken of: each acknowledged commit is the change of its revision, nothing
// is there twice, and revisions have no gap.
inline std::string broken_promise(const std::vector<const Writer*>& writers,
                                  const Follower& follower) {
  std::string out = follower.problem;
  if (follower.values.size() != follower.revision) {
    out += fmt::format("{} changes in {} revisions\n", follower.values.size(), follower.revision);
  }
  auto sorted = follower.values;
  std::ranges::sort(sorted);
  if (const auto twice = std::ranges::adjacent_find(sorted); twice != sorted.end()) {
    out += *twice + " is there twice\n";
  }
  for (const auto* writer : writers) {
    for (const auto& problem : writer->problems) out += problem + "\n";
    for (const auto& [revision, value] : writer->acknowledged) {
      const bool there =
          revision <= follower.values.size() && follower.values[revision - 1] == value;
      if (!there) out += fmt::format("{}, acknowledged as {}, is not there\n", value, revision);
    }
  }
  return out;
}

}  // namespace meshd::controller
