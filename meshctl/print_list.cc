#include "meshctl/print_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace meshd::ctl {
namespace {

namespace pb = mesh::v1;

template <class List>
std::string join(const List& list) {
  return fmt::format("{}", fmt::join(list, ","));
}

std::string_view protocol_name(pb::Protocol::Value protocol) {
  return protocol == pb::Protocol::UDP ? "udp" : "tcp";
}

// "5432", "8000-8100", "any"
std::string port_text(std::uint32_t port, std::uint32_t end_port) {
  if (port == 0) return "any";
  if (end_port == 0 || end_port == port) return fmt::format("{}", port);
  return fmt::format("{}-{}", port, end_port);
}

std::string serves_text(const pb::Workload& workload) {
  std::vector<std::string> parts;
  for (const auto& port : workload.serves()) {
    auto text = port_text(port.port(), port.end_port());
    if (port.protocol() == pb::Protocol::UDP) text += "/udp";
    parts.push_back(std::move(text));
  }
  return join(parts);
}

Paint paint_of(pb::WorkloadState::Value state) {
  switch (state) {
    case pb::WorkloadState::READY:
      return Paint::kGreen;
    case pb::WorkloadState::ATTACHED:
    case pb::WorkloadState::DRAINING:
      return Paint::kYellow;
    default:
      return Paint::kPlain;
  }
}

std::string bracketed(const std::string& address) {
  return address.contains(':') ? fmt::format("[{}]", address) : address;
}

}  // namespace

void sort(pb::WorkloadList& list) {
  std::ranges::stable_sort(*list.mutable_workloads(), {}, [](const pb::WorkloadInfo& w) {
    return std::string_view(w.declaration().id());
  });
}

void sort(pb::ServiceList& list) {
  std::ranges::stable_sort(*list.mutable_services(), {}, [](const pb::ServiceInfo& s) {
    return std::tuple<int, std::string_view, std::string_view, std::string_view>(
        s.scope(), s.workflow(), s.name(), s.owner());
  });
  for (auto& service : *list.mutable_services()) {
    std::ranges::stable_sort(*service.mutable_endpoints(), {},
                             [](const pb::Endpoint& e) { return std::string_view(e.id()); });
  }
}

void sort(pb::FlowList& list) {
  std::ranges::stable_sort(*list.mutable_flows(), {}, [](const pb::FlowInfo& f) {
    return std::tuple<std::string_view, std::string_view, int, std::uint32_t>(
        f.src(), f.dst(), f.protocol(), f.port());
  });
}

void sort(pb::PublishedList& list) {
  std::ranges::stable_sort(*list.mutable_published(), {}, [](const pb::PublishedInfo& p) {
    return std::tuple<std::string_view, int, std::uint32_t>(p.id(), p.protocol(), p.port());
  });
}

void sort(pb::NodeList& list) {
  std::ranges::stable_sort(*list.mutable_nodes(), {},
                           [](const pb::NodeInfo& n) { return std::string_view(n.name()); });
}

void sort(pb::RefusedList& list) {
  std::ranges::stable_sort(*list.mutable_refused(), {}, [](const pb::RefusedInfo& r) {
    return std::tuple<std::string_view, std::string_view, int, std::uint32_t>(
        r.consumer(), r.provider(), r.protocol(), r.port());
  });
}

std::string render_table(const pb::WorkloadList& list, const Style& style) {
  Table table({{"ID"}, {"NAME"}, {"WORKFLOW"}, {"OWNER"}, {"STATE"}, {"SERVES"}, {"ADDRESSES"}});
  std::string notes;
  for (const auto& info : list.workloads()) {
    const auto& declaration = info.declaration();
    table.add({{declaration.id(), Paint::kBold},
               {declaration.name()},
               {declaration.workflow()},
               {declaration.owner()},
               {pb::WorkloadState::Value_Name(info.state()), paint_of(info.state())},
               {serves_text(declaration)},
               {join(info.attachment().addresses())}});
    for (const auto& problem : info.problems()) {
      const auto line = fmt::format("{}: {}", printable(declaration.id()), printable(problem));
      notes += paint(line, Paint::kYellow, style) + "\n";
    }
  }
  return table.render(style) + notes;
}

std::string render_table(const pb::ServiceList& list, const Style& style) {
  Table table({{"NAME"},
               {"SCOPE"},
               {"WORKFLOW"},
               {"OWNER"},
               {"READY", Align::kRight},
               {"VIPS"},
               {"ENDPOINTS"}});
  for (const auto& service : list.services()) {
    std::vector<std::string> ids;
    for (const auto& endpoint : service.endpoints()) {
      ids.push_back(endpoint.stale() ? endpoint.id() + " (stale)" : endpoint.id());
    }
    const auto ready = std::ranges::count_if(service.endpoints(), &pb::Endpoint::ready);
    table.add(
        {{service.name(), Paint::kBold},
         {pb::Scope::Value_Name(service.scope())},
         {service.workflow()},
         {service.owner()},
         {fmt::format("{}/{}", ready, ids.size()), ready > 0 ? Paint::kGreen : Paint::kYellow},
         {join(service.vips())},
         {join(ids)}});
  }
  return table.render(style);
}

