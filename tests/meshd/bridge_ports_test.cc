// Which ports of bridges are isolated, from values alone.
#include "meshd/bridge_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd {
namespace {

using netlink::Link;
using testing::ElementsAre;
using testing::Field;
using testing::IsEmpty;

Link veth(int index, int peer_index, int netnsid) {
  Link link;
  link.index = index;
  link.name = "veth" + std::to_string(index);
  link.kind = "veth";
  link.peer_index = peer_index;
  link.peer_netnsid = netnsid;
  return link;
}
Link port(int index, int netnsid, bool isolated = false) {
  auto link = veth(index, 2, netnsid);
  link.bridge_port = true;
  link.isolated = isolated;
  return link;
}

TEST(BridgePortsTest, OpenPortsOfOurContainersAreFound) {
  const std::vector<Link> links{port(4, 1), port(5, 2, true), port(6, 3), veth(7, 3, 1)};
  EXPECT_THAT(open_ports(links, {1, 2}), ElementsAre(Field(&Link::index, 4)));
}

TEST(BridgePortsTest, PortOfAKernelThatCannotIsOpen) {
  auto old = port(4, 1);
  old.isolated.reset();
  EXPECT_THAT(open_ports(std::span(&old, 1), {1}), ElementsAre(old));
}

TEST(BridgePortsTest, PortsWithoutANamespaceBehindThemAreNobodys) {
  auto tap = port(4, 0);
  tap.kind = "tun";
  tap.peer_netnsid.reset();
  EXPECT_THAT(open_ports(std::span(&tap, 1), {0, -1}), IsEmpty());
}

TEST(BridgePortsTest, EndsNameEachOther) {
  const auto inside = veth(2, 9, 0), outside = veth(9, 2, 5);
  EXPECT_TRUE(are_ends(inside, outside, 5));
  EXPECT_FALSE(are_ends(inside, outside, 6)) << "it leads into another container";
  EXPECT_FALSE(are_ends(inside, veth(9, 3, 5), 5)) << "it is the other end of another link";
  EXPECT_FALSE(are_ends(inside, veth(8, 2, 5), 5)) << "it is another link";
  auto local = outside;
  local.peer_netnsid.reset();
  EXPECT_FALSE(are_ends(inside, local, 5)) << "both ends are the node's";
}

}  // namespace
}  // namespace meshd
