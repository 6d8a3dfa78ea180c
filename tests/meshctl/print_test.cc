// Tables and answers for people.
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "meshctl/print_answer.h"
#include "meshctl/print_list.h"

namespace meshd::ctl {
namespace {

namespace pb = mesh::v1;

template <class T>
T from_json(const std::string& text) {
  T message;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &message);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return message;
}

TEST(ListTest, WorkloadsAreSortedWithTheirProblemsBelow) {
  auto list = from_json<pb::WorkloadList>(R"({"workloads":[
      {"declaration":{"id":"worker","owner":"ann","workflow":"run1"}},
      {"declaration":{"id":"db","owner":"ann","name":"db","scope":"CLUSTER",
                      "serves":[{"port":5432},{"port":8000,"end_port":8100,"protocol":"UDP"}]},
       "state":"ATTACHED","attachment":{"addresses":["10.213.0.2","fd00::2"]},
       "problems":["5432/tcp listens on 127.0.0.1 only"]}]})");
  sort(list);
  EXPECT_EQ(render_table(list, {}),
            "ID      NAME  WORKFLOW  OWNER  STATE     SERVES              ADDRESSES\n"
            "db      db    -         ann    ATTACHED  5432,8000-8100/udp  10.213.0.2,fd00::2\n"
            "worker  -     run1      ann    DECLARED  -                   -\n"
            "db: 5432/tcp listens on 127.0.0.1 only\n");
}

TEST(ListTest, ServicesCountTheirReadyEndpoints) {
  auto list = from_json<pb::ServiceList>(R"({"services":[
      {"name":"ollama","scope":"CLUSTER","owner":"bob","vips":["10.214.0.2"]},
      {"name":"db","scope":"WORKFLOW","workflow":"run1","owner":"ann","vips":["10.214.0.1"],
       "endpoints":[{"id":"db-2"},{"id":"db-1","ready":true}]}]})");
  sort(list);
  EXPECT_EQ(render_table(list, {}),
            "NAME    SCOPE     WORKFLOW  OWNER  READY  VIPS        ENDPOINTS\n"
            "db      WORKFLOW  run1      ann      1/2  10.214.0.1  db-1,db-2\n"
            "ollama  CLUSTER   -         bob      0/0  10.214.0.2  -\n");
}

TEST(ListTest, FlowsShowPortsAndCounters) {
  auto list = from_json<pb::FlowList>(R"({"flows":[
      {"src":"b","dst":"a","port":53,"protocol":"UDP","packets":1,"bytes":2048},
      {"src":"a","dst":"0.0.0.0/0"},
      {"src":"a","dst":"b","port":8000,"end_port":8100,"packets":12345,"bytes":9}]})");
  sort(list);
  EXPECT_EQ(render_table(list, {}),
            "SRC  DST        PORT           PACKETS  BYTES\n"
            "a    0.0.0.0/0  any/tcp              0      0\n"
            "a    b          8000-8100/tcp    12345      9\n"
            "b    a          53/udp               1   2048\n");
  EXPECT_TRUE(render_table(list, {.human = true}).contains("12.3k"));
  EXPECT_TRUE(render_table(list, {.human = true}).contains("2.0 KiB"));
}

TEST(ListTest, PublishedPortsSayWhoMayComeIn) {
  auto list = from_json<pb::PublishedList>(R"({"published":[
      {"id":"view","port":8888,"node_port":20001,"http":true,"access":"CAN_READ",
       "label":"Notebook","node_addresses":["192.0.2.1","2001:db8::1"],"ready":true},
      {"id":"view","port":9000,"node_port":20002,"http":true,"on_demand":true,"ready":true},
      {"id":"db","name":"db","port":5432,"node_port":25432,"allow_from":["192.0.2.0/24"]}]})");
  sort(list);
  EXPECT_EQ(
      render_table(list, {}),
      "ID    NAME  PORT      NODE PORT                            ALLOWED                READY  "
      "LABEL\n"
      "db    db    5432/tcp  25432                                192.0.2.0/24           no     -\n"
      "view  -     8888/tcp  192.0.2.1:20001,[2001:db8::1]:20001  http CAN_READ          yes    "
      "Notebook\n"
      "view  -     9000/tcp  20002                                http OWNER, on demand  yes    "
      "-\n");
}

