#include "policy/from_proto.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "policy/from_text.h"
#include "policy/limits.h"
#include "policy/name.h"
#include "policy/read_yaml.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

namespace pb = mesh::v1;

std::unexpected<Error> refuse(std::string_view field, std::string_view reason) {
  return fail(ErrorCode::kInvalid, fmt::format("{}: {}", field, reason));
}

Status check_label(std::string_view field, LabelKind kind, const std::string& text) {
  const auto problem = label_problem(kind, text);
  if (problem.empty()) return {};
  return refuse(field, quote(text) + " " + problem);
}

Status check_count(std::string_view field, int count, std::size_t limit) {
  if (static_cast<std::size_t>(count) <= limit) return {};
  return refuse(field, fmt::format("has {} entries, {} are allowed", count, limit));
}

Result<std::uint16_t> read_port(std::string_view field, std::uint32_t port) {
  if (port >= 1 && port <= 65535) return static_cast<std::uint16_t>(port);
  return refuse(field, fmt::format("must be 1 to 65535, not {}", port));
}

Proto read_protocol(pb::Protocol::Value protocol) {
  return protocol == pb::Protocol::UDP ? Proto::kUdp : Proto::kTcp;
}

// Both PortRange and ServedPort carry these three.
template <class Message>
Result<PortRange> read_range(const std::string& field, const Message& message) {
  PortRange range;
  range.proto = read_protocol(message.protocol());
  range.first = TRY(read_port(field + ".port", message.port()));
  range.last = range.first;
  if (message.end_port() != 0) {
    range.last = TRY(read_port(field + ".end_port", message.end_port()));
    if (range.last < range.first) {
      return refuse(field + ".end_port",
                    fmt::format("{} is before port {}", range.last, range.first));
    }
  }
  return range;
}

Result<std::vector<PortRange>> read_ranges(
    const std::string& field, const google::protobuf::RepeatedPtrField<pb::PortRange>& messages) {
  CHECK_OK(check_count(field, messages.size(), kMaxPortsPerEntry));
  std::vector<PortRange> ranges;
  for (int i = 0; i < messages.size(); ++i) {
    ranges.push_back(TRY(read_range(fmt::format("{}[{}]", field, i), messages[i])));
  }
  return ranges;
}

// A refusal of the parser quotes the text as it is: only plain text gets that far.
Result<Prefix> read_prefix(const std::string& field, const std::string& text) {
  if (!std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; })) {
    return refuse(field, quote(text) + " is not a prefix");
  }
  auto prefix = Prefix::parse(text);
  if (!prefix) return refuse(field, prefix.error().what);
  return *prefix;
}

// Of what is no prefix: a name, with or without what a URL has around it. IPv6 has more than
// one colon.
bool looks_like_host(std::string_view text) {
  if (text.find("://") != std::string_view::npos) return true;
  const auto host = text.substr(0, text.find('/'));
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return std::ranges::any_of(host, letter) && std::ranges::count(host, ':') <= 1;
}

Result<std::vector<Prefix>> read_prefixes(
    const std::string& field, const google::protobuf::RepeatedPtrField<std::string>& texts) {
  CHECK_OK(check_count(field, texts.size(), kMaxSources));
  std::vector<Prefix> prefixes;
  for (int i = 0; i < texts.size(); ++i) {
    prefixes.push_back(TRY(read_prefix(fmt::format("{}[{}]", field, i), texts[i])));
  }
  return prefixes;
}

// A label is printed to terminals as it is: C0, DEL, and C1 as UTF-8 has it (RFC 3629).
bool has_controls(std::string_view text) {
  unsigned char before = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || (before == 0xc2 && byte < 0xa0)) return true;
    before = byte;
  }
  return false;
}

// Reads one workload field by field; `d_` is complete when all steps passed.
class WorkloadReader {
 public:
  explicit WorkloadReader(const pb::Workload& message) : m_(message) {}

  Result<Declaration> read() {
    if (m_.ByteSizeLong() > kMaxWorkloadBytes) {
      return refuse("id",
                    fmt::format("the workload is larger than {} KiB", kMaxWorkloadBytes / 1024));
    }
    CHECK_OK(identity());
    CHECK_OK(serves());
    CHECK_OK(admission());
    CHECK_OK(peers());
    CHECK_OK(publications());
    CHECK_OK(egress());
    CHECK_OK(readiness());
    return std::move(d_);
  }

