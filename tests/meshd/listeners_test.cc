#include "meshd/listeners.h"

#include <gtest/gtest.h>

namespace meshd {
namespace {

TEST(ListenersTest, TheServerIsWhatTheConfigurationSays) {
  Config config;
  config.dns_workers = 3;
  config.dns_cache_mib = 2;
  config.dns_client_rate = 7;
  const auto options = server_options(config);
  EXPECT_EQ(options.workers, 3);
  EXPECT_EQ(options.cache_bytes, 2U << 20);
  EXPECT_EQ(options.plain_rate, 7.0) << "also of those who come by an engine's bridge";
}

}  // namespace
}  // namespace meshd