TEST(ListTest, WhereThereAreGatewaysTheyAreShown) {
  const auto list = from_json<pb::PublishedList>(R"({"published":[
      {"id":"db","port":5432,"node_port":25432,"gateway_port":30000,
       "gateway_addresses":["192.0.2.9","2001:db8::9"]},
      {"id":"view","port":80,"node_port":20001,"http":true}]})");
  EXPECT_EQ(
      render_table(list, {}),
      "ID    NAME  PORT      NODE PORT  GATEWAY                              ALLOWED     READY"
      "  LABEL\n"
      "db    -     5432/tcp  25432      192.0.2.9:30000,[2001:db8::9]:30000  -           no   "
      "  -\n"
      "view  -     80/tcp    20001      -                                    http OWNER  no   "
      "  -\n");
}

TEST(ListTest, WhatBrowsersOpenHasItsUrlsReadyToPaste) {
  const auto list = from_json<pb::PublishedList>(R"({"published":[
      {"id":"db","port":5432,"node_port":25432},
      {"id":"view","port":80,"node_port":20001,"http":true,
       "urls":["https://view.svc.example.org/lab","https://view--80.example.org/lab"]}]})");
  EXPECT_EQ(render_table(list, {}),
            "ID    NAME  PORT      NODE PORT  ALLOWED     READY  LABEL  URL\n"
            "db    -     5432/tcp  25432      -           no     -      -\n"
            "view  -     80/tcp    20001      http OWNER  no     -      "
            "https://view.svc.example.org/lab https://view--80.example.org/lab\n");
}

TEST(ListTest, NodesSayWhetherTheyAreThere) {
  pb::NodeList list;
  for (const auto* name : {"n3", "n1", "n2"}) list.add_nodes()->set_name(name);
  list.mutable_nodes(0)->set_stale(true);
  list.mutable_nodes(0)->set_problem("no room");
  list.mutable_nodes(1)->set_connected(true);
  list.mutable_nodes(1)->add_blocks("10.213.0.0/24");
  list.mutable_nodes(1)->add_blocks("fd00::/112");
  list.mutable_nodes(1)->add_underlay("192.0.2.1");
  list.mutable_nodes(1)->set_workloads(7);
  sort(list);
  EXPECT_EQ(render_table(list, {}),
            "NAME  STATE      BLOCKS                    UNDERLAY   WORKLOADS  PROBLEM\n"
            "n1    connected  10.213.0.0/24,fd00::/112  192.0.2.1          7  -\n"
            "n2    away       -                         -                  0  -\n"
            "n3    stale      -                         -                  0  no room\n");
}

TEST(ListTest, RefusedPairsSayWhatIsMissing) {
  auto list = from_json<pb::RefusedList>(R"({"refused":[
      {"consumer":"worker","provider":"cache","count":"2","last":"2026-01-31T09:30:00Z",
       "node":"n2","owner":"ann","missing":"in worker: peers: [{name: cache}]"},
      {"consumer":"stranger","provider":"db","port":5432,"protocol":"UDP","count":"1500",
       "last":"2026-01-31T09:30:01Z","node":"n2","owner":"bob"}]})");
  sort(list);
  EXPECT_EQ(render_table(list, {}),
            "CONSUMER  PROVIDER  PORT      COUNT  LAST                  NODE  OWNER  MISSING\n"
            "stranger  db        5432/udp   1500  2026-01-31T09:30:01Z  n2    bob    -\n"
            "worker    cache     name          2  2026-01-31T09:30:00Z  n2    ann    "
            "in worker: peers: [{name: cache}]\n");
}

TEST(ListTest, EndpointsOfANodeThatIsMissedAreMarked) {
  const auto list = from_json<pb::ServiceList>(R"({"services":[
      {"name":"db","owner":"ann","endpoints":[{"id":"db-1","stale":true},{"id":"db-2"}]}]})");
  EXPECT_NE(render_table(list, {}).find("db-1 (stale),db-2\n"), std::string::npos);
}

