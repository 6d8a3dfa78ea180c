#include "meshctl/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "meshctl/help.h"

namespace meshd::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using namespace std::chrono_literals;

Outcome<Command> parse_line(const std::string& line, std::string_view run_dir = "",
                            std::string_view controller = "", std::string_view identity = "") {
  std::istringstream stream(line);
  std::vector<std::string> args;
  for (std::string word; stream >> word;) args.push_back(word);
  return parse(args, {run_dir, controller, identity});
}

template <class T>
T action_of(const std::string& line) {
  const auto command = parse_line(line);
  EXPECT_TRUE(command) << line << ": " << command.error().what;
  if (!command || !std::holds_alternative<T>(command->action)) {
    ADD_FAILURE() << line << " is another command";
    return {};
  }
  return std::get<T>(command->action);
}

// The reason, with the exit code proven to be that of wrong usage.
std::string refusal_of(const std::string& line) {
  const auto command = parse_line(line);
  EXPECT_FALSE(command) << line << " was taken";
  if (command) return "";
  EXPECT_EQ(command.error().exit, Exit::kUsage) << line;
  EXPECT_FALSE(command.error().what.contains('\n')) << line;
  return command.error().what;
}

TEST(CliTest, OptionsMayStandAnywhere) {
  for (const auto* line : {"--netns /n attach web --ifname eth1 --no-default-route",
                           "attach --netns=/n --ifname eth1 web --no-default-route",
                           "--no-default-route --ifname=eth1 --netns /n attach web",
                           "attach web --no-default-route --netns /n --ifname eth1"}) {
    const auto attach = action_of<Attach>(line);
    EXPECT_EQ(attach.id, "web") << line;
    EXPECT_EQ(attach.netns, "/n") << line;
    EXPECT_EQ(attach.ifname, "eth1") << line;
    EXPECT_TRUE(attach.no_default_route) << line;
  }
}

TEST(CliTest, OutputAndRunDirStandBeforeOrAfterTheCommand) {
  for (const auto* line : {"-o json --run-dir /r list flows", "list flows -o json --run-dir /r",
                           "list -ojson --run-dir=/r flows", "--run-dir /r list flows -o json"}) {
    const auto command = parse_line(line);
    ASSERT_TRUE(command) << command.error().what;
    EXPECT_EQ(command->output, Output::kJson) << line;
    EXPECT_EQ(command->run_dir, "/r") << line;
    EXPECT_EQ(std::get<List>(command->action).what, Listing::kFlows) << line;
  }
}

TEST(CliTest, RunDirComesFromOptionThenVariableThenDefault) {
  EXPECT_EQ(parse_line("status")->run_dir, "/run/meshd");
  EXPECT_EQ(parse_line("status", "/var")->run_dir, "/var");
  EXPECT_EQ(parse_line("status --run-dir /opt", "/var")->run_dir, "/opt");
}

TEST(CliTest, ALaterOutputWinsSoThatAnAliasCanBeOverruled) {
  EXPECT_EQ(parse_line("-o json status -o table")->output, Output::kTable);
}

TEST(CliTest, ApplyTakesSeveralFilesAndWhatTheShellMadeOfAStar) {
  EXPECT_THAT(action_of<Apply>("apply -f a -f b").files, ElementsAre("a", "b"));
  EXPECT_THAT(action_of<Apply>("apply -f a b c").files, ElementsAre("a", "b", "c"));
  EXPECT_THAT(action_of<Plan>("-f - plan").files, ElementsAre("-"));
}

TEST(CliTest, ApplyRefusesNoFileTooManyAndStdinTwice) {
  EXPECT_THAT(refusal_of("apply"), HasSubstr("-f FILE"));
  EXPECT_THAT(refusal_of("apply a.yaml"), HasSubstr("-f FILE"));
  EXPECT_THAT(refusal_of("apply -f - -f -"), HasSubstr("standard input is named twice"));
  std::string many = "apply -f a";
  for (int i = 0; i < 24; ++i) many += " -f a";
  EXPECT_THAT(refusal_of(many), HasSubstr("25 files, at most 24"));
}

