// What lets machines join: a token drawn, and the ticket that carries it to them.
//
// Errors: kSystem when the kernel gives no randomness, kInvalid for terms that are refused.
#pragma once

#include <string>

#include "controller/app.h"
#include "controller/token.h"
#include "proto/record.pb.h"

namespace meshd::controller {

// One line that lets machines join.
[[nodiscard]] Result<std::string> make_ticket(const Authority& authority,
                                              const mesh::v1::StoredSettings& settings,
                                              const std::string& token);
[[nodiscard]] Result<MadeToken> draw_token(TokenTerms terms);

}  // namespace meshd::controller