TEST(ListTest, OrderDoesNotDependOnTheDaemons) {
  auto one = from_json<pb::ServiceList>(
      R"({"services":[{"name":"b","scope":"CLUSTER"},{"name":"a","scope":"CLUSTER"},
                      {"name":"z","scope":"WORKFLOW","workflow":"r"}]})");
  auto other = from_json<pb::ServiceList>(
      R"({"services":[{"name":"z","scope":"WORKFLOW","workflow":"r"},
                      {"name":"a","scope":"CLUSTER"},{"name":"b","scope":"CLUSTER"}]})");
  sort(one);
  sort(other);
  EXPECT_EQ(one.SerializeAsString(), other.SerializeAsString());
}

TEST(AnswerTest, ApplyPrintsEachChangeAndASummary) {
  const auto reply = from_json<pb::ApplyReply>(R"({"generation":"42","changes":[
      {"kind":"WORKLOAD_ADDED","subject":"db"},
      {"kind":"WORKLOAD_UNCHANGED","subject":"same"},
      {"kind":"WORKLOAD_CHANGED","subject":"worker","detail":"peers"},
      {"kind":"FLOW_ADDED","subject":"worker -> db tcp/5432"},
      {"kind":"FLOW_REMOVED","subject":"worker -> old tcp/1"},
      {"kind":"CONNECTION_CUT","subject":"worker -> old tcp/1","detail":"2 open"},
      {"kind":"PEER_UNDECLARED","subject":"worker: cache"}]})");
  EXPECT_EQ(render_text(reply, {}),
            "+ workload db\n"
            "~ workload worker: peers\n"
            "+ flow worker -> db tcp/5432\n"
            "- flow worker -> old tcp/1\n"
            "! cut worker -> old tcp/1: 2 open\n"
            "? peer worker: cache\n"
            "generation 42: 1 added, 1 changed, 1 unchanged, 1 flows opened, 1 flows closed, "
            "1 connections cut, 1 peers not declared yet\n");
}

TEST(AnswerTest, AChangeOfANewerDaemonIsShown) {
  pb::PlanReply reply;
  auto& change = *reply.add_changes();
  change.set_kind(static_cast<pb::Change::Kind::Value>(99));
  change.set_subject("x");
  EXPECT_EQ(render_text(reply, {}), "* change x\napply would do: nothing\n");
}

TEST(AnswerTest, ExplainPrintsVerdictReasonAndLines) {
  const auto reply = from_json<pb::ExplainReply>(
      R"({"verdict":"REFUSED","reason":"worker declares no peer db","lines":["a","b"]})");
  EXPECT_EQ(render_text(reply, {}), "REFUSED: worker declares no peer db\n  a\n  b\n");
  EXPECT_TRUE(render_text(reply, {.colour = true}).starts_with("\x1b[31mREFUSED\x1b[0m"));
}

TEST(AnswerTest, ResolvePrintsAnswersOrTheReasonForNone) {
  EXPECT_EQ(render_text(from_json<pb::ResolveReply>(
                            R"({"rcode":"NXDOMAIN","ede":"Filtered","reason":"no peer db"})"),
                        {}),
            "NXDOMAIN: no peer db\n  extended error: Filtered\n");
  EXPECT_EQ(render_text(from_json<pb::ResolveReply>(
                            R"({"rcode":"NOERROR","answers":[{"name":"db.svc.mesh.internal",
                                "type":"A","ttl":5,"data":"10.214.0.1"}]})"),
                        {}),
            "NOERROR\n"
            "NAME                  TTL  TYPE  DATA\n"
            "db.svc.mesh.internal    5  A     10.214.0.1\n");
}

