// ./dev bench cluster: a controller under the load of its nodes. Reads commands, one a line, and
// answers each with one line of JSON; bench/cluster.py gives them and looks at the controller's
// process meanwhile.
//
//   declare                    every workload, in applies of some hundred
//   connect                    all nodes at once, until each has all that is its own
//   leave                      nobody comes again; to be said before the controller is killed
//   gone                       until every node has noticed that it is away
//   idle MS                    listens
//   change KIND COUNT RATE     so many changes, so many a second; see Load::begin()
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <sstream>

#include "bench/cluster_fleet.h"
#include "bench/must.h"
#include "controller/store.h"
#include "pki/grpc_credentials.h"

namespace meshd::bench {
namespace {

using std::chrono::milliseconds;

constexpr int kWorkloadsPerApply = 400;
// With all nodes: what they hear of each other grows with their square.
constexpr auto kPatience = std::chrono::seconds(60);
constexpr auto kPatienceWithEach = std::chrono::milliseconds(80);
constexpr auto kLongest = std::chrono::seconds(20);  // with one change

double ms(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

std::string quantiles(std::vector<double> values) {
  if (values.empty()) return "null";
  std::ranges::sort(values);
  const auto at = [&](double part) {
    const auto index = static_cast<std::size_t>(part * static_cast<double>(values.size()));
    return values[std::min(index, values.size() - 1)];
  };
  return fmt::format(R"({{"p50_ms":{:.2f},"p99_ms":{:.2f},"worst_ms":{:.2f}}})", at(0.5), at(0.99),
                     values.back());
}

// A change that is under way: it is over when everybody concerned has it.
struct Change {
  std::string kind;
  int container = 0;
  Clock::time_point begun, reported;
  std::set<int> waiting;    // nodes
  std::set<int> providers;  // whose flow to it is to be confirmed
  int to = -1;              // where it moves
};

class Load final : private FleetEvents {
 public:
  Load(int nodes, const std::string& dir)
      : world_(nodes),
        other_way_(static_cast<std::size_t>(world_.containers())),
        fleet_(Fleet::make(world_, must(pki::decode_ticket(text_of(dir + "/join.ticket"))),
                           text_of(dir + "/admin.pem"), *this)) {}

  // Nodes that do not listen are missed after some seconds.
  void listen(milliseconds time) { fleet_->run_until(Clock::now() + time); }

  std::string command(const std::string& line) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "declare") return declare();
    if (word == "connect") return connect();
    if (word == "leave") return fleet_->stay_away(), "{}";
    if (word == "gone") return gone();
    int first = 0;
    double second = 0;
    if (word == "idle" && words >> first) return idle(milliseconds(first));
    if (word == "change" && words >> word >> first >> second) return change(word, first, second);
    die("no command: " + line);
  }

