// The controller as a program: what arrives at the server, brought to the Controller and the
// cluster's authority.
//
// Threads:   the loop only.
// Owns:      nothing but the list of open streams; borrows the controller.
// Invariant: who may do what is decided by the certificate's role. Every change that somebody
//            asked for is one line of the audit log: who, what, outcome.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "controller/metrics.h"
#include "controller/server.h"
#include "pki/issue.h"

namespace meshd::controller {

// How long a token may let machines in: whoever needs it for longer makes another one.
inline constexpr std::chrono::seconds kMaxTokenLifetime = std::chrono::days(365);
inline constexpr std::chrono::seconds kDefaultTokenLifetime = std::chrono::days(1);

struct Authority {
  pki::Certificate certificate;
  pki::PrivateKey key;
  std::string cluster;
};

class App final : public Handler {
 public:
  using Now = std::function<Moment()>;
  App(Controller& controller, const Authority& authority, Now now)
      : controller_(controller), authority_(authority), now_(std::move(now)) {}

  void opened(NodeStream& stream, const pki::Peer& peer) override;
  void message(NodeStream& stream, const mesh::v1::FromNode& message) override;
  void closed(NodeStream& stream) override;
  void renew(const pki::Peer& peer, const std::string& csr,
             Reply<mesh::v1::EnrolReply> reply) override;
  void enrol(const mesh::v1::EnrolRequest& request, const IpAddress& source,
             Reply<mesh::v1::EnrolReply> reply) override;
  void apply(const pki::Peer& peer, std::vector<policy::Declaration> declarations,
             Reply<mesh::v1::ApplyReply> reply) override;
  void remove(const pki::Peer& peer, const mesh::v1::DeleteRequest& request,
              Reply<mesh::v1::DetachReply> reply) override;
  void release_name(const pki::Peer& peer, const mesh::v1::NameRequest& request,
                    Reply<mesh::v1::Empty> reply) override;
  void list_workloads(Reply<mesh::v1::WorkloadList> reply) override;
  void list_services(Reply<mesh::v1::ServiceList> reply) override;
  void list_published(Reply<mesh::v1::PublishedList> reply) override;
  void list_nodes(Reply<mesh::v1::NodeList> reply) override;
  void list_refused(Reply<mesh::v1::RefusedList> reply) override;
  void get_status(Reply<mesh::v1::StatusReply> reply) override;
  void explain(const pki::Peer& peer, const mesh::v1::ExplainRequest& request,
               Reply<mesh::v1::ExplainReply> reply) override;
  void watch(std::shared_ptr<EventStream> stream, bool refused_only) override;
  void unwatch(const EventStream& stream) override;
  void turned_away(std::string_view why, const std::string& text) override;
  // In app_admin.cc.
  void create_token(const pki::Peer& peer, const mesh::v1::TokenRequest& request,
                    Reply<mesh::v1::TokenReply> reply) override;
  void list_tokens(Reply<mesh::v1::TokenList> reply) override;
  void revoke_token(const pki::Peer& peer, const mesh::v1::TokenName& request,
                    Reply<mesh::v1::Empty> reply) override;
  void dismiss_node(const pki::Peer& peer, const mesh::v1::NodeName& request,
                    Reply<mesh::v1::Empty> reply) override;
  void backup(const pki::Peer& peer, const mesh::v1::BackupRequest& request,
              Reply<mesh::v1::Empty> reply) override;
  void certify(const pki::Peer& peer, const mesh::v1::CertifyRequest& request,
               Reply<mesh::v1::EnrolReply> reply) override;

  // Sessions whose certificate has ended meanwhile, or whose node was dismissed at another
  // controller, end too.
  void end_expired();
  [[nodiscard]] std::string metrics_text(std::optional<proxy::EndpointCounts> web = {}) const;

 private:
  [[nodiscard]] pki::UtcTime utc() const;
  [[nodiscard]] Result<mesh::v1::EnrolReply> issue(const std::string& csr,
                                                   const pki::Holder& holder) const;

  Controller& controller_;
  const Authority& authority_;
  const Now now_;
  // Whether its node was dismissed; then it has been told so.
  [[nodiscard]] bool send_away(NodeStream& stream, const pki::Peer& peer);
  // Who did what, and how it ended: a line of the audit log, and a count of `command`.
  void audit(const pki::Peer& peer, std::string_view command, const std::string& what,
             const Status& outcome);
  void tell(mesh::v1::Event event);

  std::map<NodeStream*, pki::Peer> streams_;
  ServedCounts counts_;
  struct Watching {
    std::shared_ptr<EventStream> stream;
    bool refused_only = false;
  };
  std::vector<Watching> watchers_;
};

[[nodiscard]] std::string audit_name(const pki::Peer& peer);  // "admin/ada"
// As is_dismissed() has it.
[[nodiscard]] std::string key_text(const pki::Sha256& digest);

}  // namespace meshd::controller
