// A command line's way to a controller: one's own files checked first, because TLS does not say
// what is wrong with them, then a connection to whichever controller answers.
//
// Threads:   require_tls13() before any other thread; the rest from any.
// Invariant: a channel that connect_controller() returns has been spoken over: both ends have
//            taken the other's certificate. Nothing that changes anything was sent.
// Errors:    of check_own_identity(): the file and what is wrong with it. Of
//            connect_controller(): kSystem when nobody answers, kConflict when somebody does
//            with whom TLS comes to no agreement.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "pki/certificate.h"
#include "pki/files.h"

namespace grpc {
class Channel;
}

namespace meshd::pki {

// One controller; the next is tried after it. TCP sends a second time after 1 s and a third
// after 3, which a busy network may need.
inline constexpr auto kConnectTimeout = std::chrono::milliseconds(4000);

// Who we are, by our files, as a controller of the cluster would judge them now.
[[nodiscard]] Result<Identity> check_own_identity(const IdentityFiles& files, UtcTime now);

struct ControllerChannel {
  std::shared_ptr<grpc::Channel> channel;
  std::string address;  // the one of those given that answered
};
// `addresses`: "host:port", tried in order. `max_reply_bytes`: of one answer.
[[nodiscard]] Result<ControllerChannel> connect_controller(
    const std::vector<std::string>& addresses, const IdentityFiles& files, std::string_view cluster,
    int max_reply_bytes, std::chrono::milliseconds timeout = kConnectTimeout);

// "ADDRESS[,ADDRESS]..." as command lines have it; kInvalid names the one that is none.
[[nodiscard]] Result<std::vector<std::string>> parse_controllers(std::string_view text);
// authorities.pem in the folder that the identity is in.
[[nodiscard]] std::string authorities_beside(const std::string& identity);

}  // namespace meshd::pki
