#include "controller/admin_client.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "controller/config.h"
#include "controller/web_commands.h"
#include "pki/controller_channel.h"
#include "pki/issue.h"
#include "proto/controller.grpc.pb.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;
template <class T>
using Answer = std::expected<T, AdminFailure>;

constexpr auto kCallTimeout = std::chrono::seconds(30);
constexpr auto kBackupTimeout = std::chrono::minutes(10);  // a slow disk, a large cluster
constexpr int kMaxReplyBytes = 32 << 20;

std::unexpected<AdminFailure> refused(std::string what) {
  return std::unexpected(AdminFailure(1, std::move(what)));
}

struct Target {
  std::vector<std::string> addresses;
  pki::IdentityFiles files;
};

Result<Target> find(const Where& where) {
  Target target;
  target.files = {where.identity, where.authorities};
  std::string dir = where.dir;
  if (!where.controllers.empty()) {
    target.addresses = TRY(pki::parse_controllers(where.controllers));
  }
  if (target.addresses.empty() || (target.files.identity.empty() && dir.empty())) {
    const auto config =
        TRY(load_config(where.config.empty() ? std::string(kDefaultConfigPath) : where.config,
                        !where.config.empty()));
    if (dir.empty()) dir = config.dir;
    if (target.addresses.empty()) target.addresses = local_addresses(config.listen);
  }
  if (target.files.identity.empty()) target.files.identity = dir + "/admin.pem";
  if (target.files.authorities.empty()) {
    target.files.authorities = pki::authorities_beside(target.files.identity);
  }
  return target;
}

// One connection to a controller.
class Client {
 public:
  static Answer<Client> connect(const Where& where) {
    const auto target = TRY(find(where));
    const auto self = TRY(pki::check_own_identity(target.files, utc_now()));
    // gRPC writes lines of its own to stderr otherwise.
    if (std::getenv("GRPC_VERBOSITY") == nullptr) {
      gpr_set_log_function([](gpr_log_func_args*) {});
    }
    auto opened =
        pki::connect_controller(target.addresses, target.files, self.cluster, kMaxReplyBytes);
    if (!opened) {
      const int exit = opened.error().code == ErrorCode::kSystem ? 3 : 1;
      return std::unexpected(AdminFailure(exit, opened.error().what));
    }
    return Client(*std::move(opened), self.cluster);
  }

  template <class Request, class Response>
  Answer<Response> call(grpc::Status (pb::Admin::StubInterface::*method)(grpc::ClientContext*,
                                                                         const Request&, Response*),
                        const Request& request, std::chrono::seconds timeout = kCallTimeout) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    Response response;
    const auto status = (stub_.get()->*method)(&context, request, &response);
    if (status.ok()) return response;
    switch (status.error_code()) {
      case grpc::StatusCode::UNAVAILABLE:
      case grpc::StatusCode::CANCELLED:
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        return std::unexpected(
            AdminFailure(3, fmt::format("lost the controller at {}: {}; whether it was done is "
                                        "not known",
                                        address_, status.error_message())));
      default:
        return refused(status.error_message());
    }
  }
  [[nodiscard]] const std::string& cluster() const { return cluster_; }

 private:
  Client(pki::ControllerChannel opened, std::string cluster)
      : address_(std::move(opened.address)),
        cluster_(std::move(cluster)),
        stub_(pb::Admin::NewStub(opened.channel)) {}

  std::string address_, cluster_;
  std::unique_ptr<pb::Admin::StubInterface> stub_;
};

std::string state_of(const pb::TokenInfo& token, pki::UtcTime now) {
  if (token.revoked()) return "revoked";
  if (pki::UtcTime(std::chrono::seconds(token.expires_at_s())) <= now) return "expired";
  return token.uses_left() == 0 ? "used up" : "good";
}

std::string render(const pb::TokenList& list, pki::UtcTime now) {
  auto text = fmt::format("{:<16}  {:<8}  {:<20}  {:>9}  {:<12}  {}\n", "ID", "STATE", "UNTIL",
                          "USES LEFT", "NAMES", "SOURCES");
  for (const auto& token : list.tokens()) {
    const auto until = fmt::gmtime(static_cast<std::time_t>(token.expires_at_s()));
    text += fmt::format(
        "{:<16}  {:<8}  {:%Y-%m-%dT%H:%M:%SZ}  {:>9}  {:<12}  {}\n", token.id(),
        state_of(token, now), until,
        token.uses_left() < 0 ? "any" : fmt::format("{}", token.uses_left()),
        token.name_prefix().empty() ? "any" : token.name_prefix() + "...",
        token.sources().empty() ? "any" : fmt::format("{}", fmt::join(token.sources(), ",")));
  }
  return text;
}

