#include "model/io/safetensors.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom {
namespace {

namespace fs = std::filesystem;

class Safetensors : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() /
              (std::string("kvfathom_safetensors_") +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// A file with `header` and that many bytes of data, which are a hole.
  std::string write(const std::string& name, const std::string& header, std::uintmax_t data_bytes) {
    const fs::path path = folder_ / name;
    std::ofstream file(path, std::ios::binary);
    for (std::size_t i = 0; i < 8; ++i) {
      file.put(static_cast<char>(header.size() >> (8 * i) & 0xff));
    }
    file << header;
    file.close();
    fs::resize_file(path, 8 + header.size() + data_bytes);
    return path.string();
  }
  std::string write_text(const std::string& name, const std::string& text) {
    const fs::path path = folder_ / name;
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  /// The message with the folder cut off.
  std::string refusal(const std::string& path) {
    try {
      (void)read_safetensors_weights(path);
    } catch (const Error& e) {
      std::string text = e.what();
      const std::string prefix = folder_.string() + "/";
      return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
    }
    return "accepted";
  }

  fs::path folder_;
};

const char* const kTwo =
    R"({"__metadata__": {"format": "pt"},
        "b": {"dtype": "F32", "shape": [3], "data_offsets": [12288, 12300]},
        "a": {"dtype": "BF16", "shape": [96, 64], "data_offsets": [0, 12288]}})";

TEST_F(Safetensors, TakesTypesShapesAndBytesFromTheHeader) {
  const SafetensorsWeights w = read_safetensors_weights(write("m.safetensors", kTwo, 12300));
  EXPECT_EQ(w.bytes, 96 * 64 * 2 + 3 * 4);
  ASSERT_EQ(w.tensors.size(), 2U);
  EXPECT_EQ(w.tensors[0], (Tensor{"a", {64, 96, 1, 1}, DType::bf16}));
  EXPECT_EQ(w.tensors[1], (Tensor{"b", {3, 1, 1, 1}, DType::f32}));
  EXPECT_EQ(w.files, std::vector<std::string>{(folder_ / "m.safetensors").string()});
}

TEST_F(Safetensors, FoldsAxesBeyondTheFourth) {
  const std::string path =
      write("m.safetensors",
            R"({"v": {"dtype": "F16", "shape": [5, 3, 2, 14, 16], "data_offsets": [0, 13440]}})",
            13440);
  EXPECT_EQ(read_safetensors_weights(path).tensors[0].shape,
            (std::array<std::int64_t, 4>{16, 14, 2, 15}));
}

TEST_F(Safetensors, AFolderWithoutIndexHasOneFile) {
  write("m.safetensors", kTwo, 12300);
  EXPECT_EQ(read_safetensors_weights(folder_.string()).bytes, 12300);
  write("n.safetensors", kTwo, 12300);
  EXPECT_EQ(refusal(folder_.string()),
            folder_.string() +
                ": 2 .safetensors files and no index; model.safetensors.index.json, or one "
                ".safetensors file");
}

TEST_F(Safetensors, AnIndexNamesItsShards) {
  write("s1.safetensors",
        R"({"x": {"dtype": "F8_E4M3", "shape": [4, 8], "data_offsets": [0, 32]}})",
        32);
  write("s2.safetensors", kTwo, 12300);
  const std::string index =
      write_text("model.safetensors.index.json",
                 R"({"metadata": {"total_size": 12320}, "weight_map": {"x": "s1.safetensors",
          "a": "s2.safetensors"}})");
  for (const std::string& path : {folder_.string(), index}) {
    const SafetensorsWeights w = read_safetensors_weights(path);
    EXPECT_EQ(w.bytes, 32 + 12288);  // "b" is in the shard, but not in the index
    EXPECT_EQ(w.files.size(), 2U);
  }
  fs::remove(folder_ / "s1.safetensors");
  EXPECT_EQ(refusal(index),
            "model.safetensors.index.json: \"weight_map\": shard s1.safetensors is missing; every "
            "shard beside the index");
}

TEST_F(Safetensors, AnIndexIsHeldToItsShards) {
  write("s.safetensors", kTwo, 12300);
  EXPECT_EQ(refusal(write_text("i.json", R"({"weight_map": {"c": "s.safetensors"}})")),
            "i.json: \"weight_map.c\": s.safetensors has no such tensor; an index that belongs to "
            "its shards");
  EXPECT_EQ(refusal(write_text("i.json", R"({"weight_map": {"c": "../s.safetensors"}})")),
            "i.json: \"weight_map.c\": \"../s.safetensors\" is no plain file name; a file beside "
            "the index");
  EXPECT_EQ(refusal(write_text("i.json", R"({"weight_map": {}})")),
            "i.json: \"weight_map\": no tensors; a tensor name for each file");
  EXPECT_EQ(refusal(write_text("i.json", R"({"weight_map": )")),
            "i.json: not JSON at byte 16; a JSON object");
}

TEST_F(Safetensors, RefusesWhatDoesNotAddUp) {
  EXPECT_EQ(refusal(write("m.safetensors", kTwo, 12299)),
            "m.safetensors: \"b\": data from 12288 to 12300, but the file has 12299 bytes of it; a "
            "complete file");
  EXPECT_EQ(
      refusal(write(
          "m.safetensors", R"({"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 9]}})", 9)),
      "m.safetensors: \"a\": 9 bytes of data; 8 for its shape and type");
  EXPECT_EQ(
      refusal(write(
          "m.safetensors", R"({"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}})", 2)),
      "m.safetensors: \"a.dtype\": \"F4\" is not known; F64, F32, F16, BF16, F8_E4M3, "
      "F8_E5M2, F8_E8M0, I8 to I64, U8 to U64, BOOL");
  EXPECT_EQ(
      refusal(write(
          "m.safetensors", R"({"a": {"dtype": "I8", "shape": [-4], "data_offsets": [0, 2]}})", 2)),
      "m.safetensors: \"a.shape\": a negative number; integers from 0");
  EXPECT_EQ(refusal(write("m.safetensors", R"({"a": {"dtype": "I8", "shape": [4]}})", 4)),
            "m.safetensors: \"a\": dtype or data_offsets missing; dtype, shape, data_offsets of "
            "two numbers");
  EXPECT_EQ(refusal(write("m.safetensors",
                          R"({"a": {"dtype": "I8", "shape": [4611686018427387904, 4],
                        "data_offsets": [0, 4]}})",
                          4)),
            "m.safetensors: \"a\": a shape of more than 1e15 elements; fewer");
}

TEST_F(Safetensors, RefusesLyingLengths) {
  EXPECT_EQ(refusal(write_text("m.safetensors", "abc")),
            "m.safetensors: too short for a safetensors file; at least 8 bytes");
  EXPECT_EQ(refusal(write_text("m.safetensors", std::string(7, '\xff') + "\x7f{}")),
            "m.safetensors: a header of 9223372036854775807 bytes; at most 2 in this file");
  EXPECT_EQ(refusal(write("m.safetensors", "[1, 2]", 0)),
            "m.safetensors: no tensors in its header; at least one");
  EXPECT_EQ(refusal(write("m.safetensors", std::string(1'000'000, '['), 0)),
            "m.safetensors: nesting deeper than 3; at most 3 levels");
}

}  // namespace
}  // namespace kvfathom
