// When the API is asked what, with a clock and replies that are written here.
#include "arvados/poller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "arvados/paths.h"
#include "tests/arvados/samples.h"

namespace meshd::arvados {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// An API of one list of requests: each page is cut to what was asked for.
struct SmallApi {
  std::vector<SampleRequest> requests;
  int links = 0;                      // all of one owner
  std::vector<std::string> live;      // containers
  std::size_t most = 1000;            // rows that it gives, whatever is asked
  std::size_t too_large = 1'000'000;  // rows from which an answer is too large
  std::set<std::string> heavy;        // requests that are too large in any page
  bool is_admin = true;
  std::vector<std::string> asked;  // paths

  static std::string parameter(const std::string& path, const std::string& name) {
    const auto at = path.find("&" + name + "=");
    if (at == std::string::npos) return {};
    const auto begin = at + name.size() + 2;
    return path.substr(begin, path.find('&', begin) - begin);
  }

  Reply answer(const Ask& ask) {
    asked.push_back(ask.path);
    EXPECT_TRUE(ask.as_controller);
    if (ask.path == current_user_path()) return user_reply(user_uuid(0), is_admin);
    if (ask.path.starts_with("/arvados/v1/links?")) return links_reply(ask.path);
    if (ask.path.starts_with("/arvados/v1/containers?")) return live_reply(ask.path);
    return requests_reply(ask.path);
  }

  // The uuid after which a page begins.
  static std::string after(const std::string& path) {
    const std::string mark = "%22%3E%22%2C%22";
    const auto at = path.find(mark);
    return at == std::string::npos ? std::string() : path.substr(at + mark.size(), 27);
  }

  Reply links_reply(const std::string& path) const {
    const auto limit = std::min<std::size_t>(std::stoul(parameter(path, "limit")), most);
    std::vector<std::string> rows;
    for (int i = 1; i <= links && rows.size() < limit; ++i) {
      if (uuid("o0j2j", i) <= after(path)) continue;
      rows.push_back(fmt::format(R"({{"uuid":"{}","owner_uuid":"{}","name":"a{}","head_uuid":"{}",)"
                                 R"("properties":{{"port":80}}}})",
                                 uuid("o0j2j", i), user_uuid(1), i, request_uuid(1)));
    }
    return items_reply(fmt::format("{}", fmt::join(rows, ",")));
  }

  Reply live_reply(const std::string& path) {
    std::string items;
    for (const auto& container : live) {
      if (!path.contains(container)) continue;
      items += fmt::format(R"({}{{"uuid":"{}","state":"Running"}})", items.empty() ? "" : ",",
                           container);
    }
    return items_reply(items);
  }

  Reply requests_reply(const std::string& path) {
    const bool bare = !path.contains("properties");
    const bool by_container = path.contains("container_uuid%22%2C%22in%22");
    const auto limit = std::min<std::size_t>(std::stoul(parameter(path, "limit")), most);
    std::vector<std::string> rows;
    for (const auto& request : requests) {
      const auto uuid = request_uuid(request.number);
      if (!by_container && uuid <= after(path)) continue;
      if (by_container && !path.contains(container_uuid(request.container))) continue;
      if (rows.size() == limit) break;
      if (!bare && heavy.contains(uuid)) return {.status = 200, .is_json = true, .too_large = true};
      rows.push_back(request.json());
    }
    if (rows.size() >= too_large) return {.too_large = true};
    return items_reply(fmt::format("{}", fmt::join(rows, ",")));
  }
};

class PollerTest : public testing::Test {
 protected:
  // All questions that can be asked now are answered.
  void run(Poller& poller) {
    for (int turns = 0; turns < 10'000; ++turns) {
      const auto question = poller.next(now_);
      if (!question) return;
      poller.take(question->number, api_.answer(question->ask), now_);
    }
    FAIL() << "it never ends";
  }
  Listing listing_of(Poller& poller) {
    run(poller);
    for (auto& news : poller.news()) {
      if (auto* const listing = std::get_if<Listing>(&news)) return std::move(*listing);
    }
    ADD_FAILURE() << "nothing was listed";
    return {};
  }
  static std::string trouble_of(Poller& poller) {
    for (auto& news : poller.news()) {
      if (auto* const trouble = std::get_if<Trouble>(&news)) {
        return trouble->why.empty() ? "<it answers again>" : trouble->why;
      }
    }
    return "<no news>";
  }
  void fill(int count) {
    for (int i = 1; i <= count; ++i) api_.requests.push_back({.number = i, .container = i});
  }

