#include "engines/netavark_run.h"

#include <utility>

#include "engines/files.h"
#include "engines/limits.h"
#include "engines/netavark.h"
#include "engines/netns.h"
#include "engines/program.h"

namespace meshd::engines {
namespace {

constexpr std::string_view kUsage =
    "usage: mesh-netavark create | setup NETNS | teardown NETNS | info";

Result<std::string> setup(const NetavarkCall& call, const std::string& path, TimePoint by) {
  if (!call.wish.empty()) return fail(ErrorCode::kUnsupported, call.wish);
  const auto netns = TRY(open_netns(path));
  auto place = call.place;
  place.default_route = !TRY(has_other_links(netns, place.ifname));
  const auto reply = TRY(attach(call.launch, netns, place, call.places, by));
  if (reply) return render_status(*reply);
  return fail(ErrorCode::kConflict,
              "nobody declared this container, and it is on a network of the mesh");
}

Result<std::string> carry_out(std::vector<std::string> arguments, int input, TimePoint by) {
  const auto places = TRY(take_places(arguments));
  if (arguments.empty()) return fail(ErrorCode::kInvalid, std::string(kUsage));
  const auto& verb = arguments[0];
  if (verb == "info" && arguments.size() == 1) return render_netavark_info();
  const bool creates = verb == "create" && arguments.size() == 1;
  const bool ends = verb == "teardown" && arguments.size() == 2;
  if (!creates && !ends && (verb != "setup" || arguments.size() != 2)) {
    return fail(ErrorCode::kInvalid, std::string(kUsage));
  }
  const auto text = TRY(read_input(input, kMaxInputBytes, by));
  if (creates) return make_network(text);
  const auto call = TRY(parse_netavark(text, places));
  if (!ends) return setup(call, arguments[1], by);
  [[maybe_unused]] const auto detached = detach(call.place.key, call.places, by);
  return std::string();
}

}  // namespace

NetavarkAnswer run_netavark(std::vector<std::string> arguments, int input, TimePoint by) {
  const auto answer = carry_out(std::move(arguments), input, by);
  if (!answer) return {render_netavark_error(answer.error().what) + "\n", 1};
  return {answer->empty() ? std::string() : *answer + "\n", 0};
}

}  // namespace meshd::engines
