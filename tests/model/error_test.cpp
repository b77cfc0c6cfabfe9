#include "model/error.h"

#include <gtest/gtest.h>

namespace kvfathom {
namespace {

TEST(Error, SaysItInOneLine) {
  EXPECT_STREQ(InputError("file: \"key\"", "-1", "1 to 8").what(), "file: \"key\": -1; 1 to 8");
  EXPECT_STREQ(Unsupported("file", "unknown", "").what(), "file: unknown");
}

TEST(Error, NamesOfStrangersCannotBreakTheLine) {
  const InputError error("a\nb",
                         "\x1b[31mred\x7f",
                         "gr\xc3\xbc\xc3\x9f"
                         "e\r");
  EXPECT_STREQ(error.what(),
               "a?b: ?[31mred?; gr\xc3\xbc\xc3\x9f"
               "e?");
  EXPECT_EQ(error.where(), "a?b");
  EXPECT_EQ(error.found(), "?[31mred?");
}

TEST(Error, EachHasItsExitCode) {
  EXPECT_EQ(InputError("", "", "").exit_code(), 2);
  EXPECT_EQ(Unsupported("", "", "").exit_code(), 3);
  EXPECT_EQ(MachineError("", "", "").exit_code(), 4);
}

}  // namespace
}  // namespace kvfathom
