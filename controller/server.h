// The controller's two ports, served by gRPC over TLS 1.3: one for whoever has a certificate of
// the cluster (sessions of nodes, commands of people), one where machines without one join.
//
// Threads:   gRPC's own threads only carry messages: all that arrives becomes a Job that the
//            controller's loop drains from jobs() and runs against its Handler.
// Owns:      the gRPC servers and the streams; a stream ends with the Job that calls closed().
// Invariant: a Peer is made from the certificate alone. Of one node at most one message waits
//            to be handled; who does not read what it is sent is not read from either.
// Errors:    of calls, gRPC statuses as proto/node.proto has them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mailbox.h"
#include "base/result.h"
#include "controller/controller.h"
#include "pki/files.h"
#include "pki/grpc_credentials.h"

namespace meshd::controller {

template <class T>
using Reply = std::move_only_function<void(Result<T>)>;

// One `watch` client. It ends when the client leaves or the controller stops.
class EventStream {
 public:
  virtual ~EventStream() = default;
  // False: the client is gone or too slow; drop the stream.
  [[nodiscard]] virtual bool send(const mesh::v1::Event& event) = 0;
};

// What the loop does with what arrives.
class Handler {
 public:
  virtual ~Handler() = default;
  virtual void opened(NodeStream& stream, const pki::Peer& peer) = 0;
  virtual void message(NodeStream& stream, const mesh::v1::FromNode& message) = 0;
  virtual void closed(NodeStream& stream) = 0;
  virtual void renew(const pki::Peer& peer, const std::string& csr,
                     Reply<mesh::v1::EnrolReply> reply) = 0;
  virtual void enrol(const mesh::v1::EnrolRequest& request, const IpAddress& source,
                     Reply<mesh::v1::EnrolReply> reply) = 0;
  virtual void apply(const pki::Peer& peer, std::vector<policy::Declaration> declarations,
                     Reply<mesh::v1::ApplyReply> reply) = 0;
  virtual void remove(const pki::Peer& peer, const mesh::v1::DeleteRequest& request,
                      Reply<mesh::v1::DetachReply> reply) = 0;
  virtual void release_name(const pki::Peer& peer, const mesh::v1::NameRequest& request,
                            Reply<mesh::v1::Empty> reply) = 0;
  virtual void list_workloads(Reply<mesh::v1::WorkloadList> reply) = 0;
  virtual void list_services(Reply<mesh::v1::ServiceList> reply) = 0;
  virtual void list_published(Reply<mesh::v1::PublishedList> reply) = 0;
  virtual void list_nodes(Reply<mesh::v1::NodeList> reply) = 0;
  virtual void list_refused(Reply<mesh::v1::RefusedList> reply) = 0;
  virtual void get_status(Reply<mesh::v1::StatusReply> reply) = 0;
  virtual void explain(const pki::Peer& peer, const mesh::v1::ExplainRequest& request,
                       Reply<mesh::v1::ExplainReply> reply) = 0;
  virtual void watch(std::shared_ptr<EventStream> stream, bool refused_only) = 0;
  virtual void unwatch(const EventStream& stream) = 0;
  // Somebody who may not, and has been told so: a word for the metrics, a line for the log.
  virtual void turned_away(std::string_view why, const std::string& text) = 0;
  // Of the service Admin.
  virtual void create_token(const pki::Peer& peer, const mesh::v1::TokenRequest& request,
                            Reply<mesh::v1::TokenReply> reply) = 0;
  virtual void list_tokens(Reply<mesh::v1::TokenList> reply) = 0;
  virtual void revoke_token(const pki::Peer& peer, const mesh::v1::TokenName& request,
                            Reply<mesh::v1::Empty> reply) = 0;
  virtual void dismiss_node(const pki::Peer& peer, const mesh::v1::NodeName& request,
                            Reply<mesh::v1::Empty> reply) = 0;
  virtual void backup(const pki::Peer& peer, const mesh::v1::BackupRequest& request,
                      Reply<mesh::v1::Empty> reply) = 0;
  virtual void certify(const pki::Peer& peer, const mesh::v1::CertifyRequest& request,
                       Reply<mesh::v1::EnrolReply> reply) = 0;
};

struct ServerOptions {
  std::string listen, join_listen;  // empty: not served; port 0: chosen, see ports
  pki::IdentityFiles files;
  std::string cluster;
};

class Server {
 public:
  using Job = std::move_only_function<void(Handler&)>;
  // 5,000 nodes, and as many that come while others of them have not been missed yet.
  static constexpr std::size_t kMaxSessions = 10'000;
  static constexpr std::size_t kMaxCalls = 1024;
  static constexpr auto kShutdownGrace = std::chrono::milliseconds(500);

  virtual ~Server() = default;
  [[nodiscard]] static Result<std::unique_ptr<Server>> make(const ServerOptions& options);
  [[nodiscard]] virtual Mailbox<Job>& jobs() = 0;
  [[nodiscard]] virtual int port() const = 0;
  [[nodiscard]] virtual int join_port() const = 0;
  // Ends all streams and calls; runs jobs on the caller's thread until all are gone.
  virtual void shutdown(Handler& handler) = 0;
};

}  // namespace meshd::controller
