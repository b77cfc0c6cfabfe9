#include "model/text/size.h"

#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom {
namespace {

std::string refusal(const std::string& text) {
  try {
    (void)parse_size(text, "--memory");
  } catch (const InputError& error) {
    return error.found();
  }
  return "accepted";
}

TEST(ParseSize, Units) {
  EXPECT_EQ(parse_size("0", "x"), 0);
  EXPECT_EQ(parse_size("123", "x"), 123);
  EXPECT_EQ(parse_size("123 B", "x"), 123);
  EXPECT_EQ(parse_size("80GB", "x"), 80000000000);
  EXPECT_EQ(parse_size("80GiB", "x"), 85899345920);
  EXPECT_EQ(parse_size("80G", "x"), 85899345920);
  EXPECT_EQ(parse_size("24g", "x"), 25769803776);
  EXPECT_EQ(parse_size("  24 gib ", "x"), 25769803776);
  EXPECT_EQ(parse_size("1k", "x"), 1024);
  EXPECT_EQ(parse_size("1kB", "x"), 1000);
  EXPECT_EQ(parse_size("16384MiB", "x"), 17179869184);
  EXPECT_EQ(parse_size("1TiB", "x"), 1099511627776);
  EXPECT_EQ(parse_size("2PB", "x"), 2000000000000000);
}

TEST(ParseSize, FractionsAreExactOrRoundedDown) {
  EXPECT_EQ(parse_size("1.5GiB", "x"), 1610612736);
  EXPECT_EQ(parse_size(".5k", "x"), 512);
  EXPECT_EQ(parse_size("2.k", "x"), 2048);
  EXPECT_EQ(parse_size("0.1GB", "x"), 100000000);        // no binary fraction is 0.1
  EXPECT_EQ(parse_size("23.988GiB", "x"), 25756918874);  // 25756918874.112
  EXPECT_EQ(parse_size("0.9999999999999999999999999B", "x"), 0);
  EXPECT_EQ(parse_size("1.999999999999999999999999999999kB", "x"), 1999);
}

TEST(ParseSize, LargestIsTwoTo63MinusOne) {
  EXPECT_EQ(parse_size("9223372036854775807", "x"), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(refusal("9223372036854775808"), "\"9223372036854775808\" is too large");
  EXPECT_EQ(refusal("8192PiB"), "\"8192PiB\" is too large");
  EXPECT_EQ(refusal("99999999999999999999999999"), "\"99999999999999999999999999\" is too large");
  EXPECT_EQ(parse_size("8191.999PiB", "x"), 9223370910954868965);  // by exact rational arithmetic
}

TEST(ParseSize, GarbageIsRefused) {
  for (const char* text : {"", " ", "-1GiB", "+1GiB", "GiB", ".", ".GiB", "inf", "nan"}) {
    EXPECT_EQ(refusal(text), "\"" + std::string(text) + "\" does not start with a number");
  }
  EXPECT_EQ(refusal("\t1"), "\"?1\" does not start with a number");  // one line stays one line
  for (const char* text :
       {"1e9", "24GB/s", "24 G B", "1..5G", "24x", "24GiBB", "24Gb it", "0x10", "1,5GiB", "24i"}) {
    EXPECT_EQ(refusal(text), "\"" + std::string(text) + "\" has no unit known here");
  }
}

TEST(ParseSize, MessageNamesPlaceValueAndRemedy) {
  try {
    (void)parse_size("24 giggles", "--memory");
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(),
                 "--memory: \"24 giggles\" has no unit known here; a number and B, kB, MB, GB, TB "
                 "(1000s) or KiB, MiB, GiB, TiB (1024s; K, M, G, T mean these)");
  }
}

TEST(ParseBandwidth, NeedsPerSecond) {
  EXPECT_EQ(parse_bandwidth("1008GB/s", "x").value(), 1.008e12);
  EXPECT_EQ(parse_bandwidth("3.35 TB/s", "x").value(), 3.35e12);
  EXPECT_EQ(parse_bandwidth("1GiB/s", "x").value(), 1073741824.0);
  EXPECT_THROW((void)parse_bandwidth("1008GB", "x"), InputError);
  EXPECT_THROW((void)parse_bandwidth("400 Gbps", "x"), InputError);  // bits
  EXPECT_THROW((void)parse_bandwidth("/s", "x"), InputError);
  EXPECT_THROW((void)parse_bandwidth("", "x"), InputError);
}

TEST(HumanSize, ThreeDigitsAndBinaryUnits) {
  EXPECT_EQ(human_size(0), "0 B");
  EXPECT_EQ(human_size(1023), "1023 B");
  EXPECT_EQ(human_size(1024), "1.00 KiB");
  EXPECT_EQ(human_size(1536), "1.50 KiB");
  EXPECT_EQ(human_size(10239), "10.0 KiB");  // 9.999 would round to four digits
  EXPECT_EQ(human_size(1023 * 1024 + 600), "1.00 MiB");
  EXPECT_EQ(human_size(25757220864), "24.0 GiB");
  EXPECT_EQ(human_size(-1536), "-1.50 KiB");
  EXPECT_EQ(human_size(std::numeric_limits<std::int64_t>::min()), "-8.00 EiB");
}

}  // namespace
}  // namespace kvfathom
