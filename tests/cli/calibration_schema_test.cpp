#include <filesystem>

#include <gtest/gtest.h>

#include "model/io/file.h"
#include "tests/cli/json_schema.h"

namespace kvfathom {
namespace {

TEST(CalibrationSchema, EveryPublishedFileKeepsIt) {
  const std::string data = KVFATHOM_SOURCE_DIR "/data/";
  const auto schema =
      nlohmann::json::parse(read_text_file(data + "schemas/calibration.schema.json"));
  int n_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data + "calibrations/published")) {
    auto document = nlohmann::json::parse(read_text_file(entry.path().string()));
    const auto faults = testing::schema_faults(document, schema);
    EXPECT_TRUE(faults.empty()) << entry.path() << ": " << (faults.empty() ? "" : faults.front());
    document["classes"][0]["theta"]["speed"] = 1;
    EXPECT_FALSE(testing::schema_faults(document, schema).empty());
    ++n_files;
  }
  EXPECT_GT(n_files, 0);
}

}  // namespace
}  // namespace kvfathom
