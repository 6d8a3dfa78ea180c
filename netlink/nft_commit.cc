// Sending a batch, and reading what the kernel says to it.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "netlink/attributes.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_numbers.h"

extern "C" {
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
}

namespace meshd::netlink {
namespace {

// As in nft_batch.cc: the begin message has number 1, the first object 2.
constexpr std::uint32_t kBeginSequence = 1;
constexpr std::uint32_t kFirstSequence = 2;

// Refusals that the error's text quotes; the rest is counted.
constexpr std::size_t kMaxQuoted = 3;

struct Refusal {
  std::uint32_t sequence = 0;
  int sys_errno = 0;
  std::string text;           // the kernel's own, where it has one
  std::size_t attribute = 0;  // offset in the message, where it says so
};

// An acknowledgement (sys_errno 0) or an error.
Refusal parse_verdict(const MessageView& view) {
  Refusal refusal;
  refusal.sequence = view.sequence;
  refusal.sys_errno = -static_cast<int>(read_host<std::int32_t>(view.payload).value_or(-EBADMSG));
  if ((view.flags & NLM_F_ACK_TLVS) == 0) return refusal;
  // The refused message's header follows the number; all of it unless capped.
  std::size_t skip = sizeof(std::int32_t) + sizeof(nlmsghdr);
  if ((view.flags & NLM_F_CAPPED) == 0 && view.payload.size() >= skip) {
    const auto length = *read_host<std::uint32_t>(view.payload.subspan(sizeof(std::int32_t)));
    skip = sizeof(std::int32_t) + align4(std::max<std::size_t>(length, sizeof(nlmsghdr)));
  }
  if (skip > view.payload.size()) return refusal;
  const Attributes<4> attributes(view.payload.subspan(skip));
  refusal.text = attributes.text(NLMSGERR_ATTR_MSG);
  refusal.attribute = attributes.host32(NLMSGERR_ATTR_OFFS);
  return refusal;
}

ErrorCode code_of(int sys_errno) {
  switch (sys_errno) {
    case ENFILE:  // a set with a size is full (seen)
      return ErrorCode::kExhausted;
    case ERESTART:  // NFNL_BATCH_GENID is not the current generation
      return ErrorCode::kConflict;
    default:
      return ErrorCode::kSystem;
  }
}

std::string_view hint(int sys_errno) {
  switch (sys_errno) {
    case ENFILE:
      return "the set is full";
    case ERESTART:
      return "the ruleset changed since it was read";
    default:
      return {};
  }
}

std::string errno_text(int sys_errno) {
  if (const auto better = hint(sys_errno); !better.empty()) return std::string(better);
  auto text = fail_errno("", sys_errno).error().what;
  return text.substr(std::min<std::size_t>(2, text.size()));  // without the ": "
}

}  // namespace

// The key of the element that lies at `attribute` bytes into the message.
std::string NftBatch::element_at(const Message& message, std::size_t attribute) const {
  const MessageSpan all(buffer_);
  const auto header = all.subspan(message.offset);
  const auto length = read_host<std::uint32_t>(header).value_or(0);
  if (message.key.empty() || attribute == 0 || attribute >= length) return {};
  const auto* at = header.data() + attribute;
  constexpr std::size_t kStart = sizeof(nlmsghdr) + sizeof(nfgenmsg);
  const Attributes<NFTA_SET_ELEM_LIST_MAX + 1> top(header.subspan(kStart, length - kStart));
  std::string found;
  for_each_attribute(top.bytes(NFTA_SET_ELEM_LIST_ELEMENTS),
                     [&](std::uint16_t, AttributeBytes payload) {
                       const auto* start = payload.data() - sizeof(nlattr);
                       if (at < start || at >= payload.data() + payload.size()) return;
                       const Attributes<NFTA_SET_ELEM_MAX + 1> element(payload);
                       const Attributes<3> key(element.bytes(NFTA_SET_ELEM_KEY));
                       found = key_text(key.octets(NFTA_DATA_VALUE), message.key);
                     });
  return found;
}

std::string NftBatch::describe(std::uint32_t sequence, std::size_t attribute) const {
  const std::size_t index = sequence - kFirstSequence;
  if (sequence < kFirstSequence || index >= messages_.size()) return "the transaction";
  const auto& message = messages_[index];
  const auto element = element_at(message, attribute);
  return element.empty() ? message.object : fmt::format("{}: {}", message.object, element);
}

Status NftBatch::read_verdict(Socket& socket) const {
  const auto last = kFirstSequence + static_cast<std::uint32_t>(messages_.size()) - 1;
  std::size_t refused = 0;
  int first_errno = 0;
  std::string quoted;
  for (bool done = false; !done;) {
    const auto datagram = TRY(socket.receive());
    for_each_message(datagram, [&](const MessageView& view) {
      if (view.type != NLMSG_ERROR || view.sequence > last) return;
      const auto refusal = parse_verdict(view);
      // One for the begin message is about the whole, and the only one there is.
      done = done || view.sequence == last ||
             (view.sequence == kBeginSequence && refusal.sys_errno != 0);
      if (refusal.sys_errno == 0) return;
      if (refused == 0) first_errno = refusal.sys_errno;
      if (++refused > kMaxQuoted) return;
      if (!quoted.empty()) quoted += "; ";
      quoted += fmt::format("{}: {}", describe(refusal.sequence, refusal.attribute),
                            errno_text(refusal.sys_errno));
      if (!refusal.text.empty()) quoted += fmt::format(" ({})", refusal.text);
    });
  }
  if (refused == 0) return {};
  if (refused > kMaxQuoted) quoted += fmt::format("; and {} more", refused - kMaxQuoted);
  const auto code = code_of(first_errno);
  return fail(code, fmt::format("table {}: {}", table_, quoted),
              code == ErrorCode::kSystem ? first_errno : 0);
}

// A batch without its end message is taken back by the kernel after it was checked, as
// `nft --check` has it (nfnetlink_rcv_batch(); kernel 6.18, seen).
Status NftBatch::check(Socket& socket) && {
  if (failed_) return std::unexpected(*std::move(failed_));
  if (messages_.empty()) return {};
  socket.drain();
  constexpr std::size_t kEndBytes = sizeof(nlmsghdr) + sizeof(nfgenmsg);
  auto status = socket.send(std::span(buffer_).first(buffer_.size() - kEndBytes));
  if (status) status = read_verdict(socket);
  if (status) return {};
  return std::unexpected(std::move(status.error()).in("check with nf_tables"));
}

Status NftBatch::commit(Socket& socket) && {
  if (failed_) return std::unexpected(*std::move(failed_));
  if (messages_.empty()) return {};
  socket.drain();
  auto status = socket.send(buffer_);
  if (status) status = read_verdict(socket);
  if (status) return {};
  auto error = std::move(status.error());
  if (outcome_unknown(error)) error.what += " (outcome unknown, the table must be read again)";
  return std::unexpected(std::move(error).in("commit to nf_tables"));
}

}  // namespace meshd::netlink
