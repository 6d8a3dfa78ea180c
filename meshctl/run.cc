#include "meshctl/run.h"

#include <fmt/format.h>

#include "meshctl/attach.h"
#include "meshctl/help.h"
#include "meshctl/io.h"
#include "meshctl/print_answer.h"
#include "meshctl/print_json.h"
#include "meshctl/print_list.h"
#include "meshctl/signals.h"

namespace meshd::ctl {
namespace {

// One command at work. Each overload of on() carries one kind of Action out.
class Runner {
 public:
  Runner(const Command& command, const Environment& environment)
      : command_(command), environment_(environment) {}

  Outcome<Exit> on(const ShowHelp& help) const {
    return put(render_help(help.topic, environment_.style));
  }

  Outcome<Exit> on(const ShowVersion&) const {
    if (json()) return put(fmt::format("{{\n  \"version\": \"{}\"\n}}\n", kVersion));
    return put(fmt::format("meshctl {}\n", kVersion));
  }

  Outcome<Exit> on(const Apply& apply) const {
    const auto request = TRY(read_files(apply.files));
    auto client = TRY(control());
    return answer(TRY(client.apply(request)));
  }

  Outcome<Exit> on(const Plan& plan) const {
    const auto request = TRY(read_files(plan.files));
    auto client = TRY(status());
    return answer(TRY(client.plan(request)));
  }

  Outcome<Exit> on(const Attach& command) const {
    auto client = TRY(control());
    const auto reply = TRY(attach(client, command));
    if (command.no_default_route) {
      // For a person; scripts read stdout, and nothing has gone wrong.
      [[maybe_unused]] const auto written = write_all(
          environment_.err,
          fmt::format(
              "meshctl: attach {}: what passes other interfaces than {} is not controlled\n",
              printable(command.id), printable(reply.ifname())));
    }
    return put(TRY(render_json(reply)));
  }

  Outcome<Exit> on(const Prepare& command) const {
    auto client = TRY(control());
    const auto reply = TRY(
        prepare(client, command, environment_.netns_dir, command_.run_dir, environment_.timeouts));
    return put(TRY(render_json(reply)));
  }

  Outcome<Exit> on(const Detach& command) const {
    auto client = TRY(control());
    const auto reply = TRY(detach(client, command, environment_.netns_dir));
    return confirm(reply, command.id, reply.was_attached() ? "detached" : "was not attached");
  }

  Outcome<Exit> on(const Drain& command) const {
    auto client = TRY(control());
    pb::WorkloadRequest request;
    request.set_id(command.id);
    return confirm(TRY(client.drain(request)), command.id, "draining");
  }

  Outcome<Exit> on(const Delete& command) const {
    auto client = TRY(control());
    return confirm(TRY(remove(client, command, environment_.netns_dir)), command.id, "deleted");
  }

  Outcome<Exit> on(const ReleaseName& command) const {
    auto client = TRY(control());
    pb::NameRequest request;
    request.set_name(command.name);
    return confirm(TRY(client.release_name(request)), command.name, "released");
  }

  Outcome<Exit> on(const Wait& command) const {
    auto client = TRY(status());
    pb::WaitRequest request;
    request.set_target(command.target);
    request.set_timeout_ms(static_cast<std::uint32_t>(command.timeout.count()));
    const auto reply = TRY(client.wait(request));
    if (reply.ready()) return confirm(reply, command.target, "ready");
    if (json()) CHECK_OK(put(TRY(render_json(reply))));
    return fail(Exit::kRefused, fmt::format("wait {}: not ready within {} ms: {}", command.target,
                                            command.timeout.count(), reply.reason()));
  }

  Outcome<Exit> on(const List& list) const {
    auto client = TRY(status());
    switch (list.what) {
      case Listing::kWorkloads:
        return table(client.workloads());
      case Listing::kServices:
        return table(client.services());
      case Listing::kFlows:
        return table(client.flows());
      case Listing::kPublished:
        return table(client.published());
      case Listing::kNodes:
        return table(client.nodes());
      case Listing::kRefused:
        return table(client.refused());
    }
    return fail(Exit::kUsage, "list: of what?");
  }

