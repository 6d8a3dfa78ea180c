#include "dns/name.h"

#include <gtest/gtest.h>

#include "tests/support/dns_messages.h"

namespace meshd::dns {
namespace {

std::string wire(std::string_view text) { return to_wire(text).value(); }
std::string lowered(std::string name) {
  lower(name);
  return name;
}

struct ReadResult {
  bool ok;
  std::string name;
  std::size_t at;
};
ReadResult read(const Octets& bytes, std::size_t at, bool compressed = true) {
  Reader reader(bytes, at);
  std::string out;
  read_name(reader, out, compressed);
  return {reader.ok(), out, reader.at()};
}

TEST(NameTest, TextBecomesLabels) {
  EXPECT_EQ(wire("db.wf1"), std::string("\2db\3wf1\0", 8));
  EXPECT_EQ(wire("db.wf1."), wire("db.wf1"));
  EXPECT_EQ(wire(""), std::string(1, '\0'));
  EXPECT_EQ(wire("."), std::string(1, '\0'));
}

TEST(NameTest, TextThatIsNoNameIsRefused) {
  for (const std::string_view text : {"a..b", ".a", "a..", ".."})
    EXPECT_FALSE(to_wire(text)) << text;
  EXPECT_TRUE(to_wire(std::string(63, 'a')));
  EXPECT_FALSE(to_wire(std::string(64, 'a')));
  std::string longest;  // 127 labels of one letter: 254 bytes and the root
  for (int i = 0; i < 127; ++i) longest += "a.";
  EXPECT_TRUE(to_wire(longest));
  EXPECT_FALSE(to_wire(longest + "a"));
}

TEST(NameTest, TextForPeopleHasNoControlCharacters) {
  EXPECT_EQ(to_text(wire("db.wf1")), "db.wf1");
  EXPECT_EQ(to_text(std::string("\4a.\\\n\0", 6)), "a\\046\\092\\010");
  EXPECT_EQ(to_text(std::string(1, '\0')), ".");
}

TEST(NameTest, PointersAreFollowedBackwards) {
  Octets bytes;
  put_name(bytes, "mesh.internal");  // 15 bytes
  bytes.insert(bytes.end(), {2, 'd', 'b', 0xc0, 0, 77});
  const auto result = read(bytes, 15);
  EXPECT_TRUE(result.ok);
  EXPECT_EQ(to_text(result.name), "db.mesh.internal");
  EXPECT_EQ(result.at, 20U) << "behind the pointer";
  EXPECT_FALSE(read(bytes, 15, /*compressed=*/false).ok);
}

TEST(NameTest, PointersThatLoopOrLeadForwardAreRefused) {
  EXPECT_FALSE(read({0xc0, 0}, 0).ok) << "itself";
  EXPECT_FALSE(read({0xc0, 2, 0}, 0).ok) << "forward";
  EXPECT_FALSE(read({1, 'a', 0xc0, 0}, 0).ok) << "into its own labels";
  EXPECT_FALSE(read({1, 'a', 0xc0, 4, 0xc0, 0}, 4).ok) << "two that point at each other";
  EXPECT_FALSE(read({0xc0}, 0).ok) << "cut";
}

TEST(NameTest, LabelsOfOtherKindsAndCutNamesAreRefused) {
  EXPECT_FALSE(read({0x40, 'a', 0}, 0).ok);
  EXPECT_FALSE(read({0x80, 'a', 0}, 0).ok);
  EXPECT_FALSE(read({3, 'a', 'b'}, 0).ok);
  EXPECT_FALSE(read({1, 'a'}, 0).ok) << "no root";
  EXPECT_FALSE(read({}, 0).ok);
}

TEST(NameTest, NamesOver255BytesAreRefusedHoweverTheyAreWritten) {
  Octets plain;
  for (int i = 0; i < 4; ++i) {
    plain.push_back(63);
    plain.insert(plain.end(), 63, 'a');
  }
  plain.push_back(0);
  EXPECT_FALSE(read(plain, 0).ok);
  // Each name is short, what their pointers add up to is not.
  Octets chained;
  put_name(chained, std::string(63, 'a') + "." + std::string(63, 'b'));
  std::size_t last = 0;
  for (int i = 0; i < 3; ++i) {
    const auto here = chained.size();
    chained.push_back(63);
    chained.insert(chained.end(), 63, 'c');
    put16(chained, 0xc000U | static_cast<unsigned>(last));
    last = here;
  }
  EXPECT_FALSE(read(chained, last).ok);
}

TEST(NameTest, CaseIsFoldedInAsciiOnly) {
  EXPECT_EQ(lowered(wire("DB.Wf1")), wire("db.wf1"));
  EXPECT_TRUE(equal_names(wire("dB"), wire("Db")));
  EXPECT_FALSE(equal_names(wire("db"), wire("dbx")));
  EXPECT_EQ(lowered("\xc3\x84"), "\xc3\x84");
}

TEST(NameTest, UnderAndParent) {
  const auto zone = wire("mesh.internal");
  EXPECT_TRUE(is_under(zone, zone));
  EXPECT_TRUE(is_under(wire("db.mesh.internal"), zone));
  EXPECT_FALSE(is_under(wire("xmesh.internal"), zone));
  EXPECT_FALSE(is_under(wire("internal"), zone));
  // A label that ends in the zone's own bytes is not the zone.
  EXPECT_FALSE(is_under(std::string("\x0fx\4mesh\x08internal\0", 17), zone));
  EXPECT_EQ(parent(wire("a.b.c")), wire("b.c"));
  EXPECT_EQ(parent(wire("")), wire(""));
  EXPECT_EQ(label_count(wire("a.b.c")), 3U);
  EXPECT_EQ(label_count(wire("")), 0U);
  EXPECT_EQ(first_label(wire("ab.c")), "ab");
}

TEST(NameTest, ReverseNamesGoBothWays) {
  for (const std::string_view text :
       {"10.213.0.1", "0.0.0.0", "255.255.255.255", "fd00::1:2", "2001:db8::", "::ffff:1.2.3.4"}) {
    const auto address = IpAddress::parse(text).value();
    const auto found = parse_reverse(reverse_name(address));
    ASSERT_TRUE(found && found->whole()) << text;
    EXPECT_EQ(found->prefix.address(), address) << text;
  }
  EXPECT_EQ(to_text(reverse_name(IpAddress::parse("10.213.0.1").value())),
            "1.0.213.10.in-addr.arpa");
}

TEST(NameTest, OnlyWholeReverseNamesStandForAnAddress) {
  for (const std::string_view text :
       {"213.10.in-addr.arpa", "5.1.0.213.10.in-addr.arpa", "256.0.213.10.in-addr.arpa",
        "01.0.213.10.in-addr.arpa", "a.0.213.10.in-addr.arpa", "in-addr.arpa", "ip6.arpa",
        "1.0.ip6.arpa", "10.213.0.1", "-1.0.213.10.in-addr.arpa", "+1.0.213.10.in-addr.arpa"}) {
    const auto found = parse_reverse(wire(text));
    EXPECT_FALSE(found && found->whole()) << text;
  }
  auto v6 = to_text(reverse_name(IpAddress::parse("fd00::1").value()));
  EXPECT_TRUE(parse_reverse(wire(v6))->whole());
  v6[0] = 'g';
  EXPECT_FALSE(parse_reverse(wire(v6))->whole());
}

TEST(NameTest, PartsOfReverseNamesArePrefixes) {
  const auto check = [](std::string_view name, std::string_view prefix, bool exact) {
    const auto found = parse_reverse(wire(name));
    ASSERT_TRUE(found) << name;
    EXPECT_EQ(found->prefix.to_string(), prefix) << name;
    EXPECT_EQ(found->exact, exact) << name;
  };
  check("in-addr.arpa", "0.0.0.0/0", true);
  check("213.10.in-addr.arpa", "10.213.0.0/16", true);
  check("x.213.10.in-addr.arpa", "10.213.0.0/16", false);
  check("4.013.10.in-addr.arpa", "10.0.0.0/8", false);
  check("9.1.0.213.10.in-addr.arpa", "10.213.0.1/32", false);
  check("0.d.f.ip6.arpa", "fd00::/12", true);
  check("10.d.f.ip6.arpa", "fd00::/8", false);
  EXPECT_FALSE(parse_reverse(wire("10.in-addr.arpa.org")));
  const auto name = wire("4.3.213.10.in-addr.arpa");
  EXPECT_EQ(to_text(reverse_suffix(name, Family::kV4, 16)), "213.10.in-addr.arpa");
}

}  // namespace
}  // namespace meshd::dns
