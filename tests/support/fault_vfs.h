// A file layer for SQLite that fails where a test says, and that forgets, as a disk does
// at a power loss, what was written and not yet synced. Registered as "fault".
//
// Threads: one.
// Units:   operations count writes, truncations, syncs and deletions, from 1.
// Source:  sqlite.org/c3ref/io_methods.html.
#pragma once

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace meshd {

class FaultVfs {
 public:
  static constexpr const char* kName = "fault";

  static FaultVfs& instance() {
    static FaultVfs vfs;
    return vfs;
  }

  // No faults, nothing remembered.
  void reset() {
    operations_ = 0;
    fail_at_ = 0;
    crashed_ = crash_ = torn_ = false;
    unsynced_.clear();
  }
  // The n-th operation from now fails with `error`, those after it succeed.
  void fail_once(int n, int error) { arm(n, error, /*crash=*/false); }
  // The n-th operation fails and all after it: the process is as good as dead. When torn, a
  // failing write has written its first half.
  void crash_at(int n, bool torn) {
    arm(n, SQLITE_IOERR_WRITE, /*crash=*/true);
    torn_ = torn;
  }
  [[nodiscard]] int operations() const { return operations_; }
  [[nodiscard]] bool fired() const { return fail_at_ != 0 && operations_ >= fail_at_; }

  // After the files were closed: of what was not synced a random part is lost, by sectors.
  void lose_unsynced(unsigned seed) {
    std::mt19937 random(seed);
    for (auto write = unsynced_.rbegin(); write != unsynced_.rend(); ++write) {
      const UniqueFd fd(open(write->path.c_str(), O_RDWR | O_CLOEXEC));
      if (!fd) continue;
      for (std::size_t at = 0; at < write->before.size(); at += kSector) {
        if (random() % 2 == 0) continue;
        const auto size = std::min(kSector, write->before.size() - at);
        if (pwrite(fd.get(), write->before.data() + at, size,
                   write->offset + static_cast<off_t>(at)) < 0) {
          return;
        }
      }
    }
    unsynced_.clear();
  }

 private:
  struct Unsynced {
    std::string path;
    off_t offset;
    std::string before;  // zeros where the file ended
  };
  struct File {
    sqlite3_file base;
    const char* path;
    sqlite3_file* real;
  };
  static constexpr std::size_t kSector = 512;

  FaultVfs() : real_(sqlite3_vfs_find(nullptr)), vfs_(*real_) {
    vfs_.zName = kName;
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.xOpen = on_open;
    vfs_.xDelete = on_delete;
    sqlite3_vfs_register(&vfs_, 0);
    // Version 1: no shared memory, which the store does without, and no mapped files.
    methods_.iVersion = 1;
    methods_.xClose = [](sqlite3_file* f) { return real(f)->pMethods->xClose(real(f)); };
    methods_.xRead = [](sqlite3_file* f, void* to, int size, sqlite3_int64 at) {
      return real(f)->pMethods->xRead(real(f), to, size, at);
    };
    methods_.xWrite = on_write;
    methods_.xTruncate = on_truncate;
    methods_.xSync = on_sync;
    methods_.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
      return real(f)->pMethods->xFileSize(real(f), size);
    };
    methods_.xLock = [](sqlite3_file* f, int l) { return real(f)->pMethods->xLock(real(f), l); };
    methods_.xUnlock = [](sqlite3_file* f, int l) {
      return real(f)->pMethods->xUnlock(real(f), l);
    };
    methods_.xCheckReservedLock = [](sqlite3_file* f, int* out) {
      return real(f)->pMethods->xCheckReservedLock(real(f), out);
    };
    methods_.xFileControl = [](sqlite3_file* f, int op, void* arg) {
      return real(f)->pMethods->xFileControl(real(f), op, arg);
    };
    methods_.xSectorSize = [](sqlite3_file*) { return static_cast<int>(kSector); };
    // Nothing promised: neither atomic sectors nor appends that are safe in order.
    methods_.xDeviceCharacteristics = [](sqlite3_file*) { return 0; };
  }

  void arm(int n, int error, bool crash) {
    operations_ = 0;
    fail_at_ = n;
    error_ = error;
    crash_ = crash;
    crashed_ = torn_ = false;
  }
  // The error that this operation meets, or SQLITE_OK.
  int next() {
    ++operations_;
    if (crashed_) return error_;
    if (operations_ != fail_at_) return SQLITE_OK;
    crashed_ = crash_;
    return error_;
  }

  static sqlite3_file* real(sqlite3_file* file) { return reinterpret_cast<File*>(file)->real; }

  static int on_open(sqlite3_vfs*, const char* name, sqlite3_file* out, int flags, int* got) {
    auto& self = instance();
    auto* const file = reinterpret_cast<File*>(out);
    file->base.pMethods = nullptr;
    file->path = name;
    file->real = reinterpret_cast<sqlite3_file*>(file + 1);
    const int error = self.real_->xOpen(self.real_, name, file->real, flags, got);
    if (error == SQLITE_OK) file->base.pMethods = &self.methods_;
    return error;
  }
  static int on_delete(sqlite3_vfs*, const char* name, int /*sync*/) {
    auto& self = instance();
    if (const int error = self.next(); error != SQLITE_OK) return SQLITE_IOERR_DELETE;
    std::erase_if(self.unsynced_, [&](const auto& write) { return write.path == name; });
    return self.real_->xDelete(self.real_, name, /*syncDir=*/0);
  }
  static int on_write(sqlite3_file* f, const void* data, int size, sqlite3_int64 at) {
    auto& self = instance();
    const int error = self.next();
    if (error != SQLITE_OK) {
      size = self.torn_ && self.operations_ == self.fail_at_ ? size / 2 : 0;
    }
    if (size > 0) {
      self.remember(f, at, size);
      const int done = real(f)->pMethods->xWrite(real(f), data, size, at);
      if (done != SQLITE_OK) return done;
    }
    return error;
  }
  static int on_truncate(sqlite3_file* f, sqlite3_int64 size) {
    auto& self = instance();
    if (self.next() != SQLITE_OK) return SQLITE_IOERR_TRUNCATE;
    sqlite3_int64 old = 0;
    real(f)->pMethods->xFileSize(real(f), &old);
    if (old > size) self.remember(f, size, static_cast<int>(old - size));
    return real(f)->pMethods->xTruncate(real(f), size);
  }
  // Not handed on: for the test the file is on disk when `unsynced_` forgets it.
  static int on_sync(sqlite3_file* f, int) {
    auto& self = instance();
    if (self.next() != SQLITE_OK) return SQLITE_IOERR_FSYNC;
    const std::string path = reinterpret_cast<File*>(f)->path;
    std::erase_if(self.unsynced_, [&](const auto& write) { return write.path == path; });
    return SQLITE_OK;
  }
  void remember(sqlite3_file* f, sqlite3_int64 at, int size) {
    const auto* const path = reinterpret_cast<File*>(f)->path;
    if (path == nullptr) return;  // a temporary file
    std::string before(static_cast<std::size_t>(size), '\0');
    // Past the end this fills with zeros, and says so by an error that means nothing here.
    real(f)->pMethods->xRead(real(f), before.data(), size, at);
    unsynced_.push_back({path, at, std::move(before)});
  }

  sqlite3_vfs* real_;
  sqlite3_vfs vfs_;
  sqlite3_io_methods methods_{};
  int operations_ = 0;
  int fail_at_ = 0;
  int error_ = SQLITE_OK;
  bool crash_ = false, crashed_ = false, torn_ = false;
  std::vector<Unsynced> unsynced_;
};

}  // namespace meshd
