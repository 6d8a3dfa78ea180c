// The questions, letter by letter: they are the contract with the API.
#include "arvados/paths.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/arvados/samples.h"

namespace meshd::arvados {
namespace {

std::string decoded(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      result += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

TEST(PathsTest, OneRecordIsAskedForByItsUuid) {
  EXPECT_EQ(current_user_path(), "/arvados/v1/users/current");
  EXPECT_EQ(current_token_path(), "/arvados/v1/api_client_authorizations/current");
  EXPECT_EQ(request_path("zzzzz-xvhdp-000000000000001"),
            "/arvados/v1/container_requests/zzzzz-xvhdp-000000000000001?select=%5B%22uuid%22%5D");
  EXPECT_EQ(container_path("zzzzz-dz642-000000000000001"),
            "/arvados/v1/containers/zzzzz-dz642-000000000000001?select=%5B%22uuid%22%5D");
  EXPECT_EQ(permissions_path("zzzzz-xvhdp-000000000000001"),
            "/arvados/v1/permissions/zzzzz-xvhdp-000000000000001");
  EXPECT_EQ(decoded(group_path("zzzzz-j7d0g-000000000000001")),
            "/arvados/v1/groups/zzzzz-j7d0g-000000000000001?select=[\"uuid\",\"frozen_by_uuid\"]");
}

TEST(PathsTest, OwnersAreCountedAndLevelsAreNot) {
  EXPECT_EQ(decoded(owners_path("zzzzz-dz642-000000000000001")),
            "/arvados/v1/container_requests?filters=[[\"container_uuid\",\"=\","
            "\"zzzzz-dz642-000000000000001\"]]&select=[\"uuid\",\"modified_by_user_uuid\","
            "\"owner_uuid\"]&limit=1000");
  const std::vector<std::string> users = {user_uuid(1), user_uuid(2)}, targets = {request_uuid(1)};
  EXPECT_EQ(decoded(levels_path(users, targets)),
            "/arvados/v1/computed_permissions?filters=[[\"user_uuid\",\"in\",["
            "\"zzzzz-tpzed-000000000000001\",\"zzzzz-tpzed-000000000000002\"]],[\"target_uuid\","
            "\"in\",[\"zzzzz-xvhdp-000000000000001\"]]]&select=[\"user_uuid\",\"target_uuid\","
            "\"perm_level\"]&limit=1000&count=none");
  EXPECT_EQ(decoded(subjects_path(user_uuid(1))),
            "/arvados/v1/computed_permissions?filters=[[\"user_uuid\",\"=\","
            "\"zzzzz-tpzed-000000000000001\"],[\"target_uuid\",\">=\","
            "\"zzzzz-tpzed-000000000000000\"],[\"target_uuid\",\"<=\","
            "\"zzzzz-tpzed-zzzzzzzzzzzzzzz\"]]&select=[\"user_uuid\",\"target_uuid\","
            "\"perm_level\"]&limit=1000&count=none");
}

TEST(PathsTest, PagesGoOnFromTheLastUuid) {
  EXPECT_EQ(decoded(requests_page_path("", 500, true)),
            "/arvados/v1/container_requests?filters=[[\"container.state\",\"in\",[\"Queued\","
            "\"Locked\",\"Running\"]]]&select=[\"uuid\",\"container_uuid\",\"owner_uuid\","
            "\"modified_by_user_uuid\",\"requesting_container_uuid\",\"state\",\"priority\","
            "\"created_at\",\"service\"]&order=[\"uuid asc\"]&limit=500&count=none");
  EXPECT_EQ(decoded(links_page_path(uuid("o0j2j", 4), 125, false)),
            "/arvados/v1/links?filters=[[\"link_class\",\"=\",\"published_port\"],[\"uuid\",\">\","
            "\"zzzzz-o0j2j-000000000000004\"]]&select=[\"uuid\",\"owner_uuid\",\"name\","
            "\"head_uuid\",\"properties\"]&order=[\"uuid asc\"]&limit=125&count=none");
}

TEST(PathsTest, EverythingThatAUrlReadsItselfIsEncoded) {
  EXPECT_EQ(percent_encode("aZ9-._~"), "aZ9-._~");
  EXPECT_EQ(percent_encode("[\"a b&=?#+/%\n\xc3\xa9\"]"),
            "%5B%22a%20b%26%3D%3F%23%2B%2F%25%0A%C3%A9%22%5D");
}

TEST(PathsTest, AUuidIsOneByItsShapeAndKind) {
  EXPECT_TRUE(is_uuid("zzzzz-dz642-a1b2c3d4e5f6g7h", kContainerKind));
  EXPECT_FALSE(is_uuid("zzzzz-dz642-a1b2c3d4e5f6g7h", kRequestKind));
  for (const auto* text : {"", "zzzzz-dz642-a1b2c3d4e5f6g7", "zzzzz-dz642-a1b2c3d4e5f6g7hi",
                           "zzzzz-dz642-A1b2c3d4e5f6g7h", "zzzzz/dz642-a1b2c3d4e5f6g7h",
                           "zzzzz-dz642-a1b2c3d4e5f6g\"h", "zzzzz-dz642-a1b2c3d4e5f6g\nh"}) {
    EXPECT_FALSE(is_uuid(text, kContainerKind)) << text;
  }
}

}  // namespace
}  // namespace meshd::arvados