 private:
  static std::string text_of(const std::string& path) {
    std::ifstream file(path);
    if (!file) die("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // --- the cluster -------------------------------------------------------------------

  std::string declare() {
    const auto begun = Clock::now();
    int applies = 0;
    for (int first = 0; first < world_.containers(); first += kWorkloadsPerApply) {
      std::string yaml;
      const int end = std::min(first + kWorkloadsPerApply, world_.containers());
      for (int i = first; i < end; ++i) yaml += ClusterWorld::declaration(i, false);
      acknowledged_ = false;
      fleet_->apply(yaml, -1);
      await([&] { return acknowledged_; }, "an apply is acknowledged");
      ++applies;
    }
    return fmt::format(R"({{"seconds":{:.2f},"applies":{}}})", ms(Clock::now() - begun) / 1000,
                       applies);
  }

  std::string connect() {
    const auto begun = Clock::now();
    const auto before = fleet_->counts();
    fleet_->connect_all();
    await([&] { return fleet_->connected() == world_.nodes(); }, "all nodes are connected");
    const auto connected = ms(Clock::now() - begun) / 1000;
    await([&] { return fleet_->complete() == world_.nodes(); }, "all nodes have their slices");
    const auto& counts = fleet_->counts();
    return fmt::format(
        R"({{"connected_s":{:.2f},"complete_s":{:.2f},"changes":{},"items":{},"slice_bytes":{},)"
        R"("lost":{}}})",
        connected, ms(Clock::now() - begun) / 1000, counts.changes - before.changes,
        counts.items - before.items, counts.bytes - before.bytes, counts.lost - before.lost);
  }

  std::string gone() {
    await([&] { return fleet_->busy() == 0; }, "all nodes have noticed");
    return "{}";
  }

  std::string idle(milliseconds time) {
    const auto before = fleet_->counts().changes;
    fleet_->run_until(Clock::now() + time);
    return fmt::format(R"({{"changes":{}}})", fleet_->counts().changes - before);
  }

  template <class Until>
  void await(Until until, const std::string& what) {
    const auto patience = kPatience + kPatienceWithEach * world_.nodes();
    const auto end = Clock::now() + patience;
    while (!until()) {
      if (Clock::now() > end) {
        die(fmt::format("not within {} s: {} ({})", ms(patience) / 1000, what, sessions()));
      }
      fleet_->run_until(Clock::now() + milliseconds(10));
    }
  }

  std::string sessions() const {
    return fmt::format("{} of {} nodes connected, {} have all, {} sessions lost: {}",
                       fleet_->connected(), world_.nodes(), fleet_->complete(),
                       fleet_->counts().lost, fleet_->last_loss());
  }

  // --- changes -----------------------------------------------------------------------

  std::string change(const std::string& kind, int count, double rate) {
    all_.clear();
    flows_.clear();
    each_.clear();
    acknowledgements_.clear();
    const auto before = fleet_->counts();
    unexpected_ = 0;
    const auto begun = Clock::now();
    const auto every =
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / rate));
    for (int done = 0; done < count; ++done) {
      fleet_->run_until(begun + done * every);
      while (!begin(kind)) fleet_->run_until(Clock::now() + milliseconds(1));
    }
    const auto end = Clock::now() + kLongest;
    while (!open_.empty() || !asked_.empty()) {
      fleet_->run_until(Clock::now() + milliseconds(1));
      if (Clock::now() > end) lost();
    }
    const auto took = ms(Clock::now() - begun) / 1000;
    fleet_->run_until(Clock::now() + milliseconds(100));  // what concerns nobody comes now
    const auto& counts = fleet_->counts();
    return fmt::format(
        R"({{"changes":{},"seconds":{:.2f},"concerned":{:.1f},"to_all":{},"to_each":{},)"
        R"("acknowledged":{},"flows_open":{},"slices":{},"slice_bytes":{},"unconcerned":{}}})",
        count, took, static_cast<double>(each_.size()) / count, quantiles(all_), quantiles(each_),
        quantiles(acknowledgements_), quantiles(flows_), counts.changes - before.changes,
        counts.bytes - before.bytes, kind == "move" ? 0 : unexpected_);
  }

  [[noreturn]] void lost() const {
    if (open_.empty()) die(fmt::format("{} applies are not acknowledged", asked_.size()));
    const auto& change = open_.begin()->second;
    die(fmt::format("{} of {}: {} nodes and {} flows have not come ({})", change.kind,
                    ClusterWorld::id(change.container), change.waiting.size(),
                    change.providers.size(), sessions()));
  }

  int draw(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }

  // False: what was drawn is under way already.
  //   report  a node says that a database is draining, or not any more: its workflow's nodes
  //   shared  the same of a service with a hundred callers on as many nodes
  //   apply   a worker serves a port more, or less: its node, and those of whom it calls
  //   move    a worker is detached on one node and attached on another, until its flows are open
  bool begin(const std::string& kind) {
    const int workflow = draw(world_.workflows());
    const int container = kind == "report"   ? ClusterWorld::database(workflow)
                          : kind == "shared" ? ClusterWorld::shared(workflow)
                                             : ClusterWorld::worker(workflow, draw(10));
    if (open_.contains(container)) return false;
    Change change{kind, container, Clock::now(), {}, world_.concerned(container), {}, -1};
    auto other_way = other_way_[static_cast<std::size_t>(container)];
    if (kind == "move") {
      change.waiting.clear();
      change.to = draw(world_.nodes());
      if (change.to == world_.node_of(container)) return false;
      for (const int provider : world_.providers(container)) {
        if (world_.node_of(provider) != change.to) change.providers.insert(provider);
      }
      if (change.providers.empty() || moving_to_.contains(change.to) ||
          !leaving_.try_emplace(world_.node_of(container), container).second) {
        return false;
      }
      moving_to_[change.to] = container;
      fleet_->report_gone(container);
    } else if (kind == "apply") {
      change.waiting.insert(world_.node_of(container));
      if (!asked_.try_emplace(container, change.begun).second) return false;
      other_way = !other_way;
      fleet_->apply(ClusterWorld::declaration(container, other_way), container);
    } else {
      other_way = !other_way;
      fleet_->report(container, other_way, false);
    }
    other_way_[static_cast<std::size_t>(container)] = other_way;
    open_.emplace(container, std::move(change));
    return true;
  }

