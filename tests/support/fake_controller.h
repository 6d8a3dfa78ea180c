// A controller of the test's own behind real gRPC ports with real certificates: lets nodes
// join, renews, and plays one of a few parts in sessions.
//
// Threads: gRPC's synchronous server, a thread for each call; everything here from any thread.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "proto/controller.pb.h"
#include "tests/support/pki_samples.h"

namespace meshd::test {

struct FakePorts {
  std::string address = "127.0.0.1";
  int cluster = 0, join = 0;  // 0: any; afterwards those that were got
};

class FakeController {
 public:
  enum class Part {
    kAnswer,    // Welcome, then ReportTaken for each Report
    kMute,      // takes Hello and says nothing
    kDeaf,      // Welcome, then reads nothing
    kFarewell,  // Farewell in place of Welcome
    kWave,      // Welcome, and Farewell after it
    kDrop,      // Welcome, and the end without a word
    kFreeze,    // as kAnswer, and its process stops right after each answer
  };
  static constexpr const char* kToken = "id.secret";

  FakeController(const pki::SampleAuthority& authority, const std::string& folder,
                 const FakePorts& ports = {}, const std::string& name = "c1",
                 const std::string& cluster = "lab");
  ~FakeController();
  FakeController(const FakeController&) = delete;
  FakeController& operator=(const FakeController&) = delete;

  void start();  // on the same ports as before
  void stop();
  [[nodiscard]] std::string address() const;
  [[nodiscard]] std::string join_address() const;
  // What nodes said after Hello.
  [[nodiscard]] std::vector<mesh::v1::FromNode> heard();

  std::atomic<Part> part = Part::kAnswer;
  std::atomic<std::uint32_t> retry_after_ms = 0;
  std::atomic<int> lifetime_s = 24 * 3600;  // of the certificates that it gives
  std::atomic<bool> renews = true;
  std::atomic<int> enrolled = 0, renewed = 0, renew_tries = 0;
  std::atomic<int> sessions = 0, open = 0, received = 0;

 private:
  struct Ports;
  std::unique_ptr<Ports> ports_;
};

}  // namespace meshd::test
