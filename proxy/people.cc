#include "proxy/people.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "policy/name.h"
#include "proxy/target.h"
#include "proxy/token.h"

namespace meshd::proxy {
namespace {

constexpr std::size_t kIdBytes = 6;  // of the digest: a list's line, and no two alike
constexpr std::string_view kNever = "never";
constexpr std::string_view kAdmin = "admin";
constexpr std::string_view kFirstLine =
    "# Web tokens of mesh-controller: digests, no tokens. Changed by `mesh-controller token`.\n";

std::unexpected<Error> wrong(std::string_view field, std::string_view reason) {
  return fail(ErrorCode::kInvalid, fmt::format("{}: {}", field, reason));
}

Error too_many() {
  return {ErrorCode::kExhausted, fmt::format("more than {} tokens", kMaxPeople), 0};
}

std::string id_of(const pki::Sha256& digest) {
  return pki::to_hex(std::span(digest).first<kIdBytes>());
}

std::string_view level_word(Access level) {
  switch (level) {
    case Access::kCanManage:
      return "CAN_MANAGE";
    case Access::kCanWrite:
      return "CAN_WRITE";
    default:
      return "CAN_READ";
  }
}

std::optional<int> digits(std::string_view text) {
  int value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  return value;
}

// Exactly what time_text() writes.
Result<UtcTime> parse_time(std::string_view text) {
  const auto bad = [] {
    return wrong("expires", "is never, or a time such as 2030-01-31T00:00:00Z");
  };
  if (text.size() != 20) return bad();
  const auto year = digits(text.substr(0, 4)), month = digits(text.substr(5, 2)),
             day = digits(text.substr(8, 2)), hour = digits(text.substr(11, 2)),
             minute = digits(text.substr(14, 2)), second = digits(text.substr(17, 2));
  if (!year || !month || !day || !hour || !minute || !second) return bad();
  const std::chrono::year_month_day date(std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day)));
  if (!date.ok()) return bad();
  const auto at = std::chrono::sys_days(date) + std::chrono::hours(*hour) +
                  std::chrono::minutes(*minute) + std::chrono::seconds(*second);
  if (time_text(at) != text) return bad();
  return at;
}

Status check_terms(const Person& person) {
  if (const auto why = policy::owner_problem(person.user); !why.empty()) return wrong("user", why);
  if (person.grants.size() > kMaxGrants) {
    return fail(ErrorCode::kExhausted, fmt::format("grants: more than {}", kMaxGrants));
  }
  for (std::size_t i = 0; i < person.grants.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (person.grants[i].owner == person.grants[j].owner) {
        return wrong("grants", fmt::format("{} stands there twice", person.grants[i].owner));
      }
    }
  }
  return {};
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (;;) {
    const auto first = line.find_first_not_of(' ');
    if (first == std::string_view::npos) return words;
    line.remove_prefix(first);
    words.push_back(line.substr(0, line.find(' ')));
    line.remove_prefix(words.back().size());
  }
}

Result<Person> parse_person(std::string_view line) {
  if (line.size() > kMaxPersonBytes) {
    return fail(ErrorCode::kExhausted, fmt::format("line: longer than {} bytes", kMaxPersonBytes));
  }
  const auto words = words_of(line);
  if (words.size() < 4) return wrong("line", "is not ID SHA256 USER EXPIRES ...");
  Person person;
  if (!pki::parse_hex(words[1], person.digest))
    return wrong("sha256", "is not 64 digits of 0-9a-f");
  person.id = id_of(person.digest);
  if (words[0] != person.id) return wrong("id", "is not the digest's beginning");
  person.user = words[2];
  if (words[3] != kNever) person.expires_at = TRY(parse_time(words[3]));
  for (const auto word : std::span(words).subspan(4)) {
    if (word == kAdmin && !person.admin) {
      person.admin = true;
    } else {
      person.grants.push_back(TRY(parse_grant(word)));
    }
  }
  CHECK_OK(check_terms(person));
  return person;
}

// What they may do with what that owner has.
std::optional<Access> level_at(const Person& person, std::string_view owner) {
  if (person.admin || person.user == owner) return Access::kOwner;
  const auto found = std::ranges::find(person.grants, owner, &Grant::owner);
  return found == person.grants.end() ? std::nullopt : std::optional(found->level);
}

}  // namespace

