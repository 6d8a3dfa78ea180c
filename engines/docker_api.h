// dockerd's own API, as far as the network driver asks it: what it tells while a container starts.
// (Not the container itself: `inspect` waits until it has started, which waits for us.)
//
// Threads: any; a connection for each question.
// Errors:  kSystem when dockerd does not answer by then; kNotFound for its 404; kInvalid for what
//          is no answer.
// Source:  docker.io 20.10.24, measured; RFC 9112 (an answer to 1.0 ends with the connection).
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "engines/docker_plugin.h"

namespace meshd::engines {

[[nodiscard]] Result<Member> find_member(const std::string& socket, const std::string& network,
                                         const std::string& endpoint, TimePoint by);
[[nodiscard]] Result<std::string> find_container_id(const std::string& socket,
                                                    const std::string& name, TimePoint by);

// The body of an answer that is whole and says 200.
[[nodiscard]] Result<std::string> parse_http_reply(std::string_view text);

}  // namespace meshd::engines
