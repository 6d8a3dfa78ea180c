// What the shims take from engines, and how long they may need. Each limit with its reason.
#pragma once

#include <chrono>
#include <cstddef>

namespace meshd::engines {

// Over all that a shim does: Singularity ends a plugin after 5 s (pkg/network), and an engine
// that waits starts nothing else meanwhile.
inline constexpr auto kDeadline = std::chrono::seconds(4);
// On standard input: an OCI state or a network's configuration, both with annotations, of which
// Kubernetes allows 256 KiB.
inline constexpr std::size_t kMaxInputBytes = 1 << 20;
// config.json and config.v2.json: with a seccomp profile some 100 KiB, with many mounts more.
inline constexpr std::size_t kMaxFileBytes = 4 << 20;
inline constexpr std::size_t kMaxDepth = 64;          // the OCI's configuration needs 9
inline constexpr std::size_t kMaxValues = 200'000;    // of one text: the tree costs 100 bytes each
inline constexpr std::size_t kMaxMessageBytes = 600;  // of one line for people
// Links in a container that are looked at; more is no container.
inline constexpr std::size_t kMaxLinks = 1024;

}  // namespace meshd::engines
