// Who a container is that an engine starts, and what is to become of it: decided from what the
// engine says and from the notes that the daemon leaves (meshd/engine_notes.h).
//
// Threads:   any: values in, values out.
// Invariant: whoever has mesh.id or mesh.declaration is never left alone.
// Errors:    kInvalid, one line that names the annotation.
// Source:    docs/decisions/0011-shims-read-notes.md, docs/engines.md.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace meshd::engines {

// Annotations and labels that say something to us.
inline constexpr std::string_view kIdKey = "mesh.id";
inline constexpr std::string_view kDeclarationKey = "mesh.declaration";
inline constexpr std::string_view kOwnerKey = "mesh.owner";
inline constexpr std::string_view kWorkflowKey = "mesh.workflow";
// Of a declaration that names no owner: who may start containers at the engine is root.
inline constexpr std::string_view kDefaultOwner = "root";

using Labels = std::map<std::string, std::string>;

struct Launch {
  Labels labels;                   // of the launcher, not of the image
  std::vector<std::string> names;  // what it may be declared as, best first
};

struct Notes {
  enum class Undeclared { kIgnore, kClosed, kRefuse };
  Undeclared undeclared = Undeclared::kIgnore;
  bool in_cluster = false;
  std::set<std::string> declared;  // of the names that were asked for
};

struct Decision {
  enum class Kind {
    kAttach,  // as `id`, or it does not start
    kAsk,     // as `id` if a controller knows it, else as one that nobody declared
    kLeave,   // not ours
    kClosed,  // it may start without a network
    kRefuse,  // nobody declared it
  };
  Kind kind = Kind::kLeave;
  std::string id = {};
  // To be declared first; empty: it is declared already.
  std::string declaration = {}, owner = {}, workflow = {};
};

// Whether it can be an id: docs/policy.md has the rules, of which these are the letters.
[[nodiscard]] bool is_id(std::string_view text);
// "zzzzz-dz642-000000000000000": a container of Arvados, which a cluster's controller may know.
[[nodiscard]] bool is_arvados_container(std::string_view id);
// As Docker, podman and containerd number their containers: 64 hexadecimal letters.
inline constexpr std::size_t kNumberBytes = 64;
[[nodiscard]] bool is_number(std::string_view text);
// What an engine calls a container, as far as that can be an id: a container's number is no DNS
// label, its short form of 12 letters is.
[[nodiscard]] std::vector<std::string> ids_of(const Launch& launch);

[[nodiscard]] Result<Decision> decide(const Launch& launch, const Notes& notes);
// The same for one that nobody knows, as it turned out.
[[nodiscard]] Decision undeclared(const Notes& notes);

}  // namespace meshd::engines