  Outcome<Exit> on(const Explain& command) const {
    auto client = TRY(status());
    pb::ExplainRequest request;
    request.set_src(command.src);
    request.set_dst(command.dst);
    request.set_port(command.port);
    request.set_protocol(command.protocol == Proto::kUdp ? pb::Protocol::UDP : pb::Protocol::TCP);
    return answer(TRY(client.explain(request)));
  }

  Outcome<Exit> on(const Resolve& command) const {
    auto client = TRY(status());
    pb::ResolveRequest request;
    request.set_id(command.as);
    request.set_name(command.name);
    request.set_type(command.type);
    return answer(TRY(client.resolve(request)));
  }

  Outcome<Exit> on(const ShowStatus&) const {
    auto client = TRY(status());
    const auto reply = TRY(client.status());
    CHECK_OK(answer(reply));
    return reply.healthy() ? Exit::kDone : Exit::kRefused;
  }

  // All that is known to be wrong, also what is not the daemon's own.
  Outcome<Exit> on(const Doctor&) const {
    auto client = TRY(status());
    const auto reply = TRY(client.status());
    CHECK_OK(put(json() ? TRY(render_json(reply)) : render_findings(reply, environment_.style)));
    return reply.healthy() && reply.problems().empty() ? Exit::kDone : Exit::kRefused;
  }

  Outcome<Exit> on(const Watch& command) const {
    // First of all: gRPC's threads inherit the mask, or one of them would take the signal.
    UniqueFd signals;
    if (environment_.stop_fd < 0) signals = TRY(open_stop_signals());
    const int stop_fd = signals ? signals.get() : environment_.stop_fd;
    auto client = TRY(status());
    pb::WatchRequest request;
    request.set_refused_only(command.refused_only);
    const auto ended =
        client.watch(request, stop_fd, [this](const pb::Event& event) -> Outcome<void> {
          CHECK_OK(put(json() ? TRY(render_json(event, Layout::kLine))
                              : render_text(event, environment_.style)));
          return {};
        });
    CHECK_OK(ended);
    return Exit::kDone;
  }

 private:
  [[nodiscard]] bool json() const { return command_.output == Output::kJson; }

  [[nodiscard]] Outcome<ControlClient> control() const {
    if (command_.controller) {
      return ControlClient::connect(*command_.controller, environment_.timeouts);
    }
    return ControlClient::connect(command_.run_dir, environment_.timeouts);
  }
  [[nodiscard]] Outcome<StatusClient> status() const {
    if (command_.controller) {
      return StatusClient::connect(*command_.controller, environment_.timeouts);
    }
    return StatusClient::connect(command_.run_dir, environment_.timeouts);
  }

  // No buffer in between: whoever reads a pipe behind `watch` gets each line at once.
  [[nodiscard]] Outcome<Exit> put(std::string_view text) const {
    CHECK_OK(write_all(environment_.out, text));
    return Exit::kDone;
  }

  template <class Reply>
  [[nodiscard]] Outcome<Exit> answer(const Reply& reply) const {
    return put(json() ? TRY(render_json(reply)) : render_text(reply, environment_.style));
  }

  template <class Reply>
  [[nodiscard]] Outcome<Exit> confirm(const Reply& reply, std::string_view subject,
                                      std::string_view what) const {
    return put(json() ? TRY(render_json(reply)) : fmt::format("{}: {}\n", subject, what));
  }

  template <class List>
  [[nodiscard]] Outcome<Exit> table(Outcome<List> reply) const {
    auto list = TRY(std::move(reply));
    sort(list);
    return put(json() ? TRY(render_json(list)) : render_table(list, environment_.style));
  }

  // Declarations go to the daemon as they are: it holds the only parser.
  [[nodiscard]] Outcome<pb::ApplyRequest> read_files(const std::vector<std::string>& files) const {
    pb::ApplyRequest request;
    for (const auto& path : files) {
      auto& file = *request.add_files();
      file.set_name(path == "-" ? "<stdin>" : path);
      file.set_text(
          TRY(path == "-" ? read_descriptor(environment_.in, "<stdin>") : read_file(path)));
    }
    return request;
  }

  const Command& command_;
  const Environment& environment_;
};

}  // namespace

Outcome<Exit> run(const Command& command, const Environment& environment) {
  const Runner runner(command, environment);
  return std::visit([&](const auto& action) { return runner.on(action); }, command.action);
}

}  // namespace meshd::ctl
