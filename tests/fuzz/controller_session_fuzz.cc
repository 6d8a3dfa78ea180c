// What a node of the cluster may say, in any order: messages, each behind two bytes of length.
// Whatever it is, another node's session goes on, what is another's stays so, what is
// believed of this node lies in its block and is about its own containers, and another controller
// reads the same from the store. Somebody looks at the page all the time.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "controller/page_source.h"
#include "controller/report.h"
#include "policy/from_proto.h"
#include "proxy/overview_json.h"
#include "tests/controller/memory_store.h"

namespace meshd::controller {
namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

class Stream final : public NodeStream {
 public:
  void send(mesh::v1::ToNode message) override {
    check(!closed);
    said_farewell = said_farewell || message.has_farewell();
    revision = message.has_slice() ? message.slice().revision() : revision;
    for (const auto& block : {message.welcome().block4(), message.welcome().block6()}) {
      if (auto prefix = Prefix::parse(block)) blocks.push_back(*prefix);
    }
  }
  void close() override { closed = true; }
  std::vector<Prefix> blocks;
  std::uint64_t revision = 0;
  bool said_farewell = false, closed = false;
};

const Moment kNow{TimePoint(std::chrono::hours(1)), 1'000'000'000};

std::unique_ptr<Controller> begin(const std::shared_ptr<Memory>& memory) {
  auto made = Controller::make(std::make_unique<MemoryStore>(memory),
                               {.name = "c1",
                                .node_declarations = true,
                                .instance = "c1",
                                .web = proxy::Site{"mesh.example.org", 443, "", 0, 0}},
                               kNow);
  check(made.has_value());
  return *std::move(made);
}

mesh::v1::FromNode hello(const std::string& boot) {
  mesh::v1::FromNode message;
  message.mutable_hello()->set_protocol(1);
  message.mutable_hello()->set_boot_id(boot);
  return message;
}

// Two nodes; db runs on the honest one, worker is declared.
std::shared_ptr<Memory> make_memory() {
  auto memory = std::make_shared<Memory>();
  mesh::v1::StoredSettings settings;
  settings.set_cluster("test");
  settings.set_zone("mesh.internal");
  settings.set_pool4("10.213.0.0/16");
  settings.set_pool6("fd00:1::/64");
  settings.set_vip4("10.214.0.0/16");
  settings.set_vip6("fd00:2::/64");
  settings.set_block_bits4(24);
  settings.set_block_bits6(112);
  check(MemoryStore(memory)
            .commit(0, {put(mesh::v1::ObjectKind::SETTINGS, "", settings)})
            .has_value());
  const auto controller = begin(memory);
  Stream n1, n2;
  controller->on_message("n1", n1, hello("boot"), kNow);
  controller->on_message("n2", n2, hello("boot"), kNow);
  auto read = policy::read_declarations(
      "f",
      "workloads: [{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 1}]},"
      "{id: worker, owner: ada, workflow: r1, peers: [{name: db}]}]");
  check(controller->declare({Author::Role::kDispatcher, "d"}, *std::move(read), "", kNow)
            .has_value());
  mesh::v1::FromNode report;
  report.mutable_report()->set_number(1);
  auto& endpoint = *report.mutable_report()->add_endpoints();
  endpoint.set_id("db");
  endpoint.add_addresses(n2.blocks.front().address().plus(5).to_string());
  endpoint.set_ready(true);
  controller->on_message("n2", n2, report, kNow);
  check(!n1.closed && !n2.closed);
  check(controller->cluster().placement("db")->reported.addresses_size() == 1);
  return memory;
}

void check_cluster(const Controller& controller, const std::vector<Prefix>& blocks) {
  const auto& cluster = controller.cluster();
  check(cluster.author("db") == "dispatcher/d" && cluster.declaration("db")->owner == "ada");
  check(cluster.placement("db")->node == "n2");
  check(cluster.placement("db")->reported.addresses_size() == 1);
  check(cluster.placed_on("n2") == std::set<std::string>{"db"});
  for (const auto& id : cluster.placed_on("n1")) {
    for (const auto& text : cluster.placement(id)->reported.addresses()) {
      const auto address = IpAddress::parse(text);
      check(address.has_value());
      bool lies_within = false;
      for (const auto& block : blocks) lies_within = lies_within || block.contains(*address);
      check(lies_within && cluster.id_at(*address) == id);
    }
  }
}

void check_page(Controller& controller) {
  PageSource source(controller);
  source.looked(kNow);
  source.serve(kNow);
  const auto overview = source.overviews().load();
  check(overview != nullptr);
  for (const auto& rate : *overview->traffic) {
    // It may have left the node since, but it never was on another.
    const auto* const placement = controller.cluster().placement(rate.consumer);
    check(placement == nullptr || placement->node == "n1");
  }
  proxy::Viewer root;
  root.admin = true;
  check(!proxy::state_json(*overview, proxy::visible(*overview, root, {}), root, *controller.web())
             .empty());
}

void hear(std::span<const std::uint8_t> data) {
  static const auto kBase = make_memory();
  const auto memory = std::make_shared<Memory>(*kBase);
  const auto controller = begin(memory);
  Stream n1, n2;
  controller->on_message("n2", n2, hello("boot"), kNow);
  controller->looking().note(kNow.steady);
  while (data.size() > 2 && !n1.closed) {
    const auto said = std::min<std::size_t>(data[0] << 8U | data[1], data.size() - 2);
    mesh::v1::FromNode message;
    if (message.ParseFromArray(data.data() + 2, static_cast<int>(said))) {
      controller->on_message("n1", n1, message, kNow);
    }
    data = data.subspan(2 + said);
  }
  check(!n2.closed && !n2.said_farewell);
  check_cluster(*controller, n1.blocks);
  check_page(*controller);
  const auto other = begin(memory);
  check(other->revision() == controller->revision());
  check(workload_list(*other).SerializeAsString() ==
        workload_list(*controller).SerializeAsString());
}

}  // namespace
}  // namespace meshd::controller

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::controller::hear({data, size});
  return 0;
}
