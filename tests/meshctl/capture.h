// A place that catches what is printed.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "base/unique_fd.h"

namespace meshd::ctl {

// Where run() writes to, readable at any time.
class Capture {
 public:
  Capture() : fd_(memfd_create("stdout", MFD_CLOEXEC)) {}
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::string text() const {
    std::string text(static_cast<std::size_t>(lseek(fd_.get(), 0, SEEK_CUR)), '\0');
    EXPECT_EQ(pread(fd_.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    return text;
  }

 private:
  UniqueFd fd_;
};

}  // namespace meshd::ctl
