// Numbers, tables and names as people read them.
#include <gtest/gtest.h>

#include "cli/format.h"
#include "cli/ledger_table.h"
#include "cli/nearest.h"
#include "cli/table.h"
#include "cli/values.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

TEST(Format, CountsHaveSeparators) {
  EXPECT_EQ(thousands(0), "0");
  EXPECT_EQ(thousands(999), "999");
  EXPECT_EQ(thousands(1000), "1,000");
  EXPECT_EQ(thousands(1234567), "1,234,567");
  EXPECT_EQ(thousands(-123456), "-123,456");
}

TEST(Format, SizesAreAlwaysGiB) {
  constexpr std::int64_t kGiB = std::int64_t{1} << 30;
  EXPECT_EQ(gib(24 * kGiB), "24.00 GiB");
  EXPECT_EQ(gib(kGiB / 8), "0.12 GiB");
  EXPECT_EQ(gib(kGiB / 20), "0.050 GiB");
  EXPECT_EQ(gib(kGiB / 500), "0.0020 GiB");
  EXPECT_EQ(gib(1), "<0.0001 GiB");
  EXPECT_EQ(gib(0), "0.00 GiB");
}

TEST(Format, ParameterCounts) {
  EXPECT_EQ(parameters(29'943'393'920), "29.9 B");
  EXPECT_EQ(parameters(494'032'768), "494 M");
  EXPECT_EQ(parameters(671'026'419'200), "671 B");
  EXPECT_EQ(parameters(1'026'000'000'000), "1.03 T");
}

TEST(Format, CountsAgreeWithTheirNoun) {
  EXPECT_EQ(counted(1, "token"), "1 token");
  EXPECT_EQ(counted(0, "token"), "0 tokens");
  EXPECT_EQ(counted(32768, "token"), "32,768 tokens");
}

TEST(Format, RoundedKeepsThreeDigitsAndNoSmallNumberIsNone) {
  EXPECT_EQ(rounded(12345.6), "12,346");
  EXPECT_EQ(rounded(12.34), "12.3");
  EXPECT_EQ(rounded(0.0123), "0.012");
  EXPECT_EQ(rounded(0.0001), "<0.001");
  EXPECT_EQ(rounded(0.0), "0.000");
}

TEST(Format, DurationsTakeTheUnitThatReadsBest) {
  EXPECT_EQ(duration(0.00085), "850 us");
  EXPECT_EQ(duration(0.0123), "12.3 ms");
  EXPECT_EQ(duration(119.0), "119 s");
  EXPECT_EQ(duration(186.0), "3.10 min");
  EXPECT_EQ(duration(7199.0), "120 min");
  EXPECT_EQ(duration(18720.0), "5.20 h");
  EXPECT_EQ(duration(1e6), "11.6 days");
}

TEST(Format, IntervalsNameAUnitOnceWhereBothEndsHaveIt) {
  EXPECT_EQ(interval(59.44, 148.2), "59.4 - 148");
  EXPECT_EQ(duration_interval(0.0182, 0.0324), "18.2 - 32.4 ms");
  EXPECT_EQ(duration_interval(0.686, 1.74), "686 ms - 1.74 s");
}

TEST(Format, WrapsAtTheWidthAndIndents) {
  EXPECT_EQ(wrap("one two three", 9, 2), "one two\n  three");
  EXPECT_EQ(wrap("unbreakable", 4, 0), "unbreakable");
}

TEST(Format, ShellWords) {
  EXPECT_EQ(shell_word("/models/a-b_c.gguf"), "/models/a-b_c.gguf");
  EXPECT_EQ(shell_word("it's; rm"), "'it'\\''s; rm'");
  EXPECT_EQ(shell_word(""), "''");
}

TEST(Format, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(printable("a\x1b[31mb\n"), "a?[31mb?");
}

TEST(Bar, FillsItsShareAndNoMore) {
  EXPECT_EQ(bar(0.5, 4, false), "##");
  EXPECT_EQ(bar(7.0, 4, false), "####");
  EXPECT_EQ(bar(-1.0, 4, false), "");
  EXPECT_EQ(bar(0.5, 3, true), "\u2588\u258c");
}

TEST(Nearest, FindsWhatWasMeant) {
  const std::vector<std::string> names{"rtx-4090", "rtx-3090", "h100-sxm", "rx-7900-xtx"};
  EXPECT_EQ(nearest("rtx4090", names, 1), std::vector<std::string>{"rtx-4090"});
  EXPECT_EQ(nearest("h10 sxm", names, 1), std::vector<std::string>{"h100-sxm"});
  EXPECT_EQ(nearest("xtx", names, 1), std::vector<std::string>{"rx-7900-xtx"});
  EXPECT_EQ(edit_distance("abcd", "abdc"), 1);  // neighbours swapped
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(Table, NeverWiderThanAskedIfAColumnMayShrink) {
  Console console;
  console.terminal.width = 20;
  print(console,
        {.columns = {{"name"}, {"what", Align::left, true}, {"n", Align::right}},
         .rows = {{{"a"}, {"a long description of it"}, {"12"}}}});
  EXPECT_EQ(console.out, "  name  what       n\n  a     a long \u2026  12\n");
}

TEST(Table, GivesUpColumnsBeforeItCutsAny) {
  Console console;
  console.terminal.width = 20;
  print(console,
        {.columns = {{"name", Align::left, true},
                     {"spare", Align::left, false, 1},
                     {"n", Align::right},
                     {"sparest", Align::left, false, 2}},
         .rows = {{{"a"}, {"b"}, {"12"}, {"c"}}, {}, {{"a long name"}, {"b"}, {"3"}, {"c"}}}});
  EXPECT_EQ(console.out, "  name          n\n  a            12\n\n  a long name   3\n");
  console.out.clear();
  console.terminal.width = 24;
  print(
      console,
      {.columns = {{"name"}, {"spare", Align::left, false, 1}, {"sparest", Align::left, false, 2}},
       .rows = {{{"a"}, {"b"}, {"c"}}}});
  EXPECT_EQ(console.out, "  name  spare  sparest\n  a     b      c\n");
}

TEST(Table, ColourOnlyWhereItIsWanted) {
  Console console;
  EXPECT_EQ(console.styled("x", Style::bad), "x");
  console.terminal.colour = true;
  EXPECT_EQ(console.styled("x", Style::bad), "\x1b[31mx\x1b[0m");
}

std::string refusal(const std::string& text) {
  try {
    return std::to_string(parse_count("--context", text, 1, 1000000));
  } catch (const InputError& error) {
    return error.what();
  }
}

TEST(Values, CountsAreWholeAndInRange) {
  EXPECT_EQ(refusal("200000"), "200000");
  EXPECT_EQ(refusal("200,000"), "200000");
  EXPECT_EQ(refusal("200_000"), "200000");
  EXPECT_EQ(refusal("0"), "--context: '0' is out of range or no whole number; 1 to 1000000");
  EXPECT_EQ(refusal("1e5"), "--context: '1e5' is out of range or no whole number; 1 to 1000000");
  EXPECT_EQ(refusal("32k"), "--context: '32k' is out of range or no whole number; 1 to 1000000");
  EXPECT_EQ(refusal("-1"), "--context: '-1' is out of range or no whole number; 1 to 1000000");
  EXPECT_EQ(refusal("99999999999999999999"),
            "--context: '99999999999999999999' is out of range or no whole number; 1 to 1000000");
}

}  // namespace
}  // namespace kvfathom::cli
