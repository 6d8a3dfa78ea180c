// meshd's control socket for the shims: plain calls that are all over by one point in time.
//
// Threads: one caller.
// Errors:  kSystem when no daemon answers in time: whether it was done is then not known, and
//          what is repeated is harmless; kNotFound when it knows no such workload; else the
//          daemon's own words.
// Source:  measured with gRPC 1.51 from archives (docs/decisions/0011-shims-read-notes.md).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "proto/node.pb.h"

namespace meshd::engines {

namespace pb = mesh::v1;

class Client {
 public:
  // Tries again until `patience` has passed: a daemon that is replaced is away for a moment.
  [[nodiscard]] static Result<Client> connect(const std::string& run_dir, TimePoint by,
                                              Duration patience = {});
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  [[nodiscard]] Result<pb::ApplyReply> apply(const pb::ApplyRequest& request);
  [[nodiscard]] Result<pb::AttachReply> attach(const pb::AttachRequest& request);
  [[nodiscard]] Result<pb::DetachReply> detach(const pb::DetachRequest& request);

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Whether there is a daemon that answers: a question at the other socket, which costs it nothing.
[[nodiscard]] Status ask_whether_alive(const std::string& run_dir, TimePoint by, Duration patience);

// What is attached, from the same socket.
[[nodiscard]] Result<pb::WorkloadList> list_workloads(const std::string& run_dir, TimePoint by);

}  // namespace meshd::engines
