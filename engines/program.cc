#include "engines/program.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "engines/json.h"
#include "engines/limits.h"

namespace meshd::engines {
namespace {

constexpr auto kGrace = std::chrono::milliseconds(500);

int last_fd = 2;
std::string_view last_text;

void say_and_end(int) {
  // Nobody is left to hear of a failure.
  [[maybe_unused]] const auto wrote = write(last_fd, last_text.data(), last_text.size());
  _exit(1);
}

bool is_high(char c) { return static_cast<unsigned char>(c) >= 0x80; }

// What a cut has left of a character of several bytes.
void drop_begun_character(std::string& line) {
  const auto is_lead = [](char c) { return static_cast<unsigned char>(c) >= 0xc0; };
  const auto lead =
      std::find_if(line.rbegin(), line.rend(), [&](char c) { return is_lead(c) || !is_high(c); });
  if (lead != line.rend() && is_lead(*lead)) line.erase(std::prev(lead.base()), line.end());
}

std::string or_default(const char* variable, std::string otherwise) {
  const char* const value = std::getenv(variable);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

}  // namespace

Result<Places> take_places(std::vector<std::string>& arguments) {
  Places places;
  places.run_dir = or_default("MESHD_RUN_DIR", places.run_dir);
  places.state_dir = or_default("MESHD_STATE_DIR", places.state_dir);
  std::vector<std::string> rest;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const bool is_run_dir = arguments[i] == "--run-dir";
    if (!is_run_dir && arguments[i] != "--state-dir") {
      rest.push_back(arguments[i]);
      continue;
    }
    if (i + 1 == arguments.size())
      return fail(ErrorCode::kInvalid, arguments[i] + ": needs a path");
    auto& place = is_run_dir ? places.run_dir : places.state_dir;
    place = arguments[++i];
    if (!place.starts_with('/')) return fail(ErrorCode::kInvalid, place + ": must be absolute");
  }
  arguments = std::move(rest);
  return places;
}

void end_after_deadline(int fd, std::string_view last_words) {
  last_fd = fd;
  last_text = last_words;
  struct sigaction action{};
  action.sa_handler = say_and_end;
  sigaction(SIGALRM, &action, nullptr);
  const auto after = std::chrono::duration_cast<std::chrono::microseconds>(kDeadline + kGrace);
  itimerval timer{};
  timer.it_value.tv_sec = static_cast<time_t>(after.count() / 1'000'000);
  timer.it_value.tv_usec = static_cast<suseconds_t>(after.count() % 1'000'000);
  setitimer(ITIMER_REAL, &timer, nullptr);
}

void forget_deadline() {
  const itimerval never{};
  setitimer(ITIMER_REAL, &never, nullptr);
}

std::string printable(std::string_view text) {
  std::string line;
  for (const char c : text.substr(0, kMaxMessageBytes)) {
    line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  if (text.size() > kMaxMessageBytes) drop_begun_character(line);
  if (is_utf8(line)) return line;
  std::ranges::replace_if(line, [](char c) { return is_high(c); }, '?');
  return line;
}

}  // namespace meshd::engines
