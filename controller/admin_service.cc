#include "controller/admin_service.h"

#include "controller/calls.h"
#include "proto/controller.grpc.pb.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;

class AdminService final : public pb::Admin::CallbackService {
 public:
  explicit AdminService(Shared& shared) : shared_(shared) {}

  Reactor* CreateToken(Context* context, const pb::TokenRequest* q, pb::TokenReply* r) override {
    return as_job(shared_, *context, May::kAdminister, q, r, &Handler::create_token);
  }
  Reactor* ListTokens(Context* context, const pb::Empty*, pb::TokenList* r) override {
    return as_job(shared_, *context, May::kAdminister, r, &Handler::list_tokens);
  }
  Reactor* RevokeToken(Context* context, const pb::TokenName* q, pb::Empty* r) override {
    return as_job(shared_, *context, May::kAdminister, q, r, &Handler::revoke_token);
  }
  Reactor* DismissNode(Context* context, const pb::NodeName* q, pb::Empty* r) override {
    return as_job(shared_, *context, May::kAdminister, q, r, &Handler::dismiss_node);
  }
  Reactor* Backup(Context* context, const pb::BackupRequest* q, pb::Empty* r) override {
    return as_job(shared_, *context, May::kAdminister, q, r, &Handler::backup);
  }
  Reactor* Certify(Context* context, const pb::CertifyRequest* q, pb::EnrolReply* r) override {
    return as_job(shared_, *context, May::kAdminister, q, r, &Handler::certify);
  }

 private:
  Shared& shared_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_admin_service(Shared& shared) {
  return std::make_unique<AdminService>(shared);
}

}  // namespace meshd::controller
