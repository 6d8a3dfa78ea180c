#include "meshctl/help.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace meshd::ctl {
namespace {

constexpr std::array<OptionHelp, 1> kFileOptions = {
    {{"-f, --file FILE", "declarations, YAML or JSON; - is standard input; may be repeated"}}};
constexpr std::array<OptionHelp, 5> kAttachOptions = {
    {{"--netns PATH", "the network namespace, such as /run/netns/web"},
     {"--pid PID", "the network namespace of this process"},
     {"--ifname NAME", "name of the interface inside, eth0 if not given"},
     {"--no-default-route", "stand beside the interface that the engine has made"},
     {"--resolv-conf PATH", "write the container's resolv.conf to PATH"}}};
constexpr std::array<OptionHelp, 1> kPrepareOptions = {
    {{"--resolv-conf PATH", "write the container's resolv.conf to PATH"}}};
constexpr std::array<OptionHelp, 1> kDeleteOptions = {{{"--force", "also while it is attached"}}};
constexpr std::array<OptionHelp, 1> kWaitOptions = {
    {{"--timeout TIME", "how long at most: 500ms, 60s (if not given), 2m, 1h"}}};
constexpr std::array<OptionHelp, 1> kResolveOptions = {
    {{"--as ID", "the container that would ask"}}};
constexpr std::array<OptionHelp, 1> kWatchOptions = {
    {{"--refused", "only refused flows and withheld names"}}};
constexpr std::array<OptionHelp, 6> kCommonOptions = {
    {{"-o, --output json|table", "for scripts or for people; attach and prepare: always JSON"},
     {"--run-dir DIR", "of meshd's sockets; else $MESHD_RUN_DIR, else /run/meshd"},
     {"--controller HOST:PORT,...", "ask the cluster's controller; else $MESHD_CONTROLLER"},
     {"--identity FILE", "your key and certificate for it; else $MESHD_IDENTITY"},
     {"--authorities FILE", "whom to trust; else authorities.pem beside the identity"},
     {"-h, --help", "this text; after a command: that command's"}}};

constexpr std::array<CommandHelp, 17> kCommands = {{
    {"apply", "-f FILE...", "declare workloads",
     "Replaces each workload that is named in the files and leaves all others alone.\n"
     "All or nothing: one error, and nothing has changed. Returns when the declarations\n"
     "are stored and in force on this node, and prints what changed.",
     kFileOptions, "meshctl apply -f db.yaml -f worker.yaml"},
    {"plan", "-f FILE...", "show what apply would change",
     "Workloads, flows, names and ports that would come or go, live connections that\n"
     "would be cut, and peers that nobody declares yet. Changes nothing.",
     kFileOptions, "meshctl plan -f db.yaml"},
    {"attach", "ID --netns PATH | --pid PID", "connect a container's network namespace",
     "Puts the mesh interface of the declared workload ID into a namespace that your\n"
     "container engine has made. Repeating it is harmless. Prints JSON. With\n"
     "--no-default-route what passes the engine's interface is not controlled.",
     kAttachOptions, "meshctl attach web --pid 4711 --resolv-conf rootfs/etc/resolv.conf"},
    {"prepare", "ID", "make a namespace and attach it",
     "Makes the named network namespace /run/netns/ID, as `ip netns add` does, and\n"
     "attaches the declared workload ID to it. Prints JSON. `detach` removes it.",
     kPrepareOptions, "meshctl prepare web && ip netns exec web ./server"},
    {"detach",
     "ID",
     "disconnect a container",
     "Removes the interface, and the namespace if `prepare` made it. The declaration,\n"
     "the service's address and the published ports stay. Harmless when not attached.",
     {},
     "meshctl detach web"},
    {"drain",
     "ID",
     "take a container out of service",
     "Takes it out of its name and refuses new connections; open ones go on.",
     {},
     "meshctl drain db-1 && sleep 60 && meshctl detach db-1"},
    {"delete", "ID", "forget a workload",
     "Forgets the declaration and frees its addresses. Refused while it is attached.",
     kDeleteOptions, "meshctl delete db-1"},
    {"wait", "ID|NAME", "wait until a workload or service is ready",
     "Returns when the container, or one endpoint of the service, is ready. Exit code 1\n"
     "and the reason when the time has run out. NAME is db, db.WORKFLOW or a full name.",
     kWaitOptions, "meshctl wait db --timeout 2m"},
    {"list",
     "workloads|services|flows|published|nodes|refused",
     "list what there is",
     "workloads: declarations with their state. services: names, their addresses and\n"
     "endpoints. flows: what may pass, with counters. published: ports open to outside,\n"
     "with their URLs and gateways from a controller that has them.\n"
     "nodes: those of the cluster, from a controller; without --controller this one.\n"
     "refused: pairs that were refused lately, how often, and what is not declared.",
     {},
     "meshctl list flows -o json"},
    {"explain",
     "SRC DST PORT[/udp]",
     "say why a flow is allowed or refused",
     "SRC and DST: an id, a service's name as SRC would write it, a full name, or an\n"
     "address. Prints the verdict and the lines of the declarations that decide it.",
     {},
     "meshctl explain worker db 5432"},
    {"resolve", "--as ID NAME [TYPE]", "say what DNS answers a container, and why",
     "TYPE is A if not given. Each container has its own view of the names.", kResolveOptions,
     "meshctl resolve --as worker db AAAA"},
    {"status",
     "",
     "show the daemon's health",
     "Equal generations mean that what is stored is in force. Exit code 1 when\n"
     "something is wrong, with the problems listed.",
     {},
     "meshctl status"},
    {"doctor",
     "",
     "say what is wrong with the node",
     "The problems of `status`, each with its mend where one is known: also others'\n"
     "firewalls that drop the mesh's packets, such as Docker's. Exit code 1 when there\n"
     "is any. Notes say what meshd does not see to on this node.",
     {},
     "meshctl doctor"},
    {"watch", "", "print events as they happen",
     "One line for each event: attached, ready, repaired, refused flows with the\n"
     "declaration that is missing. Ends with Ctrl-C.",
     kWatchOptions, "meshctl watch --refused"},
    {"name",
     "release NAME",
     "give a CLUSTER name up",
     "A CLUSTER name belongs to the owner that declared it first, until it is released.\n"
     "Refused while a declaration uses it.",
     {},
     "meshctl name release ollama"},
    {"version",
     "",
     "print meshctl's version",
     "Needs no daemon; `status` shows the daemon's.",
     {},
     "meshctl version"},
    {"help",
     "[COMMAND]",
     "explain a command",
     "The same as COMMAND --help.",
     {},
     "meshctl help attach"},
}};

void put_options(std::string& out, std::span<const OptionHelp> options) {
  std::size_t widest = 0;
  for (const auto& option : options) widest = std::max(widest, option.option.size());
  for (const auto& option : options) {
    out += fmt::format("  {:<{}}  {}\n", option.option, widest, option.text);
  }
}

std::string render_overview(const Style& style) {
  std::string out =
      "meshctl declares, connects and inspects the containers of this node's meshd, or\n"
      "with --controller those of a cluster: apply, delete, name, list, explain, watch, status.\n";
  out += fmt::format("\n{}\n  meshctl COMMAND [ARGUMENTS] [OPTIONS]   options may stand anywhere\n",
                     paint("Usage", Paint::kBold, style));
  out += fmt::format("\n{}\n", paint("Commands", Paint::kBold, style));
  std::size_t widest = 0;
  for (const auto& command : kCommands) widest = std::max(widest, command.name.size());
  for (const auto& command : kCommands) {
    const std::string pad(widest - command.name.size(), ' ');
    out += fmt::format("  {}{}  {}\n", paint(command.name, Paint::kGreen, style), pad,
                       command.summary);
  }
  out += fmt::format("\n{}\n", paint("Options", Paint::kBold, style));
  put_options(out, kCommonOptions);
  out += fmt::format(
      "\n{}\n"
      "  meshctl apply -f pipeline.yaml          declare who may talk to whom\n"
      "  meshctl prepare db                      make a connected network namespace\n"
      "  ip netns exec db postgres &             run the service in it\n"
      "  meshctl wait db                         until it listens\n"
      "  meshctl explain worker db 5432          and see who may reach it\n",
      paint("Example", Paint::kBold, style));
  out += fmt::format(
      "\n{}\n"
      "  0 done   1 refused or failed   2 wrong usage   3 not reachable\n",
      paint("Exit codes", Paint::kBold, style));
  return out;
}

}  // namespace

std::span<const CommandHelp> all_help() { return kCommands; }

const CommandHelp* find_help(std::string_view command) {
  const auto* found = std::ranges::find(kCommands, command, &CommandHelp::name);
  return found == kCommands.end() ? nullptr : found;
}

std::string render_help(std::string_view topic, const Style& style) {
  const auto* command = find_help(topic);
  if (command == nullptr) return render_overview(style);
  auto out = fmt::format("meshctl {}: {}\n\n{}\n  meshctl {}{}{}\n\n{}\n", command->name,
                         command->summary, paint("Usage", Paint::kBold, style), command->name,
                         command->arguments.empty() ? "" : " ", command->arguments, command->text);
  out += fmt::format("\n{}\n", paint("Options", Paint::kBold, style));
  put_options(out, command->options);
  put_options(out, kCommonOptions);
  out += fmt::format("\n{}\n  {}\n", paint("Example", Paint::kBold, style),
                     paint(command->example, Paint::kGreen, style));
  return out;
}

}  // namespace meshd::ctl
