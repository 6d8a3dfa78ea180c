#include "controller/cli.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

#include "base/ip.h"
#include "pki/controller_channel.h"
#include "policy/name.h"

namespace meshd::controller {
namespace {

struct Given {
  std::string name, value;
};
struct Line {
  std::vector<std::string> words;
  std::vector<Given> options;
  bool help = false;

  // The last of several.
  [[nodiscard]] std::optional<std::string> value(std::string_view name) const {
    const auto found = std::ranges::find(options.rbegin(), options.rend(), name, &Given::name);
    return found == options.rend() ? std::nullopt : std::optional(found->value);
  }
};

std::unexpected<Error> usage(std::string_view command, std::string_view why) {
  return fail(ErrorCode::kInvalid, fmt::format("{}: {}", command, why));
}

constexpr std::string_view kCommon[] = {"--config", "--dir", "--controller", "--identity",
                                        "--authorities"};
constexpr std::size_t kCommonHere = 2;  // of them, for what asks no controller
constexpr std::string_view kFlags[] = {"--admin"};

struct Rule {
  std::string_view words;      // of the command
  std::string_view arguments;  // what follows, for messages
  std::size_t count;           // of them
  std::vector<std::string_view> options = {};
  Result<AdminAction> (*take)(const Line& line, std::span<const std::string> arguments);
  bool here = false;  // asks no controller

  [[nodiscard]] bool has(std::string_view option) const {
    const std::span common(kCommon, here ? kCommonHere : std::size(kCommon));
    return std::ranges::find(common, option) != common.end() ||
           std::ranges::find(options, option) != options.end();
  }
};

Result<Line> read_line(std::span<const std::string> args) {
  Line line;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const auto& word = args[i];
    if (word == "--help" || word == "-h") {
      line.help = true;
    } else if (!word.starts_with('-')) {
      line.words.push_back(word);
    } else if (std::ranges::find(kFlags, word) != std::end(kFlags)) {
      line.options.push_back({word, "yes"});
    } else if (const auto equals = word.find('=');
               word.starts_with("--") && equals != std::string::npos) {
      line.options.push_back({word.substr(0, equals), word.substr(equals + 1)});
    } else if (i + 1 < args.size()) {
      line.options.push_back({word, args[++i]});
    } else {
      return usage(word, "needs a value");
    }
  }
  return line;
}

// The number of units that an option says, in seconds or as it is; absent: not given.
Result<std::optional<std::uint32_t>> number(const Line& line, std::string_view option,
                                            std::uint32_t most) {
  const auto text = line.value(option);
  if (!text) return std::nullopt;
  std::uint32_t value = 0;
  const auto* const end = text->data() + text->size();
  const auto [at, error] = std::from_chars(text->data(), end, value);
  if (error != std::errc() || at != end || value < 1 || value > most) {
    return usage(option, fmt::format("'{}' is no number from 1 to {}", *text, most));
  }
  return value;
}

Result<AdminAction> take_create(const Line& line, std::span<const std::string>) {
  CreateToken create;
  const auto hours = TRY(number(line, "--hours", kMaxTokenHours));
  create.request.set_lifetime_s(hours.value_or(24) * 3600);
  create.request.set_uses(TRY(number(line, "--uses", kMaxTokenUses)).value_or(0));
  for (const auto& [name, value] : line.options) {
    if (name != "--source") continue;
    if (!Prefix::parse(value)) {
      return usage(name, fmt::format("'{}' is no prefix such as 192.0.2.0/24", value));
    }
    create.request.add_sources(value);
  }
  create.request.set_name_prefix(line.value("--name-prefix").value_or(""));
  return create;
}

Result<AdminAction> take_certify(const Line& line, std::span<const std::string> arguments) {
  Certify certify{.role = arguments[0], .name = arguments[1], .out = {}};
  static constexpr std::string_view kGiven[] = {"dispatcher", "admin", "reader"};
  if (std::ranges::find(kGiven, certify.role) == std::end(kGiven)) {
    return usage("certify", fmt::format("'{}' is none of dispatcher, admin, reader", certify.role));
  }
  if (const auto why = pki::label_problem(certify.name); !why.empty()) {
    return usage("certify", fmt::format("'{}' {}", certify.name, why));
  }
  const auto days = TRY(number(line, "--days", kMaxCertificateDays));
  certify.lifetime_s = days.value_or(0) * 24 * 3600;
  certify.out = line.value("-o").value_or("");
  if (certify.out.empty()) return usage("certify", "name the file to make with -o FILE");
  return certify;
}

Result<AdminAction> take_backup(const Line&, std::span<const std::string> arguments) {
  if (!arguments[0].starts_with('/')) {
    return usage("backup", "an absolute path: the file is made where the controller runs");
  }
  return MakeBackup{arguments[0]};
}

Result<AdminAction> take_person(const Line& line, std::span<const std::string> arguments) {
  AddPerson add;
  add.terms.user = arguments[0];
  if (const auto why = policy::owner_problem(arguments[0]); !why.empty()) {
    return usage("token add", fmt::format("'{}' {}", arguments[0], why));
  }
  for (const auto& [name, value] : line.options) {
    if (name != "--level") continue;
    auto grant = proxy::parse_grant(value);
    if (!grant) return usage(name, fmt::format("'{}': {}", value, grant.error().what));
    add.terms.grants.push_back(*std::move(grant));
  }
  add.terms.admin = line.value("--admin").has_value();
  add.days = TRY(number(line, "--expires", kMaxPersonDays));
  return add;
}

Result<AdminAction> take_proxy_config(const Line& line, std::span<const std::string>) {
  PrintProxyConfig print;
  const auto port = TRY(number(line, "--port", 65535));
  if (port) print.port = static_cast<std::uint16_t>(*port);
  const std::pair<std::string_view, std::string*> texts[] = {{"--zone", &print.zone},
                                                             {"--host", &print.host},
                                                             {"--ports", &print.ports},
                                                             {"--certificate", &print.certificate},
                                                             {"--key", &print.certificate_key},
                                                             {"--listen", &print.endpoint},
                                                             {"--access-log", &print.access_log}};
  for (const auto& [name, into] : texts) *into = line.value(name).value_or("");
  return print;
}

const std::vector<Rule>& rules() {
  using L = const Line&;
  using A = std::span<const std::string>;
  static const std::vector<Rule> kRules = {
      {"token create", "", 0, {"--hours", "--uses", "--source", "--name-prefix"}, take_create},
      {"token list", "", 0, {}, [](L, A) -> Result<AdminAction> { return ListTokens{}; }},
      {"token revoke",
       "ID",
       1,
       {},
       [](L, A a) -> Result<AdminAction> { return RevokeToken{a[0]}; }},
      {"node dismiss",
       "NAME",
       1,
       {},
       [](L, A a) -> Result<AdminAction> { return DismissNode{a[0]}; }},
      {"backup", "PATH", 1, {}, take_backup},
      {"certify", "ROLE NAME -o FILE", 2, {"--days", "-o"}, take_certify},
      {"token add", "USER", 1, {"--level", "--admin", "--expires"}, take_person, true},
      {"token people", "", 0, {}, [](L, A) -> Result<AdminAction> { return ListPeople{}; }, true},
      {"token remove",
       "ID",
       1,
       {},
       [](L, A a) -> Result<AdminAction> { return RemovePerson{a[0]}; },
       true},
      {"proxy-config",
       "",
       0,
       {"--zone", "--port", "--host", "--ports", "--certificate", "--key", "--listen",
        "--access-log"},
       take_proxy_config,
       true},
  };
  return kRules;
}

// Commands have one word or two.
const Rule* find_rule(const std::vector<std::string>& words) {
  for (const auto& rule : rules()) {
    const auto text =
        rule.words.contains(' ') && words.size() > 1 ? words[0] + " " + words[1] : words[0];
    if (text == rule.words) return &rule;
  }
  return nullptr;
}

Result<Where> take_where(const Line& line) {
  Where where{line.value("--config").value_or(""), line.value("--dir").value_or(""),
              line.value("--controller").value_or(""), line.value("--identity").value_or(""),
              line.value("--authorities").value_or("")};
  if (!where.controllers.empty()) {
    const auto parsed = pki::parse_controllers(where.controllers);
    if (!parsed) return usage("--controller", parsed.error().what);
  }
  return where;
}

}  // namespace

