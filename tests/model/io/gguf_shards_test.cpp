// Models split over several files.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "model/error.h"
#include "model/io/gguf.h"
#include "tests/model/io/gguf_writer.h"

namespace kvfathom {
namespace {

using testing::GgufWriter;
using testing::raw;

class GgufShards : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvfathom-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(int number, int count = 3) const {
    return folder_ + "/m-0000" + std::to_string(number) + "-of-0000" + std::to_string(count) +
           ".gguf";
  }
  /// Shard `number` (from 1) of `count`, with one tensor.
  std::string write(int number, const std::string& tensor, int count = 3, int said = 0) const {
    GgufWriter w;
    w.entry("split.no", GgufType::u16, raw(static_cast<std::uint16_t>(number - 1)));
    w.entry("split.count", GgufType::u16, raw(static_cast<std::uint16_t>(count)));
    w.entry("split.tensors.count", GgufType::i32, raw<std::int32_t>(said == 0 ? count : said));
    w.tensor(tensor, {4});
    std::ofstream(path(number), std::ios::binary) << w.file();
    return path(number);
  }
  std::string folder_;
};

std::string error_of(const std::string& path) {
  try {
    static_cast<void>(open_gguf_shards(path));
  } catch (const InputError& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST_F(GgufShards, AnyShardFindsTheOthers) {
  write(1, "a");
  write(2, "b");
  write(3, "c");
  for (int named = 1; named <= 3; ++named) {
    const std::vector<GgufFile> shards = open_gguf_shards(path(named));
    ASSERT_EQ(shards.size(), 3);
    EXPECT_EQ(shards[0].header.tensors.front().name, "a");
    EXPECT_EQ(shards[1].header.tensors.front().name, "b");
    EXPECT_EQ(shards[2].header.tensors.front().name, "c");
  }
}

TEST_F(GgufShards, OneFileIsOneShard) {
  const std::string name = folder_ + "/whole.gguf";
  std::ofstream(name, std::ios::binary) << GgufWriter().tensor("a", {4}).file();
  EXPECT_EQ(open_gguf_shards(name).size(), 1);
}

TEST_F(GgufShards, NamesTheMissingShard) {
  write(1, "a");
  write(3, "c");
  EXPECT_EQ(error_of(path(1)), path(2) + ": is missing; all 3 shards of the model");
  EXPECT_EQ(error_of(path(3)), path(2) + ": is missing; all 3 shards of the model");
}

TEST_F(GgufShards, RefusesAShardUnderAnotherName) {
  const std::string name = folder_ + "/renamed.gguf";
  std::filesystem::rename(write(2, "b"), name);
  EXPECT_EQ(error_of(name),
            name +
                ": is shard 2 of 3 but is not named so; a name that ends in "
                "-00002-of-00003.gguf");
}

TEST_F(GgufShards, RefusesShardsOfAnotherModel) {
  write(1, "a");
  write(3, "c");
  std::filesystem::rename(write(2, "b", 4), path(2));
  EXPECT_EQ(error_of(path(1)), path(2) + ": says it is shard 2 of 4; shard 2 of 3");
}

TEST_F(GgufShards, RefusesTensorsThatRepeatOrAreMissing) {
  write(1, "a");
  write(2, "a");
  write(3, "c");
  EXPECT_EQ(error_of(path(1)),
            path(2) + ": tensor \"a\": occurs in an earlier shard as well; each name once");
  write(1, "a", 3, 4);
  write(2, "b");
  EXPECT_EQ(error_of(path(1)),
            path(1) + ": key \"split.tensors.count\": 4; 3, the tensors in all shards");
}

}  // namespace
}  // namespace kvfathom
