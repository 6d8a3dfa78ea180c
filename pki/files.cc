#include "pki/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/unique_fd.h"

namespace meshd::pki {
namespace {

enum class Secrecy { kSecret, kPublic };

Status write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const auto written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return fail_errno("write " + path, errno);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  if (fsync(fd) != 0) return fail_errno("sync " + path, errno);
  return {};
}

std::string parent_of(const std::string& path) {
  auto parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};
Result<Owner> owner_of_parent(const std::string& path) {
  struct stat info{};
  const auto parent = parent_of(path);
  if (stat(parent.c_str(), &info) != 0) return fail_errno("look at " + parent, errno);
  return Owner{info.st_uid, info.st_gid};
}

// `owner`: whose the file becomes; absent: ours.
Status replace_file(const std::string& path, std::string_view text, Secrecy secrecy,
                    const std::optional<Owner>& owner = std::nullopt) {
  const auto fresh = path + ".new";
  // One that was left by a write that was cut off, or that somebody put there.
  if (unlink(fresh.c_str()) != 0 && errno != ENOENT) return fail_errno("remove " + fresh, errno);
  const mode_t mode = secrecy == Secrecy::kSecret ? 0600 : 0644;
  const UniqueFd file(
      open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!file) return fail_errno("make " + fresh, errno);
  if (owner && fchown(file.get(), owner->uid, owner->gid) != 0) {
    return fail_errno("give away " + fresh, errno);
  }
  CHECK_OK(write_all(file.get(), text, fresh));
  // Content before name: after a power cut the name must not stand for an empty file.
  if (rename(fresh.c_str(), path.c_str()) != 0) return fail_errno("replace " + path, errno);
  const auto parent = parent_of(path);
  const UniqueFd folder(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return fail_errno("open " + parent, errno);
  if (fsync(folder.get()) != 0) return fail_errno("sync " + parent, errno);
  return {};
}

// `friendly`: who may own it beside root and us.
Status check_file(const std::string& path, int fd, Secrecy secrecy, uid_t friendly) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return fail_errno("look at " + path, errno);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalid, path + ": not a plain file");
  if (info.st_uid != geteuid() && info.st_uid != 0 && info.st_uid != friendly) {
    return fail(ErrorCode::kInvalid, path + ": owned by somebody else");
  }
  if ((info.st_mode & 022) != 0) {
    return fail(ErrorCode::kInvalid, path + ": others may write to it");
  }
  if (secrecy == Secrecy::kSecret && (info.st_mode & 077) != 0) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: holds secrets and others may read it "
                                                 "(mode {:04o}): chmod 600, and renew them",
                                                 path, info.st_mode & 07777));
  }
  return {};
}

Result<UniqueFd> open_to_read(const std::string& path, int flags) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags));
  if (file) return file;
  if (errno == ENOENT) return fail(ErrorCode::kNotFound, path + ": no such file");
  return fail_errno("read " + path, errno);
}

// One byte more than `max_bytes` at most, for whoever refuses too much of it.
Result<std::string> read_some(const std::string& path, const UniqueFd& file,
                              std::size_t max_bytes) {
  std::string text(max_bytes + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = read(file.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("read " + path, errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

Result<std::string> read_file(const std::string& path, Secrecy secrecy) {
  const auto file = TRY(open_to_read(path, 0));
  CHECK_OK(check_file(path, file.get(), secrecy, geteuid()));
  return read_some(path, file, kMaxPemBytes);  // too much of it is refused by whoever parses
}

template <class T>
Result<T> with_path(Result<T> result, const std::string& path) {
  if (!result) return std::unexpected(std::move(result).error().in(path));
  return result;
}

std::unexpected<Error> strangers(const std::string& path) {
  return fail(ErrorCode::kInvalid, path + ": key and certificate do not belong together");
}

}  // namespace

Status write_identity(const std::string& path, const PrivateKey& key,
                      const Certificate& certificate) {
  if (!certificate.belongs_to(key)) return strangers(path);
  return replace_file(path, key.to_pem() + certificate.to_pem(), Secrecy::kSecret);
}

Status write_key(const std::string& path, const PrivateKey& key) {
  return replace_file(path, key.to_pem(), Secrecy::kSecret);
}

Status write_authorities(const std::string& path, std::string_view pem) {
  const auto authorities = TRY(with_path(parse_authorities(pem), path));
  std::string text;  // what was understood, not what came
  for (const auto& authority : authorities.certificates) text += authority.to_pem();
  return replace_file(path, text, Secrecy::kPublic);
}

Result<StoredIdentity> read_identity(const IdentityFiles& files) {
  const auto text = TRY(read_file(files.identity, Secrecy::kSecret));
  auto key = TRY(with_path(PrivateKey::parse(text), files.identity));
  auto certificate = TRY(with_path(parse_certificate(text), files.identity));
  if (!certificate.belongs_to(key)) return strangers(files.identity);
  auto authorities = TRY(read_authorities(files.authorities));
  return StoredIdentity{std::move(key), std::move(certificate), std::move(authorities)};
}

Result<PrivateKey> read_key(const std::string& path) {
  return with_path(PrivateKey::parse(TRY(read_file(path, Secrecy::kSecret))), path);
}

Result<Authorities> read_authorities(const std::string& path) {
  return with_path(parse_authorities(TRY(read_file(path, Secrecy::kPublic))), path);
}

Status write_secrets(const std::string& path, std::string_view text) {
  // Others than root can give nothing away, and need not: the directory is theirs.
  std::optional<Owner> owner;
  if (geteuid() == 0) owner = TRY(owner_of_parent(path));
  return replace_file(path, text, Secrecy::kSecret, owner);
}

Result<std::string> read_secrets(const std::string& path, std::size_t max_bytes) {
  const auto file = TRY(open_to_read(path, O_NOFOLLOW));
  const auto owner = TRY(owner_of_parent(path));
  CHECK_OK(check_file(path, file.get(), Secrecy::kSecret, owner.uid));
  auto text = TRY(read_some(path, file, max_bytes));
  if (text.size() <= max_bytes) return text;
  return fail(ErrorCode::kExhausted, fmt::format("{}: more than {} bytes", path, max_bytes));
}

}  // namespace meshd::pki
