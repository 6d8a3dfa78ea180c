// Replies as the API makes them, and ids for them.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "arvados/answers.h"

namespace meshd::arvados {

inline std::string uuid(std::string_view kind, int number) {
  return fmt::format("zzzzz-{}-{:015}", kind, number);
}
inline std::string user_uuid(int number) { return uuid("tpzed", number); }
inline std::string request_uuid(int number) { return uuid("xvhdp", number); }
inline std::string container_uuid(int number) { return uuid("dz642", number); }

inline Reply json_reply(std::string body, int status = 200) {
  return {.status = status, .is_json = true, .body = std::move(body)};
}
inline Reply error_reply(int status, std::string_view text = "Path not found") {
  return json_reply(fmt::format(R"-({{"errors":["{} (req-0)"],"error_token":"1+0"}})-", text),
                    status);
}
inline Reply items_reply(std::string_view items, std::string_view more = "") {
  return json_reply(fmt::format(
      R"({{"kind":"arvados#list","offset":0,"limit":500,"items":[{}]{}}})", items, more));
}
inline Reply user_reply(const std::string& user, bool is_admin = false, bool is_active = true) {
  return json_reply(fmt::format(R"({{"uuid":"{}","is_active":{},"is_admin":{},"username":"who"}})",
                                user, is_active, is_admin));
}

struct SampleRequest {
  int number = 1, container = 1, user = 1;
  std::string workflow = "null";  // JSON
  std::string published = "{}", properties = "{}";
  std::string state = "Committed", priority = "500", service = "false";
  std::string created_at = "2026-01-01T00:00:00.000000000Z";

  [[nodiscard]] std::string json() const {
    return fmt::format(
        R"({{"uuid":"{}","container_uuid":"{}","owner_uuid":"{}","modified_by_user_uuid":"{}",)"
        R"("requesting_container_uuid":{},"state":"{}","priority":{},"created_at":"{}",)"
        R"("service":{},)"
        R"("published_ports":{},"properties":{}}})",
        request_uuid(number), container_uuid(container), uuid("j7d0g", user), user_uuid(user),
        workflow, state, priority, created_at, service, published, properties);
  }
  [[nodiscard]] ContainerRequest value() const {
    return read_requests(items_reply(json()), false).value().front();
  }
};

}  // namespace meshd::arvados
