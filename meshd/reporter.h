// What the controller is told of this node: containers that are attached, whole at the beginning
// of a session and then by differences. Pure.
//
// Invariant: next() is asked only when all of the world is in force: nothing is reported that is
//            merely planned. What the controller did not believe counts as not reported, and goes
//            again with the workload's next change.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "policy/types.h"
#include "proto/controller.pb.h"

namespace meshd {

class Reporter {
 public:
  // A session begins: the other end knows nothing of this node for certain.
  void begin();
  // Workloads that may be another than when they were reported.
  void note(const std::set<std::string>& ids) { dirty_.insert(ids.begin(), ids.end()); }
  void note_all() { all_dirty_ = true; }
  // What is to be sent; nothing: the other end has it, or will when it has taken what was sent.
  [[nodiscard]] std::optional<mesh::v1::Report> next(const policy::World& world,
                                                     std::uint64_t generation);
  void taken(const mesh::v1::ReportTaken& taken);

  // The generation that the controller knows.
  [[nodiscard]] std::uint64_t reported() const { return reported_; }
  // What it did not believe, and why, by workload id.
  [[nodiscard]] const std::map<std::string, std::string>& refused() const { return refused_; }

 private:
  void check(const policy::World& world, const std::string& id, mesh::v1::Report& report);

  std::map<std::string, std::string> sent_;  // bytes by id, of those that are attached
  std::set<std::string> dirty_;
  bool all_ = true, all_dirty_ = false;
  std::uint64_t number_ = 0, taken_ = 0;  // of reports in this session
  std::uint64_t covered_ = 0;             // by the last report: the generation
  std::uint64_t reported_ = 0;
  std::map<std::string, std::string> refused_;
};

}  // namespace meshd
