// The controller's own token of the Arvados API, read again when its file changes.
//
// Threads:   refresh() from the loop; token() from any.
// Invariant: a file that cannot be read, or that others may read, changes nothing: the token
//            before it is used on, and why is told once.
// Errors:    of open(): "arvados.token_file: PATH: WHY".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "arvados/token.h"
#include "base/published.h"
#include "base/result.h"

namespace meshd::controller {

class TokenFile {
 public:
  [[nodiscard]] static Result<std::unique_ptr<TokenFile>> open(std::string path);

  // Costs a look at the file's times.
  void refresh();
  [[nodiscard]] std::shared_ptr<const arvados::Token> token() const { return token_.load(); }

 private:
  struct Stamp {
    std::uint64_t device = 0, inode = 0;
    std::int64_t changed_s = 0, changed_ns = 0, size = 0;
    bool operator==(const Stamp&) const = default;
  };
  explicit TokenFile(std::string path) : path_(std::move(path)) {}
  [[nodiscard]] Stamp stamp() const;
  [[nodiscard]] Status read();

  const std::string path_;
  Stamp seen_;
  Published<arvados::Token> token_;
};

}  // namespace meshd::controller