// Not by fmt's own, which counts nanoseconds: 64 bits of them end in the year 2262.
std::string time_text(UtcTime at) {
  const auto day = std::chrono::floor<std::chrono::days>(at);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss time(at - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     time.hours().count(), time.minutes().count(), time.seconds().count());
}

std::string grant_text(const Grant& grant) {
  return fmt::format("{}:{}", level_word(grant.level), grant.owner);
}

Result<Grant> parse_grant(std::string_view text) {
  const auto colon = text.find(':');
  Grant grant;
  const auto word = text.substr(0, colon);
  bool known = false;
  for (const auto level : {Access::kCanManage, Access::kCanWrite, Access::kCanRead}) {
    if (word != level_word(level)) continue;
    grant.level = level;
    known = true;
  }
  if (!known || colon == std::string_view::npos) {
    return wrong("level", "is CAN_MANAGE:OWNER, CAN_WRITE:OWNER or CAN_READ:OWNER");
  }
  grant.owner = text.substr(colon + 1);
  if (const auto why = policy::owner_problem(grant.owner); !why.empty()) {
    return wrong("level", "its owner " + why);
  }
  return grant;
}

Result<MadePerson> make_person(Person terms, const TokenSecret& secret) {
  CHECK_OK(check_terms(terms));
  MadePerson made;
  made.token = std::string(kTokenPrefix) +
               to_base64url({reinterpret_cast<const char*>(secret.data()), secret.size()});
  terms.digest = pki::sha256(made.token);
  terms.id = id_of(terms.digest);
  made.person = std::move(terms);
  return made;
}

Result<People> parse_people(std::string_view file, std::string_view text) {
  People people;
  std::set<std::string> ids;
  std::size_t number = 0;
  const auto here = [&](Error error) {
    return std::unexpected(std::move(error).in(fmt::format("{}:{}", file, number)));
  };
  if (text.size() > kMaxPeopleBytes) {
    return fail(ErrorCode::kExhausted,
                fmt::format("{}: more than {} bytes", file, kMaxPeopleBytes));
  }
  while (!text.empty()) {
    ++number;
    const auto end = text.find('\n');
    const auto line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty() || line.front() == '#') continue;
    auto person = parse_person(line);
    if (!person) return here(std::move(person).error());
    if (!ids.insert(person->id).second) {
      return here({ErrorCode::kInvalid, "id: stands there twice", 0});
    }
    if (people.size() >= kMaxPeople) return here(too_many());
    people.push_back(*std::move(person));
  }
  return people;
}

std::string render_people(std::span<const Person> people) {
  std::string text(kFirstLine);
  for (const auto& person : people) {
    text += fmt::format("{} {} {} {}", person.id, pki::to_hex(person.digest), person.user,
                        person.expires_at ? time_text(*person.expires_at) : std::string(kNever));
    if (person.admin) text.append(" ").append(kAdmin);
    for (const auto& grant : person.grants) {
      text.append(" ").append(grant_text(grant));
    }
    text += '\n';
  }
  return text;
}

Answer answer(std::span<const Person> people, const Question& question, UtcTime now) {
  const auto digest = pki::sha256(question.token);
  const Person* found = nullptr;
  for (const auto& person : people) {  // all, whichever it is
    if (pki::equal_in_constant_time(person.digest, digest)) found = &person;
  }
  if (found == nullptr || (found->expires_at && now >= *found->expires_at)) {
    return {.kind = Answer::Kind::kBadToken};
  }
  Answer result{.kind = Answer::Kind::kGood, .user = {{}, found->user, found->admin}};
  // A site may call its people by what Arvados knows them as.
  if (is_arvados_uuid(found->user, kUserType)) result.user.uuid = found->user;
  if (question.what == Question::What::kLevel) result.level = level_at(*found, question.owner);
  if (question.what == Question::What::kSees) {
    for (const auto& grant : found->grants) result.owners.push_back(grant.owner);
  }
  return result;
}

Status add_person(People& people, Person person) {
  if (people.size() >= kMaxPeople) return std::unexpected(too_many());
  if (std::ranges::find(people, person.id, &Person::id) != people.end()) {
    return fail(ErrorCode::kConflict, fmt::format("token {}: is there already", person.id));
  }
  people.push_back(std::move(person));
  return {};
}

Status remove_person(People& people, std::string_view id) {
  if (std::erase_if(people, [&](const Person& person) { return person.id == id; }) != 0) return {};
  return fail(ErrorCode::kNotFound, fmt::format("token {}: there is none", id.substr(0, 64)));
}

}  // namespace meshd::proxy
