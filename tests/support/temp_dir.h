// A directory of the test's own, gone with everything in it at the end.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace meshd {

class TempDir {
 public:
  TempDir() {
    std::error_code error;
    path_ = std::filesystem::temp_directory_path(error).string() + "/meshd-test-XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) std::abort();  // no test can go on without
  }
  ~TempDir() {
    std::error_code error;  // left-overs of a failed test are all that could stay
    std::filesystem::remove_all(path_, error);
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
