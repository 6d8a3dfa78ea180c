#include "controller/setup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/unique_fd.h"
#include "controller/decide.h"
#include "controller/ticket.h"
#include "policy/name.h"

namespace meshd::controller {
namespace {

// A node's share of IPv6: as many addresses as one of IPv4 with room.
constexpr std::uint32_t kBlockBits6 = 112;

std::string path_in(const std::string& dir, const char* name) { return dir + "/" + name; }

// 0600, new, whole and on disk.
Status write_secret(const std::string& path, const std::string& text) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return fail_errno("write " + path, errno);
  if (write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      fsync(fd.get()) != 0) {
    return fail_errno("write " + path, errno);
  }
  return {};
}

// RFC 4193: a random /48 of fd00::/8, and the first two /64 after 0 of it.
struct Ula {
  std::array<std::uint8_t, 16> bytes{};
  [[nodiscard]] std::string subnet(std::uint8_t number) const {
    auto address = bytes;
    address[7] = number;
    return Prefix::of(IpAddress::v6(address), 64).to_string();
  }
};
Result<Ula> draw_ula() {
  Ula ula;
  CHECK_OK(pki::fill_random(std::span(ula.bytes).subspan(1, 5)));
  ula.bytes[0] = 0xfd;
  return ula;
}

Status check_pools(const mesh::v1::StoredSettings& settings) {
  std::vector<Prefix> pools;
  for (const auto& text : {settings.pool4(), settings.pool6(), settings.vip4(), settings.vip6()}) {
    if (text.empty()) continue;
    const auto pool = TRY(Prefix::parse(text));
    for (const auto& other : pools) {
      if (pool.overlaps(other)) {
        return fail(ErrorCode::kInvalid,
                    fmt::format("init: {} overlaps {}", text, other.to_string()));
      }
    }
    pools.push_back(pool);
  }
  if (settings.pool4().empty() && settings.pool6().empty()) {
    return fail(ErrorCode::kInvalid, "init: both families are off");
  }
  if (!settings.pool4().empty()) {
    const auto length = static_cast<std::uint32_t>(TRY(Prefix::parse(settings.pool4())).length());
    if (settings.block_bits4() <= length || settings.block_bits4() > 30) {
      return fail(ErrorCode::kInvalid, fmt::format("init: a node's block of /{} is no part of {}",
                                                   settings.block_bits4(), settings.pool4()));
    }
  }
  return {};
}

Result<mesh::v1::StoredSettings> settings_of(const InitOptions& options) {
  mesh::v1::StoredSettings settings;
  if (const auto why = pki::label_problem(options.cluster); !why.empty()) {
    return fail(ErrorCode::kInvalid, "init: cluster: " + why);
  }
  if (const auto why = policy::zone_problem(options.zone); !why.empty()) {
    return fail(ErrorCode::kInvalid, "init: zone: " + why);
  }
  if (options.addresses.empty()) {
    return fail(ErrorCode::kInvalid, "init: --address HOST:PORT: where nodes find the controller");
  }
  settings.set_cluster(options.cluster);
  settings.set_zone(options.zone);
  const auto ula = TRY(draw_ula());
  const auto pool = [](const std::string& given, const std::string& otherwise) {
    return given == "off" ? std::string() : given.empty() ? otherwise : given;
  };
  settings.set_pool4(pool(options.pool4, ""));
  settings.set_vip4(settings.pool4().empty() ? "" : pool(options.vip4, ""));
  settings.set_pool6(pool(options.pool6, ula.subnet(1)));
  settings.set_vip6(settings.pool6().empty() ? "" : pool(options.vip6, ula.subnet(2)));
  settings.set_block_bits4(options.block_bits4);
  settings.set_block_bits6(kBlockBits6);
  for (const auto& address : options.addresses) settings.add_addresses(address);
  for (const auto& address : options.join_addresses) settings.add_join_addresses(address);
  return settings;
}

Status write_authority(const std::string& dir, const Authority& authority) {
  CHECK_OK(pki::write_key(path_in(dir, "authority.key"), authority.key));
  return pki::write_authorities(path_in(dir, "authorities.pem"), authority.certificate.to_pem());
}

Status write_holder(const std::string& path, const Authority& authority, const pki::Holder& holder,
                    pki::UtcTime now) {
  const auto key = TRY(pki::PrivateKey::make());
  const auto csr = TRY(pki::make_csr(key));
  const auto certificate = TRY(pki::issue(authority.certificate, authority.key, csr, holder, now));
  return pki::write_identity(path, key, certificate);
}

// The hosts of "host:port", "[v6]:port".
void add_hosts(const mesh::v1::StoredSettings& settings, pki::Holder& holder) {
  for (const auto& endpoint : settings.addresses()) {
    auto host = endpoint.substr(0, endpoint.rfind(':'));
    if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
    if (const auto address = IpAddress::parse(host)) {
      holder.addresses.push_back(*address);
    } else {
      holder.hosts.push_back(host);
    }
  }
}

}  // namespace

