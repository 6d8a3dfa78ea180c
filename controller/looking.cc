#include "controller/looking.h"

#include <fmt/format.h>

namespace meshd::controller {
namespace {

// A node that does not know it, of an earlier version, leaves it.
void ask(NodeStream& stream) {
  mesh::v1::ToNode message;
  message.mutable_look()->set_for_s(static_cast<std::uint32_t>(kLookFor.count()));
  stream.send(std::move(message));
}

}  // namespace

void Looking::connected(const std::string& node, NodeStream& stream, TimePoint now) {
  streams_.insert_or_assign(node, &stream);
  if (now < until_) ask(stream);
}

void Looking::lost(const std::string& node) {
  streams_.erase(node);
  table_.forget(node);
}

void Looking::note(TimePoint now) {
  until_ = now + kLookAgain;
  if (now < ask_again_at_) return;
  ask_again_at_ = now + kLookAgain;
  for (const auto& [node, stream] : streams_) ask(*stream);
}

Status Looking::take(const Cluster& cluster, const std::string& node,
                     const mesh::v1::Traffic& traffic, TimePoint now) {
  // What nobody looks at is kept for nobody.
  if (now >= until_ + kLookFor) return fail(ErrorCode::kInvalid, "nobody has asked");
  auto problem = table_.take(cluster, node, traffic, now);
  if (!problem) return {};
  return fail(ErrorCode::kInvalid, *std::move(problem));
}

}  // namespace meshd::controller