  SmallApi api_;
  TimePoint now_{1h};
};

TEST_F(PollerTest, EverythingIsReadInPagesThatGoOnUntilOneIsEmpty) {
  fill(1234);
  api_.most = 100;  // less than was asked for does not mean that there is no more
  Poller poller({}, {});
  EXPECT_EQ(listing_of(poller).requests.by_container().size(), 1234U);
  EXPECT_EQ(api_.asked.front(), current_user_path());
}

TEST_F(PollerTest, TheNextReadingWaitsForItsTime) {
  fill(1);
  Poller poller({.pause = 5s}, {});
  listing_of(poller);
  EXPECT_FALSE(poller.next(now_));
  EXPECT_EQ(poller.next_timer(), now_ + 5s);
  now_ += 5s;
  EXPECT_EQ(listing_of(poller).requests.by_container().size(), 1U);
}

TEST_F(PollerTest, APageThatIsTooLargeIsAskedForInSmallerOnes) {
  fill(40);
  api_.too_large = 7;
  Poller poller({}, {});
  EXPECT_EQ(listing_of(poller).requests.by_container().size(), 40U);
}

TEST_F(PollerTest, ARecordThatIsTooLargeAloneIsTakenWithoutWhatIsLargeInIt) {
  fill(20);
  api_.heavy = {request_uuid(9)};
  Poller poller({}, {});
  const auto listing = listing_of(poller);
  EXPECT_EQ(listing.requests.by_container().size(), 20U);
  const auto site = site_of(listing);
  EXPECT_THAT(site.find(container_uuid(9), user_uuid(1))->problem, HasSubstr("larger than 8 MiB"));
  EXPECT_EQ(site.find(container_uuid(10), user_uuid(1))->problem, "");
}

TEST_F(PollerTest, APageOutOfOrderIsALie) {
  fill(3);
  std::ranges::reverse(api_.requests);
  Poller poller({}, {});
  run(poller);
  EXPECT_THAT(trouble_of(poller), HasSubstr("order of uuids"));
}

TEST_F(PollerTest, ATokenThatIsNoAdministratorsForgetsNobody) {
  fill(3);
  api_.is_admin = false;
  Poller poller({}, {container_uuid(1)});
  run(poller);
  EXPECT_THAT(trouble_of(poller), HasSubstr("no administrator"));
  EXPECT_EQ(api_.asked.size(), 1U);
}

TEST_F(PollerTest, WhoIsMissingIsAskedForBeforeItCountsAsEnded) {
  api_.live = {container_uuid(1)};
  Poller poller({}, {container_uuid(1), container_uuid(2)});
  EXPECT_THAT(listing_of(poller).ended, ElementsAre(container_uuid(2)));
  // The one that goes on is asked for again, the other one is not.
  now_ += 5s;
  api_.asked.clear();
  api_.live.clear();
  EXPECT_THAT(listing_of(poller).ended, ElementsAre(container_uuid(1)));
  EXPECT_TRUE(api_.asked.back().contains(container_uuid(1)));
  EXPECT_FALSE(api_.asked.back().contains(container_uuid(2)));
}

// Its request may have come after the page that it belongs to.
TEST_F(PollerTest, WhoIsFoundWhileEverythingIsReadHasNotEndedForThat) {
  Poller poller({}, {});
  const auto begun = poller.next(now_);
  api_.requests.push_back({.number = 4, .container = 4});
  ASSERT_TRUE(poller.want(container_uuid(4), now_));
  const auto wanted = poller.next(now_);
  poller.take(wanted->number, api_.answer(wanted->ask), now_);
  api_.requests.clear();
  poller.know({container_uuid(5)});  // by another controller
  poller.take(begun->number, api_.answer(begun->ask), now_);
  run(poller);
  const auto news = poller.news();
  ASSERT_EQ(news.size(), 2U);
  EXPECT_THAT(std::get<Listing>(news.back()).ended, IsEmpty());
  now_ += 5s;
  EXPECT_THAT(listing_of(poller).ended, ElementsAre(container_uuid(4), container_uuid(5)));
}

TEST_F(PollerTest, AnAnswerAboutOtherContainersIsALie) {
  api_.live = {container_uuid(1)};
  Poller poller({}, {container_uuid(1)});
  for (;;) {
    const auto question = poller.next(now_);
    ASSERT_TRUE(question);
    if (question->ask.path.starts_with("/arvados/v1/containers?")) {
      poller.take(question->number,
                  items_reply(fmt::format(R"({{"uuid":"{}"}})", container_uuid(7))), now_);
      break;
    }
    poller.take(question->number, api_.answer(question->ask), now_);
  }
  EXPECT_THAT(trouble_of(poller), HasSubstr("other containers"));
}

TEST_F(PollerTest, WhileTheApiIsAwayItIsAskedEverMoreRarely) {
  Poller poller({}, {});
  std::vector<Duration> waits;
  for (int i = 0; i < 8; ++i) {
    const auto question = poller.next(now_);
    ASSERT_TRUE(question);
    poller.take(question->number, {.trouble = "down"}, now_);
    EXPECT_FALSE(poller.next(now_));
    EXPECT_EQ(trouble_of(poller), i == 0 ? "down" : "<no news>") << "once";
    waits.push_back(*poller.next_timer() - now_);
    now_ = *poller.next_timer();
  }
  EXPECT_THAT(waits, ElementsAre(1s, 2s, 4s, 8s, 16s, 32s, 60s, 60s));
  run(poller);
  EXPECT_EQ(trouble_of(poller), "<it answers again>");
}

TEST_F(PollerTest, AReadingThatFailsOnTheWayCountsForNothing) {
  fill(1000);
  Poller poller({}, {});
  for (int i = 0; i < 2; ++i) {
    const auto question = poller.next(now_);
    poller.take(question->number, api_.answer(question->ask), now_);
  }
  poller.take(poller.next(now_)->number, error_reply(500), now_);
  const auto news = poller.news();
  ASSERT_EQ(news.size(), 1U);
  EXPECT_TRUE(std::holds_alternative<Trouble>(news.front()));
}

TEST_F(PollerTest, AContainerThatANodeWaitsForIsAskedForAtOnce) {
  fill(3);
  Poller poller({}, {});
  listing_of(poller);
  api_.requests.push_back({.number = 4, .container = 4});
  ASSERT_TRUE(poller.want(container_uuid(4), now_));
  ASSERT_TRUE(poller.want(container_uuid(5), now_));
  EXPECT_EQ(poller.next_timer(), TimePoint{});
  run(poller);
  const auto news = poller.news();
  ASSERT_EQ(news.size(), 1U);
  const auto& found = std::get<Found>(news.front());
  EXPECT_TRUE(found.requests.by_container().contains(container_uuid(4)));
  EXPECT_THAT(found.unknown, ElementsAre(container_uuid(5)));
}

TEST_F(PollerTest, WhoIsUnknownIsNotAskedForAgainAtOnce) {
  Poller poller({}, {});
  run(poller);
  ASSERT_TRUE(poller.want(container_uuid(5), now_));
  run(poller);
  api_.asked.clear();
  static_cast<void>(poller.news());
  ASSERT_TRUE(poller.want(container_uuid(5), now_ + 1s));
  ASSERT_TRUE(poller.want("not-a-uuid", now_ + 1s));
  EXPECT_FALSE(poller.next(now_ + 1s));
  EXPECT_EQ(poller.next_timer(), TimePoint{}) << "there is something to be said";
  EXPECT_EQ(poller.news().size(), 2U);
  EXPECT_GT(poller.next_timer(), now_);
  ASSERT_TRUE(poller.want(container_uuid(5), now_ + 3s));
  EXPECT_TRUE(poller.next(now_ + 3s));
}

TEST_F(PollerTest, WhoWaitsDoesNotWaitForTheReadingOfEverything) {
  fill(1);
  Poller poller({}, {});
  const auto sweep = poller.next(now_);
  ASSERT_TRUE(sweep);
  ASSERT_TRUE(poller.want(container_uuid(1), now_));
  const auto wanted = poller.next(now_);
  ASSERT_TRUE(wanted);
  EXPECT_FALSE(poller.next(now_));  // two are under way
  poller.take(wanted->number, api_.answer(wanted->ask), now_);
  ASSERT_EQ(poller.news().size(), 1U);
  poller.take(sweep->number, api_.answer(sweep->ask), now_);
  EXPECT_EQ(listing_of(poller).requests.by_container().size(), 1U);
}

TEST_F(PollerTest, OneContainersCrowdDoesNotStandBeforeAnothers) {
  for (int i = 1; i <= 1000; ++i) api_.requests.push_back({.number = i, .container = 1, .user = i});
  api_.requests.push_back({.number = 2000, .container = 2});
  Poller poller({}, {});
  ASSERT_TRUE(poller.want(container_uuid(1), now_));
  ASSERT_TRUE(poller.want(container_uuid(2), now_));
  std::set<std::string> found;
  while (!found.contains(container_uuid(2))) {
    const auto question = poller.next(now_);
    ASSERT_TRUE(question);
    poller.take(question->number, api_.answer(question->ask), now_);
    for (auto& news : poller.news()) {
      if (const auto* const some = std::get_if<Found>(&news)) {
        for (const auto& [container, by_user] : some->requests.by_container()) {
          found.insert(container);
        }
      }
    }
  }
  EXPECT_TRUE(found.contains(container_uuid(1)));
}

TEST_F(PollerTest, WhoWaitsTooLongIsNotAskedForAnyMore) {
  Poller poller({}, {});
  const auto sweep = poller.next(now_);
  ASSERT_TRUE(poller.want(container_uuid(1), now_));
  const auto wanted = poller.next(now_);
  poller.take(wanted->number, {.trouble = "down"}, now_);
  EXPECT_FALSE(poller.next(now_));
  EXPECT_TRUE(poller.next(now_ + 1s));
  Poller other({}, {});
  static_cast<void>(other.next(now_));
  ASSERT_TRUE(other.want(container_uuid(1), now_));
  EXPECT_FALSE(other.next(now_ + kWantedFor));
}

TEST_F(PollerTest, ThoseWhoWaitAreLimited) {
  Poller poller({}, {});
  for (int i = 0; i < static_cast<int>(kMaxWanted); ++i) {
    ASSERT_TRUE(poller.want(container_uuid(i), now_));
  }
  EXPECT_FALSE(poller.want(container_uuid(5000), now_));
  EXPECT_TRUE(poller.want(container_uuid(1), now_));
  EXPECT_TRUE(poller.want(container_uuid(5000), now_ + kWantedFor));
}

TEST_F(PollerTest, LinksOfOneOwnerAreLimited) {
  api_.links = 1700;
  Poller poller({}, {});
  EXPECT_EQ(listing_of(poller).links.size(), kMaxLinksPerOwner);
}

}  // namespace
}  // namespace meshd::arvados