TEST(CliTest, AttachNeedsExactlyOneNamespace) {
  EXPECT_EQ(action_of<Attach>("attach web --pid 7").pid, 7);
  EXPECT_EQ(action_of<Attach>("attach web --pid 7").ifname, "eth0");
  EXPECT_THAT(refusal_of("attach web"), HasSubstr("one of --netns PATH and --pid PID"));
  EXPECT_THAT(refusal_of("attach web --pid 7 --netns /n"), HasSubstr("one of --netns"));
}

TEST(CliTest, AttachRefusesWhatIsNoPidOrInterface) {
  for (const auto* pid : {"0", "-1", "x", "7x", "99999999999"}) {
    EXPECT_THAT(refusal_of(std::string("attach web --pid ") + pid), HasSubstr("is no pid"));
  }
  for (const auto* name : {"a/b", "abcdefghijklmnop", ".", "a:b"}) {
    EXPECT_THAT(refusal_of(std::string("attach web --pid 7 --ifname ") + name),
                HasSubstr("no interface name"));
  }
}

TEST(CliTest, ExplainReadsPortAndProtocol) {
  const auto tcp = action_of<Explain>("explain worker db 5432");
  EXPECT_EQ(tcp.src, "worker");
  EXPECT_EQ(tcp.dst, "db");
  EXPECT_EQ(tcp.port, 5432);
  EXPECT_EQ(tcp.protocol, Proto::kTcp);
  EXPECT_EQ(action_of<Explain>("explain a b 53/udp").protocol, Proto::kUdp);
  EXPECT_EQ(action_of<Explain>("explain a b 53/tcp").protocol, Proto::kTcp);
  for (const auto* port : {"0", "65536", "x", "53/sctp", "53/", "/udp"}) {
    EXPECT_THAT(refusal_of(std::string("explain a b ") + port), HasSubstr("is no port"));
  }
}

TEST(CliTest, WordsThatLookLikeListsOrCommandsStayWords) {
  EXPECT_EQ(action_of<Explain>("explain a [::1] 80").dst, "[::1]");
  EXPECT_EQ(action_of<Detach>("detach status").id, "status");
  EXPECT_EQ(action_of<Wait>("wait list").target, "list");
}

TEST(CliTest, ResolveAsksForAAndTakesTheTypeInAnyCase) {
  EXPECT_EQ(action_of<Resolve>("resolve --as worker db").type, "A");
  EXPECT_EQ(action_of<Resolve>("resolve db aaaa --as worker").type, "AAAA");
  EXPECT_THAT(refusal_of("resolve db"), HasSubstr("--as ID"));
}

TEST(CliTest, WaitReadsItsTimeout) {
  EXPECT_EQ(action_of<Wait>("wait db").timeout, 60s);
  EXPECT_EQ(action_of<Wait>("wait db --timeout 2m").timeout, 2min);
  EXPECT_THAT(refusal_of("wait db --timeout soon"), HasSubstr("'soon' is no time"));
}

TEST(CliTest, DurationsHaveUnitsAndALimit) {
  EXPECT_EQ(parse_duration("90"), 90s);
  EXPECT_EQ(parse_duration("0"), 0s);
  EXPECT_EQ(parse_duration("1500ms"), 1500ms);
  EXPECT_EQ(parse_duration("5s"), 5s);
  EXPECT_EQ(parse_duration("24h"), 24h);
  for (const auto* text : {"", "s", "-1s", "1.5s", "1 s", "25h", "5000000000s", "1d"}) {
    EXPECT_FALSE(parse_duration(text)) << text;
  }
}

