// mesh-controller: the cluster's side of the mesh. See mesh-controller(8).
#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "controller/admin_client.h"
#include "controller/cli.h"
#include "controller/config.h"
#include "controller/serve.h"
#include "controller/setup.h"
#include "pki/grpc_credentials.h"
#include "pki/join_ticket.h"

namespace {

using meshd::controller::InitOptions;

constexpr std::string_view kVersion = "0.1.0";
constexpr std::string_view kHelp = R"(Usage: mesh-controller [--config FILE]
       mesh-controller init --address HOST:PORT [OPTION]...
       mesh-controller token create|list|revoke | node dismiss | backup | certify
       mesh-controller token add|people|remove | proxy-config

The cluster's side of the mesh: collects endpoints from the nodes, gives each node what its
containers need, owns names, VIPs and address blocks, and lets machines join.

  --config FILE     read this file (default /etc/mesh-controller/mesh-controller.yaml)
  --check-config    check the configuration and leave: 0 good, 1 not, with the line
  --version         say the version
  --help            this text

init makes an authority, a store and a first ticket, which lets nodes join:
  --address HOST:PORT       where nodes find the controller; may be given several times
  --join-address HOST:PORT  where they join; default: the same hosts, port 7444
  --dir DIR                 default /var/lib/mesh-controller
  --cluster NAME            default mesh
  --zone ZONE               default mesh.internal
  --pool4, --pool6, --vip4, --vip6 PREFIX|off
                            default 10.213.0.0/16, 10.214.0.0/16, two /64 of a random ULA
  --postgres CONNINFO       the store of several controllers, as in the configuration
  --block4 LENGTH           a node's share of pool4, default 24
  --ticket-hours N          how long the ticket is good, default 24
  --ticket-uses N           for how many nodes, default any number

Of a controller that runs, an administrator asks:
  token create [--hours N] [--uses N] [--source PREFIX]... [--name-prefix P]
                            print a ticket that lets nodes join; good for 24 hours unless said
  token list, token revoke ID
                            what tokens there are; let no more nodes in with one
  node dismiss NAME         a node that does not come back: free its containers' names and block
  backup PATH               copy the store into a new file where the controller runs
  certify ROLE NAME [--days N] -o FILE
                            make a key and a certificate for a dispatcher, an admin or a reader
  --dir DIR                 its directory, with admin.pem; default: the configuration's
  --controller HOST:PORT    where it is; default: this machine, the port of the configuration
  --identity FILE           who asks, in place of admin.pem; --authorities FILE: whom to trust

For containers that are opened from outside (`web` in the configuration), on this machine:
  token add USER [--level LEVEL:OWNER]... [--admin] [--expires DAYS]
                            print a web token: USER opens what is theirs, and what LEVEL
                            (CAN_MANAGE, CAN_WRITE, CAN_READ) lets them of OWNER's
  token people, token remove ID
                            who has one; take it away
  proxy-config [--zone ZONE] [--port N] [--host HOST --ports FIRST-LAST] [--listen ENDPOINT]
               [--certificate FILE] [--key FILE] [--access-log FILE]
                            print nginx's configuration, of the configured site if left out
)";

int usage(const std::string& why) {
  fmt::print(stderr, "mesh-controller: {}; see mesh-controller --help\n", why);
  return 2;
}

int failed(const meshd::Error& error) {
  fmt::print(stderr, "mesh-controller: {}\n", error.what);
  return 1;
}

std::optional<std::uint32_t> number(std::string_view text, std::uint32_t most) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value >= 1 && value <= most ? std::optional(value) : std::nullopt;
}

// Takes one option of init; why it cannot, or empty.
std::string take(InitOptions& options, std::string_view name, const std::string& value) {
  const std::pair<std::string_view, std::string*> texts[] = {
      {"--dir", &options.dir},     {"--cluster", &options.cluster},  {"--zone", &options.zone},
      {"--pool4", &options.pool4}, {"--pool6", &options.pool6},      {"--vip4", &options.vip4},
      {"--vip6", &options.vip6},   {"--postgres", &options.postgres}};
  for (const auto& [known, into] : texts) {
    if (name == known) {
      *into = value;
      return {};
    }
  }
  if (name == "--address" || name == "--join-address") {
    if (const auto why = meshd::pki::endpoint_problem(value); !why.empty()) {
      return fmt::format("{} {}: {}", name, value, why);
    }
    (name == "--address" ? options.addresses : options.join_addresses).push_back(value);
    return {};
  }
  const auto count = number(value, name == "--block4" ? 30 : 1'000'000);
  if (!count) return fmt::format("{} {}: not a number from 1", name, value);
  if (name == "--block4") {
    options.block_bits4 = *count;
  } else if (name == "--ticket-hours") {
    options.token_lifetime = std::chrono::hours(*count);
  } else if (name == "--ticket-uses") {
    options.token_uses = count;
  } else {
    return fmt::format("unknown option {}", name);
  }
  return {};
}