TEST(AnswerTest, StatusShowsGenerationsUpstreamsAndProblems) {
  const auto reply = from_json<pb::StatusReply>(R"({"healthy":false,"node":"n1",
      "version":"0.1.0","zone":"mesh.internal","workloads":3,"attached":2,
      "repairs":"1","watching":2,"waiting":1,
      "generations":{"stored":"42","planned":"42","installed":"41","named":"41","reported":"41"},
      "upstreams":[{"address":"192.0.2.53","healthy":true,"rtt_us":1234},{"address":"x"},
      {"address":"y","leads_back":true}],
      "problems":[{"subject":"kernel","detail":"behind by 1"}],"controller":"none"})");
  EXPECT_EQ(render_text(reply, {}),
            "meshd 0.1.0 on n1: NOT HEALTHY\n"
            "zone         mesh.internal\n"
            "generations  stored 42, planned 42, installed 41, named 41, reported 41\n"
            "workloads    3 declared, 2 attached\n"
            "repairs      1\n"
            "clients      2 watching, 1 waiting\n"
            "controller   none\n"
            "upstream     192.0.2.53 answers in 1.2 ms\n"
            "upstream     x does not answer\n"
            "upstream     y is not asked\n"
            "problem      kernel: behind by 1\n");
}

TEST(AnswerTest, StatusOfAControllerIsThatOfNoNode) {
  pb::StatusReply reply;
  reply.set_healthy(true);
  reply.set_controller("c1");
  reply.set_zone("mesh.internal");
  reply.mutable_generations()->set_stored(9);
  EXPECT_EQ(render_text(reply, {}),
            "controller c1: healthy\n"
            "zone         mesh.internal\n"
            "revision     9\n"
            "workloads    0 declared, 0 attached\n");
}

TEST(AnswerTest, FindingsAreProblemsAndThenWhatNobodySeesTo) {
  pb::StatusReply reply;
  EXPECT_EQ(render_findings(reply, {}), "not healthy: what is stored is not in force\n");
  reply.set_healthy(true);
  EXPECT_EQ(render_findings(reply, {}), "nothing is wrong\n");
  reply.add_limits("a is b\n");
  EXPECT_EQ(render_findings(reply, {}), "nothing is wrong\nnote: a is b?\n");
  reply.add_problems()->set_subject("dns");
  reply.mutable_problems(0)->set_detail("away");
  EXPECT_EQ(render_findings(reply, {}), "dns: away\nnote: a is b?\n");
}

TEST(AnswerTest, AnEventIsOneLine) {
  const auto event = from_json<pb::Event>(R"({"kind":"REFUSED_FLOW","time":"2025-01-02T03:04:05Z",
      "id":"worker","peer":"db","detail":"tcp/5432\nforged","missing":"peers: [{name: db}]"})");
  EXPECT_EQ(render_text(event, {}),
            "2025-01-02T03:04:05Z  REFUSED_FLOW  worker -> db  tcp/5432?forged  "
            "(missing: peers: [{name: db}])\n");
  EXPECT_EQ(render_text(from_json<pb::Event>(R"({"kind":"READY","time":"t","id":"db"})"), {}),
            "t  READY         db\n");
}

TEST(AnswerTest, AnEventOfAControllerSaysWhere) {
  EXPECT_EQ(render_text(from_json<pb::Event>(R"({"kind":"REFUSED_FLOW","time":"t","id":"a",
                "peer":"b","detail":"tcp/1: no","missing":"in a: peers","node":"n2","count":"3"})"),
                        {}),
            "t  REFUSED_FLOW  a -> b  tcp/1: no  (3 times)  on n2  (missing: in a: peers)\n");
  EXPECT_EQ(render_text(from_json<pb::Event>(R"({"kind":"NODE_UP","time":"t","id":"n1",
                "node":"n1"})"),
                        {}),
            "t  NODE_UP       n1\n");
}

TEST(AnswerTest, WhatAnAuthorWroteCannotSteerTheTerminal) {
  pb::WorkloadList list;
  list.add_workloads()->mutable_declaration()->set_id("a\x1b[2J");
  list.mutable_workloads(0)->add_problems("b\x1b[2J");
  EXPECT_FALSE(render_table(list, {}).contains('\x1b'));
  pb::StatusReply status;
  status.add_problems()->set_detail("x\x1b]0;y\x07");
  EXPECT_FALSE(render_text(status, {}).contains('\x1b'));
}

}  // namespace
}  // namespace meshd::ctl
