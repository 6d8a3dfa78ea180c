// A small Arvados site in the stand-in of the API: who its people are, and whose what is.
#pragma once

#include <fmt/format.h>

#include <string>

#include "tests/arvados/api_server.h"
#include "tests/arvados/samples.h"

namespace meshd::arvados {

inline std::string project_uuid(int number) { return uuid("j7d0g", number); }
inline std::string user_token(int user) {
  return fmt::format("v2/zzzzz-gj3su-{0:015}/secret{0}secretsecretsecret", user);
}

// User 1 owns project 1, user 2 may read it, 3 write to it, 4 manage it, and 5 knows nothing of
// it. 6 is anonymous, 0 and 7 are administrators, 8 is inactive.
inline void put_people(ApiServer& api) {
  for (int user = 0; user <= 8; ++user) {
    api.put("users", user_uuid(user),
            fmt::format(R"("username":"user{}","is_admin":{},"is_active":{})", user,
                        user == 0 || user == 7, user != 8));
    api.token(user_token(user), user_uuid(user));
  }
  api.put("groups", project_uuid(1), fmt::format(R"("owner_uuid":"{}")", user_uuid(1)));
  api.permit(user_uuid(1), project_uuid(1), "can_manage");
  api.permit(user_uuid(2), project_uuid(1), "can_read");
  api.permit(user_uuid(3), project_uuid(1), "can_write");
  api.permit(user_uuid(4), project_uuid(1), "can_manage");
}

// A request of the user's, in the project of the same number, whose container runs.
inline void put_request(ApiServer& api, int number, int container, int user,
                        const std::string& more = "") {
  api.put("containers", container_uuid(container), R"("state":"Running")");
  api.put("container_requests", request_uuid(number),
          fmt::format(R"("container_uuid":"{}","owner_uuid":"{}","modified_by_user_uuid":"{}"{}{})",
                      container_uuid(container), project_uuid(user), user_uuid(user),
                      more.empty() ? "" : ",", more));
}

}  // namespace meshd::arvados
