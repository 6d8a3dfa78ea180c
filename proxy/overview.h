// What people are shown of the mesh at one moment: who runs, whom they are declared to call, what
// passes now and what was refused. Immutable once published. And what of it one person may see.
//
// Threads:   values; the controller's loop makes an Overview, the endpoint's thread reads it
// through
//            Published<const Overview>.
// Owns:      everything it refers to, by shared pointers.
// Invariant: visible() shows workloads that are the viewer's or that they may read, and of the
// other
//            end of an edge or refusal what the declaration or the refusal names already:
//              a peer, as the viewer's own declaration writes it; never who stands behind it
//              a consumer's owner, where the provider's declaration admits that owner by name
//              both ends of a refusal, as it was told; of the provider's owner only where the
//              consumer's declaration names that provider, for then it is them that they ask
// Units:     wall time in milliseconds since 1970; rates a second.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "policy/declaration.h"
#include "proxy/directory.h"
#include "proxy/target.h"

namespace meshd::proxy {

// A page that is older says nothing of now: whoever asks waits for the next one.
inline constexpr auto kOverviewFresh = std::chrono::seconds(10);
// Shown to one person at once: more cannot be read, and each is some 300 bytes every two seconds.
inline constexpr std::size_t kMaxShown = 1'000;
inline constexpr std::size_t kMaxShownEdges = 5'000;
inline constexpr std::size_t kMaxShownRefusals = 500;

// An http publication, as it is opened from outside.
struct PageLink {
  std::uint16_t port = 0;
  Target target;
  std::string label, path;
  policy::Access access = policy::Access::kOwner;
  bool ready = false;
  bool operator==(const PageLink&) const = default;
};

struct Shown {
  std::string id, owner, workflow;
  std::string service;  // empty: none
  policy::Scope scope = policy::Scope::kWorkflow;
  Opening::State state = Opening::State::kWaiting;
  std::string node;  // empty: nowhere
  bool stale = false;
  std::vector<std::string> serves;   // "tcp/5432 sql"
  std::vector<std::string> outside;  // raw: "tcp/5432 at 192.0.2.9:30001"
  std::vector<PageLink> links;
  bool operator==(const Shown&) const = default;
};

// By their places in Shape::workloads.
struct DeclaredEdge {
  std::uint32_t consumer = 0, provider = 0;
  std::string service;          // as the consumer's declaration names it; empty: by its id
  bool names_consumer = false;  // the provider's declaration admits this owner by name
  std::vector<policy::PortRange> ports;
  bool operator==(const DeclaredEdge&) const = default;
};
// A peer that nobody provides, or not to this consumer; which of the two is not told.
struct Wish {
  std::uint32_t consumer = 0;
  std::string service, id;  // one of them
  bool operator==(const Wish&) const = default;
};

// What changes with declarations and reports alone.
struct Shape {
  std::vector<Shown> workloads;     // by id
  std::vector<DeclaredEdge> edges;  // by consumer, provider
  std::vector<Wish> wishes;         // by consumer
  [[nodiscard]] const Shown* find(std::string_view id) const;
  bool operator==(const Shape&) const = default;
};

struct FlowRate {
  std::string consumer, provider;  // ids
  Proto proto = Proto::kTcp;
  std::uint16_t port = 0;  // the first of a range
  std::uint64_t bytes = 0, packets = 0;
  auto operator<=>(const FlowRate&) const = default;
};

struct ShownRefusal {
  enum class Whose : std::uint8_t { kConsumer, kProvider, kNobody };  // the declaration to change
  std::string consumer, consumer_owner;
  std::string provider;        // an id, else what was told: a name, an address
  std::string provider_owner;  // empty: nobody's that is declared
  Proto proto = Proto::kTcp;
  std::uint16_t port = 0;  // 0: the name was withheld
  std::uint64_t count = 0;
  std::int64_t last_ms = 0;
  std::string missing;
  Whose whose = Whose::kConsumer;
  bool operator==(const ShownRefusal&) const = default;
};

struct Overview {
  std::uint64_t version = 0;  // another one whenever what follows differs, also after a restart
  TimePoint made_at{};
  std::int64_t wall_ms = 0;
  std::shared_ptr<const Shape> shape;
  std::shared_ptr<const std::vector<FlowRate>> traffic;  // by consumer, provider, port
  std::shared_ptr<const std::vector<ShownRefusal>> refusals;
};

struct Viewer {
  std::string owner;  // whose workloads are theirs
  std::string name;   // for the page
  bool admin = false;
  std::vector<std::string> owners, ids;  // whom, and what, they may read beside; sorted
  [[nodiscard]] bool sees(std::string_view owner_of_it, std::string_view id) const;
  // Two that see the same have the same, and nobody else has it.
  [[nodiscard]] std::string key() const;
};

// An end that the viewer is not shown: what is said of it.
struct Other {
  enum class Kind : std::uint8_t { kService, kWorkload, kOwner, kSomebody };
  std::string key;  // of no workload: it holds a blank
  Kind kind = Kind::kSomebody;
  std::string label;
  auto operator<=>(const Other&) const = default;
};

struct ShownEdge {
  std::string from, to;  // ids, or keys of others
  bool open = false;     // something is granted
  std::vector<std::string> ports;
  struct Flow {
    std::string port;
    std::uint64_t bytes = 0, packets = 0;
  };
  std::vector<Flow> flows;  // what passes now
};

struct View {
  std::vector<const Shown*> workloads;
  std::size_t left_out = 0;
  std::vector<Other> others;  // by key
  std::vector<ShownEdge> edges;
  std::vector<ShownRefusal> refusals;  // owners that the viewer is not told are empty
};

// `find`: of many, those that have this in a name, and those they are declared to talk to; empty:
// all. The view refers to the overview's workloads.
[[nodiscard]] View visible(const Overview& overview, const Viewer& viewer, std::string_view find);

[[nodiscard]] std::string port_text(Proto proto, std::uint16_t first, std::uint16_t last);

}  // namespace meshd::proxy
