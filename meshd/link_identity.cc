#include "meshd/link_identity.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/unique_fd.h"

namespace meshd {

Result<pki::JoinTicket> read_join_ticket(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return fail_errno("read " + path, errno);
  struct stat info{};
  if (fstat(file.get(), &info) != 0) return fail_errno("look at " + path, errno);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalid, path + ": not a plain file");
  if ((info.st_mode & 077) != 0) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: holds a join token and is open to others (mode {:04o}): chmod 600",
                            path, info.st_mode & 07777));
  }
  std::string text(pki::kMaxTicketBytes + 2, '\0');  // one more than is taken, and a line's end
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = read(file.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("read " + path, errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  auto ticket = pki::decode_ticket(text);
  if (!ticket) return std::unexpected(std::move(ticket).error().in(path));
  return ticket;
}

bool is_early(const pki::Certificate& certificate, pki::UtcTime now) {
  return now < certificate.not_before;
}

Status check_own(const pki::StoredIdentity& stored, std::string_view node, pki::UtcTime now) {
  const auto good = pki::check_certificate(
      stored.certificate, stored.authorities.certificates,
      {.cluster = stored.authorities.cluster, .role = pki::Role::kNode, .name = node}, now);
  if (!good) return std::unexpected(good.error());
  return {};
}

bool is_vouched_for(const pki::StoredIdentity& stored, const pki::JoinTicket& ticket,
                    pki::UtcTime now) {
  return pki::check_certificate(stored.certificate, ticket.authorities.certificates,
                                {.cluster = ticket.authorities.cluster, .role = pki::Role::kNode},
                                now)
      .has_value();
}

Status store_identity(const pki::IdentityFiles& files, const mesh::v1::EnrolReply& reply,
                      const pki::PrivateKey& key, std::string_view cluster, std::string_view node,
                      pki::UtcTime now) {
  const auto certificate = TRY(pki::parse_certificate(reply.certificate()));
  const auto authorities = TRY(pki::parse_authorities(reply.ca()));
  if (!certificate.belongs_to(key)) {
    return fail(ErrorCode::kInvalid, "the controller's certificate is for another key");
  }
  // A node whose clock is slow keeps what it has got: asking again would cost its token.
  const auto at = std::max(now, certificate.not_before);
  const auto good =
      pki::check_certificate(certificate, authorities.certificates,
                             {.cluster = cluster, .role = pki::Role::kNode, .name = node}, at);
  if (!good) return std::unexpected(good.error());
  // In this order: a node that stops in between still has the old identity, and authorities
  // that vouch for controllers, or none and joins again.
  CHECK_OK(pki::write_authorities(files.authorities, reply.ca()));
  return pki::write_identity(files.identity, key, certificate);
}

}  // namespace meshd
