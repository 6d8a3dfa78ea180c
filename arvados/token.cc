#include "arvados/token.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "arvados/limits.h"
#include "base/unique_fd.h"

namespace meshd::arvados {
namespace {

bool is_token_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~+/=").contains(c);
}

void replace_all(std::string& text, std::string_view what) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at)) {
    text.replace(at, what.size(), "*");
  }
}

}  // namespace

Result<Token> Token::parse(std::string_view text) {
  if (text.empty()) return fail(ErrorCode::kInvalid, "the token is empty");
  if (text.size() > kMaxTokenBytes) return fail(ErrorCode::kInvalid, "the token is too long");
  if (!std::ranges::all_of(text, is_token_character)) {
    return fail(ErrorCode::kInvalid, "the token has characters that no token has");
  }
  return Token(std::string(text));
}

Result<Token> Token::read_file(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return fail_errno("read " + path, errno);
  struct stat status{};
  if (fstat(fd.get(), &status) != 0) return fail_errno("read " + path, errno);
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::kInvalid, path + ": is no plain file");
  if (status.st_uid != geteuid() && status.st_uid != 0) {
    return fail(ErrorCode::kInvalid, path + ": belongs to somebody else");
  }
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return fail(ErrorCode::kInvalid, path + ": others may read it; chmod 600");
  }
  std::string text(kMaxTokenBytes + 3, '\0');  // with an end of line, and one byte too many
  const auto got = read(fd.get(), text.data(), text.size());
  if (got < 0) return fail_errno("read " + path, errno);
  text.resize(static_cast<std::size_t>(got));
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  auto token = parse(text);
  if (!token) return std::unexpected(std::move(token).error().in(path));
  return token;
}

std::string Token::scrub(std::string text) const {
  // The secret part of a v2 token alone gives the same rights.
  std::string_view rest = secret_;
  replace_all(text, rest);
  if (rest.starts_with("v2/")) {
    rest.remove_prefix(3);
    const auto slash = rest.find('/');
    rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
    rest = rest.substr(0, rest.find('/'));
    if (!rest.empty()) replace_all(text, rest);
  }
  return text;
}

}  // namespace meshd::arvados