std::string render_table(const pb::FlowList& list, const Style& style) {
  Table table({{"SRC"}, {"DST"}, {"PORT"}, {"PACKETS", Align::kRight}, {"BYTES", Align::kRight}});
  for (const auto& flow : list.flows()) {
    table.add({{flow.src()},
               {flow.dst()},
               {fmt::format("{}/{}", port_text(flow.port(), flow.end_port()),
                            protocol_name(flow.protocol()))},
               {render_count(flow.packets(), style)},
               {render_bytes(flow.bytes(), style)}});
  }
  return table.render(style);
}

namespace {

// "192.0.2.1:20000"
template <class Addresses>
std::vector<std::string> endpoints(const Addresses& addresses, std::uint32_t port) {
  std::vector<std::string> all;
  for (const auto& address : addresses) {
    all.push_back(fmt::format("{}:{}", bracketed(address), port));
  }
  return all;
}

}  // namespace

std::string render_table(const pb::PublishedList& list, const Style& style) {
  std::vector<Column> columns{{"ID"}, {"NAME"}, {"PORT"}, {"NODE PORT"}};
  // Only a controller knows of any.
  const bool by_gateway = std::ranges::any_of(
      list.published(), [](const auto& published) { return published.gateway_port() != 0; });
  if (by_gateway) columns.push_back({"GATEWAY"});
  for (const auto* name : {"ALLOWED", "READY", "LABEL"}) columns.push_back({name});
  const bool by_url = std::ranges::any_of(
      list.published(), [](const auto& published) { return !published.urls().empty(); });
  if (by_url) columns.push_back({"URL"});
  Table table(std::move(columns));
  for (const auto& published : list.published()) {
    auto outside = endpoints(published.node_addresses(), published.node_port());
    // Without an address on the node the port is still kept for it.
    if (outside.empty()) outside.push_back(fmt::format("{}", published.node_port()));
    // The node admits only the proxies to `http`; who may pass those is said by `access`.
    auto allowed = published.http() ? "http " + pb::Access::Value_Name(published.access())
                                    : join(published.allow_from());
    if (published.on_demand()) allowed += ", on demand";
    std::vector<Cell> row{
        {published.id(), Paint::kBold},
        {published.name()},
        {fmt::format("{}/{}", published.port(), protocol_name(published.protocol()))},
        {join(outside)}};
    if (by_gateway) {
      row.push_back({join(endpoints(published.gateway_addresses(), published.gateway_port()))});
    }
    row.push_back({allowed});
    row.push_back(
        {published.ready() ? "yes" : "no", published.ready() ? Paint::kGreen : Paint::kYellow});
    row.push_back({published.label()});
    // Blanks between: a click on one selects it alone.
    if (by_url) row.push_back({fmt::format("{}", fmt::join(published.urls(), " "))});
    table.add(std::move(row));
  }
  return table.render(style);
}

std::string render_table(const pb::NodeList& list, const Style& style) {
  Table table(
      {{"NAME"}, {"STATE"}, {"BLOCKS"}, {"UNDERLAY"}, {"WORKLOADS", Align::kRight}, {"PROBLEM"}});
  for (const auto& node : list.nodes()) {
    // Away: its session has ended. Stale: so long ago that its workloads are marked.
    const Cell state = node.connected() ? Cell{"connected", Paint::kGreen}
                       : node.stale()   ? Cell{"stale", Paint::kRed}
                                        : Cell{"away", Paint::kYellow};
    table.add({{node.name(), Paint::kBold},
               state,
               {join(node.blocks())},
               {join(node.underlay())},
               {fmt::format("{}", node.workloads())},
               {node.problem(), Paint::kRed}});
  }
  return table.render(style);
}

std::string render_table(const pb::RefusedList& list, const Style& style) {
  Table table({{"CONSUMER"},
               {"PROVIDER"},
               {"PORT"},
               {"COUNT", Align::kRight},
               {"LAST"},
               {"NODE"},
               {"OWNER"},
               {"MISSING"}});
  for (const auto& refused : list.refused()) {
    // Who does not see a name sends nothing to a port.
    const auto port = refused.port() == 0
                          ? std::string("name")
                          : fmt::format("{}/{}", refused.port(), protocol_name(refused.protocol()));
    table.add({{refused.consumer(), Paint::kBold},
               {refused.provider()},
               {port},
               {render_count(refused.count(), style)},
               {refused.last()},
               {refused.node()},
               {refused.owner()},
               {refused.missing(), Paint::kYellow}});
  }
  return table.render(style);
}

}  // namespace meshd::ctl
