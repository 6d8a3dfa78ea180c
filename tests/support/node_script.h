// What happens to a node, told in words, one line each. Golden worlds and replay scripts
// have these words in common:
//
//   apply YAML              declares; the YAML may go on, or stand, in indented lines below
//   attach ID [INODE]       to a namespace of its own, or to the one of that inode
//   detach ID
//   drain ID
//   delete ID [force]
//   release NAME
//   listens ID PORT [v4|v6] a TCP listener is seen, on both families unless one is named
//   tick 5s                 time passes, and every timer that falls into it is served; ms, m too
//   kernel refuses [N]      the next N transactions; without N all of them
//   kernel accepts
//   kernel emptied          a foreign hand flushes the sets, and the kernel's event tells of it
//   link ID gone [unheard]  the container's namespace ends; unheard: nobody tells the node
//   restart                 the process is killed and starts again on what it left
//
// Time stands still but for `tick`. Empty lines and lines that begin with # say nothing.
//
// Errors: kInvalid "FILE:LINE: REASON", for what cannot be understood. What the node answers
//         is no error: it stands in answer_.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tests/support/node_fixture.h"

namespace meshd {

struct ScriptLine {
  std::string file;
  int number = 0;
  std::string text;  // with the indented lines below it, which keep their own line numbers

  [[nodiscard]] std::string where() const { return file + ":" + std::to_string(number); }
};
[[nodiscard]] Result<std::vector<ScriptLine>> read_script(const std::string& file,
                                                          std::string_view text);

using Words = std::vector<std::string>;
[[nodiscard]] Words words_of(std::string_view text);

class NodeScript : public NodeFixture {
 protected:
  // Whether the line begins with a word from above.
  [[nodiscard]] static bool is_happening(const ScriptLine& line);
  [[nodiscard]] Status happen(const ScriptLine& line);
  [[nodiscard]] Status declare(const std::string& file, std::string_view text);

  Answer answer_;  // of the last line that asked the node for something
  // Where the events and the conntrack requests of the last line begin.
  std::size_t events_before_ = 0, erased_before_ = 0;

 private:
  struct Word;
  static const std::vector<Word>& vocabulary();

  [[nodiscard]] Status do_apply(const ScriptLine& line);
  [[nodiscard]] Status do_attach(const Words& words);
  [[nodiscard]] Status do_delete(const Words& words);
  [[nodiscard]] Status do_release(const Words& words);
  [[nodiscard]] Status do_listens(const Words& words);
  [[nodiscard]] Status do_tick(const Words& words);
  [[nodiscard]] Status do_kernel(const Words& words);
  [[nodiscard]] Status do_link(const Words& words);
  [[nodiscard]] Status do_restart();
};

}  // namespace meshd