// authorities.pem beside the new identity: made where there is none, and left where it knows
// the authority already.
Status write_authorities(const std::string& path, const pki::Certificate& certificate,
                         const std::string& ca) {
  if (access(path.c_str(), F_OK) != 0) return pki::write_authorities(path, ca);
  const auto there = TRY(pki::read_authorities(path));
  const auto good = pki::check_certificate(certificate, there.certificates,
                                           {there.cluster, std::nullopt}, utc_now());
  if (good) return {};
  return fail(ErrorCode::kConflict, path + ": there already, and of another authority");
}

// One command at work. Each overload carries one kind of action out.
class Runner {
 public:
  Runner(const Where& where, const UtcClock& clock) : where_(where), clock_(clock) {}

  Answer<AdminOutput> operator()(const AdminHelp&) const { return AdminOutput{}; }

  Answer<AdminOutput> operator()(const CreateToken& create) const {
    auto client = TRY(Client::connect(where_));
    const auto reply = TRY(client.call(&Stub::CreateToken, create.request));
    return AdminOutput{
        reply.ticket() + "\n",
        fmt::format(
            "token {}, good for {} h{}: put the line above into a file of a node, and "
            "name it there as controller {{join_file: PATH}}\n",
            reply.id(), create.request.lifetime_s() / 3600,
            create.request.uses() == 0 ? "" : fmt::format(", {} uses", create.request.uses()))};
  }
  Answer<AdminOutput> operator()(const ListTokens&) const {
    auto client = TRY(Client::connect(where_));
    return AdminOutput{render(TRY(client.call(&Stub::ListTokens, pb::Empty())), clock_()), ""};
  }
  Answer<AdminOutput> operator()(const RevokeToken& revoke) const {
    pb::TokenName request;
    request.set_id(revoke.id);
    return confirm(&Stub::RevokeToken, request, revoke.id + ": revoked\n");
  }
  Answer<AdminOutput> operator()(const DismissNode& dismiss) const {
    pb::NodeName request;
    request.set_name(dismiss.name);
    return confirm(&Stub::DismissNode, request, dismiss.name + ": dismissed\n");
  }
  Answer<AdminOutput> operator()(const MakeBackup& backup) const {
    pb::BackupRequest request;
    request.set_path(backup.path);
    return confirm(&Stub::Backup, request, backup.path + ": made\n", kBackupTimeout);
  }
  Answer<AdminOutput> operator()(const Certify& certify) const {
    // Before anything is asked for: what would be overwritten may be in use.
    if (access(certify.out.c_str(), F_OK) == 0) return refused(certify.out + ": there already");
    const auto key = TRY(pki::PrivateKey::make());
    pb::CertifyRequest request;
    request.set_csr(TRY(pki::make_csr(key)));
    request.set_role(certify.role);
    request.set_name(certify.name);
    request.set_lifetime_s(certify.lifetime_s);
    auto client = TRY(Client::connect(where_));
    const auto reply = TRY(client.call(&Stub::Certify, request));
    const auto certificate = TRY(pki::parse_certificate(reply.certificate()));
    const auto authorities = pki::authorities_beside(certify.out);
    CHECK_OK(write_authorities(authorities, certificate, reply.ca()));
    CHECK_OK(pki::write_identity(certify.out, key, certificate));
    return AdminOutput{fmt::format("{}: {} {} of cluster {}, good for {}\n", certify.out,
                                   certify.role, certify.name, client.cluster(),
                                   pki::duration_text(certificate.not_after - clock_())),
                       fmt::format("{} goes with it\n", authorities)};
  }
  Answer<AdminOutput> operator()(const AddPerson& add) const {
    return TRY(add_person(where_, add, clock_()));
  }
  Answer<AdminOutput> operator()(const ListPeople&) const {
    return TRY(list_people(where_, clock_()));
  }
  Answer<AdminOutput> operator()(const RemovePerson& remove) const {
    return TRY(remove_person(where_, remove));
  }
  Answer<AdminOutput> operator()(const PrintProxyConfig& print) const {
    return TRY(print_proxy_config(where_, print));
  }

 private:
  using Stub = pb::Admin::StubInterface;

  template <class Request>
  Answer<AdminOutput> confirm(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                           pb::Empty*),
                              const Request& request, std::string done,
                              std::chrono::seconds timeout = kCallTimeout) const {
    auto client = TRY(Client::connect(where_));
    CHECK_OK(client.call(method, request, timeout));
    return AdminOutput{std::move(done), ""};
  }

  const Where& where_;
  const UtcClock& clock_;
};

}  // namespace

std::vector<std::string> local_addresses(const std::string& listen) {
  const auto port = listen.substr(listen.rfind(':'));
  const auto host = listen.substr(0, listen.size() - port.size());
  if (host == "0.0.0.0") return {"127.0.0.1" + port};
  if (host == "[::]") return {"127.0.0.1" + port, "[::1]" + port};
  return {listen};
}

pki::UtcTime utc_now() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

std::expected<AdminOutput, AdminFailure> run_admin(const AdminCommand& command,
                                                   const UtcClock& clock) {
  return std::visit(Runner(command.where, clock), command.action);
}

}  // namespace meshd::controller