 private:
  Status identity() {
    d_.id = m_.id();
    d_.owner = m_.owner();
    d_.workflow = m_.workflow();
    d_.name = m_.name();
    if (d_.id.empty()) return refuse("id", "is missing");
    CHECK_OK(check_label("id", LabelKind::kId, d_.id));
    if (const auto problem = owner_problem(d_.owner); !problem.empty()) {
      return refuse("owner", d_.owner.empty() ? problem : quote(d_.owner) + " " + problem);
    }
    if (!d_.workflow.empty()) {
      CHECK_OK(check_label("workflow", LabelKind::kWorkflow, d_.workflow));
    }
    if (!d_.name.empty()) CHECK_OK(check_label("name", LabelKind::kName, d_.name));
    if (m_.scope() == pb::Scope::UNSPECIFIED) {
      if (d_.workflow.empty() && !d_.name.empty()) {
        return refuse("scope", "without a workflow a name needs scope: CLUSTER");
      }
      d_.scope = d_.workflow.empty() ? Scope::kCluster : Scope::kWorkflow;
      return {};
    }
    d_.scope = m_.scope() == pb::Scope::CLUSTER ? Scope::kCluster : Scope::kWorkflow;
    if (d_.scope == Scope::kWorkflow && d_.workflow.empty()) {
      return refuse("scope", "WORKFLOW needs a workflow");
    }
    return {};
  }

  Status serves() {
    CHECK_OK(check_count("serves", m_.serves_size(), kMaxServes));
    std::set<std::pair<Proto, std::string>> names;
    for (int i = 0; i < m_.serves_size(); ++i) {
      const auto field = fmt::format("serves[{}]", i);
      ServedPort served{TRY(read_range(field, m_.serves(i))), m_.serves(i).name()};
      if (!served.name.empty()) {
        CHECK_OK(check_label(field + ".name", LabelKind::kPortName, served.name));
        if (!names.emplace(served.ports.proto, served.name).second) {
          return refuse(field + ".name", quote(served.name) + " stands twice");
        }
      }
      for (const auto& other : d_.serves) {
        if (other.ports.proto == served.ports.proto && other.ports.first <= served.ports.last &&
            served.ports.first <= other.ports.last) {
          return refuse(field + ".port",
                        fmt::format("overlaps {}-{}", other.ports.first, other.ports.last));
        }
      }
      d_.serves.push_back(std::move(served));
    }
    return {};
  }

  Status admission() {
    switch (m_.admit()) {
      case pb::Admit::WORKFLOW:
        if (d_.workflow.empty()) return refuse("admit", "WORKFLOW needs a workflow");
        d_.admit = Admit::kWorkflow;
        break;
      case pb::Admit::OWNER:
        d_.admit = Admit::kOwner;
        break;
      case pb::Admit::CLUSTER:
        d_.admit = Admit::kCluster;
        break;
      default:
        d_.admit = d_.scope == Scope::kWorkflow ? Admit::kWorkflow : Admit::kOwner;
    }
    CHECK_OK(check_count("admit_owners", m_.admit_owners_size(), kMaxAdmitOwners));
    for (int i = 0; i < m_.admit_owners_size(); ++i) {
      const auto& owner = m_.admit_owners(i);
      const auto field = fmt::format("admit_owners[{}]", i);
      if (const auto problem = owner_problem(owner); !problem.empty()) {
        return refuse(field, quote(owner) + " " + problem);
      }
      d_.admit_owners.push_back(owner);
    }
    return {};
  }

  Status peers() {
    CHECK_OK(check_count("peers", m_.peers_size(), kMaxPeers));
    std::set<std::tuple<std::string, std::string, Scope>> seen;
    for (int i = 0; i < m_.peers_size(); ++i) {
      const auto field = fmt::format("peers[{}]", i);
      auto peer = TRY(read_peer(field, m_.peers(i)));
      if (!seen.emplace(peer.id, peer.name, peer.scope).second) {
        return refuse(field, "names a peer that stands there already; join their ports");
      }
      d_.peers.push_back(std::move(peer));
    }
    return {};
  }

  Result<Peer> read_peer(const std::string& field, const pb::Peer& message) const {
    Peer peer;
    peer.id = message.id();
    peer.name = message.name();
    if (peer.id.empty() == peer.name.empty()) {
      return refuse(field, "needs either a name or an id");
    }
    if (!peer.id.empty()) {
      CHECK_OK(check_label(field + ".id", LabelKind::kId, peer.id));
      if (peer.id == d_.id) return refuse(field + ".id", "is the workload itself");
      if (message.scope() != pb::Scope::UNSPECIFIED) {
        return refuse(field + ".scope", "goes with a name, not with an id");
      }
    } else {
      CHECK_OK(check_label(field + ".name", LabelKind::kName, peer.name));
      const bool workflow = message.scope() == pb::Scope::UNSPECIFIED
                                ? !d_.workflow.empty()
                                : message.scope() == pb::Scope::WORKFLOW;
      peer.scope = workflow ? Scope::kWorkflow : Scope::kCluster;
      if (workflow && d_.workflow.empty()) {
        return refuse(field + ".scope", "WORKFLOW needs a workflow");
      }
    }
    peer.ports = TRY(read_ranges(field + ".ports", message.ports()));
    return peer;
  }

