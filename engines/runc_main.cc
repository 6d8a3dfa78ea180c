// mesh-runc: see engines/runc.h.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "base/result.h"
#include "engines/files.h"
#include "engines/json.h"
#include "engines/oci.h"
#include "engines/program.h"
#include "engines/runc.h"

namespace meshd::engines {
namespace {

Result<std::string> own_path() {
  std::array<char, 4096> path{};
  const auto size = readlink("/proc/self/exe", path.data(), path.size());
  if (size < 0) return fail_errno("find the own path", errno);
  return std::string(path.data(), static_cast<std::size_t>(size));
}

// Returns on failure only.
std::unexpected<Error> become(const WrapperCall& call) {
  std::vector<std::string> arguments{call.runtime};
  arguments.insert(arguments.end(), call.arguments.begin(), call.arguments.end());
  std::vector<char*> pointers;
  for (auto& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  execvp(call.runtime.c_str(), pointers.data());
  return fail_errno("run " + call.runtime, errno);
}

// Where the engine looks, too: in the log that it told the runtime to write.
int report(const RuntimeCall& call, const std::string& what) {
  const auto line = fmt::format("mesh-runc: {}", printable(what));
  if (call.log) {
    auto entry = Json::object();
    entry.set("level", Json::string("error"));
    entry.set("msg", Json::string(line));
    [[maybe_unused]] const auto logged = append_line(*call.log, render(entry));
  }
  [[maybe_unused]] const auto written = write_all(2, line + "\n");
  return 1;
}

int run(const std::vector<std::string>& arguments) {
  auto self = own_path();
  const auto call =
      self ? parse_wrapper_call(arguments, *self) : std::unexpected(std::move(self).error());
  if (!call) return report({}, call.error().what);
  const auto runtime = parse_runtime_call(call->arguments);
  if (const auto prepared = prepare_bundle(*call); !prepared) {
    return report(runtime, prepared.error().what);
  }
  return report(runtime, become(*call).error().what);
}

}  // namespace
}  // namespace meshd::engines

int main(int argc, char** argv) {
  return meshd::engines::run({argv + std::min(argc, 1), argv + argc});
}
