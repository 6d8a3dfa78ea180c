// An endpoint in its own thread, with a token file or an Asker that answers when it is told to.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/endpoint.h"
#include "tests/proxy/fake_asker.h"
#include "tests/proxy/http_client.h"
#include "tests/proxy/samples.h"
#include "tests/support/temp_dir.h"

namespace meshd::proxy {

class EndpointTest : public testing::Test {
 protected:
  EndpointTest() {
    options_.names.zone = "mesh.example.org";
    options_.listen = dir_ / "web.sock";
    options_.relay_dir = dir_ / "relay";
    options_.people = dir_ / "web-tokens";
    options_.look_again = std::chrono::milliseconds(10);
    hooks_.open = [this](const MakeOpening& opening) {
      const std::lock_guard lock(mutex_);
      opened_.push_back(opening);
    };
    hooks_.used = [this](const std::vector<policy::PublishKey>& keys) {
      const std::lock_guard lock(mutex_);
      used_.insert(keys.begin(), keys.end());
      ++told_;
    };
    set(sample_opening("w1", "db"));
  }
  void set(const Opening& opening) {
    writer_.set(opening);
    directory_.store(writer_.directory());
  }
  void end(const std::string& id) {
    writer_.end(id, BootClock::now());
    directory_.store(writer_.directory());
  }
  void start(Asker* asker = nullptr) {
    auto started = Endpoint::start(options_, directory_, asker, hooks_);
    ASSERT_TRUE(started) << started.error().what;
    endpoint_ = *std::move(started);
  }
  [[nodiscard]] HttpClient client() const { return HttpClient(connect_unix(options_.listen)); }
  [[nodiscard]] HttpReply ask(std::string_view path, const Said& said = {}) const {
    return client().ask(path, said);
  }
  // Somebody new, who may do what `terms` says.
  std::string make_token(Person terms) {
    TokenSecret secret{};
    secret[0] = ++made_;
    auto made = make_person(std::move(terms), secret);
    EXPECT_TRUE(made);
    last_id_ = made->person.id;
    EXPECT_TRUE(edit_people(options_.people,
                            [&](People& people) { return add_person(people, made->person); }));
    return made->token;
  }
  std::string make_token(const std::string& user) {
    Person terms;
    terms.user = user;
    return make_token(std::move(terms));
  }
  // Somebody who may read what `owner` has.
  std::string make_reader(const std::string& user, const std::string& owner) {
    Person terms;
    terms.user = user;
    terms.grants = {{Access::kCanRead, owner}};
    return make_token(std::move(terms));
  }
  void remove_token(const std::string& id) const {
    EXPECT_TRUE(
        edit_people(options_.people, [&](People& people) { return remove_person(people, id); }));
  }
  [[nodiscard]] static Said with_token(std::string_view token) {
    Said said;
    said.cookie = token_cookie(token);
    return said;
  }
  [[nodiscard]] std::uint64_t verdicts(std::string_view word) const {
    const auto counts = endpoint_->counts();
    const auto found = counts.verdicts.find(word);
    return found == counts.verdicts.end() ? 0 : found->second;
  }
  [[nodiscard]] std::vector<MakeOpening> opened() const {
    const std::lock_guard lock(mutex_);
    return opened_;
  }
  [[nodiscard]] std::set<policy::PublishKey> used() const {
    const std::lock_guard lock(mutex_);
    return used_;
  }

  const Answer may_read_{
      Answer::Kind::kGood, {"zzzzz-tpzed-000000000000001", "bob", false}, Access::kCanRead};
  TempDir dir_;
  EndpointOptions options_;
  EndpointHooks hooks_;
  DirectoryWriter writer_;
  Published<const Directory> directory_;
  FakeAsker asker_;  // outlives the endpoint
  std::uint8_t made_ = 0;
  std::string last_id_;  // of the last token made
  mutable std::mutex mutex_;
  std::vector<MakeOpening> opened_;
  std::set<policy::PublishKey> used_;
  std::uint64_t told_ = 0;  // how often of what is used
  std::unique_ptr<Endpoint> endpoint_;
};

}  // namespace meshd::proxy
