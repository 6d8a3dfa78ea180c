#include "meshctl/print_json.h"

#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

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

TEST(JsonTest, AWorkloadIsItsDeclarationFlatWithStateAndAttachment) {
  const auto list = from_json<pb::WorkloadList>(R"({"workloads":[{
      "declaration":{"id":"db-1","owner":"ann","name":"db","scope":"CLUSTER",
                     "serves":[{"port":5432,"name":"sql"}],"hold":"30s"},
      "state":"READY",
      "attachment":{"node":"n1","netns":"/run/netns/db-1","ifname":"eth0",
                    "host_ifname":"mv1","addresses":["10.213.0.2"]}}]})");
  EXPECT_EQ(render_json(list).value_or("failed"), R"({
  "workloads": [
    {
      "id": "db-1",
      "owner": "ann",
      "workflow": "",
      "name": "db",
      "scope": "CLUSTER",
      "serves": [
        {
          "port": 5432,
          "end_port": 0,
          "protocol": "TCP",
          "name": "sql"
        }
      ],
      "admit": "UNSPECIFIED",
      "admit_owners": [],
      "peers": [],
      "publish": [],
      "egress": [],
      "ready": "LISTENING",
      "ready_http": {
        "port": 0,
        "path": ""
      },
      "hold": "30s",
      "state": "READY",
      "attachment": {
        "node": "n1",
        "netns": "/run/netns/db-1",
        "ifname": "eth0",
        "host_ifname": "mv1",
        "addresses": [
          "10.213.0.2"
        ]
      },
      "problems": [],
      "launch": {
        "request": "",
        "service": false
      }
    }
  ]
}
)");
}

TEST(JsonTest, AnUnattachedWorkloadStillHasAnAttachmentAndItsDefaultHold) {
  pb::WorkloadList list;
  list.add_workloads()->mutable_declaration()->set_id("a");
  const auto text = render_json(list, Layout::kLine).value_or("failed");
  EXPECT_TRUE(text.contains(R"("attachment":{"node":"","netns":"","ifname":"",)"
                            R"("host_ifname":"","addresses":[]})"))
      << text;
  EXPECT_TRUE(text.contains(R"("hold":"120s")")) << text;
  EXPECT_TRUE(text.contains(R"("state":"DECLARED")")) << text;
}

TEST(JsonTest, WorkloadsAreSeparatedByCommas) {
  pb::WorkloadList list;
  list.add_workloads()->mutable_declaration()->set_id("a]");
  list.add_workloads()->mutable_declaration()->set_id("b[");
  const auto text = render_json(list, Layout::kLine).value_or("failed");
  EXPECT_TRUE(text.contains(R"("launch":{"request":"","service":false}},{"id":"b[")")) << text;
}

TEST(JsonTest, AnEmptyListIsAnEmptyArray) {
  EXPECT_EQ(render_json(pb::WorkloadList()).value_or("failed"), "{\n  \"workloads\": []\n}\n");
  EXPECT_EQ(render_json(pb::FlowList()).value_or("failed"), "{\n  \"flows\": []\n}\n");
}

TEST(JsonTest, CountsOf64BitsAreStrings) {
  const auto list = from_json<pb::FlowList>(
      R"({"flows":[{"src":"a","dst":"b","port":53,"protocol":"UDP","packets":7,
                    "bytes":"18446744073709551615"}]})");
  EXPECT_EQ(render_json(list, Layout::kLine).value_or("failed"),
            R"({"flows":[{"src":"a","dst":"b","protocol":"UDP","port":53,"end_port":0,)"
            R"("packets":"7","bytes":"18446744073709551615"}]})"
            "\n");
}

TEST(JsonTest, AStatusHasAllGenerationsEvenWhenNoneAreSet) {
  const auto text = render_json(pb::StatusReply(), Layout::kLine).value_or("failed");
  EXPECT_TRUE(text.starts_with(
      R"({"healthy":false,"generations":{"stored":"0","planned":"0","installed":"0",)"
      R"("named":"0","reported":"0"},"problems":[],)"))
      << text;
}

TEST(JsonTest, LayoutLeavesTextInsideOfStringsAlone) {
  pb::ExplainReply reply;
  reply.set_verdict(pb::Verdict::HELD);
  reply.set_reason(R"(one " [x], {y}: \ z)");
  reply.add_lines("l1");
  EXPECT_EQ(render_json(reply).value_or("failed"),
            "{\n  \"verdict\": \"HELD\",\n"
            "  \"reason\": \"one \\\" [x], {y}: \\\\ z\",\n"
            "  \"lines\": [\n    \"l1\"\n  ]\n}\n");
}

TEST(JsonTest, ControlCharactersAreEscaped) {
  pb::ExplainReply reply;
  reply.set_reason("a\x1b\n");
  const auto text = render_json(reply, Layout::kLine).value_or("failed");
  EXPECT_TRUE(text.contains(R"("reason":"a\u001b\n")")) << text;
}

}  // namespace
}  // namespace meshd::ctl