  void taken(int node) override {
    const auto leaving = leaving_.find(node);
    if (leaving == leaving_.end()) return;
    auto& change = open_.at(leaving->second);
    leaving_.erase(leaving);
    world_.move(change.container, change.to);
    change.begun = Clock::now();
    fleet_->start(change.to, change.container);
  }
  void started(int node) override {
    const auto moving = moving_to_.find(node);
    if (moving == moving_to_.end()) return;
    auto& change = open_.at(moving->second);
    moving_to_.erase(moving);
    change.reported = Clock::now();
    fleet_->report(change.container, false, true);
  }
  void confirmed(int node, std::string_view consumer, std::string_view provider) override {
    const auto found = open_.find(world_.container(consumer));
    if (found == open_.end() || found->second.to != node) return;
    auto& change = found->second;
    if (change.reported == Clock::time_point()) return;
    if (change.providers.erase(world_.container(provider)) == 0) return;
    each_.push_back(ms(Clock::now() - change.reported));
    if (!change.providers.empty()) return;
    all_.push_back(ms(Clock::now() - change.reported));
    flows_.push_back(ms(Clock::now() - change.begun));
    open_.erase(found);
  }
  void item(int node, std::string_view id) override {
    const auto found = open_.find(world_.container(id));
    if (found == open_.end()) {
      ++unexpected_;
      return;
    }
    auto& change = found->second;
    if (change.to >= 0) return;
    if (change.waiting.erase(node) == 0) {
      ++unexpected_;
      return;
    }
    each_.push_back(ms(Clock::now() - change.begun));
    if (!change.waiting.empty()) return;
    all_.push_back(each_.back());
    open_.erase(found);
  }
  void applied(int what) override {
    acknowledged_ = true;
    const auto asked = asked_.find(what);
    if (asked == asked_.end()) return;
    acknowledgements_.push_back(ms(Clock::now() - asked->second));
    asked_.erase(asked);
  }

  ClusterWorld world_;
  std::vector<bool> other_way_;
  std::unique_ptr<Fleet> fleet_;
  std::mt19937 random_{1};
  bool acknowledged_ = false;
  std::map<int, Change> open_;  // by container
  // A change may be with all of its nodes before who made it hears of it.
  std::map<int, Clock::time_point> asked_;
  std::map<int, int> leaving_, moving_to_;  // by node, one at a time: the container
  std::vector<double> all_, each_, flows_, acknowledgements_;
  std::size_t unexpected_ = 0;
};

// What `init` has made, in the database of several controllers.
void copy_store(const std::string& dir, const std::string& conninfo) {
  const auto from = must(controller::open_sqlite_store(dir));
  const auto to = must(controller::open_postgres_store(conninfo));
  must(to->commit(0, must(from->load()).objects));
}

int serve(int argc, char** argv) {
  must(pki::require_tls13());
  if (argc == 4 && std::string_view(argv[1]) == "copy-store") {
    copy_store(argv[2], argv[3]);
    return 0;
  }
  if (argc != 3) die("usage: bench_cluster NODES DIR | copy-store DIR CONNINFO");
  Load load(std::stoi(argv[1]), argv[2]);
  for (std::string line;;) {
    load.listen(std::chrono::milliseconds(5));
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, 0) == 0) continue;
    if (!std::getline(std::cin, line)) _exit(0);  // not one connection after another
    fmt::print("{}\n", load.command(line));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace meshd::bench

int main(int argc, char** argv) { return meshd::bench::serve(argc, argv); }
