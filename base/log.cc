#include "base/log.h"

#include <poll.h>
#include <spdlog/details/log_msg.h>
#include <spdlog/pattern_formatter.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <functional>
#include <memory>
#include <mutex>

namespace meshd::log {
namespace {

// Length of the UTF-8 sequence that `text` begins with; 0 when it is none, or when it is a
// control character. Source: RFC 3629 section 4.
std::size_t printable_length(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto tail = [&](std::size_t i) { return i < text.size() && (at(i) & 0xc0) == 0x80; };
  const unsigned char c = at(0);
  if (c < 0x80) return c >= 0x20 && c != 0x7f ? 1 : 0;
  if (c >= 0xc2 && c <= 0xdf) {
    return tail(1) && (c != 0xc2 || at(1) >= 0xa0) ? 2 : 0;  // below: C1 controls
  }
  if (c >= 0xe0 && c <= 0xef) {
    if (!tail(1) || !tail(2)) return 0;
    if (c == 0xe0 && at(1) < 0xa0) return 0;  // overlong
    if (c == 0xed && at(1) > 0x9f) return 0;  // surrogate
    // U+2028, U+2029 and the direction overrides would change how the line is shown.
    const bool steers = c == 0xe2 && at(1) == 0x80 && at(2) >= 0xa8 && at(2) <= 0xae;
    return steers ? 0 : 3;
  }
  if (c >= 0xf0 && c <= 0xf4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (c == 0xf0 && at(1) < 0x90) return 0;
    return c == 0xf4 && at(1) > 0x8f ? 0 : 4;
  }
  return 0;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

char priority(Level level) {  // syslog(3)
  switch (level) {
    case Level::kDebug:
      return '7';
    case Level::kInfo:
      return '6';
    case Level::kWarning:
      return '4';
    case Level::kError:
      return '3';
  }
  return '3';
}

// Of a text that is printable already, only these two mean something to JSON.
std::string json_escaped(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 8);
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// Some bytes to stderr, if it takes them now: the main loop does not wait for who reads it.
// Others may share the descriptor, so it stays blocking: a pipe with room takes PIPE_BUF at
// once (pipe(7)).
ssize_t write_some(std::string_view bytes) {
  const auto sent = send(STDERR_FILENO, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0 || errno != ENOTSOCK) return sent;
  pollfd room{STDERR_FILENO, POLLOUT, 0};
  if (poll(&room, 1, 0) <= 0 || (room.revents & POLLOUT) == 0) return -1;
  return ::write(STDERR_FILENO, bytes.data(), std::min<std::size_t>(bytes.size(), PIPE_BUF));
}

class Writer {
 public:
  Writer() { set(Level::kInfo, Format::kText); }

  void set(Level level, Format format) {
    const std::lock_guard lock(mutex_);
    level_ = level;
    format_ = format;
    formatter_ = std::make_unique<spdlog::pattern_formatter>(pattern(format),
                                                             spdlog::pattern_time_type::utc);
  }

  void write(Level level, std::string_view message, bool always = false) {
    const std::lock_guard lock(mutex_);
    if (always) return emit(level, printable(message));
    if (level < level_) return;
    auto& budget = level >= Level::kWarning ? trouble_ : ordinary_;
    const auto verdict = budget.admit(message, BootClock::now());
    if (!verdict.admitted) return;
    if (verdict.suppressed > 0) {
      emit(Level::kWarning, fmt::format("log: {} lines suppressed", verdict.suppressed));
    }
    emit(level, printable(message));
  }

 private:
  static const char* pattern(Format format) {
    switch (format) {
      case Format::kText:
        return "%Y-%m-%dT%H:%M:%S.%eZ %l: %v";
      case Format::kJournal:
        return "%v";
      case Format::kJson:
        return R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","message":"%v"})";
    }
    return "%v";
  }

  void emit(Level level, std::string text) {
    if (lost_ > 0 &&
        put(Level::kWarning, fmt::format("log: {} lines could not be written", lost_))) {
      lost_ = 0;
    }
    if (lost_ > 0 || !put(level, std::move(text))) ++lost_;
  }

  // False: not, or not all of it.
  bool put(Level level, std::string text) {
    if (format_ == Format::kJournal) text = fmt::format("<{}>{}", priority(level), text);
    if (format_ == Format::kJson) text = json_escaped(text);
    spdlog::memory_buf_t buffer;
    if (torn_) buffer.push_back('\n');
    formatter_->format({spdlog::source_loc{}, "meshd", to_spdlog(level), text}, buffer);
    std::string_view rest(buffer.data(), buffer.size());
    while (!rest.empty()) {
      const auto written = write_some(rest);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) break;
      rest.remove_prefix(static_cast<std::size_t>(written));
    }
    if (rest.size() < buffer.size()) torn_ = !rest.empty();
    return rest.empty();
  }

  std::mutex mutex_;
  Level level_ = Level::kInfo;
  Format format_ = Format::kText;
  std::unique_ptr<spdlog::pattern_formatter> formatter_;
  LineBudget ordinary_, trouble_;  // a storm of the former leaves room for the latter
  std::uint64_t lost_ = 0;         // since the last line that was written
  bool torn_ = false;              // the last line ended in its middle
};

// Never destroyed: other static objects may log as they go.
Writer& writer() {
  static auto* const instance = new Writer;
  return *instance;
}

}  // namespace

void init(Level level, Format format) { writer().set(level, format); }
void write(Level level, std::string_view message) { writer().write(level, message); }
void audit(std::string_view message) { writer().write(Level::kInfo, message, true); }

std::string printable(std::string_view message) {
  const bool cut = message.size() > kMaxMessageBytes;
  message = message.substr(0, kMaxMessageBytes);
  std::string out;
  out.reserve(message.size());
  while (!message.empty()) {
    const std::size_t length = printable_length(message);
    if (length > 0) {
      out += message.substr(0, length);
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(message[0]));
    }
    message.remove_prefix(std::max<std::size_t>(length, 1));
  }
  if (cut) out += " [cut]";
  return out;
}

void LineBudget::Bucket::fill(int per_second, TimePoint now) {
  const double full = per_second;
  if (tokens < 0) {
    tokens = full;
    filled = now;
  } else if (now > filled) {
    const std::chrono::duration<double> passed = now - filled;
    tokens = std::min(full, tokens + passed.count() * per_second);
    filled = now;
  }
}

LineBudget::Verdict LineBudget::admit(std::string_view message, TimePoint now) {
  const auto head = message.substr(0, std::min<std::size_t>(message.find(':'), 32));
  Bucket& alike = alike_[std::hash<std::string_view>{}(head) % kBuckets];
  alike.fill(kAlikePerSecond, now);
  all_.fill(kLinesPerSecond, now);
  // The line that says how many were lost counts like any other.
  const double price = suppressed_ > 0 ? 2 : 1;
  if (alike.tokens < price || all_.tokens < price) {
    ++suppressed_;
    return {};
  }
  alike.tokens -= price;
  all_.tokens -= price;
  return {true, std::exchange(suppressed_, 0)};
}

}  // namespace meshd::log
