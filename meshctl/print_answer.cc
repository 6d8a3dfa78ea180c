#include "meshctl/print_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

namespace meshd::ctl {
namespace {

namespace pb = mesh::v1;
using Kind = pb::Change::Kind;

struct ChangeStyle {
  Kind::Value kind;
  std::string_view line;     // in front of the subject
  std::string_view counted;  // in the summary, after a number
  Paint colour;
};

// In the order in which the summary counts them.
constexpr std::array<ChangeStyle, 11> kChanges = {{
    {Kind::WORKLOAD_ADDED, "+ workload", "added", Paint::kGreen},
    {Kind::WORKLOAD_CHANGED, "~ workload", "changed", Paint::kYellow},
    {Kind::WORKLOAD_UNCHANGED, "= workload", "unchanged", Paint::kDim},
    {Kind::FLOW_ADDED, "+ flow", "flows opened", Paint::kGreen},
    {Kind::FLOW_REMOVED, "- flow", "flows closed", Paint::kRed},
    {Kind::NAME_ADDED, "+ name", "names added", Paint::kGreen},
    {Kind::NAME_REMOVED, "- name", "names removed", Paint::kRed},
    {Kind::PORT_PUBLISHED, "+ port", "ports published", Paint::kGreen},
    {Kind::PORT_WITHDRAWN, "- port", "ports withdrawn", Paint::kRed},
    {Kind::CONNECTION_CUT, "! cut", "connections cut", Paint::kRed},
    {Kind::PEER_UNDECLARED, "? peer", "peers not declared yet", Paint::kYellow},
}};

using Changes = google::protobuf::RepeatedPtrField<pb::Change>;

std::string render_changes(const Changes& changes, const Style& style) {
  std::string out;
  for (const auto& change : changes) {
    const auto* look = std::ranges::find(kChanges, change.kind(), &ChangeStyle::kind);
    const bool unchanged = change.kind() == Kind::WORKLOAD_UNCHANGED;
    if (unchanged) continue;
    // A kind that is newer than this meshctl is shown, not swallowed.
    const bool known = look != kChanges.end();
    auto line = fmt::format("{} {}", known ? look->line : "* change", printable(change.subject()));
    if (!change.detail().empty()) line += ": " + printable(change.detail());
    out += paint(line, known ? look->colour : Paint::kPlain, style) + "\n";
  }
  return out;
}

std::string summarise(const Changes& changes) {
  std::vector<std::string> parts;
  for (const auto& look : kChanges) {
    const auto count = std::ranges::count(changes, look.kind, &pb::Change::kind);
    if (count > 0) parts.push_back(fmt::format("{} {}", count, look.counted));
  }
  return parts.empty() ? "nothing" : fmt::format("{}", fmt::join(parts, ", "));
}

Paint paint_of(pb::Verdict::Value verdict) {
  switch (verdict) {
    case pb::Verdict::ALLOWED:
      return Paint::kGreen;
    case pb::Verdict::HELD:
      return Paint::kYellow;
    default:
      return Paint::kRed;
  }
}

std::string or_number(const std::string& name, int number) {
  return name.empty() ? fmt::format("UNKNOWN_{}", number) : name;
}

std::string render_problems(const pb::StatusReply& reply, const Style& style) {
  std::string out;
  for (const auto& problem : reply.problems()) {
    const auto line =
        fmt::format("{}: {}", printable(problem.subject()), printable(problem.detail()));
    out += fmt::format("problem      {}\n", paint(line, Paint::kRed, style));
  }
  return out;
}

// Of a controller, which is no node: it has one number, the store's.
std::string render_controller(const pb::StatusReply& reply, std::string_view health,
                              const Style& style) {
  auto out = fmt::format("controller {}: {}\n", printable(reply.controller()), health);
  out += fmt::format("zone         {}\n", printable(reply.zone()));
  out += fmt::format("revision     {}\n", reply.generations().stored());
  out +=
      fmt::format("workloads    {} declared, {} attached\n", reply.workloads(), reply.attached());
  return out + render_problems(reply, style);
}

}  // namespace

std::string render_text(const pb::ApplyReply& reply, const Style& style) {
  return render_changes(reply.changes(), style) +
         fmt::format("generation {}: {}\n", reply.generation(), summarise(reply.changes()));
}

std::string render_text(const pb::PlanReply& reply, const Style& style) {
  return render_changes(reply.changes(), style) +
         fmt::format("apply would do: {}\n", summarise(reply.changes()));
}

std::string render_text(const pb::ExplainReply& reply, const Style& style) {
  const auto name = or_number(pb::Verdict::Value_Name(reply.verdict()), reply.verdict());
  auto out = paint(name, paint_of(reply.verdict()), style);
  if (!reply.reason().empty()) out += ": " + printable(reply.reason());
  out += '\n';
  for (const auto& line : reply.lines()) out += "  " + printable(line) + "\n";
  return out;
}

std::string render_text(const pb::ResolveReply& reply, const Style& style) {
  auto out = paint(printable(reply.rcode()),
                   reply.rcode() == "NOERROR" ? Paint::kGreen : Paint::kYellow, style);
  if (!reply.reason().empty()) out += ": " + printable(reply.reason());
  out += '\n';
  if (!reply.ede().empty()) out += "  extended error: " + printable(reply.ede()) + "\n";
  if (reply.answers().empty()) return out;
  Table table({{"NAME"}, {"TTL", Align::kRight}, {"TYPE"}, {"DATA"}});
  for (const auto& answer : reply.answers()) {
    table.add(
        {{answer.name()}, {fmt::format("{}", answer.ttl())}, {answer.type()}, {answer.data()}});
  }
  return out + table.render(style);
}

std::string render_text(const pb::StatusReply& reply, const Style& style) {
  const auto health = reply.healthy() ? paint("healthy", Paint::kGreen, style)
                                      : paint("NOT HEALTHY", Paint::kRed, style);
  if (reply.node().empty() && !reply.controller().empty()) {
    return render_controller(reply, health, style);
  }
  auto out = fmt::format("meshd {} on {}: {}\n", printable(reply.version()),
                         printable(reply.node()), health);
  const auto& g = reply.generations();
  out += fmt::format("zone         {}\n", printable(reply.zone()));
  out += fmt::format("generations  stored {}, planned {}, installed {}, named {}, reported {}\n",
                     g.stored(), g.planned(), g.installed(), g.named(), g.reported());
  out +=
      fmt::format("workloads    {} declared, {} attached\n", reply.workloads(), reply.attached());
  out += fmt::format("repairs      {}\n", reply.repairs());
  out += fmt::format("clients      {} watching, {} waiting\n", reply.watching(), reply.waiting());
  out += fmt::format("controller   {}\n",
                     reply.controller().empty() ? "none" : printable(reply.controller()));
  for (const auto& upstream : reply.upstreams()) {
    const auto state = upstream.leads_back() ? paint("is not asked", Paint::kRed, style)
                       : upstream.healthy()
                           ? fmt::format("answers in {:.1f} ms", upstream.rtt_us() / 1000.0)
                           : paint("does not answer", Paint::kRed, style);
    out += fmt::format("upstream     {} {}\n", printable(upstream.address()), state);
  }
  return out + render_problems(reply, style);
}

std::string render_findings(const pb::StatusReply& reply, const Style& style) {
  std::string out;
  for (const auto& problem : reply.problems()) {
    out += fmt::format("{}: {}\n", paint(printable(problem.subject()), Paint::kRed, style),
                       printable(problem.detail()));
  }
  if (out.empty()) {
    out = reply.healthy() ? "nothing is wrong\n" : "not healthy: what is stored is not in force\n";
  }
  for (const auto& limit : reply.limits()) out += fmt::format("note: {}\n", printable(limit));
  return out;
}

std::string render_text(const pb::Event& event, const Style& style) {
  auto kind = or_number(pb::Event::Kind::Value_Name(event.kind()), event.kind());
  const bool refusal =
      event.kind() == pb::Event::Kind::REFUSED_FLOW ||
      event.kind() == pb::Event::Kind::REFUSED_NAME || event.kind() == pb::Event::Kind::PROBLEM ||
      event.kind() == pb::Event::Kind::NODE_DOWN || event.kind() == pb::Event::Kind::NODE_STALE ||
      event.kind() == pb::Event::Kind::NODE_GONE;
  // As wide as the longest kind, so that a stream of lines forms columns.
  const std::string pad(12 - std::min<std::size_t>(12, kind.size()), ' ');
  auto line = fmt::format("{}  {}{}", printable(event.time()),
                          paint(kind, refusal ? Paint::kRed : Paint::kGreen, style), pad);
  if (!event.id().empty()) line += "  " + printable(event.id());
  if (!event.peer().empty()) line += " -> " + printable(event.peer());
  if (!event.detail().empty()) line += "  " + printable(event.detail());
  if (event.count() > 1) line += fmt::format("  ({} times)", event.count());
  if (!event.node().empty() && event.node() != event.id()) {
    line += fmt::format("  on {}", printable(event.node()));
  }
  if (!event.missing().empty()) line += fmt::format("  (missing: {})", printable(event.missing()));
  return line + "\n";
}

}  // namespace meshd::ctl
