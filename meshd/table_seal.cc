#include "meshd/table_seal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

namespace meshd {
namespace {

constexpr std::string_view kMark = "meshd-table-seal 1 ";
constexpr std::size_t kMaxBytes = 256;

// One line that fits this boot only. Its sum tells a line that was not written to the end.
std::string line_of(const TableSeal& seal, std::string_view boot) {
  auto line = fmt::format("{}{} {:016x} {:016x} {:016x} {:08x} ", kMark, boot, seal.netns,
                          seal.shape, seal.elements, seal.generation);
  return fmt::format("{}{:016x}\n", line, seal_hash(std::as_bytes(std::span(line))));
}

template <typename Number>
bool take(std::string_view& text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end == text.data() + text.size() || *end != ' ') return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  return true;
}

}  // namespace

std::uint64_t seal_hash(std::span<const std::byte> bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const auto byte : bytes) {
    hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3;
  }
  return hash;
}

Result<SealFile> SealFile::open(const std::string& dir, std::string boot) {
  const auto path = dir + "/" + kName;
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  struct stat info{};
  if (!file || fstat(file.get(), &info) != 0) return fail_errno("open " + path, errno);
  if (!S_ISREG(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 022) != 0) {
    return fail(ErrorCode::kInvalid, path + ": not a file that only we can write to");
  }
  return SealFile(std::move(file), std::move(boot));
}

std::optional<TableSeal> SealFile::read() const {
  std::array<char, kMaxBytes> bytes{};
  const auto size = pread(file_.get(), bytes.data(), bytes.size(), 0);
  if (size <= 0) return std::nullopt;
  const std::string_view all(bytes.data(), static_cast<std::size_t>(size));
  auto rest = all;
  const auto skip = [&rest](std::string_view word) {
    if (!rest.starts_with(word)) return false;
    rest.remove_prefix(word.size());
    return true;
  };
  TableSeal seal;
  if (!skip(kMark) || !skip(boot_) || !skip(" ") || !take(rest, seal.netns) ||
      !take(rest, seal.shape) || !take(rest, seal.elements) || !take(rest, seal.generation)) {
    return std::nullopt;
  }
  // Written anew, it must be the same to the last byte.
  if (line_of(seal, boot_) != all) return std::nullopt;
  return seal;
}

void SealFile::write(const TableSeal& seal) const {
  const auto line = line_of(seal, boot_);  // always of one length
  [[maybe_unused]] const auto written = pwrite(file_.get(), line.data(), line.size(), 0);
}

}  // namespace meshd
