// The token file: who may sign in where there is no Arvados, one token a line.
//
//   ID SHA256 USER EXPIRES [admin] [LEVEL:OWNER]...
//
// Invariant: of a token only the digest is kept; its text is shown once, to whom it is made for.
// Errors:    kInvalid "FILE:LINE: FIELD: REASON"; kExhausted beyond a limit; kNotFound.
// Units:     UTC, whole seconds.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "pki/secret.h"
#include "proxy/asking.h"

namespace meshd::proxy {

using UtcTime = std::chrono::sys_seconds;

inline constexpr const char* kPeopleFile = "web-tokens";
inline constexpr std::size_t kTokenSecretBytes = 32;  // 256 bits: cannot be tried through
// All are compared for each token that is new to the cache: 4,096 digests took 85 us. A site with
// more people has a directory of them.
inline constexpr std::size_t kMaxPeople = 4'096;
inline constexpr std::size_t kMaxGrants = 64;  // who shares with more is an administrator
inline constexpr std::size_t kMaxPeopleBytes = 8 << 20;
inline constexpr std::size_t kMaxPersonBytes = 16 << 10;  // 64 grants of the longest owner: 9 KiB
inline constexpr auto kMaxTokenLife = std::chrono::days(3652);

struct Grant {
  Access level = Access::kCanRead;  // kCanManage, kCanWrite or kCanRead
  std::string owner;
  bool operator==(const Grant&) const = default;
};
// "CAN_READ:team-x".
[[nodiscard]] Result<Grant> parse_grant(std::string_view text);
[[nodiscard]] std::string grant_text(const Grant& grant);
// "2030-01-31T00:00:00Z".
[[nodiscard]] std::string time_text(UtcTime at);

struct Person {
  std::string id;  // of the token: for lists and removal
  pki::Sha256 digest{};
  std::string user;                   // also the owner that they are
  std::optional<UtcTime> expires_at;  // absent: never
  bool admin = false;
  std::vector<Grant> grants;
  bool operator==(const Person&) const = default;
};
using People = std::vector<Person>;  // in the order in which they were added

using TokenSecret = std::array<std::uint8_t, kTokenSecretBytes>;
struct MadePerson {
  Person person;
  std::string token;  // shown once
};
// `terms` without id and digest.
[[nodiscard]] Result<MadePerson> make_person(Person terms, const TokenSecret& secret);

[[nodiscard]] Result<People> parse_people(std::string_view file, std::string_view text);
[[nodiscard]] std::string render_people(std::span<const Person> people);

// Answers at once; what it is asked for is compared with all, in constant time.
[[nodiscard]] Answer answer(std::span<const Person> people, const Question& question, UtcTime now);

// None where there is no such file. Refuses one that others can read.
[[nodiscard]] Result<People> read_people(const std::string& path);
// Reads, changes and replaces the file whole, mode 0600, its directory's owner's; when `change`
// fails nothing is written. Waits for whoever else is at it.
[[nodiscard]] Status edit_people(const std::string& path,
                                 const std::function<Status(People&)>& change);
// For edit_people().
[[nodiscard]] Status add_person(People& people, Person person);
[[nodiscard]] Status remove_person(People& people, std::string_view id);

}  // namespace meshd::proxy
