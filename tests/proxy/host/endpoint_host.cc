// The verdict endpoint alone, for tests that come to it through nginx: what may be opened stands in
// a JSON file, which is read anew at each line that arrives on standard input. It writes a line
// when it has done so, and one for each publication on demand that is wanted.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/log.h"
#include "proxy/endpoint.h"

namespace meshd::proxy {
namespace {

using Json = nlohmann::json;

constexpr std::pair<std::string_view, Access> kAccess[] = {{"OWNER", Access::kOwner},
                                                           {"CAN_MANAGE", Access::kCanManage},
                                                           {"CAN_WRITE", Access::kCanWrite},
                                                           {"CAN_READ", Access::kCanRead},
                                                           {"PUBLIC", Access::kPublic}};
constexpr std::pair<std::string_view, Opening::State> kStates[] = {
    {"WAITING", Opening::State::kWaiting},
    {"ATTACHED", Opening::State::kAttached},
    {"READY", Opening::State::kReady},
    {"DRAINING", Opening::State::kDraining}};

template <class Value, std::size_t Size>
Value named(const std::pair<std::string_view, Value> (&values)[Size], const std::string& name) {
  for (const auto& [word, value] : values) {
    if (word == name) return value;
  }
  log::error("no such word: {}", name);
  std::exit(2);
}

OpenPort port_of(const Json& json) {
  OpenPort port;
  port.port = json.at("port").get<std::uint16_t>();
  port.http = json.value("http", true);
  port.addresses = {IpAddress::parse(json.value("address", "127.0.0.1")).value()};
  port.upstream_port = json.at("node_port").get<std::uint16_t>();
  port.ready = json.value("ready", true);
  port.access = named(kAccess, json.value("access", "OWNER"));
  if (json.contains("allow_from")) {
    port.allow_from.emplace();
    for (const auto& text : json["allow_from"]) {
      port.allow_from->push_back(Prefix::parse(text.get<std::string>()).value());
    }
  }
  return port;
}

Opening opening_of(const Json& json) {
  Opening opening;
  opening.id = json.at("id").get<std::string>();
  opening.owner = json.at("owner").get<std::string>();
  opening.service = json.value("service", "");
  opening.state = named(kStates, json.value("state", "READY"));
  for (const auto& port : json.at("ports")) opening.ports.push_back(port_of(port));
  return opening;
}

Json read(const char* path) {
  std::ifstream file(path);
  return Json::parse(file);
}

class World {
 public:
  explicit World(Published<const Directory>& to) : to_(to) {}
  // Who is named no more has ended.
  void become(const Json& openings) {
    std::set<std::string> ids;
    for (const auto& json : openings) {
      auto opening = opening_of(json);
      ids.insert(opening.id);
      writer_.set(std::move(opening));
    }
    for (const auto& id : ids_) {
      if (!ids.contains(id)) writer_.end(id, BootClock::now());
    }
    ids_ = std::move(ids);
    to_.store(writer_.directory());
  }

 private:
  Published<const Directory>& to_;
  DirectoryWriter writer_;
  std::set<std::string> ids_;
};

void say(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

int run(const char* path) {
  Published<const Directory> directory;
  World world(directory);
  const auto json = read(path);
  world.become(json.at("openings"));
  EndpointOptions options;
  options.names.zone = json.at("zone").get<std::string>();
  options.names.port = json.at("port").get<std::uint16_t>();
  options.listen = json.at("listen").get<std::string>();
  options.relay_dir = json.at("relay_dir").get<std::string>();
  options.people = json.at("people").get<std::string>();
  EndpointHooks hooks;
  hooks.open = [](const MakeOpening& opening) {
    say(fmt::format("open {} {}", opening.id, opening.port));
  };
  auto endpoint = Endpoint::start(std::move(options), directory, nullptr, std::move(hooks));
  if (!endpoint) {
    log::error("{}", endpoint.error().what);
    return 1;
  }
  say(fmt::format("port {}", (*endpoint)->port()));
  for (std::string line; std::getline(std::cin, line);) {
    world.become(read(path).at("openings"));
    say("read");
  }
  return 0;
}

}  // namespace
}  // namespace meshd::proxy

int main(int count, char** arguments) {
  if (count == 2) return meshd::proxy::run(arguments[1]);
  std::fputs("usage: endpoint_host FILE.json\n", stderr);
  return 2;
}
