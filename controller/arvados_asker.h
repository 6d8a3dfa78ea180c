// Questions of the proxy, put to the Arvados API: whose a token is, and what its owner may do with
// a container.
//
// Threads:   ask() from any; what follows goes on in the client's thread, to which a question
//            belongs from there on.
// Owns:      nothing. The token's file outlives it, and it the client's thread.
// Invariant: what cannot be believed is kUnavailable, never a level. A token that is expired,
//            scoped or of somebody who is not active is kBadToken.
#pragma once

#include <functional>
#include <memory>

#include "arvados/client.h"
#include "controller/arvados_token.h"
#include "proxy/asking.h"

namespace meshd::controller {

class ArvadosAsker final : public proxy::Asker {
 public:
  ArvadosAsker(arvados::Client& client, const TokenFile& own) : client_(client), own_(own) {}

  [[nodiscard]] bool ask(const proxy::Question& question,
                         std::move_only_function<void(proxy::Answer)> done) override;

 private:
  struct Asking;
  // False: the client does not take it.
  [[nodiscard]] bool go_on(const std::shared_ptr<Asking>& asking);

  arvados::Client& client_;
  const TokenFile& own_;
};

}  // namespace meshd::controller
