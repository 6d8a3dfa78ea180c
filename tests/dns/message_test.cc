#include "dns/message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dns/name.h"
#include "tests/support/dns_messages.h"

namespace meshd::dns {
namespace {

Parsed parse(const Octets& bytes, Query* out = nullptr) {
  Query query;
  const auto result = parse_query(bytes, query);
  if (out != nullptr) *out = query;
  return result;
}

TEST(QueryTest, IsTakenApart) {
  Query query;
  const auto bytes = make_query({.name = "Db.WF1.mesh.internal",
                                 .type = 28,
                                 .edns = true,
                                 .payload = 4096,
                                 .dnssec_ok = true});
  ASSERT_EQ(parse(bytes, &query), Parsed::kQuery);
  EXPECT_EQ(query.id, 0x1234);
  EXPECT_EQ(to_text(query.name), "Db.WF1.mesh.internal");
  EXPECT_EQ(to_text(query.lower), "db.wf1.mesh.internal");
  EXPECT_EQ(query.type, type::kAaaa);
  EXPECT_EQ(query.klass, 1);
  EXPECT_TRUE(query.edns);
  EXPECT_TRUE(query.dnssec_ok);
  EXPECT_EQ(query.payload, 4096);
  EXPECT_EQ(query.question_end, bytes.size() - 11);
}

TEST(QueryTest, NothingOfTheLastOneRemains) {
  Query query;
  ASSERT_EQ(parse_query(make_query({.name = "a", .edns = true, .dnssec_ok = true}), query),
            Parsed::kQuery);
  ASSERT_EQ(parse_query(make_query({.name = "b"}), query), Parsed::kQuery);
  EXPECT_FALSE(query.edns);
  EXPECT_FALSE(query.dnssec_ok);
  EXPECT_EQ(query.payload, 512);
  EXPECT_EQ(to_text(query.name), "b");
}

TEST(QueryTest, AnswersAndScrapsAreDropped) {
  EXPECT_EQ(parse({}), Parsed::kDrop);
  EXPECT_EQ(parse(Octets(11, 0)), Parsed::kDrop);
  auto answer = make_query({.name = "a"});
  answer[2] |= 0x80;
  EXPECT_EQ(parse(answer), Parsed::kDrop) << "or two resolvers talk for ever";
}

TEST(QueryTest, EveryCutIsAFormatErrorOrLess) {
  const auto whole = make_query({.name = "db.mesh.internal", .edns = true});
  for (std::size_t size = 12; size < whole.size(); ++size) {
    EXPECT_EQ(parse(Octets(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))),
              Parsed::kFormErr)
        << size;
  }
}

TEST(QueryTest, CountsThatLieAreFormatErrors) {
  for (const std::size_t at : {4U, 6U, 8U, 10U}) {
    for (const std::uint8_t high : {std::uint8_t{0}, std::uint8_t{0xff}}) {
      auto bytes = make_query({.name = "a"});
      bytes[at] = high;
      bytes[at + 1] = static_cast<std::uint8_t>(bytes[at + 1] + 1);
      EXPECT_EQ(parse(bytes), Parsed::kFormErr) << at;
    }
  }
  auto none = make_query({.name = "a"});
  none[5] = 0;
  EXPECT_EQ(parse(none), Parsed::kFormErr);
}

TEST(QueryTest, OtherOpcodesAreNotImplemented) {
  for (unsigned opcode = 1; opcode < 16; ++opcode) {
    const auto flags = static_cast<std::uint16_t>(0x0100U | opcode << 11);
    EXPECT_EQ(parse(make_query({.name = "a", .flags = flags})), Parsed::kNotImp) << opcode;
  }
}

TEST(QueryTest, OptIsOneAtTheRootAndOfVersionZero) {
  auto two = make_query({.name = "a", .edns = true});
  const auto opt = opt_record();
  two.insert(two.end(), opt.begin(), opt.end());
  two[11] = 2;
  EXPECT_EQ(parse(two), Parsed::kFormErr);
  EXPECT_EQ(parse(make_query({.name = "a", .edns = true, .version = 1})), Parsed::kBadVers);
  auto named = make_query({.name = "a"});
  named.insert(named.end(), {1, 'x'});
  named.insert(named.end(), opt.begin(), opt.end());
  named[11] = 1;
  EXPECT_EQ(parse(named), Parsed::kFormErr);
}

TEST(QueryTest, OptionsThatRunOutOfTheirRecordAreFormatErrors) {
  auto bytes = make_query({.name = "a", .edns = true});
  bytes[bytes.size() - 1] = 5;
  bytes.insert(bytes.end(), {0, 10, 0, 9, 1});
  EXPECT_EQ(parse(bytes), Parsed::kFormErr);
  bytes[bytes.size() - 2] = 1;
  EXPECT_EQ(parse(bytes), Parsed::kQuery) << "an option of one byte";
}

TEST(QueryTest, CompressedQuestionIsAFormatError) {
  auto bytes = make_query({.name = ""});
  bytes.erase(bytes.begin() + 12);
  bytes.insert(bytes.begin() + 12, {0xc0, 4});
  EXPECT_EQ(parse(bytes), Parsed::kFormErr);
}

TEST(TypeTest, NamesAndNumbers) {
  EXPECT_EQ(type_name(28), "AAAA");
  EXPECT_EQ(type_name(65280), "TYPE65280");
  EXPECT_EQ(type_number("aaaa"), 28);
  EXPECT_EQ(type_number("TYPE257"), 257);
  for (const std::string_view bad : {"", "TYPE", "TYPE70000", "TYPE1x", "bogus"}) {
    EXPECT_EQ(type_number(bad), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace meshd::dns
