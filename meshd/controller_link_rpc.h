// The calls to a controller over gRPC: Join.Enrol, Cluster.Renew and the session's stream.
//
// Threads:   the loop's only. gRPC's own threads post what happened; deliver() runs it.
// Owns:      the calls and the stream, with a connection of its own for each.
// Invariant: an answer, or ended(), comes exactly once, and from deliver() only.
// Errors:    kSystem when nobody was reached or answered, kInvalid when the controller refused.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "pki/certificate.h"
#include "pki/files.h"
#include "proto/controller.pb.h"

namespace meshd {

class LinkStream {
 public:
  virtual ~LinkStream() = default;
  virtual void send(mesh::v1::FromNode message) = 0;
  // ended() follows with `why` unless it has ended already.
  virtual void close(std::string why) = 0;
};

class LinkStreamEvents {
 public:
  virtual ~LinkStreamEvents() = default;
  virtual void hello_sent() = 0;
  // The next message is read when this has returned.
  virtual void arrived(const mesh::v1::ToNode& message) = 0;
  // The stream is gone when this has returned.
  virtual void ended(const Error& why) = 0;
};

class LinkRpc {
 public:
  using Answer = std::move_only_function<void(Result<mesh::v1::EnrolReply>)>;

  virtual ~LinkRpc() = default;
  [[nodiscard]] static std::unique_ptr<LinkRpc> make();

  [[nodiscard]] virtual int fd() const = 0;
  virtual void deliver() = 0;

  // One call at a time. An error: nothing was begun, and no answer follows.
  [[nodiscard]] virtual Status enrol(const std::string& address, const pki::Authorities& trusted,
                                     const mesh::v1::EnrolRequest& request, Duration limit,
                                     Answer answer) = 0;
  [[nodiscard]] virtual Status renew(const std::string& address, const pki::IdentityFiles& files,
                                     const std::string& cluster,
                                     const mesh::v1::RenewRequest& request, Duration limit,
                                     Answer answer) = 0;
  // One stream at a time; it begins with `hello`.
  [[nodiscard]] virtual Result<LinkStream*> open(const std::string& address,
                                                 const pki::IdentityFiles& files,
                                                 const std::string& cluster,
                                                 mesh::v1::FromNode hello,
                                                 LinkStreamEvents& events) = 0;
  // Cancels all, and delivers until all have ended or `limit` is over.
  virtual void stop(Duration limit) = 0;
};

}  // namespace meshd
