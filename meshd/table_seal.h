// What the table in the kernel was made to be, kept for the next process: while nothing changed
// the ruleset since, it is so still, and a start need not read it back. To list 400,000 elements
// takes the kernel 0.7 s, since it walks a set anew for every datagram (kernel 6.18, measured).
//
// Threads:    the main loop only.
// Invariants: what is kept names the ruleset's generation, which every transaction of anybody
//             raises; the network namespace, by a number that is not given twice in one boot;
//             and the boot. Any doubt reads as nothing kept.
// Errors:     of writing, none: an older seal is of an older generation and fits nothing.
// Source:     NFT_MSG_GETGEN; SO_NETNS_COOKIE (socket(7)); proc_sys_kernel(5) random/boot_id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd {

struct TableSeal {
  std::uint64_t netns = 0;       // cookie of the network namespace
  std::uint64_t shape = 0;       // hash of chains, rules, sets
  std::uint64_t elements = 0;    // sum of the elements' hashes
  std::uint32_t generation = 0;  // of the ruleset
  bool operator==(const TableSeal&) const = default;
};

// FNV-1a, 64 bits: it finds what differs by mistake; who may write the file is root anyway.
[[nodiscard]] std::uint64_t seal_hash(std::span<const std::byte> bytes);

class SealFile {
 public:
  static constexpr const char* kName = "table.seal";

  // A file of ours in `dir`; made when there is none. `boot` is the kernel's boot id.
  [[nodiscard]] static Result<SealFile> open(const std::string& dir, std::string boot);

  [[nodiscard]] std::optional<TableSeal> read() const;
  void write(const TableSeal& seal) const;

 private:
  SealFile(UniqueFd file, std::string boot) : file_(std::move(file)), boot_(std::move(boot)) {}

  UniqueFd file_;
  std::string boot_;
};

}  // namespace meshd
