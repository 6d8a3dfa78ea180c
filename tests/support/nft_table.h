// A network namespace of a test's own, in which it writes the sample table and reads it back.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "netlink/nft_batch.h"
#include "netlink/nft_dump.h"
#include "tests/support/netns.h"
#include "tests/support/nft_samples.h"

namespace meshd::test {

class NftTable : public testing::Test {
 protected:
  void SetUp() override {
    auto entered = PrivateNetns::enter();
    ASSERT_TRUE(entered) << entered.error().what;
    auto opened = nl::Socket::open();
    ASSERT_TRUE(opened) << opened.error().what;
    socket_.emplace(*std::move(opened));
  }

  void load(std::uint32_t flags = 0) {
    nl::NftBatch batch("t");
    auto put = put_samples(batch, flags);
    ASSERT_TRUE(put) << put.error().what;
    auto committed = std::move(batch).commit(*socket_);
    ASSERT_TRUE(committed) << committed.error().what;
  }

  nl::NftDump dump() {
    auto read = nl::NftDump::read(*socket_, "t");
    EXPECT_TRUE(read) << read.error().what;
    return read ? *std::move(read) : nl::NftDump();
  }

  Status add(const nl::SetSpec& set, std::vector<nl::ElementView> elements) {
    nl::NftBatch batch("t");
    CHECK_OK(batch.put_elements(set, elements));
    return std::move(batch).commit(*socket_);
  }

  static nl::SetSpec sample_set(std::string_view name) {
    const auto sets = sample_sets();
    return *std::ranges::find(sets, name, &nl::SetSpec::name);
  }

  std::optional<nl::Socket> socket_;
};

}  // namespace meshd::test
