// The commands that touch a network namespace on this side of the socket: attach, prepare
// and detach.
//
// Invariant: a namespace that prepare() made exists afterwards only if it is attached;
//            one that somebody else made is never removed.
#pragma once

#include <string>

#include "meshctl/cli.h"
#include "meshctl/client.h"
#include "meshctl/failure.h"

namespace meshd::ctl {

[[nodiscard]] Outcome<pb::AttachReply> attach(ControlClient& client, const Attach& command);

// A namespace of that name that is there already is taken only when the daemon says that
// it is this workload's; `run_dir` is where to ask.
[[nodiscard]] Outcome<pb::AttachReply> prepare(ControlClient& client, const Prepare& command,
                                               const std::string& netns_dir,
                                               const std::string& run_dir,
                                               const Timeouts& timeouts);

[[nodiscard]] Outcome<pb::DetachReply> detach(ControlClient& client, const Detach& command,
                                              const std::string& netns_dir);
[[nodiscard]] Outcome<pb::DetachReply> remove(ControlClient& client, const Delete& command,
                                              const std::string& netns_dir);

}  // namespace meshd::ctl
