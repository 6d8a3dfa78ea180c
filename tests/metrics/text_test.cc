#include "metrics/text.h"

#include <gtest/gtest.h>

namespace meshd::metrics {
namespace {

TEST(MetricsTextTest, FamiliesStandTogetherBehindTheirNames) {
  Text text;
  text.counter("a_total", "How often.").sample(3, {{"by", "x"}, {"of", "y"}}).sample(0);
  text.gauge("b", "How many.").sample(18446744073709551615ULL);
  EXPECT_EQ(text.take(),
            "# HELP a_total How often.\n"
            "# TYPE a_total counter\n"
            "a_total{by=\"x\",of=\"y\"} 3\n"
            "a_total 0\n"
            "# HELP b How many.\n"
            "# TYPE b gauge\n"
            "b 18446744073709551615\n");
}

TEST(MetricsTextTest, WhatWouldEndALineOrALabelIsEscaped) {
  Text text;
  text.gauge("c", "one\ntwo \\ \"three\"").sample(1, {{"l", "a\"b\\c\nd"}});
  EXPECT_EQ(text.take(),
            "# HELP c one\\ntwo \\\\ \"three\"\n"
            "# TYPE c gauge\n"
            "c{l=\"a\\\"b\\\\c\\nd\"} 1\n");
}

TEST(MetricsTextTest, ATallyIsASampleForEachWord) {
  Text text;
  text.counter("d_total", "D.");
  add_tally(text, {{"no", 2}, {"yes", 1}}, "said");
  EXPECT_EQ(text.take(),
            "# HELP d_total D.\n# TYPE d_total counter\n"
            "d_total{said=\"no\"} 2\nd_total{said=\"yes\"} 1\n");
}

}  // namespace
}  // namespace meshd::metrics
