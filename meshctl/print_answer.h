// The answers that are no lists, for people: what an apply changed, why a flow is refused,
// what DNS says, how the daemon feels, what just happened.
#pragma once

#include <string>

#include "meshctl/text.h"
#include "proto/node.pb.h"

namespace meshd::ctl {

// One line for each change, then a summary. Unchanged workloads are only counted.
[[nodiscard]] std::string render_text(const mesh::v1::ApplyReply& reply, const Style& style);
[[nodiscard]] std::string render_text(const mesh::v1::PlanReply& reply, const Style& style);
[[nodiscard]] std::string render_text(const mesh::v1::ExplainReply& reply, const Style& style);
[[nodiscard]] std::string render_text(const mesh::v1::ResolveReply& reply, const Style& style);
[[nodiscard]] std::string render_text(const mesh::v1::StatusReply& reply, const Style& style);
// Of the same only what is wrong, or that nothing is.
[[nodiscard]] std::string render_findings(const mesh::v1::StatusReply& reply, const Style& style);
// One line.
[[nodiscard]] std::string render_text(const mesh::v1::Event& event, const Style& style);

}  // namespace meshd::ctl