  Status publications() {
    CHECK_OK(check_count("publish", m_.publish_size(), kMaxPublish));
    for (int i = 0; i < m_.publish_size(); ++i) {
      const auto field = fmt::format("publish[{}]", i);
      auto publication = TRY(read_publication(field, m_.publish(i)));
      for (const auto& other : d_.publish) {
        if (other.proto != publication.proto) continue;
        if (other.port == publication.port) {
          return refuse(field + ".port", fmt::format("{}/{} is published twice", publication.port,
                                                     proto_name(publication.proto)));
        }
        if (publication.node_port && other.node_port == publication.node_port) {
          return refuse(field + ".node_port",
                        fmt::format("{} is asked for twice", *publication.node_port));
        }
      }
      d_.publish.push_back(std::move(publication));
    }
    return {};
  }

  static Result<Publication> read_publication(const std::string& field,
                                              const pb::Publication& message) {
    Publication publication;
    publication.proto = read_protocol(message.protocol());
    publication.port = TRY(read_port(field + ".port", message.port()));
    publication.http = message.http();
    if (publication.http && publication.proto == Proto::kUdp) {
      return refuse(field + ".http", "needs protocol TCP");
    }
    if (message.node_port() != 0) {
      publication.node_port = TRY(read_port(field + ".node_port", message.node_port()));
    }
    if (message.allow_from_size() > 0) {
      publication.allow_from = TRY(read_prefixes(field + ".allow_from", message.allow_from()));
    }
    publication.label = message.label();
    if (publication.label.size() > kMaxTextBytes) {
      return refuse(field + ".label", fmt::format("is longer than {} bytes", kMaxTextBytes));
    }
    if (has_controls(publication.label)) {
      return refuse(field + ".label", "has control characters");
    }
    publication.path = message.path();
    CHECK_OK(check_path(field + ".path", publication.path));
    switch (message.access()) {
      case pb::Access::CAN_MANAGE:
        publication.access = Access::kCanManage;
        break;
      case pb::Access::CAN_WRITE:
        publication.access = Access::kCanWrite;
        break;
      case pb::Access::CAN_READ:
        publication.access = Access::kCanRead;
        break;
      case pb::Access::PUBLIC:
        publication.access = Access::kPublic;
        break;
      default:
        publication.access = Access::kOwner;
    }
    return publication;
  }

  static Status check_path(const std::string& field, const std::string& path) {
    if (path.empty()) return {};
    if (path.size() > kMaxPathBytes) return refuse(field, "is longer than 1024 bytes");
    if (path.front() != '/') return refuse(field, quote(path) + " does not begin with /");
    const bool plain = std::ranges::all_of(path, [](char c) { return c > 0x20 && c < 0x7f; });
    if (!plain) return refuse(field, "has characters that must be percent-encoded");
    return {};
  }

  Status egress() {
    CHECK_OK(check_count("egress", m_.egress_size(), kMaxEgress));
    for (int i = 0; i < m_.egress_size(); ++i) {
      const auto field = fmt::format("egress[{}]", i);
      const auto& text = m_.egress(i).cidr();
      auto prefix = read_prefix(field + ".cidr", text);
      if (!prefix && looks_like_host(text)) {
        return refuse(field + ".cidr",
                      fmt::format("{} is a name; {}", quote(text), kEgressByAddress));
      }
      if (!prefix) return std::unexpected(std::move(prefix).error());
      d_.egress.push_back({*prefix, TRY(read_ranges(field + ".ports", m_.egress(i).ports()))});
    }
    return {};
  }

  Status readiness() {
    switch (m_.ready()) {
      case pb::Ready::NONE:
        d_.ready = ReadyMode::kNone;
        break;
      case pb::Ready::HTTP:
        d_.ready = ReadyMode::kHttp;
        break;
      default:
        d_.ready = ReadyMode::kListening;
    }
    if (d_.ready == ReadyMode::kHttp) {
      if (!m_.has_ready_http()) return refuse("ready_http", "is missing with ready: HTTP");
      d_.ready_http_port = TRY(read_port("ready_http.port", m_.ready_http().port()));
      d_.ready_http_path = m_.ready_http().path().empty() ? "/" : m_.ready_http().path();
      CHECK_OK(check_path("ready_http.path", d_.ready_http_path));
    } else if (m_.has_ready_http()) {
      return refuse("ready_http", "goes with ready: HTTP only");
    }
    if (!m_.has_hold()) return {};
    if (m_.hold().nanos() != 0) return refuse("hold", "must be whole seconds");
    if (m_.hold().seconds() < 0 || std::chrono::seconds(m_.hold().seconds()) > kMaxHold) {
      return refuse("hold", "must be 0s to 86400s");
    }
    d_.hold = std::chrono::seconds(m_.hold().seconds());
    return {};
  }

