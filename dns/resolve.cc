// What a client would be answered, for people.
#include <array>

#include "dns/answer.h"
#include "dns/limits.h"
#include "dns/name.h"

namespace meshd::dns {
namespace {

std::string text_of(Reader& message, std::uint16_t rr_type, std::uint16_t size) {
  const auto start = message.at();
  std::string name;
  switch (rr_type) {
    case type::kA:
      return IpAddress::v4(message.take(4).first<4>()).to_string();
    case type::kAaaa:
      return IpAddress::v6(message.take(16).first<16>()).to_string();
    case type::kPtr:
    case type::kNs:
      read_name(message, name, true);
      return to_text(name);
    case type::kSrv: {
      const auto priority = message.u16(), weight = message.u16(), port = message.u16();
      read_name(message, name, true);
      return std::to_string(priority) + " " + std::to_string(weight) + " " + std::to_string(port) +
             " " + to_text(name);
    }
    case type::kSoa:
      read_name(message, name, true);
      message.seek(start + size);
      return to_text(name);
    default:
      break;
  }
  std::string text;
  Reader strings(message.take(size));
  while (strings.ok() && strings.left() > 0) {
    const auto part = strings.take(strings.u8());
    if (!text.empty()) text += ' ';
    text.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  return text;
}

}  // namespace

Resolved resolve(const Snapshot& snapshot, const IpAddress& client, std::string_view name,
                 std::uint16_t rr_type) {
  Resolved result;
  const auto wire = to_wire(name);
  if (!wire) {
    result.rcode = "FORMERR";
    result.reason = "not a domain name";
    return result;
  }
  std::array<std::uint8_t, 512> query{};
  Writer writer(query);
  for (const std::uint16_t word : {std::uint16_t{1}, kFlagRd, std::uint16_t{1}, std::uint16_t{0},
                                   std::uint16_t{0}, std::uint16_t{1}}) {
    writer.u16(word);
  }
  writer.text(*wire);
  writer.u16(rr_type);
  writer.u16(1);  // IN
  Query with_edns;
  with_edns.edns = true;
  write_opt(writer, with_edns, Rcode::kNoError, ede::kNone, {});
  std::vector<std::uint8_t> reply(kMaxMessage);
  Scratch scratch;
  const auto outcome =
      answer(snapshot, client, Bytes(query).first(writer.at()), false, reply, scratch);
  if (outcome.action != Action::kReply) {
    result.rcode = outcome.action == Action::kForward ? "FORWARDED" : "DROPPED";
    result.reason = outcome.action == Action::kForward ? "a foreign name: upstream is asked"
                                                       : "not a client of this resolver";
    return result;
  }
  result.rcode = rcode_name(outcome.rcode);
  result.reason = outcome.text;
  if (outcome.ede != ede::kNone) result.ede = ede_name(outcome.ede);
  Reader reader(Bytes(reply).first(outcome.length), 6);
  const auto answers = reader.u16();
  reader.seek(scratch.query.question_end);
  for (int i = 0; i < answers && reader.ok(); ++i) {
    Resolved::Record record;
    std::string owner;
    read_name(reader, owner, true);
    record.name = to_text(owner);
    const auto number = reader.u16();
    record.type = type_name(number);
    reader.u16();
    record.ttl = reader.u32();
    const auto size = reader.u16();
    record.data = text_of(reader, number, size);
    result.answers.push_back(std::move(record));
  }
  return result;
}

}  // namespace meshd::dns
