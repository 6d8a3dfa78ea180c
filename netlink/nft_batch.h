// One nftables transaction on one table: objects are appended, then commit() sends
// them as a single batch which the kernel applies whole or not at all.
//
// Threads:    not thread-safe; one owner (the main loop).
// Owns:       the message buffer.
// Invariants: sequence numbers rise by one per message, so that an error from the kernel
//             names the object that caused it. Only the last message asks for an
//             acknowledgement: thousands of them would overflow the receive queue.
// Errors:     put_* and del_*: kInvalid (a name, a length), kExhausted (kMaxBatchBytes); the
//             first one is kept, and all later calls and commit() return it: half a change
//             is never sent.
//             commit(): the ruleset is as before, and the code is kExhausted (a set is
//             full), kConflict (the generation is not the expected one) or kSystem with the
//             kernel's errno; unless outcome_unknown(error): then read the table again.
// Units:      bytes past this header are in network order where netlink says so.
// Source:     linux/netfilter/nf_tables.h, nfnetlink.h; libnftnl 1.2.4.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "netlink/nft_expr.h"
#include "netlink/nft_spec.h"
#include "netlink/socket.h"

struct nlmsghdr;

namespace meshd::netlink {

class NftBatch {
 public:
  // 200,000 elements of the longest key take 25 MiB; sendmsg copies the batch once.
  static constexpr std::size_t kMaxBatchBytes = 64 * 1024 * 1024;
  // A comment travels in a rule's user data: 256 bytes with a header of two and the NUL.
  static constexpr std::size_t kMaxCommentBytes = 128;

  // `generation`, from a dump: the kernel refuses the batch (kConflict) when anything in
  // the namespace's ruleset changed since.
  explicit NftBatch(std::string table, std::optional<std::uint32_t> generation = std::nullopt,
                    TableFamily family = TableFamily::kInet);

  // Makes the table or leaves it as it is; claims an orphan when flags say owner.
  [[nodiscard]] Status put_table(std::uint32_t flags = 0);
  // With everything in it; an error when it does not exist.
  [[nodiscard]] Status delete_table();

  // Makes the chain, or gives a base chain the policy of `chain`.
  [[nodiscard]] Status put_chain(const ChainSpec& chain);
  [[nodiscard]] Status delete_chain(std::string_view chain);
  // Removes all rules of one chain, or of all chains of the table.
  [[nodiscard]] Status flush_chain(std::string_view chain);
  [[nodiscard]] Status flush_rules();
  // Appends a rule; `comment` is shown by `nft list`.
  [[nodiscard]] Status put_rule(std::string_view chain, const Exprs& exprs,
                                std::string_view comment = {});
  // The same before all other rules of the chain.
  [[nodiscard]] Status insert_rule(std::string_view chain, const Exprs& exprs,
                                   std::string_view comment = {});
  // By the handle of a dump; an error when it is gone.
  [[nodiscard]] Status delete_rule(std::string_view chain, std::uint64_t handle);

  // Makes the set or map; an existing one must be of the same shape.
  [[nodiscard]] Status put_set(const SetSpec& set);
  // Sets put from now on are made for at most so many elements. The kernel makes room for all
  // of them at once: too much for a batch that is only checked.
  void limit_sets(std::uint32_t most) { set_limit_ = most; }
  [[nodiscard]] Status delete_set(std::string_view set);
  // Adds elements; one that is there already is left alone, one that is there with other
  // data refuses the batch (EEXIST or EBUSY).
  [[nodiscard]] Status put_elements(const SetSpec& set, std::span<const ElementView> elements);
  // Removes elements; one that is not there refuses the batch (ENOENT).
  [[nodiscard]] Status del_elements(const SetSpec& set, std::span<const ElementView> elements);
  [[nodiscard]] Status flush_set(std::string_view set);

  // A named counter, for CounterRef.
  [[nodiscard]] Status put_counter(std::string_view name);
  [[nodiscard]] Status delete_counter(std::string_view name);

  [[nodiscard]] bool empty() const { return messages_.empty(); }
  [[nodiscard]] std::size_t message_count() const { return messages_.size(); }
  // Exactly the bytes commit() would send. Needs no socket and no privilege.
  [[nodiscard]] std::span<const std::byte> bytes() const { return buffer_; }
  // Sends and waits for the verdict, at most Socket::kReplyTimeout. An empty batch is
  // not sent.
  [[nodiscard]] Status commit(Socket& socket) &&;
  // Asks whether commit() would be refused: the kernel goes through all of it and undoes it.
  // Nothing is changed, and nobody who watches the ruleset hears of it. One thing it does not
  // find in a table that is new: an expression on a hook that does not take it (kernel 6.18,
  // seen).
  [[nodiscard]] Status check(Socket& socket) &&;

 private:
  struct Message {
    std::size_t offset = 0;    // in buffer_
    std::string object;        // "add to set allow4"
    std::vector<KeyType> key;  // of elements, to name the one at fault
  };

  // The put_* and del_* of above, without remember().
  Status try_put_rule(std::string_view chain, const Exprs& exprs, std::string_view comment,
                      std::uint16_t flags);
  Status try_elements(const SetSpec& set, std::span<const ElementView> elements, bool remove);
  Status name_only(std::uint16_t type, std::string_view kind, std::string_view name,
                   std::uint16_t attribute);

  Status put_inline_set(const InSet& set);
  void put_set_message(const SetSpec& set, std::uint32_t flags, std::uint32_t id);
  // A header for a message of at most `room` bytes in scratch_; append() moves it into the batch.
  nlmsghdr* begin(std::uint16_t type, std::uint16_t flags, std::size_t room);
  void append(const nlmsghdr* message, std::string object, std::vector<KeyType> key = {});
  Status remember(Status status);
  [[nodiscard]] std::string element_at(const Message& message, std::size_t attribute) const;
  [[nodiscard]] std::string describe(std::uint32_t sequence, std::size_t attribute) const;
  [[nodiscard]] Status read_verdict(Socket& socket) const;

  std::string table_;
  std::uint8_t family_;                   // the kernel's number
  std::vector<std::byte> buffer_;         // always a whole batch, its end message included
  std::unique_ptr<std::byte[]> scratch_;  // one message being built
  std::vector<Message> messages_;
  std::uint32_t next_set_id_ = 1;
  std::uint32_t set_limit_ = std::numeric_limits<std::uint32_t>::max();
  std::optional<Error> failed_;  // the first; a batch that lacks something is never sent
};

}  // namespace meshd::netlink
