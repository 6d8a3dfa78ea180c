#include "meshctl/cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "meshctl/help.h"
#include "meshctl/io.h"
#include "pki/controller_channel.h"

namespace meshd::ctl {
namespace {

// What stands on the line, before it means anything. Options are not bound to a place, so
// they are all read by one parser and judged by command() afterwards.
struct Line {
  std::vector<std::string> words;  // the command's name first
  std::vector<std::string> files;
  std::string run_dir, output, netns, pid, ifname, resolv_conf, timeout, as;
  std::string controller, identity, authorities;
  bool no_default_route = false;
  bool force = false;
  bool refused = false;
  bool help = false;
  bool version = false;
  std::vector<std::string> given;  // the long names of all options that were there
};

std::unexpected<Failure> usage(std::string_view command, std::string_view why) {
  const auto see = find_help(command) != nullptr ? fmt::format("meshctl {} --help", command)
                                                 : std::string("meshctl --help");
  if (command.empty()) return fail(Exit::kUsage, fmt::format("{} (see `{}`)", why, see));
  return fail(Exit::kUsage, fmt::format("{}: {} (see `{}`)", command, why, see));
}

void define(CLI::App& app, Line& line) {
  app.set_help_flag();  // help is an action of ours
  // Words are taken from what CLI11 leaves over: as a positional option it would split a
  // word such as [::1] as if it were a list.
  app.allow_extras();
  app.add_option("-f,--file", line.files)->allow_extra_args(false);
  // An alias may set these, so a later one wins. Twice is a mistake for all others.
  app.add_option("--run-dir", line.run_dir)->take_last();
  app.add_option("--controller", line.controller)->take_last();
  app.add_option("--identity", line.identity)->take_last();
  app.add_option("--authorities", line.authorities)->take_last();
  app.add_option("-o,--output", line.output)->take_last();
  app.add_option("--netns", line.netns);
  app.add_option("--pid", line.pid);
  app.add_option("--ifname", line.ifname);
  app.add_option("--resolv-conf", line.resolv_conf);
  app.add_option("--timeout", line.timeout);
  app.add_option("--as", line.as);
  app.add_flag("--no-default-route", line.no_default_route);
  app.add_flag("--force", line.force);
  app.add_flag("--refused", line.refused);
  app.add_flag("-h,--help", line.help);
  app.add_flag("--version", line.version);
}

// The words among what CLI11 left over, or the option that nobody knows.
Outcome<std::vector<std::string>> take_words(std::vector<std::string> rest) {
  std::vector<std::string> words;
  bool only_words = false;  // after "--"
  for (auto& word : rest) {
    if (!only_words && word == "--") {
      only_words = true;
    } else if (!only_words && word.starts_with('-') && word != "-") {
      return usage("", fmt::format("{}: no such option", word));
    } else {
      words.push_back(std::move(word));
    }
  }
  return words;
}

// CLI11 throws; here it ends and becomes one line of ours with exit code 2.
Outcome<Line> read_line(std::span<const std::string> args) {
  for (const auto& arg : args) {
    if (arg == "--") break;
    // CLI11 would take the next word for its value.
    if (arg.starts_with("--") && arg.find('=') == arg.size() - 1) {
      return usage("", fmt::format("{}: needs a value", arg.substr(0, arg.size() - 1)));
    }
  }
  Line line;
  CLI::App app;
  define(app, line);
  // It takes them last first.
  std::vector<std::string> reversed(args.rbegin(), args.rend());
  try {
    app.parse(reversed);
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string_view text = error.what();
    return usage("", fmt::format("{}: takes one value, once", text.substr(0, text.find(':'))));
  } catch (const CLI::Error& error) {
    return usage("", error.what());
  }
  line.words = TRY(take_words(app.remaining()));
  for (const auto* option : app.get_options()) {
    const auto& names = option->get_lnames();
    if (option->count() > 0 && !names.empty()) line.given.push_back(names.front());
  }
  return line;
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// --- one function for each command; the number of words has been checked ------------

Outcome<std::vector<std::string>> take_files(const Line& line) {
  const auto& command = line.words[0];
  if (line.files.empty()) return usage(command, "name the declarations with -f FILE");
  auto files = line.files;
  // `-f *.yaml` is expanded by the shell: what follows are files as well.
  files.insert(files.end(), line.words.begin() + 1, line.words.end());
  if (files.size() > kMaxFiles) {
    return usage(command, fmt::format("{} files, at most {} at once", files.size(), kMaxFiles));
  }
  if (std::ranges::count(files, "-") > 1) return usage(command, "standard input is named twice");
  return files;
}

Outcome<Action> take_apply(const Line& line) { return Apply{TRY(take_files(line))}; }
Outcome<Action> take_plan(const Line& line) { return Plan{TRY(take_files(line))}; }

Outcome<Action> take_attach(const Line& line) {
  Attach attach{.id = line.words[1], .netns = line.netns, .resolv_conf = line.resolv_conf};
  attach.no_default_route = line.no_default_route;
  const bool by_path = !line.netns.empty();
  const bool by_pid = !line.pid.empty();
  if (by_path == by_pid) return usage("attach", "give one of --netns PATH and --pid PID");
  if (by_pid) {
    attach.pid = number<std::int32_t>(line.pid).value_or(0);
    if (attach.pid <= 0) return usage("attach", fmt::format("--pid: '{}' is no pid", line.pid));
  }
  if (!line.ifname.empty()) attach.ifname = line.ifname;
  // IFNAMSIZ less its final zero; dev_valid_name() of the kernel for the characters.
  const bool valid = attach.ifname.size() <= 15 && attach.ifname != "." && attach.ifname != ".." &&
                     attach.ifname.find_first_of("/: \t\n") == std::string::npos;
  if (!valid) {
    return usage("attach", fmt::format("--ifname: '{}' is no interface name", attach.ifname));
  }
  return attach;
}

Outcome<Action> take_wait(const Line& line) {
  Wait wait{.target = line.words[1]};
  if (!line.timeout.empty()) {
    auto timeout = parse_duration(line.timeout);
    if (!timeout) return usage("wait", "--timeout: " + timeout.error().what);
    wait.timeout = *timeout;
  }
  return wait;
}

Outcome<Action> take_list(const Line& line) {
  const auto& what = line.words[1];
  if (what == "workloads") return List{Listing::kWorkloads};
  if (what == "services") return List{Listing::kServices};
  if (what == "flows") return List{Listing::kFlows};
  if (what == "published") return List{Listing::kPublished};
  if (what == "nodes") return List{Listing::kNodes};
  if (what == "refused") return List{Listing::kRefused};
  return usage("list", fmt::format("'{}' is none of workloads, services, flows, published, nodes, "
                                   "refused",
                                   what));
}

Outcome<Action> take_explain(const Line& line) {
  Explain explain{.src = line.words[1], .dst = line.words[2]};
  const std::string_view text = line.words[3];
  const auto slash = text.find('/');
  const auto protocol = slash == std::string_view::npos ? "tcp" : text.substr(slash + 1);
  explain.port = number<std::uint16_t>(text.substr(0, slash)).value_or(0);
  explain.protocol = protocol == "udp" ? Proto::kUdp : Proto::kTcp;
  if (explain.port == 0 || (protocol != "udp" && protocol != "tcp")) {
    return usage("explain", fmt::format("'{}' is no port: 1-65535, with /udp for UDP", text));
  }
  return explain;
}

Outcome<Action> take_resolve(const Line& line) {
  if (line.as.empty()) return usage("resolve", "say who asks with --as ID");
  Resolve resolve{.as = line.as, .name = line.words[1]};
  if (line.words.size() > 2) {
    resolve.type = line.words[2];
    std::ranges::transform(resolve.type, resolve.type.begin(), [](char c) {
      return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    });
  }
  return resolve;
}

Outcome<Action> take_name(const Line& line) {
  if (line.words[1] != "release") {
    return usage("name", fmt::format("'{}' is not `release`", line.words[1]));
  }
  return ReleaseName{line.words[2]};
}

Outcome<Action> take_help(const Line& line) {
  const auto topic = line.words.size() > 1 ? line.words[1] : std::string();
  if (!topic.empty() && find_help(topic) == nullptr) {
    return usage("", fmt::format("{}: no such command", topic));
  }
  return ShowHelp{topic};
}

struct Rule {
  std::string_view name;
  std::size_t min_words;  // after the name
  std::size_t max_words;
  std::vector<std::string_view> options;  // beside the common ones
  std::function<Outcome<Action>(const Line&)> take;
};

const std::vector<Rule>& rules() {
  using L = const Line&;
  static const std::vector<Rule> kRules = {
      {"apply", 0, kMaxFiles, {"file"}, take_apply},
      {"plan", 0, kMaxFiles, {"file"}, take_plan},
      {"attach", 1, 1, {"netns", "pid", "ifname", "no-default-route", "resolv-conf"}, take_attach},
      {"prepare",
       1,
       1,
       {"resolv-conf"},
       [](L l) -> Outcome<Action> { return Prepare{l.words[1], l.resolv_conf}; }},
      {"detach", 1, 1, {}, [](L l) -> Outcome<Action> { return Detach{l.words[1]}; }},
      {"drain", 1, 1, {}, [](L l) -> Outcome<Action> { return Drain{l.words[1]}; }},
      {"delete",
       1,
       1,
       {"force"},
       [](L l) -> Outcome<Action> { return Delete{l.words[1], l.force}; }},
      {"wait", 1, 1, {"timeout"}, take_wait},
      {"list", 1, 1, {}, take_list},
      {"explain", 3, 3, {}, take_explain},
      {"resolve", 1, 2, {"as"}, take_resolve},
      {"status", 0, 0, {}, [](L) -> Outcome<Action> { return ShowStatus{}; }},
      {"doctor", 0, 0, {}, [](L) -> Outcome<Action> { return Doctor{}; }},
      {"watch", 0, 0, {"refused"}, [](L l) -> Outcome<Action> { return Watch{l.refused}; }},
      {"name", 2, 2, {}, take_name},
      {"version", 0, 0, {}, [](L) -> Outcome<Action> { return ShowVersion{}; }},
      {"help", 0, 1, {}, take_help},
  };
  return kRules;
}

Status check_options(const Rule& rule, const Line& line) {
  static constexpr std::array<std::string_view, 7> kCommon = {
      "run-dir", "controller", "identity", "authorities", "output", "help", "version"};
  for (const auto& option : line.given) {
    const bool known = std::ranges::find(kCommon, option) != kCommon.end() ||
                       std::ranges::find(rule.options, option) != rule.options.end();
    if (!known) return meshd::fail(ErrorCode::kInvalid, option);
  }
  return {};
}

Outcome<Action> to_action(const Line& line) {
  if (line.words.empty()) {
    if (line.version) return ShowVersion{};
    if (line.help) return ShowHelp{};
    return usage("", "which command?");
  }
  const auto& name = line.words[0];
  const auto rule = std::ranges::find(rules(), name, &Rule::name);
  if (rule == rules().end()) return usage("", fmt::format("{}: no such command", name));
  // Help comes first: who asks for it has not got the rest right yet.
  if (line.help) return ShowHelp{name == "help" ? "" : name};
  if (line.version) return ShowVersion{};
  if (const auto known = check_options(*rule, line); !known) {
    return usage(name, fmt::format("--{} does not belong to it", known.error().what));
  }
  const auto count = line.words.size() - 1;
  if (count < rule->min_words)
    return usage(name, fmt::format("needs {}", find_help(name)->arguments));
  if (count > rule->max_words) {
    return usage(name,
                 fmt::format("'{}' is too much on the line", line.words[rule->max_words + 1]));
  }
  // An empty variable in a script; the empty name would mean "all" or "any" nowhere.
  if (std::ranges::any_of(line.words, [](const auto& word) { return word.empty(); })) {
    return usage(name, "an empty argument");
  }
  return rule->take(line);
}

bool is_given(const Line& line, std::string_view option) {
  return std::ranges::find(line.given, option) != line.given.end();
}

// Absent: this node's meshd. What stands on the line comes before the environment: --run-dir
// means this node whatever MESHD_CONTROLLER says.
Outcome<std::optional<Controller>> take_controller(const Line& line, const Variables& variables) {
  const bool given = is_given(line, "controller");
  if (given && is_given(line, "run-dir")) {
    return usage("", "--controller and --run-dir: one of them");
  }
  const auto addresses = given ? std::string_view(line.controller) : variables.controller;
  if (addresses.empty() || (!given && is_given(line, "run-dir"))) {
    if (given) return usage("", "--controller: empty; HOST:PORT[,HOST:PORT]");
    for (const std::string_view option : {"identity", "authorities"}) {
      if (is_given(line, option)) {
        return usage("", fmt::format("--{}: goes with --controller", option));
      }
    }
    return std::nullopt;
  }
  const auto source = given ? "--controller" : "MESHD_CONTROLLER";
  auto parsed = pki::parse_controllers(addresses);
  if (!parsed) return usage("", fmt::format("{}: {}", source, parsed.error().what));
  Controller controller{*std::move(parsed), {}};
  controller.files.identity =
      is_given(line, "identity") ? line.identity : std::string(variables.identity);
  if (controller.files.identity.empty()) {
    return usage("", fmt::format("{}: say who you are with --identity FILE", source));
  }
  controller.files.authorities = is_given(line, "authorities")
                                     ? line.authorities
                                     : pki::authorities_beside(controller.files.identity);
  return controller;
}

// A controller knows what nodes report; what happens on a node, only the node.
struct Offered {
  bool operator()(const Apply&) const { return true; }
  bool operator()(const Delete&) const { return true; }
  bool operator()(const ReleaseName&) const { return true; }
  bool operator()(const ShowStatus&) const { return true; }
  bool operator()(const List& list) const { return list.what != Listing::kFlows; }
  bool operator()(const Explain&) const { return true; }
  bool operator()(const Watch&) const { return true; }
  bool operator()(const auto&) const { return false; }
};

Outcome<void> check_offered(const Line& line, const Action& action) {
  if (std::visit(Offered(), action)) return {};
  const auto what = std::holds_alternative<List>(action) ? "flows are not known to a controller"
                                                         : "a controller does not offer it";
  // Whoever has only the variable does not see what sends them there.
  const auto how = is_given(line, "controller") ? "without --controller"
                                                : "with --run-dir, or without MESHD_CONTROLLER";
  return usage(line.words[0], fmt::format("{}: ask meshd on the node, {}", what, how));
}

}  // namespace

Outcome<std::chrono::milliseconds> parse_duration(std::string_view text) {
  struct Unit {
    std::string_view name;
    std::uint64_t milliseconds;
  };
  static constexpr std::array<Unit, 4> kUnits = {
      {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};  // ms before s: both end in s
  std::uint64_t scale = 1000;
  auto digits = text;
  for (const auto& unit : kUnits) {
    if (!text.ends_with(unit.name)) continue;
    scale = unit.milliseconds;
    digits.remove_suffix(unit.name.size());
    break;
  }
  const auto value = number<std::uint32_t>(digits);
  if (!value) {
    return fail(Exit::kUsage, fmt::format("'{}' is no time such as 60s, 500ms or 2m", text));
  }
  const std::chrono::milliseconds time(*value * scale);
  if (time > kMaxWait) return fail(Exit::kUsage, fmt::format("'{}' is more than 24h", text));
  return time;
}

Outcome<Command> parse(std::span<const std::string> args, const Variables& variables) {
  const auto line = TRY(read_line(args));
  Command command;
  if (!variables.run_dir.empty()) command.run_dir = variables.run_dir;
  if (is_given(line, "run-dir")) command.run_dir = line.run_dir;
  if (command.run_dir.empty()) return usage("", "--run-dir: an empty path");
  if (line.output == "json") {
    command.output = Output::kJson;
  } else if (!line.output.empty() && line.output != "table") {
    return usage("", fmt::format("-o: '{}' is none of json, table", line.output));
  }
  command.action = TRY(to_action(line));
  // Help is given whatever the environment says.
  if (std::holds_alternative<ShowHelp>(command.action) ||
      std::holds_alternative<ShowVersion>(command.action)) {
    return command;
  }
  command.controller = TRY(take_controller(line, variables));
  if (command.controller) CHECK_OK(check_offered(line, command.action));
  return command;
}

}  // namespace meshd::ctl