int init(const std::vector<std::string>& arguments) {
  InitOptions options;
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    if (i + 1 == arguments.size()) return usage("init: " + arguments[i] + " needs a value");
    if (const auto why = take(options, arguments[i], arguments[i + 1]); !why.empty()) {
      return usage("init: " + why);
    }
  }
  if (options.addresses.empty()) return usage("init: --address HOST:PORT is needed");
  if (options.join_addresses.empty()) {
    for (const auto& address : options.addresses) {
      options.join_addresses.push_back(address.substr(0, address.rfind(':')) + ":7444");
    }
  }
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const auto made = meshd::controller::init(options, {meshd::BootClock::now(), now.count()});
  if (!made) return failed(made.error());
  fmt::print(
      "cluster {} is made in {}\n"
      "  start it:     mesh-controller\n"
      "  a node joins: copy {} to it, and name it in its meshd.yaml:\n"
      "                controller: {{join_file: PATH}}\n"
      "  people use:   meshctl --controller {} --identity {}\n",
      options.cluster, options.dir, made->ticket_path, options.addresses.front(), made->admin_path);
  if (!options.postgres.empty()) {
    fmt::print(
        "  another controller on that database: copy authority.key and authorities.pem into\n"
        "                its directory, give it a name of its own and the same postgres\n");
  }
  return 0;
}

int administrate(const std::vector<std::string>& arguments) {
  const auto command = meshd::controller::parse_admin(arguments);
  if (!command) return usage(command.error().what);
  if (std::holds_alternative<meshd::controller::AdminHelp>(command->action)) {
    return fmt::print("{}", kHelp), 0;
  }
  if (const auto status = meshd::pki::require_tls13(); !status) return failed(status.error());
  const auto output = meshd::controller::run_admin(*command);
  if (!output) {
    fmt::print(stderr, "mesh-controller: {}\n", meshd::log::printable(output.error().what));
    return output.error().exit;
  }
  fmt::print("{}", output->text);
  fmt::print(stderr, "{}", output->note);
  return 0;
}

// Who looks at the unit reads there why, without the log.
int ended(const meshd::Error& error) {
  sd_notifyf(0, "STATUS=%s", meshd::log::printable(error.what).c_str());
  return failed(error);
}

int serve(const meshd::controller::Config& config) {
  meshd::log::init(config.log_level, config.log_format);
  const auto ready = [](int port, int join_port) {
    meshd::log::info("mesh-controller: ports {} and {}", port, join_port);
    sd_notify(0, "READY=1");
  };
  // Nobody listens without a service manager, and one that has no watchdog takes no notice.
  const auto status = meshd::controller::serve(config, ready, [] { sd_notify(0, "WATCHDOG=1"); });
  return status ? 0 : ended(status.error());
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments[0] == "init") {
    const std::vector rest(arguments.begin() + 1, arguments.end());
    if (rest.size() == 1 && rest[0] == "--help") return fmt::print("{}", kHelp), 0;
    return init(rest);
  }
  if (!arguments.empty() && meshd::controller::is_admin_command(arguments[0])) {
    return administrate(arguments);
  }
  std::optional<std::string> path;
  bool check = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto& argument = arguments[i];
    if (argument == "--help" || argument == "-h") return fmt::print("{}", kHelp), 0;
    if (argument == "--version") return fmt::print("mesh-controller {}\n", kVersion), 0;
    if (argument == "--check-config") {
      check = true;
    } else if (argument == "--config" && i + 1 < arguments.size()) {
      path = arguments[++i];
    } else {
      return usage("unknown or incomplete option " + argument);
    }
  }
  const auto config = meshd::controller::load_config(
      path.value_or(meshd::controller::kDefaultConfigPath), path.has_value());
  if (!config) return check ? failed(config.error()) : ended(config.error());
  if (check) {
    fmt::print("configuration is good\n");
    return 0;
  }
  return serve(*config);
}
