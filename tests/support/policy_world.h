// A world for tests of pure policy: declared as text, through the same checks as an apply,
// attached and made ready by hand. Addresses are 10.213.0.N and fd00::N by order of attach.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "policy/allocate.h"
#include "policy/from_proto.h"
#include "policy/plan.h"
#include "policy/render.h"

namespace meshd::policy {

struct PolicyWorld {
  World world;
  Quarantine resting;
  unsigned attached = 0;

  PolicyWorld() {
    auto& settings = world.settings;
    settings.pool4 = Prefix::parse("10.213.0.0/16").value();
    settings.vip_pool4 = Prefix::parse("10.214.0.0/16").value();
    settings.pool6 = Prefix::parse("fd00::/64").value();
    settings.vip_pool6 = Prefix::parse("fd01::/64").value();
    settings.resolver4[0] = IpAddress::parse("169.254.1.1").value();
    settings.resolver4[1] = IpAddress::parse("169.254.1.2").value();
    settings.resolver6[0] = IpAddress::parse("fd02::1").value();
    settings.resolver6[1] = IpAddress::parse("fd02::2").value();
    settings.publish_addresses = {IpAddress::parse("192.0.2.1").value(),
                                  IpAddress::parse("2001:db8::1").value()};
    settings.node_addresses = settings.publish_addresses;
    settings.publish_allow_from = {Prefix::parse("198.51.100.0/24").value()};
    settings.proxies = {Prefix::parse("203.0.113.7").value()};
    world.now = TimePoint(std::chrono::seconds(1000));
  }

  // Workloads in flow style, separated by commas. Names what it touched.
  Touched apply(const std::string& workloads) {
    auto outcome = plan(workloads);
    if (!outcome) ADD_FAILURE() << outcome.error().what;
    return outcome ? take(*std::move(outcome)) : Touched();
  }
  [[nodiscard]] Result<Outcome> plan(const std::string& workloads) const {
    auto read = read_declarations("test", "workloads: [" + workloads + "]");
    if (!read) return std::unexpected(read.error());
    const policy::ListeningPorts nobody;
    return declare(world, *std::move(read), resting, &nobody, std::chrono::seconds(60));
  }
  Touched forget(const std::string& id) {
    return take(policy::forget(world, id, std::chrono::seconds(60)));
  }
  Touched attach(const std::string& id) {
    auto& attachment = workload(id).attachment.emplace();
    const auto number = ++attached;
    attachment.v4 = IpAddress::v4(0x0ad50000U + number);
    attachment.v6 = IpAddress::parse(fmt::format("fd00::{:x}", number)).value();
    attachment.host_ifname = fmt::format("m{}", number);
    attachment.mac.bytes = {2, 0, 0, 0, 0, static_cast<std::uint8_t>(number)};
    attachment.attached_at = world.now;
    return touch(id);
  }
  // On another node, at 10.213.200.N and fd00::200:N.
  Touched place(const std::string& id, const std::string& node, unsigned number) {
    auto& remote = workload(id).remote.emplace();
    remote.node = node;
    remote.v4 = IpAddress::v4(0x0ad5c800U + number);
    remote.v6 = IpAddress::parse(fmt::format("fd00::200:{:x}", number)).value();
    return touch(id);
  }
  // That node has the ranges in force between the addresses of now.
  Touched confirm(const std::string& consumer, const std::string& provider,
                  std::vector<PortRange> ranges) {
    const auto& from = workload(consumer);
    const auto& to = workload(provider);
    world.confirmed[consumer][provider] = {from.address(Family::kV4), from.address(Family::kV6),
                                           to.address(Family::kV4), to.address(Family::kV6),
                                           std::move(ranges)};
    return touch(consumer);
  }
  Touched detach(const std::string& id) {
    auto& left = workload(id);
    left.attachment.reset();
    left.tcp_ready.clear();
    left.ready = left.draining = false;
    if (const auto key = left.declaration.service()) {
      world.services.at(*key).endpoint_lost_at = world.now;
    }
    return touch(id);
  }
  Touched drain(const std::string& id) {
    workload(id).draining = true;
    return touch(id);
  }
  Touched listens(const std::string& id, std::uint16_t port, FamilyReady families = {true, true}) {
    workload(id).tcp_ready[port] = families;
    return touch(id);
  }

  Workload& workload(const std::string& id) { return world.workloads.find(id)->second; }
  [[nodiscard]] Touched touch(const std::string& id) const {
    Touched touched;
    touched.workloads.insert(id);
    const auto key = world.workloads.find(id)->second.declaration.service();
    if (key) touched.services.insert(*key);
    return touched;
  }

  // "allow4 10.213.0.1 . 10.213.0.2 . tcp . 80", of the sets whose names begin so; sorted.
  [[nodiscard]] static std::vector<std::string> texts(const std::vector<Element>& elements,
                                                      std::string_view sets = "") {
    std::vector<std::string> lines;
    for (const auto& element : elements) {
      if (!set_name(element.set).starts_with(sets)) continue;
      lines.push_back(fmt::format("{} {}", set_name(element.set), element_text(element)));
    }
    std::ranges::sort(lines);
    return lines;
  }
  // The same of a plan made from nothing.
  [[nodiscard]] std::vector<std::string> elements(std::string_view sets) const {
    Compiler compiler;
    [[maybe_unused]] const auto delta = compiler.rebuild(world);
    return texts(compiler.elements(), sets);
  }

 private:
  Touched take(Outcome outcome) {
    Touched touched;
    for (const auto& [id, declaration] : outcome.declarations) {
      touched.workloads.insert(id);
      if (const auto known = world.workloads.find(id); known != world.workloads.end()) {
        if (const auto key = known->second.declaration.service()) touched.services.insert(*key);
      }
      if (const auto key = declaration.service()) touched.services.insert(*key);
    }
    touched.workloads.insert(outcome.forgotten.begin(), outcome.forgotten.end());
    for (const auto& [key, service] : outcome.services) touched.services.insert(key);
    touched.services.insert(outcome.services_gone.begin(), outcome.services_gone.end());
    for (const auto& [key, port] : outcome.node_ports) touched.workloads.insert(key.id);
    for (const auto& key : outcome.node_ports_gone) touched.workloads.insert(key.id);
    [[maybe_unused]] const auto undo = adopt(world, resting, std::move(outcome));
    return touched;
  }
};

}  // namespace meshd::policy
