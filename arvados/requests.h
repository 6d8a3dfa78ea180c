// From what the API lists to what the controller declares: one workload for each container that
// has not ended, and the names that links give to ports. Pure.
//
// Identity:  id is the container, owner who last changed its request (as upstream has it),
//            workflow the container that asked for it. The rest is the author's: published_ports,
//            and `properties.meshd`, where the two are about the same port.
// Several requests on one container (upstream lets requests share one that does the same): its
//            owner's oldest speaks. The owner is whoever it was declared for first, and stays so:
//            who adds a request to another's container gets no say in it, neither when the others
//            are gone. Where requests of several users are there before it was declared, nobody
//            can tell whose it is (a request may be older than its commitment): it is closed.
// Invariant: no request can stop another one. What is wrong with one makes its workload closed:
//            declared with owner and workflow, calling and serving nobody, with the reason kept.
// Threads:   any.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "arvados/answers.h"
#include "policy/declaration.h"

namespace meshd::arvados {

// Requests by container, as pages of them come in.
class RequestSet {
 public:
  void add(ContainerRequest request);
  // The oldest request of each user on each container.
  using ByUser = std::map<std::string, ContainerRequest>;
  [[nodiscard]] const std::map<std::string, ByUser>& by_container() const { return by_container_; }

 private:
  std::map<std::string, ByUser> by_container_;
  std::map<std::string, std::size_t> bytes_;  // of declarations, by user
};

struct Listing {
  RequestSet requests;
  std::vector<PortLink> links;
  // Containers that were known and not listed, and have ended by the API's own word.
  std::set<std::string> ended;
};

struct Listed {
  policy::Declaration declaration;
  bool draining = false;  // its author gave it up: priority 0
  std::string request;
  bool is_service = false;  // its author calls it one: shown, and decides nothing
  std::string problem;      // why it is closed; empty: it is not
};
struct PortName {
  std::string container, request;
  std::uint16_t port = 0;
  bool operator==(const PortName&) const = default;
};
struct LinkProblem {
  std::string request, why;
};
struct Site {
  using ByOwner = std::map<std::string, Listed>;
  std::map<std::string, ByOwner> workloads;          // by container
  std::map<std::string, PortName> names;             // whose request has a container now
  std::set<std::string> ended_names;                 // of links whose request has none
  std::map<std::string, LinkProblem> link_problems;  // by the link's uuid

  // What speaks for a workload of that owner; null when nothing does.
  [[nodiscard]] const Listed* find(const std::string& container, const std::string& owner) const;
};
[[nodiscard]] Site site_of(const Listing& listing);
[[nodiscard]] Listed listed(const ContainerRequest& request);

// The same workload with nothing that its author said: for one that cannot be declared otherwise,
// since another one has its name.
[[nodiscard]] policy::Declaration closed(const policy::Declaration& declaration);

// What the controller has of Arvados' containers.
struct Declared {
  policy::Declaration declaration;
  bool draining = false;
  // Empty: several users' were there when it was declared. Nobody's speaks for it, ever.
  std::string request;
  bool is_service = false;
};
struct Steps {
  // In any order, each by itself: one that is refused shall not stop the others.
  std::vector<Listed> declare;
  std::vector<std::string> forget;
  std::map<std::string, std::string> problems;  // by container: why it is closed, or stays as it is
  [[nodiscard]] bool empty() const { return declare.empty() && forget.empty(); }
};
// Of a part of them as well: only who has ended is forgotten.
[[nodiscard]] Steps difference(const std::map<std::string, Declared>& have, const Site& want,
                               const std::set<std::string>& ended);

}  // namespace meshd::arvados
