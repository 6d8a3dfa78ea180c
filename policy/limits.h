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

// A consumer's peers times a provider's ports are elements in the kernel: the services of a
// large site can be listed, not its containers one by one.
inline constexpr std::size_t kMaxPeers = 256;
// 64 single ports of a named service are 1,024 VIP slots, a sixty-fourth of the kernel's set;
// more ports than that are a range, which is one entry.
inline constexpr std::size_t kMaxServes = 64;
// Each takes a node port of 10,000 and a profile: what one container opens to the outside is
// a handful, and 64 leave the range to a hundred and fifty such.
inline constexpr std::size_t kMaxPublish = 64;
// Egress profiles are interval sets, whose changes cost with their size.
inline constexpr std::size_t kMaxEgress = 64;
// As many as a provider can serve; times 256 peers they are walked for each view.
inline constexpr std::size_t kMaxPortsPerEntry = 64;
// Sources are interval sets too; a site's networks are fewer, and who has more gives the
// common prefix.
inline constexpr std::size_t kMaxSources = 64;
// Compared one by one for every consumer of the provider. Beyond it `admit: CLUSTER` is meant.
inline constexpr std::size_t kMaxAdmitOwners = 64;

// An e-mail address has at most 254 bytes and nearly always under 64; an Arvados UUID has 27.
inline constexpr std::size_t kMaxOwnerBytes = 128;
inline constexpr std::size_t kMaxLabelBytes = 63;  // RFC 1035 section 2.3.4
inline constexpr std::size_t kMaxTextBytes = 64;   // a publication's label, shown in a table
// It goes into a redirect's Location; browsers and proxies take some 2,000 bytes of URL.
inline constexpr std::size_t kMaxPathBytes = 1024;
// Longer than a day, "waiting" is indistinguishable from broken.
inline constexpr auto kMaxHold = std::chrono::hours(24);

}  // namespace meshd::policy
