// Profiles: their intervals must be disjoint, since the kernel refuses others, and must
// mean the same as what was declared. Both are checked address by address.
#include "policy/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace meshd::policy {
namespace {

Prefix prefix(std::string_view text) { return Prefix::parse(text).value(); }

TEST(ProfileTest, ContainedPrefixesGo) {
  EXPECT_EQ(normalise(std::vector{prefix("10.1.0.0/16"), prefix("10.0.0.0/8"), prefix("10.0.0.0/8"),
                                  prefix("::1"), prefix("11.0.0.0/8")}),
            (std::vector{prefix("10.0.0.0/8"), prefix("11.0.0.0/8"), prefix("::1")}));
  EXPECT_EQ(normalise(std::vector{prefix("0.0.0.0/0"), prefix("::/0")}).size(), 2U)
      << "one family does not contain the other";
}

TEST(ProfileTest, WithoutPortsIsTcpUdpAndPing) {
  const auto pieces = normalise(std::vector<EgressRule>{{prefix("192.0.2.0/24"), {}}});
  ASSERT_EQ(pieces.size(), 3U);
  EXPECT_EQ(pieces[0], (EgressPiece{prefix("192.0.2.0/24"), 1, 0, 65535}));
  EXPECT_EQ(pieces[1].proto, 6);
  EXPECT_EQ(pieces[2].proto, 17);
  EXPECT_EQ(normalise(std::vector<EgressRule>{{prefix("::/0"), {}}}).back().proto, 58);
  EXPECT_EQ(normalise(std::vector<EgressRule>{{prefix("::/0"), {{Proto::kTcp, 443, 443}}}}).size(),
            1U)
      << "with ports there is no ping";
}

TEST(ProfileTest, InnerPrefixKeepsWhatTheOuterLacks) {
  const auto pieces = normalise(std::vector<EgressRule>{
      {prefix("10.0.0.0/8"), {{Proto::kTcp, 100, 200}}},
      {prefix("10.1.0.0/16"), {{Proto::kTcp, 50, 150}, {Proto::kTcp, 180, 220}}}});
  EXPECT_EQ(pieces, (std::vector<EgressPiece>{{prefix("10.0.0.0/8"), 6, 100, 200},
                                              {prefix("10.1.0.0/16"), 6, 50, 99},
                                              {prefix("10.1.0.0/16"), 6, 201, 220}}));
}

TEST(ProfileTest, RowsAreRangesOfPortsOrProtocols) {
  EXPECT_EQ(rows_of({prefix("10.0.0.0/8"), {{Proto::kUdp, 53, 53}, {Proto::kTcp, 80, 90}}}),
            (std::vector<EgressPiece>{{prefix("10.0.0.0/8"), 17, 53, 53},
                                      {prefix("10.0.0.0/8"), 6, 80, 90}}))
      << "in the order of their declaration";
  EXPECT_EQ(rows_of({prefix("::/0"), {}}),
            (std::vector<EgressPiece>{{prefix("::/0"), 6, 0, 65535},
                                      {prefix("::/0"), 17, 0, 65535},
                                      {prefix("::/0"), 58, 0, 65535}}));
}

TEST(ProfileTest, RowsHaveNumbersOfTheirContent) {
  const EgressPiece row{prefix("10.0.0.0/8"), 6, 443, 443};
  EXPECT_EQ(row_number(row), row_number(EgressPiece(row)));
  EXPECT_NE(row_number(row), row_number({prefix("10.0.0.0/8"), 17, 443, 443}));
  EXPECT_NE(row_number(row), row_number({prefix("10.0.0.0/8"), 6, 443, 444}));
  EXPECT_NE(row_number(row), row_number({prefix("10.0.0.0/9"), 6, 443, 443}));
  EXPECT_EQ(row_number(row), 1161485909U) << "a version that numbers otherwise loses all counts";
}

TEST(ProfileTest, PieceOfSeveralRowsIsTheWidestRows) {
  const EgressPiece wide{prefix("10.0.0.0/8"), 6, 100, 200},
      beside{prefix("10.0.0.0/8"), 6, 201, 201}, across{prefix("10.0.0.0/8"), 6, 150, 250},
      inner{prefix("10.1.0.0/16"), 6, 180, 300};
  const auto rule = [](const EgressPiece& row) {
    return EgressRule{row.prefix, {{static_cast<Proto>(row.proto), row.first, row.last}}};
  };
  const auto pieces = pieces_by_row({rule(inner), rule(across), rule(beside), rule(wide)});
  EXPECT_EQ(pieces,
            (std::vector<CountedPiece>{{wide, row_number(wide)},
                                       {{prefix("10.0.0.0/8"), 6, 201, 250}, row_number(across)},
                                       {{prefix("10.1.0.0/16"), 6, 251, 300}, row_number(inner)}}));
  EXPECT_EQ(normalise(std::vector{rule(inner), rule(across), rule(beside), rule(wide)}),
            (std::vector<EgressPiece>{{prefix("10.0.0.0/8"), 6, 100, 250},
                                      {prefix("10.1.0.0/16"), 6, 251, 300}}))
      << "what it permits does not hang on the rows";
}

// A space of 16 addresses and 16 ports, in which everything nests and overlaps.
TEST(ProfileTest, RandomRulesAgreeWithBruteForceAndAreDisjoint) {
  std::mt19937 random(7);
  const auto draw = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
  for (int round = 0; round < 1000 && !HasFailure(); ++round) {
    std::vector<EgressRule> rules;
    for (unsigned i = 0; i < 1 + draw(6); ++i) {
      const auto address = IpAddress::v4(0x0a000000U + draw(16));
      EgressRule rule{Prefix::of(address, 28 + static_cast<int>(draw(5))), {}};
      for (unsigned n = draw(3); n > 0; --n) {
        const auto first = static_cast<std::uint16_t>(1 + draw(12));
        rule.ports.push_back({draw(2) == 0 ? Proto::kTcp : Proto::kUdp, first,
                              static_cast<std::uint16_t>(first + draw(4))});
      }
      rules.push_back(std::move(rule));
    }
    const auto by_row = pieces_by_row(rules);
    const auto pieces = normalise(rules);
    for (std::uint32_t host = 0; host < 16; ++host) {
      const auto address = IpAddress::v4(0x0a000000U + host);
      for (const auto proto : {Proto::kTcp, Proto::kUdp}) {
        for (std::uint16_t port = 1; port <= 16; ++port) {
          const bool declared = std::ranges::any_of(rules, [&](const EgressRule& rule) {
            return rule.cidr.contains(address) &&
                   (rule.ports.empty() ||
                    std::ranges::any_of(rule.ports, [&](const PortRange& ports) {
                      return ports.contains(proto, port);
                    }));
          });
          const auto covering = std::ranges::count_if(pieces, [&](const EgressPiece& piece) {
            return piece.proto == static_cast<std::uint8_t>(proto) &&
                   piece.prefix.contains(address) && piece.first <= port && port <= piece.last;
          });
          const auto counting = std::ranges::count_if(by_row, [&](const CountedPiece& counted) {
            const auto& piece = counted.piece;
            return piece.proto == static_cast<std::uint8_t>(proto) &&
                   piece.prefix.contains(address) && piece.first <= port && port <= piece.last;
          });
          EXPECT_EQ(counting, covering) << round << ": " << content_of(by_row);
          EXPECT_EQ(covering, declared ? 1 : 0) << round << ": " << content_of(by_row) << " at "
                                                << address.to_string() << " " << port;
        }
      }
    }
  }
}

TEST(ProfileTest, NumbersStandForContents) {
  Profiles profiles;
  const auto a = profiles.acquire("s 10.0.0.0/8");
  EXPECT_NE(a, 0U);
  EXPECT_EQ(profiles.acquire("s 10.0.0.0/8"), a);
  EXPECT_NE(profiles.acquire("s 11.0.0.0/8"), a);
  EXPECT_EQ(Profiles().acquire("s 10.0.0.0/8"), a) << "a restart finds the same number";
}

TEST(ProfileTest, ContentsWhoseHashesMeetGetNumbersOfTheirOwn) {
  Profiles profiles;
  // Two contents whose hashes meet, found by search.
  const std::string one = "c128898", other = "c153422";
  const auto first = profiles.acquire(one);
  const auto second = profiles.acquire(other);
  EXPECT_NE(first, second);
  EXPECT_EQ(second, first + 1) << "these two were chosen because they meet";
  EXPECT_EQ(profiles.acquire(other), second);
  profiles.release(first);
  EXPECT_EQ(profiles.acquire(one), first);
  profiles.release(second);
  EXPECT_EQ(profiles.acquire(other), second) << "it was acquired twice and released once";
}

TEST(ProfileTest, ContentsAreToldApart) {
  EXPECT_NE(content_of(std::vector<Prefix>{}), content_of(std::vector<CountedPiece>{}));
  EXPECT_NE(content_of(std::vector{prefix("10.0.0.0/8")}),
            content_of(std::vector{prefix("10.0.0.0/9")}));
}

}  // namespace
}  // namespace meshd::policy
