// Nodes with a ticket or an identity, and controllers for them.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "pki/grpc_credentials.h"
#include "pki/join_ticket.h"
#include "tests/support/fake_controller.h"
#include "tests/support/link_driver.h"
#include "tests/support/temp_dir.h"

namespace meshd::test {

class LinkFixture : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(pki::require_tls13()); }

  // Quick to come back, so that tests do not wait.
  [[nodiscard]] static LinkTimes quick() {
    LinkTimes times;
    times.settled = {};
    times.refused_pause = std::chrono::milliseconds(50);
    times.longest_refused_pause = std::chrono::milliseconds(100);
    return times;
  }
  void write_ticket(const FakeController& controller, const std::string& token,
                    const pki::SampleAuthority& authority, const std::string& cluster = "lab",
                    mode_t mode = 0600) {
    const auto text = pki::encode_ticket({.join_addresses = {controller.join_address()},
                                          .addresses = {controller.address()},
                                          .authorities = {authority.list(), cluster},
                                          .token = token});
    ASSERT_TRUE(text) << text.error().what;
    std::ofstream(ticket_) << *text << "\n";
    ASSERT_EQ(chmod(ticket_.c_str(), mode), 0);
  }
  // A node that joins with the ticket.
  [[nodiscard]] LinkOptions joining() const {
    return {.node = "n1",
            .controller = {.addresses = {},
                           .join_file = ticket_,
                           .authorities_file = {},
                           .identity_file = {}},
            .files = files_,
            .times = quick()};
  }
  // A node that has its identity from elsewhere.
  [[nodiscard]] LinkOptions known(std::vector<std::string> addresses) {
    const auto files = authority_.write(dir_.path(), node_, pki::real_now());
    return {.node = "n1",
            .controller = {.addresses = std::move(addresses),
                           .join_file = {},
                           .authorities_file = files.authorities,
                           .identity_file = files.identity},
            .files = files,
            .times = quick()};
  }
  [[nodiscard]] pki::UtcTime expiry() const {
    const auto stored = pki::read_identity(files_);
    return stored ? stored->certificate.not_after : pki::UtcTime();
  }

  TempDir dir_;
  const std::string ticket_ = dir_ / "ticket";
  const pki::IdentityFiles files_{dir_ / "identity.pem", dir_ / "authorities.pem"};
  const pki::Holder node_ = pki::holder_of("lab", pki::Role::kNode, "n1");
  const pki::SampleAuthority authority_{pki::real_now()};
};

}  // namespace meshd::test
