#include "netlink/nft_features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd::netlink {
namespace {

using testing::HasSubstr;

TEST(NftFeaturesTest, MissingFeatureIsRefusedByNameUseAndTheKernelsWords) {
  const Feature features[] = {
      {"masquerade", "egress", true, ""},
      {"packet log", "telling why a packet was refused", false, "rule in chain c: No such file"},
      {"notrack", "the resolver", false, "unsaid: only the first counts"},
  };
  const auto status = require_all(features);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(status.error().what,
            "this kernel lacks packet log, needed for telling why a packet was refused: "
            "rule in chain c: No such file");
}

TEST(NftFeaturesTest, NothingMissingIsGood) {
  const Feature features[] = {{"masquerade", "egress", true, ""}};
  EXPECT_TRUE(require_all(features));
}

}  // namespace
}  // namespace meshd::netlink
