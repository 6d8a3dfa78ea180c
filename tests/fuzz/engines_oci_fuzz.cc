// The texts of OCI runtimes and of Docker, in any bytes. A configuration that is given our hooks
// keeps all else, reads back, and has them once.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engines/docker.h"
#include "engines/notes.h"
#include "engines/oci.h"
#include "engines/podman.h"

namespace meshd::engines {
namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

void read_all(std::string_view text) {
  static_cast<void>(parse_rules(text));
  if (const auto state = parse_state(text)) expect(!state->id.empty() && state->pid >= 0);
  static_cast<void>(parse_image_labels(text));
  static_cast<void>(parse_manifest_annotations(text));
  if (const auto image = parse_store_image(text, "x1")) expect(!image->contains('/'));
  const bool has_a_resolver_of_its_own = text.contains("127.") || text.contains("::1");
  expect(!has_chosen_servers(text, text) || has_a_resolver_of_its_own);
  const auto json = read_json(text);
  if (!json) return;
  expect(render(read_json(render(*json)).value()) == render(*json));
  const auto container = parse_docker_container(text, json->text_at("ID"));
  expect(!container || !container->image_file.contains(".."));
  static_cast<void>(docker_directory(*json, "x1"));
  const HookCommand command{"/usr/libexec/meshd/mesh-hook", {}, 6};
  const auto hooked = with_hooks(*json, command);
  if (!hooked) return;
  expect(render(with_hooks(*hooked, command).value()) == render(*hooked));
  for (const auto& key : json->keys) expect(hooked->find(key) != nullptr);
  const Launch launch{labels_of(json->find("annotations")), {std::string(json->text_at("id"))}};
  const auto decision = decide(launch, {});
  expect(!decision || decision->kind == Decision::Kind::kLeave || is_id(decision->id));
}

}  // namespace
}  // namespace meshd::engines

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::engines::read_all({reinterpret_cast<const char*>(data), size});
  return 0;
}
