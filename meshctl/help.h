// What `--help` says: for every command what it does and one example to copy.
//
// Invariant: the table has an entry for each command that parse() takes, no other.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "meshctl/text.h"

namespace meshd::ctl {

struct OptionHelp {
  std::string_view option;
  std::string_view text;
};

struct CommandHelp {
  std::string_view name;
  std::string_view arguments;
  std::string_view summary;  // one line, for the list of commands
  std::string_view text;     // lines of at most 78 columns
  std::span<const OptionHelp> options;
  std::string_view example;
};

[[nodiscard]] std::span<const CommandHelp> all_help();
[[nodiscard]] const CommandHelp* find_help(std::string_view command);  // nullptr: none such

// The page of one command, or of all with an empty `topic`. `topic` is a known command.
[[nodiscard]] std::string render_help(std::string_view topic, const Style& style);

}  // namespace meshd::ctl
