// A token of the Arvados API: a secret that is handed on and never shown. It has no text but
// secret(), which only the client's Authorization header reads.
//
// Errors: kInvalid without the token in the text; kSystem when the file cannot be read.
// Source: RFC 6750 section 2.1 (characters of a bearer token); facts: a v2 token is
//         v2/<uuid>/<secret>[/<container uuid>], older ones a bare secret.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace meshd::arvados {

class Token {
 public:
  // Only what can stand in a header and be a token; whether it is one, the API knows.
  [[nodiscard]] static Result<Token> parse(std::string_view text);
  // One line. A file that others may read, or that is not ours, is refused.
  [[nodiscard]] static Result<Token> read_file(const std::string& path);

  [[nodiscard]] const std::string& secret() const { return secret_; }
  // Text of somebody else's, without this token in it.
  [[nodiscard]] std::string scrub(std::string text) const;

 private:
  explicit Token(std::string secret) : secret_(std::move(secret)) {}
  std::string secret_;
};

}  // namespace meshd::arvados