Result<Initialised> init(const InitOptions& options, const Moment& now) {
  const auto settings = TRY(settings_of(options));
  CHECK_OK(check_pools(settings));
  const pki::UtcTime utc{std::chrono::seconds(now.wall_ms / 1000)};
  if (mkdir(options.dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno("init: make " + options.dir, errno);
  }
  for (const char* name : {"authority.key", "authorities.pem", "admin.pem", "join.ticket"}) {
    if (access(path_in(options.dir, name).c_str(), F_OK) == 0) {
      return fail(ErrorCode::kConflict,
                  fmt::format("init: {} is there already", path_in(options.dir, name)));
    }
  }
  auto key = TRY(pki::PrivateKey::make());
  auto certificate = TRY(pki::make_authority(key, options.cluster, utc));
  const Authority authority{std::move(certificate), std::move(key), options.cluster};
  const auto made = TRY(draw_token({.expires_at = utc + options.token_lifetime,
                                    .sources = {},
                                    .uses_left = options.token_uses,
                                    .name_prefix = {}}));
  const auto ticket = TRY(make_ticket(authority, settings, made.text));
  // The store first: it refuses a directory that another cluster's is in.
  const auto store = TRY(options.postgres.empty() ? open_sqlite_store(options.dir)
                                                  : open_postgres_store(options.postgres));
  const auto written =
      store->commit(0, {put(kind::ObjectKind::SETTINGS, "", settings), put_token(made.token)});
  if (!written) {
    return written.error().code == ErrorCode::kConflict
               ? fail(ErrorCode::kConflict, "init: the store holds a cluster already")
               : std::unexpected(written.error());
  }
  Initialised result{path_in(options.dir, "join.ticket"), path_in(options.dir, "admin.pem")};
  CHECK_OK(write_authority(options.dir, authority));
  CHECK_OK(write_holder(
      result.admin_path, authority,
      {.identity = {options.cluster, pki::Role::kAdmin, "admin"}, .lifetime = kAdminLifetime},
      utc));
  CHECK_OK(write_secret(result.ticket_path, ticket + "\n"));
  return result;
}

pki::IdentityFiles identity_files(const std::string& dir) {
  return {path_in(dir, "controller.pem"), path_in(dir, "authorities.pem")};
}

Result<Authority> open_authority(const std::string& dir) {
  auto key = TRY(pki::read_key(path_in(dir, "authority.key")));
  auto authorities = TRY(pki::read_authorities(path_in(dir, "authorities.pem")));
  for (auto& certificate : authorities.certificates) {
    if (!certificate.belongs_to(key)) continue;
    return Authority{std::move(certificate), std::move(key), authorities.cluster};
  }
  return fail(ErrorCode::kInvalid,
              fmt::format("{}: authority.key is of none of authorities.pem", dir));
}

Status refresh_identity(const std::string& dir, const Authority& authority, const std::string& name,
                        const mesh::v1::StoredSettings& settings, pki::UtcTime now) {
  const auto files = identity_files(dir);
  const auto stored = pki::read_identity(files);
  const pki::Expected expected{authority.cluster, pki::Role::kController, name};
  if (stored &&
      pki::check_certificate(stored->certificate, stored->authorities.certificates, expected,
                             now) &&
      now < pki::renew_at(stored->certificate, 0.5)) {
    return {};
  }
  pki::Holder holder{.identity = {authority.cluster, pki::Role::kController, name},
                     .lifetime = kControllerLifetime};
  add_hosts(settings, holder);
  return write_holder(files.identity, authority, holder, now);
}

}  // namespace meshd::controller
