// What every shim does once it knows who a container is: declare it if it brings its
// declaration, attach it, and look what becomes of one that nobody declared. One deadline.
//
// Invariant: a container that is to be attached and is not does not start.
// Errors:    one line for whoever started the container: what, and why.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engines/launch.h"
#include "engines/netns.h"
#include "proto/node.pb.h"

namespace meshd::engines {

// Where daemon and notes are.
struct Places {
  std::string run_dir = "/run/meshd";
  std::string state_dir = "/var/lib/meshd";
};

// Of a container by its engine's number.
[[nodiscard]] std::string container_key(std::string_view id);

struct Place {      // of an attachment
  std::string key;  // by which its end is recognised; shown as its netns
  std::string ifname;
  bool default_route = true;
};

// Of an interface beside one that the engine has made.
inline constexpr std::string_view kSecondName = "mesh0";
// Whether the namespace has interfaces beside `ifname`, if that is one, and so perhaps a default
// route.
[[nodiscard]] Result<bool> has_other_links(const Netns& netns, std::string_view ifname);

// The reply; nothing where the container starts without the mesh.
[[nodiscard]] Result<std::optional<mesh::v1::AttachReply>> attach(const Launch& launch,
                                                                  const Netns& netns,
                                                                  const Place& place,
                                                                  const Places& places,
                                                                  TimePoint by);

// Before there is a namespace: an error where the container would not start, or nobody declared it.
[[nodiscard]] Status expect_attach(const Launch& launch, const Places& places, TimePoint by);

// Whether attach() would ask the daemon at all.
[[nodiscard]] Result<bool> concerns_us(const Launch& launch, const Places& places);

// Detaches whatever was attached under that key. Harmless when nothing was.
[[nodiscard]] Status detach(const std::string& key, const Places& places, TimePoint by);

// The keys of all attachments that begin so, with their ids.
struct Attached {
  std::string key, id;
};
[[nodiscard]] Result<std::vector<Attached>> attached_under(const std::string& prefix,
                                                           const Places& places, TimePoint by);

// As a container's resolv.conf.
[[nodiscard]] std::string resolv_conf_of(const mesh::v1::AttachReply& reply);

}  // namespace meshd::engines
