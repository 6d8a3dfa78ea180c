// Who the node is towards controllers: the ticket that it joins with, and the identity that it
// has got.
//
// Threads: any; reads and writes files.
// Errors:  one line each; none repeats any part of a ticket.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "pki/certificate.h"
#include "pki/files.h"
#include "pki/join_ticket.h"
#include "pki/key.h"
#include "proto/controller.pb.h"

namespace meshd {

// A secret: refused when others than its owner can read it.
[[nodiscard]] Result<pki::JoinTicket> read_join_ticket(const std::string& path);

// A certificate that begins later says nothing about the node, but that its clock is slow.
[[nodiscard]] bool is_early(const pki::Certificate& certificate, pki::UtcTime now);

// Whether controllers will take it for `node`'s.
[[nodiscard]] Status check_own(const pki::StoredIdentity& stored, std::string_view node,
                               pki::UtcTime now);

// Whether the ticket's authorities do.
[[nodiscard]] bool is_vouched_for(const pki::StoredIdentity& stored, const pki::JoinTicket& ticket,
                                  pki::UtcTime now);

// Puts what a controller of `cluster` has answered in place of what is in `files`. Refuses, and
// leaves them, unless it is for this key, node and cluster.
[[nodiscard]] Status store_identity(const pki::IdentityFiles& files,
                                    const mesh::v1::EnrolReply& reply, const pki::PrivateKey& key,
                                    std::string_view cluster, std::string_view node,
                                    pki::UtcTime now);

}  // namespace meshd
