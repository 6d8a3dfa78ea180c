// Plays a node's story: what happens to it, in the words of node_script.h, and what is
// expected then:
//
//   expect ok                       how the last command was answered. A command that is not
//   expect pending                  followed by one of these three must be answered ok at once.
//   expect refused TEXT             TEXT stands somewhere in the reason
//   expect [no] element PATTERN     in the kernel, as "SET KEY" or "SET KEY : DATA"; * matches all
//   expect N elements PATTERN
//   expect name WHO NAME VALUE      what WHO (an id, or an address) is answered for A:
//                                   an address, NODATA or NXDOMAIN; DROPPED: no client of ours
//   expect name6 WHO NAME VALUE     the same for AAAA
//   expect state ID STATE           DECLARED, ATTACHED, READY, DRAINING, or GONE
//   expect verdict SRC DST PORT VERDICT [REASON]    what `meshctl explain` says; REASON: a part
//   expect generations equal|behind
//   expect [no] event PATTERN       told since the last thing that happened: "KIND", "KIND ID"
//                                   or "KIND ID DETAIL", whichever it has
//   expect [no] erased PATTERN      conntrack entries erased since then: "10.213.0.2", or of a
//                                   translation "10.213.128.1:6379 -> 10.213.0.2"
//
// After every line, whatever it says: a node that is not behind has in the kernel what it
// planned, and nothing else, and its generations are equal.
//
// Errors: kInvalid "FILE:LINE: what stands against it", of the first line that does not hold.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tests/support/node_script.h"

namespace meshd {

class NodePlayer : public NodeScript {
 protected:
  [[nodiscard]] Status play(const std::string& file, std::string_view text);

 private:
  // What stands against an expectation; empty: it holds.
  [[nodiscard]] std::string expect(const Words& words);
  [[nodiscard]] std::string check_answer(const Words& words);
  [[nodiscard]] std::string check_element(const Words& words);
  [[nodiscard]] std::string check_count(const Words& words);
  [[nodiscard]] std::string check_name(const Words& words);
  [[nodiscard]] std::string check_state(const Words& words);
  [[nodiscard]] std::string check_verdict(const Words& words);
  [[nodiscard]] std::string check_generations(const Words& words);
  [[nodiscard]] std::string check_event(const Words& words);
  [[nodiscard]] std::string check_erased(const Words& words);
  // What must hold after every line.
  [[nodiscard]] std::string out_of_step() const;

  [[nodiscard]] std::vector<std::string> elements_like(const std::string& pattern) const;
  [[nodiscard]] bool generations_equal() const;
  [[nodiscard]] std::string generations_text() const;
};

}  // namespace meshd
