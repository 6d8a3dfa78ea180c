// Every limit on what the Arvados API, and the authors whose records it hands out, may make us
// hold or do, with its reason.
#pragma once

#include <chrono>
#include <cstddef>

namespace meshd::arvados {

// A page of 500 records takes about 600 KB; the rest is for long `properties`. Beyond it smaller
// pages are asked for, and one record alone is taken without its properties.
inline constexpr std::size_t kMaxAnswerBytes = 8 << 20;
// Of a single record: users, tokens, permissions of one request.
inline constexpr std::size_t kMaxRecordBytes = 1 << 20;
// Status line and headers; real ones are under 2 KiB.
inline constexpr std::size_t kMaxHeaderBytes = 64 << 10;
// Each takes some 150 bytes as a tree: 45 MB at most, for as long as one answer is read.
inline constexpr std::size_t kMaxNodes = 300'000;
// `properties` are free; a declaration in them nests five deep.
inline constexpr std::size_t kMaxDepth = 64;

// Rows of one page. The API's own maximum is 1,000 unless a site changed it, and it may give
// fewer: pages go on from the last uuid until one is empty.
inline constexpr std::size_t kPage = 500;
// Of others' containers, on one person's page: the API gives as many at once.
inline constexpr std::size_t kMaxReadable = 1'000;
// A loop that the API keeps alive must end somewhere; a large site has some 10,000 containers.
inline constexpr std::size_t kMaxRows = 200'000;
// Ids in one question: an URL of 2 KB; proxies take 8.
inline constexpr std::size_t kIdsPerQuestion = 40;
// Of one user, all declarations together: what 250 large ones take. Beyond it that user's
// further containers are closed, and nobody else's.
inline constexpr std::size_t kMaxUserBytes = 16 << 20;
// Any user may make links; each is a name.
inline constexpr std::size_t kMaxLinksPerOwner = 1'000;

// A v2 token has some 80 bytes; an OpenID Connect access token up to a few KiB.
inline constexpr std::size_t kMaxTokenBytes = 4096;
// Further users whose permissions a user has by managing them. More are not looked at, which
// only ever refuses.
inline constexpr std::size_t kMaxSubjects = kIdsPerQuestion - 1;

// Containers that nodes wait for, and how long each is asked about: past a node's own patience.
inline constexpr std::size_t kMaxWanted = 1'000;
inline constexpr auto kWantedFor = std::chrono::seconds(60);
// Answers with no request: the same id is not asked about again before.
inline constexpr auto kUnknownFor = std::chrono::seconds(2);

// Between two readings of everything: one question at a time, from one connection.
inline constexpr auto kPause = std::chrono::seconds(5);
inline constexpr auto kFirstBackOff = std::chrono::seconds(1);
inline constexpr auto kLastBackOff = std::chrono::seconds(60);

}  // namespace meshd::arvados