bool is_admin_command(std::string_view word) {
  return std::ranges::any_of(rules(), [&](const Rule& rule) {
    return rule.words.substr(0, rule.words.find(' ')) == word;
  });
}

Result<AdminCommand> parse_admin(std::span<const std::string> args) {
  const auto line = TRY(read_line(args));
  if (line.help) return AdminCommand{{}, AdminHelp{}};
  if (line.words.empty()) return fail(ErrorCode::kInvalid, "which command?");
  const auto* rule = find_rule(line.words);
  if (rule == nullptr) {
    return usage(line.words[0], line.words[0] == "token"
                                    ? "one of create, list, revoke, and add, people, remove"
                                    : "did you mean `node dismiss NAME`?");
  }
  for (const auto& [name, value] : line.options) {
    if (!rule->has(name)) return usage(rule->words, name + " does not belong to it");
    if (value.empty()) return usage(name, "needs a value");
  }
  const std::size_t skip = rule->words.contains(' ') ? 2 : 1;
  const auto arguments = std::span(line.words).subspan(skip);
  if (arguments.size() < rule->count) {
    return usage(rule->words, fmt::format("needs {}", rule->arguments));
  }
  if (arguments.size() > rule->count) {
    return usage(rule->words, fmt::format("'{}' is too much", arguments[rule->count]));
  }
  if (std::ranges::any_of(arguments, [](const auto& word) { return word.empty(); })) {
    return usage(rule->words, "an empty argument");
  }
  return AdminCommand{TRY(take_where(line)), TRY(rule->take(line, arguments))};
}

}  // namespace meshd::controller