TEST(CliTest, TheOtherCommandsCarryTheirArguments) {
  EXPECT_EQ(action_of<Prepare>("prepare web").id, "web");
  EXPECT_EQ(action_of<Prepare>("prepare web").resolv_conf, "");
  EXPECT_EQ(action_of<Prepare>("--resolv-conf /r prepare web").resolv_conf, "/r");
  EXPECT_EQ(action_of<Drain>("drain web").id, "web");
  EXPECT_FALSE(action_of<Delete>("delete web").force);
  EXPECT_TRUE(action_of<Delete>("--force delete web").force);
  EXPECT_TRUE(action_of<Watch>("watch --refused").refused_only);
  EXPECT_EQ(action_of<ReleaseName>("name release ollama").name, "ollama");
  EXPECT_EQ(action_of<List>("list published").what, Listing::kPublished);
  action_of<ShowStatus>("status");
  action_of<Doctor>("doctor");
  action_of<ShowVersion>("version");
  action_of<ShowVersion>("--version");
}

TEST(CliTest, WhatDoesNotBelongIsRefusedWithItsName) {
  EXPECT_EQ(refusal_of("frob"), "frob: no such command (see `meshctl --help`)");
  EXPECT_EQ(refusal_of("--frob status"), "--frob: no such option (see `meshctl --help`)");
  EXPECT_EQ(refusal_of("list flows --force"),
            "list: --force does not belong to it (see `meshctl list --help`)");
  EXPECT_EQ(refusal_of("wait a b"),
            "wait: 'b' is too much on the line (see `meshctl wait --help`)");
  EXPECT_EQ(refusal_of("explain a b"),
            "explain: needs SRC DST PORT[/udp] (see `meshctl explain --help`)");
  EXPECT_EQ(refusal_of("status -o yaml"),
            "-o: 'yaml' is none of json, table (see `meshctl --help`)");
  EXPECT_EQ(refusal_of("attach a --pid 1 --pid 2"),
            "--pid: takes one value, once (see `meshctl --help`)");
  EXPECT_THAT(refusal_of("list cats"), HasSubstr("services, flows, published, nodes, refused"));
  EXPECT_THAT(refusal_of("name rename x"), HasSubstr("not `release`"));
  EXPECT_THAT(refusal_of(""), HasSubstr("which command?"));
}

TEST(CliTest, AControllerIsNamedByTheLineOrTheEnvironment) {
  const auto by_line =
      parse_line("list nodes --controller a:1,[2001:db8::1]:2 --identity /k/me.pem");
  ASSERT_TRUE(by_line) << by_line.error().what;
  ASSERT_TRUE(by_line->controller);
  EXPECT_THAT(by_line->controller->addresses, ElementsAre("a:1", "[2001:db8::1]:2"));
  EXPECT_EQ(by_line->controller->files.identity, "/k/me.pem");
  EXPECT_EQ(by_line->controller->files.authorities, "/k/authorities.pem");
  const auto by_variables = parse_line("status --authorities ca.pem", "", "a:1", "me.pem");
  ASSERT_TRUE(by_variables) << by_variables.error().what;
  EXPECT_THAT(by_variables->controller->addresses, ElementsAre("a:1"));
  EXPECT_EQ(by_variables->controller->files.identity, "me.pem");
  EXPECT_EQ(by_variables->controller->files.authorities, "ca.pem");
  EXPECT_FALSE(parse_line("status")->controller);
  EXPECT_FALSE(parse_line("status", "", "", "me.pem")->controller);
}

TEST(CliTest, TheLineComesBeforeTheEnvironment) {
  EXPECT_FALSE(parse_line("attach a --pid 1 --run-dir /r", "", "a:1", "me.pem")->controller);
  const auto line = parse_line("status --controller b:1 --identity you.pem", "/r", "a:1", "me.pem");
  EXPECT_THAT(line->controller->addresses, ElementsAre("b:1"));
  EXPECT_EQ(line->controller->files.identity, "you.pem");
}

