// The token file as it is now: read again when it has changed.
//
// Threads:   one.
// Invariant: a file that cannot be read leaves the people that were there; one that is gone leaves
//            nobody.
// Errors:    as read_people(), once for each change of the file.
#pragma once

#include <sys/stat.h>

#include <string>

#include "base/result.h"
#include "proxy/people.h"

namespace meshd::proxy {

class PeopleSource {
 public:
  explicit PeopleSource(std::string path) : path_(std::move(path)) {}

  // Costs one stat() when nothing has changed. True: there are other people than before.
  [[nodiscard]] Result<bool> refresh();
  [[nodiscard]] const People& people() const { return people_; }

 private:
  struct Mark {
    bool exists = false;
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t changed_ns = 0;
    bool operator==(const Mark&) const = default;
  };
  [[nodiscard]] Mark mark() const;

  const std::string path_;
  Mark seen_;
  // The file was changed a moment before it was read: another change may bear the same time.
  bool again_ = true;
  std::string error_;  // said of the file as it is
  People people_;
};

}  // namespace meshd::proxy
