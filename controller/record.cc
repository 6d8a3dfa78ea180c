#include "controller/record.h"

namespace meshd::controller {

std::string service_key_text(const policy::ServiceKey& key) {
  return key.scope == policy::Scope::kCluster ? key.name : key.workflow + "/" + key.name;
}

policy::ServiceKey parse_service_key(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return {policy::Scope::kCluster, {}, std::string(text)};
  return {policy::Scope::kWorkflow, std::string(text.substr(0, slash)),
          std::string(text.substr(slash + 1))};
}

}  // namespace meshd::controller