  const pb::Workload& m_;
  Declaration d_;
};

pb::Protocol::Value write_protocol(Proto proto) {
  return proto == Proto::kUdp ? pb::Protocol::UDP : pb::Protocol::TCP;
}
pb::Scope::Value write_scope(Scope scope) {
  return scope == Scope::kCluster ? pb::Scope::CLUSTER : pb::Scope::WORKFLOW;
}
pb::Admit::Value write_admit(Admit admit) {
  switch (admit) {
    case Admit::kWorkflow:
      return pb::Admit::WORKFLOW;
    case Admit::kOwner:
      return pb::Admit::OWNER;
    case Admit::kCluster:
      return pb::Admit::CLUSTER;
  }
  return pb::Admit::UNSPECIFIED;
}

template <class Message>
void write_range(const PortRange& range, Message& message) {
  message.set_port(range.first);
  if (!range.single()) message.set_end_port(range.last);
  message.set_protocol(write_protocol(range.proto));
}

void write_publication(const Publication& publication, pb::Publication& message) {
  message.set_port(publication.port);
  message.set_protocol(write_protocol(publication.proto));
  message.set_http(publication.http);
  if (publication.node_port) message.set_node_port(*publication.node_port);
  if (publication.allow_from) {
    for (const auto& prefix : *publication.allow_from) message.add_allow_from(prefix.to_string());
  }
  message.set_label(publication.label);
  message.set_path(publication.path);
  message.set_access(to_proto(publication.access));
}

}  // namespace

pb::Access::Value to_proto(Access access) {
  switch (access) {
    case Access::kOwner:
      return pb::Access::OWNER;
    case Access::kCanManage:
      return pb::Access::CAN_MANAGE;
    case Access::kCanWrite:
      return pb::Access::CAN_WRITE;
    case Access::kCanRead:
      return pb::Access::CAN_READ;
    case Access::kPublic:
      return pb::Access::PUBLIC;
  }
  return pb::Access::OWNER;
}

Result<Declaration> from_proto(const pb::Workload& workload) {
  return WorkloadReader(workload).read();
}

pb::Workload to_proto(const Declaration& d) {
  pb::Workload message;
  message.set_id(d.id);
  message.set_owner(d.owner);
  message.set_workflow(d.workflow);
  message.set_name(d.name);
  message.set_scope(write_scope(d.scope));
  for (const auto& served : d.serves) {
    auto& port = *message.add_serves();
    write_range(served.ports, port);
    port.set_name(served.name);
  }
  message.set_admit(write_admit(d.admit));
  for (const auto& owner : d.admit_owners) message.add_admit_owners(owner);
  for (const auto& peer : d.peers) {
    auto& entry = *message.add_peers();
    entry.set_id(peer.id);
    entry.set_name(peer.name);
    if (!peer.name.empty()) entry.set_scope(write_scope(peer.scope));
    for (const auto& range : peer.ports) write_range(range, *entry.add_ports());
  }
  for (const auto& publication : d.publish) write_publication(publication, *message.add_publish());
  for (const auto& rule : d.egress) {
    auto& entry = *message.add_egress();
    entry.set_cidr(rule.cidr.to_string());
    for (const auto& range : rule.ports) write_range(range, *entry.add_ports());
  }
  message.set_ready(d.ready == ReadyMode::kHttp   ? pb::Ready::HTTP
                    : d.ready == ReadyMode::kNone ? pb::Ready::NONE
                                                  : pb::Ready::LISTENING);
  if (d.ready == ReadyMode::kHttp) {
    message.mutable_ready_http()->set_port(d.ready_http_port);
    message.mutable_ready_http()->set_path(d.ready_http_path);
  }
  message.mutable_hold()->set_seconds(d.hold.count());
  return message;
}

Result<std::vector<Declaration>> read_declarations(std::string_view file, std::string_view text) {
  pb::Declarations declarations;
  const auto parsed = TRY(parse_text(file, text, declarations));
  std::vector<Declaration> result;
  for (int i = 0; i < declarations.workloads_size(); ++i) {
    auto declaration = from_proto(declarations.workloads(i));
    if (!declaration) {
      auto error = std::move(declaration).error();
      const auto path = fmt::format("workloads[{}].{}", i, error.what);
      const auto field = path.substr(0, path.find(": "));
      error.what = fmt::format("{}: {}", parsed.where(field), path);
      return std::unexpected(std::move(error));
    }
    result.push_back(*std::move(declaration));
  }
  if (result.empty()) return fail(ErrorCode::kInvalid, fmt::format("{}: no workloads", file));
  return result;
}

}  // namespace meshd::policy
