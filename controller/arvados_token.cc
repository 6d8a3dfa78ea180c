#include "controller/arvados_token.h"

#include <sys/stat.h>

#include <utility>

#include "base/log.h"

namespace meshd::controller {

Result<std::unique_ptr<TokenFile>> TokenFile::open(std::string path) {
  std::unique_ptr<TokenFile> file(new TokenFile(std::move(path)));
  CHECK_OK(file->read());
  return file;
}

TokenFile::Stamp TokenFile::stamp() const {
  struct stat status{};
  if (stat(path_.c_str(), &status) != 0) return {};
  // The inode's own time: mode and owner count as well as what is in it.
  return {status.st_dev, status.st_ino, status.st_ctim.tv_sec, status.st_ctim.tv_nsec,
          status.st_size};
}

Status TokenFile::read() {
  seen_ = stamp();  // before: what changes while it is read is read again
  auto token = arvados::Token::read_file(path_);
  if (!token) return std::unexpected(std::move(token).error().in("arvados.token_file"));
  token_.store(std::make_shared<const arvados::Token>(*std::move(token)));
  return {};
}

void TokenFile::refresh() {
  if (stamp() == seen_) return;
  if (const auto status = read(); !status) {
    log::warning("{}; the token before it is used on", status.error().what);
  } else {
    log::info("arvados.token_file: {}: read again", path_);
  }
}

}  // namespace meshd::controller
