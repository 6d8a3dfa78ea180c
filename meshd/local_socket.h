// A Unix socket whose connections are taken on a thread of its own and handed over as
// descriptors, so that whoever serves them can ask the kernel who is at the other end.
//
// Threads:   made and destroyed by its owner; `Take` runs on the socket's thread.
// Owns:      the socket, its file (gone with it) and the thread, which ends first.
// Invariant: the file is made under a tight umask, which is the process's: before any other
//            thread makes files.
// Errors:    kSystem; while descriptors are short, connections wait and the others live.
// Source:    unix(7): SO_PEERCRED is who called connect(2), whatever happens to it later.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "meshd/api.h"

namespace meshd {

// Of the process that connected; nothing when `fd` is no Unix socket.
[[nodiscard]] std::optional<Caller> caller_of(int fd);

class LocalSocket {
 public:
  using Take = std::move_only_function<void(UniqueFd)>;
  // At most `most` connections at a time; others wait in the kernel's queue.
  [[nodiscard]] static Result<std::unique_ptr<LocalSocket>> listen(const std::string& path,
                                                                   std::size_t most, Take take);
  LocalSocket(const LocalSocket&) = delete;
  LocalSocket& operator=(const LocalSocket&) = delete;
  ~LocalSocket();

 private:
  LocalSocket(std::string path, UniqueFd socket, UniqueFd stop, std::size_t most, Take take);
  void run();
  [[nodiscard]] bool accept_one();
  [[nodiscard]] bool has_room();

  const std::string path_;
  const UniqueFd socket_, stop_;
  const std::size_t most_;
  Take take_;
  // Handed over and perhaps open still: a socket's inode tells whether a number is it yet.
  std::vector<std::pair<int, ino_t>> open_;
  std::jthread thread_;  // after what it uses
};

}  // namespace meshd
