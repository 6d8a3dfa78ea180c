#include "proxy/passes.h"

#include <array>
#include <utility>

#include "proxy/token.h"

namespace meshd::proxy {
namespace {

constexpr std::size_t kSecretBytes = 32;

}  // namespace

void Passes::forget_old(TimePoint now) {
  while (!by_age_.empty() && (by_age_.front().first <= now || by_age_.size() > kMaxPasses)) {
    passes_.erase(by_age_.front().second);
    by_age_.pop_front();
  }
}

Result<std::string> Passes::issue(std::string token, std::string target, TimePoint now) {
  std::array<std::uint8_t, kSecretBytes> secret{};
  CHECK_OK(pki::fill_random(secret));
  auto pass = to_base64url({reinterpret_cast<const char*>(secret.data()), secret.size()});
  const auto digest = pki::sha256(pass);
  passes_[digest] = {std::move(token), std::move(target), now + kPassLife};
  by_age_.emplace_back(now + kPassLife, digest);
  forget_old(now);
  return pass;
}

std::optional<std::string> Passes::redeem(std::string_view pass, std::string_view target,
                                          TimePoint now) {
  forget_old(now);
  const auto found = passes_.find(pki::sha256(pass));
  if (found == passes_.end()) return std::nullopt;
  auto taken = std::move(found->second);
  passes_.erase(found);
  if (taken.target != target || taken.until <= now) return std::nullopt;
  return std::move(taken.token);
}

}  // namespace meshd::proxy