TEST(CliTest, WhatAControllerDoesNotOfferIsWrongUsage) {
  for (const auto* line : {"attach a --pid 1", "prepare a", "detach a", "drain a", "wait a",
                           "resolve --as a b", "plan -f x", "doctor"}) {
    EXPECT_THAT(refusal_of(std::string(line) + " --controller a:1 --identity me.pem"),
                HasSubstr("a controller does not offer it: ask meshd on the node, without "
                          "--controller"))
        << line;
  }
  EXPECT_THAT(refusal_of("list flows --controller a:1 --identity me.pem"),
              HasSubstr("list: flows are not known to a controller"));
  const auto command = parse_line("wait a", "", "a:1", "me.pem");
  ASSERT_FALSE(command);
  EXPECT_THAT(command.error().what, HasSubstr("with --run-dir, or without MESHD_CONTROLLER"));
  for (const auto* line : {"apply -f x", "delete a", "name release a", "list workloads",
                           "list services", "list published", "list nodes", "list refused",
                           "explain a b 1", "watch", "watch --refused", "status"}) {
    EXPECT_TRUE(parse_line(line, "", "a:1", "me.pem")) << line;
  }
}

TEST(CliTest, AControllerCannotBeHalfNamed) {
  EXPECT_THAT(refusal_of("status --controller a:1"), HasSubstr("--identity FILE"));
  EXPECT_FALSE(parse_line("status", "", "a:1"));
  EXPECT_TRUE(parse_line("version", "", "a:1")) << "help needs no controller";
  EXPECT_THAT(refusal_of("status --identity me.pem"), HasSubstr("goes with --controller"));
  EXPECT_THAT(refusal_of("status --controller a --identity me.pem"),
              HasSubstr("--controller: 'a' does not end in a port"));
  EXPECT_THAT(refusal_of("status --controller a:1, --identity me.pem"), HasSubstr("''"));
  EXPECT_EQ(refusal_of("status --controller= --identity me.pem"),
            "--controller: needs a value (see `meshctl --help`)");
  EXPECT_THAT(refusal_of("status --controller a:1 --run-dir /r --identity me.pem"),
              HasSubstr("one of them"));
}

TEST(CliTest, AnEmptyVariableInAScriptIsNotAName) {
  const std::vector<std::string> args = {"delete", "", "--force"};
  const auto command = parse(args, {});
  ASSERT_FALSE(command);
  EXPECT_THAT(command.error().what, HasSubstr("an empty argument"));
}

TEST(CliTest, HelpIsFoundWhateverElseIsWrong) {
  EXPECT_EQ(action_of<ShowHelp>("--help").topic, "");
  EXPECT_EQ(action_of<ShowHelp>("help").topic, "");
  EXPECT_EQ(action_of<ShowHelp>("attach --help").topic, "attach");
  EXPECT_EQ(action_of<ShowHelp>("-h explain a").topic, "explain");
  EXPECT_EQ(action_of<ShowHelp>("help wait").topic, "wait");
  EXPECT_THAT(refusal_of("help frob"), HasSubstr("no such command"));
}

TEST(HelpTest, EveryCommandHasAnExampleThatItsParserTakes) {
  for (const auto& command : all_help()) {
    std::string line(command.example);
    if (const auto more = line.find(" && "); more != std::string::npos) line.resize(more);
    ASSERT_TRUE(line.starts_with("meshctl ")) << line;
    const auto parsed = parse_line(line.substr(8));
    EXPECT_TRUE(parsed) << line << ": " << parsed.error().what;
    EXPECT_THAT(render_help(command.name, {}), HasSubstr(std::string(command.example)));
  }
}

TEST(HelpTest, TheOverviewNamesEveryCommandAndFitsATerminal) {
  const auto text = render_help("", {});
  for (const auto& command : all_help()) {
    EXPECT_THAT(text, HasSubstr("\n  " + std::string(command.name) + " ")) << command.name;
  }
  for (const auto& command : all_help()) {
    std::istringstream page(text + render_help(command.name, {}));
    for (std::string line; std::getline(page, line);) EXPECT_LE(line.size(), 90U) << line;
  }
}

TEST(HelpTest, ColoursAppearOnlyWhenAsked) {
  EXPECT_FALSE(render_help("", {}).contains('\x1b'));
  EXPECT_TRUE(render_help("", {.colour = true}).contains('\x1b'));
}

}  // namespace
}  // namespace meshd::ctl
