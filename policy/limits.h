// Every limit on what may be declared, with its reason. Beyond a limit the whole apply is
// refused, naming the field.
#pragma once

#include <chrono>
#include <cstddef>

namespace meshd::policy {

// A file is read into memory and its tree takes some twenty times its size.
inline constexpr std::size_t kMaxFileBytes = 1 << 20;
// A real workload takes under 2 KiB; more is a program that runs away.
inline constexpr std::size_t kMaxWorkloadBytes = 64 << 10;
// Declarations nest five deep; what goes deeper is not one.
inline constexpr std::size_t kMaxDepth = 16;
// 1 MiB of "- a" lines, rounded up.
inline constexpr std::size_t kMaxNodes = 300'000;

// A consumer's peers times a provider's ports are elements in the kernel.
inline constexpr std::size_t kMaxPeers = 256;
inline constexpr std::size_t kMaxServes = 64;
inline constexpr std::size_t kMaxPublish = 64;
// Egress profiles are interval sets, whose changes cost with their size.
inline constexpr std::size_t kMaxEgress = 64;
inline constexpr std::size_t kMaxPortsPerEntry = 64;
inline constexpr std::size_t kMaxSources = 64;
inline constexpr std::size_t kMaxAdmitOwners = 64;

inline constexpr std::size_t kMaxOwnerBytes = 128;
inline constexpr std::size_t kMaxLabelBytes = 63;  // RFC 1035 section 2.3.4
inline constexpr std::size_t kMaxTextBytes = 64;   // a publication's label, shown in a table
inline constexpr std::size_t kMaxPathBytes = 1024;
// Longer than a day, "waiting" is indistinguishable from broken.
inline constexpr auto kMaxHold = std::chrono::hours(24);

}  // namespace meshd::policy
