// Every limit of the resolver, with its reason.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace meshd::dns {

inline constexpr std::size_t kMaxNameBytes = 255;    // RFC 1035 section 2.3.4, wire form
inline constexpr std::size_t kMaxMessage = 65535;    // RFC 1035 section 4.2.2
inline constexpr std::size_t kMinUdpPayload = 512;   // RFC 6891 section 6.2.3
inline constexpr std::size_t kMaxUdpPayload = 1232;  // fits IPv6's least MTU: no fragments
// A client's query: question, OPT and a few options. Longer ones are refused unread.
inline constexpr std::size_t kMaxQuery = 4096;

inline constexpr std::uint32_t kTtl = 5;          // a name's address may move
inline constexpr std::uint32_t kNegativeTtl = 1;  // what is missing may come any moment

inline constexpr int kBatch = 32;  // datagrams per system call

inline constexpr std::size_t kMaxTcpPerClient = 8;
inline constexpr std::size_t kMaxTcp = 64;  // per worker
inline constexpr auto kTcpIdle = std::chrono::seconds(10);
inline constexpr auto kTcpPartial = std::chrono::seconds(3);
// Answers waiting for a client that does not read: from the first on no more of its queries
// are taken, at the second the connection ends. An answer of the largest size fits.
inline constexpr std::size_t kTcpPause = 64U << 10;
inline constexpr std::size_t kMaxTcpQueued = 256U << 10;

// Queries per second of a client that the table in the kernel does not limit: what it allows a
// container, twice that in a burst.
inline constexpr double kPlainRate = 2000;
inline constexpr double kPlainBurstSeconds = 2;

// Waiting for upstreams: per client, so that one cannot use up what the others need.
inline constexpr std::size_t kMaxForwardsPerClient = 200;
inline constexpr std::size_t kMaxForwards = 10'000;
inline constexpr std::size_t kMaxWaiters = 256;  // on one upstream query

// glibc and musl give up after 5 s: an answer must be there before.
inline constexpr auto kForwardBudget = std::chrono::milliseconds(4500);
inline constexpr auto kHedgeFloor = std::chrono::milliseconds(300);
inline constexpr auto kTryTimeout = std::chrono::milliseconds(1500);
inline constexpr auto kStaleAfter = std::chrono::milliseconds(1800);  // RFC 8767 section 5
inline constexpr auto kMaxStale = std::chrono::hours(1);
inline constexpr std::uint32_t kStaleTtl = 30;
// While upstreams fail, a name that is answered stale is asked for this often (RFC 8767 section 5).
inline constexpr auto kStaleRecheck = std::chrono::seconds(5);

// A server that failed this often in a row is asked last, and tried again beside another one:
// after the first of these, then after twice as long, up to the second.
inline constexpr int kUnhealthy = 3;
inline constexpr auto kFirstRetry = std::chrono::seconds(1);
inline constexpr auto kLastRetry = std::chrono::seconds(30);
// A server that led back to us, or did not answer the question that would show it.
inline constexpr auto kLoopRecheck = std::chrono::seconds(60);
// A server that understood no EDNS may have been replaced by one that does.
inline constexpr auto kPlainDnsFor = std::chrono::minutes(10);

// Asked anew before it runs out: what is asked this often, in the last tenth of its time.
inline constexpr std::uint32_t kPrefetchHits = 3;
inline constexpr int kPrefetchShare = 10;

inline constexpr std::uint32_t kMaxTtl = 3600;
inline constexpr std::uint32_t kMaxNegativeTtl = 30;
inline constexpr std::uint32_t kNoSoaTtl = 5;
inline constexpr std::uint32_t kServfailTtl = 1;   // RFC 2308 section 7.1, RFC 9520: 1 s to 5 min
inline constexpr std::size_t kMaxCached = 16'384;  // bytes of one message worth keeping

// Refusals reported per client and second; the rest are counted only.
inline constexpr double kReportsPerSecond = 10;

}  // namespace meshd::dns
