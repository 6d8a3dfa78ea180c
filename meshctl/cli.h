// The command line as a value: what to do, where and in which form to print it.
//
// Invariant: parse() reads nothing but its arguments; no file, no socket, no clock.
// Errors:    kUsage, naming the command and what is wrong with the line.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ip.h"
#include "meshctl/controller.h"
#include "meshctl/failure.h"

namespace meshd::ctl {

inline constexpr std::string_view kVersion = "0.1.0";
inline constexpr std::string_view kDefaultRunDir = "/run/meshd";
// `wait` for longer than a day is a mistyped unit. It also keeps within uint32 milliseconds.
inline constexpr auto kMaxWait = std::chrono::hours(24);
inline constexpr auto kDefaultWait = std::chrono::seconds(60);

enum class Output { kTable, kJson };

struct ShowHelp {
  std::string topic;  // a command, or empty for all
};
struct ShowVersion {};
struct Apply {
  std::vector<std::string> files;  // "-": standard input, at most once
};
struct Plan {
  std::vector<std::string> files;
};
struct Attach {
  std::string id;
  std::string netns;     // exactly one of netns
  std::int32_t pid = 0;  // and pid is given
  std::string ifname = "eth0";
  bool no_default_route = false;
  std::string resolv_conf;  // empty: none is written
};
struct Prepare {
  std::string id;
  std::string resolv_conf;  // empty: none is written
};
struct Detach {
  std::string id;
};
struct Drain {
  std::string id;
};
struct Delete {
  std::string id;
  bool force = false;
};
struct Wait {
  std::string target;
  std::chrono::milliseconds timeout = kDefaultWait;
};
enum class Listing { kWorkloads, kServices, kFlows, kPublished, kNodes, kRefused };
struct List {
  Listing what = Listing::kWorkloads;
};
struct Explain {
  std::string src;
  std::string dst;
  std::uint16_t port = 0;
  Proto protocol = Proto::kTcp;
};
struct Resolve {
  std::string as;
  std::string name;
  std::string type = "A";
};
struct ShowStatus {};
struct Doctor {};
struct Watch {
  bool refused_only = false;
};
struct ReleaseName {
  std::string name;
};

using Action =
    std::variant<ShowHelp, ShowVersion, Apply, Plan, Attach, Prepare, Detach, Drain, Delete, Wait,
                 List, Explain, Resolve, ShowStatus, Doctor, Watch, ReleaseName>;

struct Command {
  std::string run_dir{kDefaultRunDir};
  std::optional<Controller> controller;  // to be spoken with, in place of this node's meshd
  Output output = Output::kTable;
  Action action;
};

// What the environment says where the line says nothing; empty: not set.
struct Variables {
  std::string_view run_dir;     // MESHD_RUN_DIR
  std::string_view controller;  // MESHD_CONTROLLER
  std::string_view identity;    // MESHD_IDENTITY
};

// `args` without the program's name.
[[nodiscard]] Outcome<Command> parse(std::span<const std::string> args, const Variables& variables);

// "90", "90s", "1500ms", "2m", "1h"; a bare number means seconds.
[[nodiscard]] Outcome<std::chrono::milliseconds> parse_duration(std::string_view text);

}  // namespace meshd::ctl
