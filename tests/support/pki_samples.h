// A cluster of the test's own: an authority and whom it gives certificates to.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pki/certificate.h"
#include "pki/files.h"
#include "pki/issue.h"
#include "pki/key.h"

namespace meshd::pki {

inline constexpr UtcTime kSampleNow{std::chrono::seconds(1'800'000'000)};  // January 2027

inline UtcTime real_now() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

// Empty when it is none.
template <class T>
std::string error_of(const Result<T>& result) {
  return result ? "" : result.error().what;
}

inline PrivateKey new_key() { return PrivateKey::make().value(); }

inline Holder holder_of(std::string_view cluster, Role role, std::string_view name) {
  return {.identity = {std::string(cluster), role, std::string(name)}};
}

struct SampleAuthority {
  explicit SampleAuthority(UtcTime now = kSampleNow, std::string_view cluster = "lab")
      : certificate(make_authority(key, cluster, now).value()) {}

  [[nodiscard]] Result<Certificate> give(const PrivateKey& to, const Holder& holder,
                                         UtcTime now) const {
    return issue(certificate, key, make_csr(to).value(), holder, now);
  }
  [[nodiscard]] std::vector<Certificate> list() const { return {certificate}; }
  // The files of a new holder, in `folder`.
  [[nodiscard]] IdentityFiles write(const std::string& folder, const Holder& holder,
                                    UtcTime now) const {
    const IdentityFiles files{folder + "/" + holder.identity.name + ".pem",
                              folder + "/" + holder.identity.name + "-ca.pem"};
    const auto own = new_key();
    EXPECT_TRUE(write_identity(files.identity, own, give(own, holder, now).value()));
    EXPECT_TRUE(write_authorities(files.authorities, certificate.to_pem()));
    return files;
  }

  PrivateKey key = new_key();
  Certificate certificate;
};

}  // namespace meshd::pki
