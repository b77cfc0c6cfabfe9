// The low-level GGUF reader on sound files and on every kind of damage.
#include "model/io/gguf.h"

#include <limits>

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/model/io/gguf_writer.h"

namespace kvfathom {
namespace {

using testing::gguf_string;
using testing::GgufWriter;
using testing::raw;

std::string error_of(const std::string& bytes) {
  try {
    static_cast<void>(parse_gguf(bytes, "m.gguf"));
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing thrown";
}

GgufWriter sound() {
  GgufWriter w;
  w.text("general.architecture", "llama").u32("llama.block_count", 2);
  w.texts("tokenizer.ggml.tokens", {"a", "", "bcd"}).i32s("ids", {1, -2});
  w.tensor("one", {64, 3}, DType::q8_0)
      .tensor("two", {5})
      .tensor("three", {2, 3, 4, 5}, DType::f16);
  return w;
}

TEST(Gguf, ReadsKeysAsTheyLie) {
  const std::string bytes = sound().file();
  const GgufHeader header = parse_gguf(bytes, "m.gguf");
  EXPECT_EQ(header.version, 3);
  ASSERT_EQ(header.entries.size(), 4);
  EXPECT_EQ(header.find("general.architecture")->data, "llama");
  const GgufValue& tokens = *header.find("tokenizer.ggml.tokens");
  EXPECT_TRUE(tokens.is_array);
  EXPECT_EQ(tokens.type, GgufType::string);
  EXPECT_EQ(tokens.count, 3);
  EXPECT_EQ(tokens.data, gguf_string("a") + gguf_string("") + gguf_string("bcd"));
  EXPECT_EQ(header.find("ids")->count, 2);
  EXPECT_EQ(header.find("ids")->data, raw<std::int32_t>(1) + raw<std::int32_t>(-2));
  EXPECT_EQ(header.find("none"), nullptr);
  // Views, not copies.
  EXPECT_GE(tokens.data.data(), bytes.data());
  EXPECT_LT(tokens.data.data(), bytes.data() + bytes.size());
}

TEST(Gguf, ReadsTensorInfosWithExactSizes) {
  const std::string bytes = sound().file();
  const GgufHeader header = parse_gguf(bytes, "m.gguf");
  ASSERT_EQ(header.tensors.size(), 3);
  EXPECT_EQ(header.tensors[0].name, "one");
  EXPECT_EQ(header.tensors[0].dtype, DType::q8_0);
  EXPECT_EQ(header.tensors[0].data_bytes, 3 * 2 * 34);
  EXPECT_EQ(header.tensors[1].offset_bytes, 224);  // 204 rounded up to 32
  EXPECT_EQ(header.tensors[1].shape, (std::array<std::int64_t, 4>{5, 1, 1, 1}));
  EXPECT_EQ(header.tensors[2].offset_bytes, 224 + 32);
  EXPECT_EQ(header.tensors[2].data_bytes, 240);
  EXPECT_EQ(header.alignment_bytes, 32);
  EXPECT_EQ(header.data_offset_bytes % 32, 0);
  EXPECT_EQ(header.data_offset_bytes + 224 + 32 + 240, static_cast<std::int64_t>(bytes.size()));
  EXPECT_FALSE(header.header_only);
}

TEST(Gguf, ReadsEveryScalarType) {
  GgufWriter w;
  w.version = 2;
  w.entry("u8", GgufType::u8, raw<std::uint8_t>(1)).entry("i8", GgufType::i8, raw<std::int8_t>(1));
  w.entry("u16", GgufType::u16, raw<std::uint16_t>(1));
  w.entry("i16", GgufType::i16, raw<std::int16_t>(1));
  w.u32("u32", 1).entry("i32", GgufType::i32, raw<std::int32_t>(1)).f32("f32", 1);
  w.boolean("bool", true).text("string", "1");
  w.entry("u64", GgufType::u64, raw<std::uint64_t>(1));
  w.entry("i64", GgufType::i64, raw<std::int64_t>(1)).entry("f64", GgufType::f64, raw(1.0));
  w.array("none", GgufType::u64, 0, "");
  const std::string bytes = w.file();
  const GgufHeader header = parse_gguf(bytes, "m.gguf");
  EXPECT_EQ(header.version, 2);
  std::vector<std::size_t> sizes;
  for (const GgufEntry& entry : header.entries) {
    sizes.push_back(entry.value.data.size());
  }
  EXPECT_EQ(sizes, (std::vector<std::size_t>{1, 1, 2, 2, 4, 4, 4, 1, 1, 8, 8, 8, 0}));
}

TEST(Gguf, HonoursTheAlignment) {
  GgufWriter w;
  w.alignment = 128;
  w.u32("general.alignment", 128).tensor("a", {3}).tensor("b", {3});
  const std::string bytes = w.file();
  const GgufHeader header = parse_gguf(bytes, "m.gguf");
  EXPECT_EQ(header.data_offset_bytes % 128, 0);
  EXPECT_EQ(header.tensors[1].offset_bytes, 128);
}

TEST(Gguf, TellsAHeaderFromATruncatedFile) {
  EXPECT_TRUE(parse_gguf(sound().header(), "m.gguf").header_only);
  const std::string whole = sound().file();
  EXPECT_EQ(error_of(whole.substr(0, whole.size() - 1)),
            "m.gguf: is truncated at " + std::to_string(whole.size() - 1) + " bytes; " +
                std::to_string(whole.size()) + " bytes, by its tensor infos");
  // Behind the last tensor there may be padding, or anything.
  EXPECT_FALSE(parse_gguf(whole + std::string(100, 'x'), "m.gguf").header_only);
  EXPECT_FALSE(parse_gguf(GgufWriter().header(), "m.gguf").header_only);
}

TEST(Gguf, RefusesAFileThatEndsAnywhereInTheHeader) {
  const std::string header = sound().header();
  const std::size_t infos_end = header.find_last_not_of('\0') + 1;
  for (std::size_t n = 0; n < infos_end; ++n) {
    EXPECT_TRUE(error_of(header.substr(0, n)).starts_with("m.gguf: ")) << n;
  }
  EXPECT_EQ(error_of(""), "m.gguf: the file ends within the magic, at byte 0; at least 4 bytes");
  EXPECT_EQ(error_of(header.substr(0, 30)),
            "m.gguf: key 0: the file ends within the name, at byte 30; at least 32 bytes");
}

TEST(Gguf, RefusesOtherFormatsAndVersions) {
  EXPECT_EQ(error_of("ggml\1\0\0\0"),
            "m.gguf: begins with \"ggml\"; a GGUF file, which begins with \"GGUF\"");
  EXPECT_EQ(error_of("PK\3\4...."),
            "m.gguf: begins with \"PK??\"; a GGUF file, which begins with \"GGUF\"");
  GgufWriter w;
  w.version = 1;
  EXPECT_EQ(error_of(w.file()), "m.gguf: is GGUF version 1; version 2 or 3");
  w.version = 0;
  EXPECT_EQ(error_of(w.file()), "m.gguf: is GGUF version 0; version 2 or 3");
  w.version = 4;
  EXPECT_EQ(error_of(w.file()), "m.gguf: is GGUF version 4; version 2 or 3");
  w.version = 3U << 24U;
  EXPECT_EQ(error_of(w.file()), "m.gguf: is big-endian; a little-endian GGUF file");
}

TEST(Gguf, RefusesCountsBeyondAnyFile) {
  GgufWriter w;
  w.extra_tensors = std::int64_t{1} << 60;
  EXPECT_EQ(error_of(w.file()),
            "m.gguf: the number of tensors is 1152921504606846976; at most 1048576");
  w.extra_tensors = -1;
  EXPECT_EQ(error_of(w.file()),
            "m.gguf: the number of tensors is 18446744073709551615; at most 1048576");
  w.extra_tensors = 0;
  w.extra_entries = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ(error_of(w.file()), "m.gguf: the number of keys is 9223372036854775808; at most 65536");
  w.extra_entries = 1;  // one more than there is: padding is read as its name
  EXPECT_EQ(error_of(w.file()), "m.gguf: key 0: its name is empty; a name");
  w.extra_entries = 0;
  w.extra_tensors = 1;
  w.u32("k", 1);
  EXPECT_EQ(error_of(w.file()), "m.gguf: tensor 0: a name of 0 bytes; 1 to 256");
}

TEST(Gguf, RefusesStringsLongerThanTheFile) {
  const auto with = [](std::uint64_t length) {
    return GgufWriter().entry("k", GgufType::string, raw(length) + "abc").file();
  };
  // 24 bytes of counts, 9 of the key, 4 of the type, 8 of the length; padded to 64.
  EXPECT_EQ(error_of(with(std::uint64_t{4} << 30U)),
            "m.gguf: key \"k\": the string is 4294967296 bytes long; at most the 19 left in the "
            "file");
  EXPECT_EQ(error_of(with(std::numeric_limits<std::uint64_t>::max())),
            "m.gguf: key \"k\": the string is 18446744073709551615 bytes long; at most the 19 left "
            "in the file");
  EXPECT_EQ(error_of(with(20)),
            "m.gguf: key \"k\": the string is 20 bytes long; at most the 19 left in the file");
  EXPECT_EQ(error_of(GgufWriter().entry("", GgufType::u8, "1").file()),
            "m.gguf: key 0: its name is empty; a name");
}

TEST(Gguf, RefusesArraysThatCannotBe) {
  const auto with = [](GgufType type, std::uint64_t n, const std::string& data) {
    return GgufWriter().array("k", type, n, data).file();
  };
  EXPECT_EQ(error_of(with(GgufType::array, 1, std::string(64, '\0'))),
            "m.gguf: key \"k\": an array of arrays; an array of numbers, booleans or strings");
  EXPECT_EQ(error_of(with(static_cast<GgufType>(13), 1, "")),
            "m.gguf: key \"k\": value type 13; 0 to 12");
  EXPECT_EQ(error_of(GgufWriter().entry("k", static_cast<GgufType>(99), "").file()),
            "m.gguf: key \"k\": value type 99; 0 to 12");
  EXPECT_EQ(error_of(with(GgufType::u32, std::uint64_t{1} << 62U, "abcd")),
            "m.gguf: key \"k\": an array of 4611686018427387904 elements; at most the 3 that the "
            "rest of the file can hold");
  EXPECT_EQ(
      error_of(with(GgufType::string, 3, gguf_string("x"))),
      "m.gguf: key \"k\": an array of 3 elements; at most the 1 that the rest of the file can "
      "hold");
  EXPECT_EQ(error_of(with(GgufType::string, 2, gguf_string("x") + raw<std::uint64_t>(1000))),
            "m.gguf: key \"k\": the element 1 is 1000 bytes long; at most the 30 left in the file");
  const std::string cut =
      with(GgufType::string, 3, gguf_string("x") + gguf_string(std::string(30, 'y')));
  EXPECT_EQ(error_of(cut), "m.gguf: key \"k\": the file ends at element 2 of 3; a whole array");
}

TEST(Gguf, RefusesDuplicates) {
  EXPECT_EQ(error_of(GgufWriter().u32("k", 1).u32("j", 1).u32("k", 1).file()),
            "m.gguf: key \"k\": occurs twice; each name once");
  EXPECT_EQ(error_of(GgufWriter().tensor("t", {1}).tensor("s", {1}).tensor("t", {1}).file()),
            "m.gguf: tensor \"t\": occurs twice; each name once");
}

TEST(Gguf, RefusesAlignmentsThatAreNone) {
  EXPECT_EQ(error_of(GgufWriter().u32("general.alignment", 0).file()),
            "m.gguf: key \"general.alignment\": 0; a power of two");
  EXPECT_EQ(error_of(GgufWriter().u32("general.alignment", 48).file()),
            "m.gguf: key \"general.alignment\": 48; a power of two");
  EXPECT_EQ(error_of(GgufWriter().text("general.alignment", "32").file()),
            "m.gguf: key \"general.alignment\": not a u32; a power of two");
}

TEST(Gguf, RefusesTensorsThatCannotBe) {
  const auto with =
      [](const std::vector<std::int64_t>& shape, std::uint32_t type, std::uint64_t offset = 0) {
        return error_of(GgufWriter().raw_tensor("t", shape, type, offset).file());
      };
  EXPECT_EQ(with({1, 1, 1, 1, 1}, 0), "m.gguf: tensor \"t\": 5 dimensions; 0 to 4");
  EXPECT_EQ(with({4, -1}, 0), "m.gguf: tensor \"t\": axis 1 has extent -1; a positive number");
  EXPECT_EQ(with({0}, 0), "m.gguf: tensor \"t\": axis 0 has extent 0; a positive number");
  EXPECT_EQ(with({std::int64_t{1} << 40, std::int64_t{1} << 40}, 0),
            "m.gguf: tensor \"t\": more than 2^59 elements; a tensor that can exist");
  EXPECT_EQ(with({std::numeric_limits<std::int64_t>::max(), 2, 2, 2}, 0),
            "m.gguf: tensor \"t\": more than 2^59 elements; a tensor that can exist");
  EXPECT_EQ(with({33}, 8),
            "m.gguf: tensor \"t\": rows of 33 elements of type q8_0; a multiple of 32");
  EXPECT_EQ(with({32}, 4),
            "m.gguf: tensor \"t\": ggml type 4; a type that ggml has today, 0 to 42 with gaps");
  EXPECT_EQ(with({32}, 4000000000U),
            "m.gguf: tensor \"t\": ggml type 4000000000; a type that ggml has today, 0 to 42 with "
            "gaps");
  EXPECT_EQ(with({32}, 0, 32),
            "m.gguf: tensor \"t\": offset 32; 0, right behind the tensor before it");
  EXPECT_EQ(with({32}, 0, std::uint64_t{1} << 63U),
            "m.gguf: tensor \"t\": offset 9223372036854775808; 0, right behind the tensor before "
            "it");
  EXPECT_EQ(error_of(GgufWriter().tensor(std::string(257, 'n'), {1}).file()),
            "m.gguf: tensor 0: a name of 257 bytes; 1 to 256");
}

TEST(Gguf, AnUnknownTensorTypeIsUnsupported) {
  EXPECT_THROW(static_cast<void>(parse_gguf(GgufWriter().raw_tensor("t", {32}, 31, 0).file(), "")),
               Unsupported);
}

TEST(Gguf, SumsOfHugeTensorsDoNotWrap) {
  const std::int64_t huge = std::int64_t{1} << 58;  // 2^60 bytes of f32
  GgufWriter w;
  for (int i = 0; i < 9; ++i) {
    w.raw_tensor("t" + std::to_string(i), {huge}, 0, static_cast<std::uint64_t>(i) << 60U);
  }
  EXPECT_EQ(error_of(w.header()),
            "m.gguf: tensor \"t7\": ends beyond 2^63 bytes; a file that can exist");
}

TEST(Gguf, QuotesNamesOfStrangersOnOneLine) {
  EXPECT_EQ(in_quotes("a\nb\x1b[31m\"c"), "\"a?b?[31m?c\"");
  EXPECT_EQ(in_quotes(std::string(70, 'x')), "\"" + std::string(64, 'x') + "...\"");
}

TEST(Gguf, RefusesWhatIsNoFile) {
  EXPECT_THROW(static_cast<void>(open_gguf("/nonexistent.gguf")), InputError);
  EXPECT_THROW(static_cast<void>(open_gguf("/dev/null")), InputError);
}

}  // namespace
}  // namespace kvfathom
