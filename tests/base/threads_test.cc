#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <thread>

#include "base/mailbox.h"
#include "base/published.h"

namespace meshd {
namespace {

bool readable(int fd, int timeout_ms) {
  pollfd p{fd, POLLIN, 0};
  return poll(&p, 1, timeout_ms) == 1;
}

TEST(MailboxTest, DeliversInOrderAndWakesTheReader) {
  Mailbox<int> box(8);
  EXPECT_FALSE(readable(box.fd(), 0));
  EXPECT_TRUE(box.post(1));
  EXPECT_TRUE(box.post(2));
  EXPECT_TRUE(readable(box.fd(), 0));
  EXPECT_EQ(box.drain(), (std::vector{1, 2}));
  EXPECT_FALSE(readable(box.fd(), 0));
  EXPECT_TRUE(box.drain().empty());
}

TEST(MailboxTest, RefusesWhenFullAndTakesAgainAfterwards) {
  Mailbox<int> box(2);
  EXPECT_TRUE(box.post(1));
  EXPECT_TRUE(box.post(2));
  EXPECT_FALSE(box.post(3));
  EXPECT_EQ(box.drain(), (std::vector{1, 2}));
  EXPECT_TRUE(box.post(4));
}

TEST(MailboxTest, LosesNothingBetweenThreads) {
  constexpr int kWriters = 4;
  constexpr int kEach = 2000;
  Mailbox<int> box(kWriters * kEach);
  std::vector<std::jthread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; i < kEach; ++i) ASSERT_TRUE(box.post(w * kEach + i));
    });
  }
  std::vector<int> got;
  while (got.size() < kWriters * kEach && readable(box.fd(), 10'000)) {
    std::ranges::copy(box.drain(), std::back_inserter(got));
  }
  std::ranges::sort(got);
  ASSERT_EQ(got.size(), std::size_t{kWriters * kEach});
  for (int i = 0; i < kWriters * kEach; ++i) ASSERT_EQ(got[static_cast<std::size_t>(i)], i);
}

TEST(PublishedTest, ReadersSeeWholeValuesAndTheLastOneInTheEnd) {
  struct Pair {
    int a, b;
  };
  Published<Pair> published;
  EXPECT_EQ(published.version(), 0U);
  EXPECT_EQ(published.load(), nullptr);
  std::jthread reader([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (const auto value = published.load()) {
        ASSERT_EQ(value->a, value->b);
      }
    }
  });
  for (int i = 1; i <= 2000; ++i) published.store(std::make_shared<const Pair>(i, i));
  reader.request_stop();
  EXPECT_EQ(published.version(), 2000U);
  EXPECT_EQ(published.load()->a, 2000);
}

}  // namespace
}  // namespace meshd
