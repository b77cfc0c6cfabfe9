// Replays the fuzz targets' inputs, seeds and finds alike, as ordinary tests: whatever once
// crashed a reader is kept in tests/fuzz/corpus/<reader>/.
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/io/file.h"
#include "tests/fuzz/readers.h"

namespace kvfathom {
namespace {

struct Target {
  const char* name;
  void (*read)(std::string_view);
};

class FuzzCorpus : public ::testing::TestWithParam<Target> {};

TEST_P(FuzzCorpus, IsReadOrRefusedInOneLine) {
  const std::filesystem::path folder =
      std::filesystem::path(KVFATHOM_SOURCE_DIR "/tests/fuzz/corpus") / GetParam().name;
  std::vector<std::string> inputs;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    inputs.push_back(entry.path().string());
  }
  EXPECT_GE(inputs.size(), 5);
  for (const std::string& path : inputs) {
    SCOPED_TRACE(path);
    const std::string bytes = read_text_file(path);
    EXPECT_NO_THROW(GetParam().read(bytes));
    // Damage of every kind that needs no luck: each byte set, and every length.
    for (std::size_t i = 0; i < bytes.size(); i += 7) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(~damaged[i]);
      EXPECT_NO_THROW(GetParam().read(damaged));
      EXPECT_NO_THROW(GetParam().read(std::string_view(bytes).substr(0, i)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Readers,
                         FuzzCorpus,
                         ::testing::Values(Target{"gguf", fuzz::gguf},
                                           Target{"hf_config", fuzz::hf_config},
                                           Target{"safetensors", fuzz::safetensors}),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace kvfathom
