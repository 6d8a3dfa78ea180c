// A directory of the test's own, gone with everything in it at the end.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace meshd {

class TempDir {
 public:
  TempDir() : TempDir(std::filesystem::temp_directory_path().string()) {}
  explicit TempDir(const std::string& parent) : path_(parent + "/meshd-test-XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) std::abort();  // no test can go on without
  }
  ~TempDir() {
    std::error_code error;  // left-overs of a failed test are all that could stay
    std::filesystem::remove_all(path_, error);
  }
  // In memory where the host has that: for many small files whose disk would only wait.
  static std::string memory() {
    if (access("/dev/shm", W_OK | X_OK) == 0) return "/dev/shm";
    return std::filesystem::temp_directory_path().string();
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(std::string_view name) const {
    return path_ + "/" + std::string(name);
  }

 private:
  std::string path_;
};

}  // namespace meshd
