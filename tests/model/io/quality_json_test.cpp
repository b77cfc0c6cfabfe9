#include "model/io/quality_json.h"

#include <fstream>

#include <gtest/gtest.h>

#include "model/cache/request_text.h"
#include "model/engine/engine.h"
#include "model/error.h"

namespace kvfathom {
namespace {

TEST(Quality, EveryFigureNamesASchemeItsNumbersAndASource) {
  const auto figures = read_quality(KVFATHOM_SOURCE_DIR "/data/quality/schemes.json");
  EXPECT_GT(figures.size(), 90U);
  for (const cache::Evidence& figure : figures) {
    const cache::SchemeRequest request(scheme_named(figure.scheme));
    EXPECT_FALSE(cache::is_model_scheme(request.id)) << figure.scheme;
    EXPECT_FALSE(figure.source.empty());
    const auto known = cache::numbers_of(request);
    for (const auto& [name, value] : figure.numbers) {
      EXPECT_GT(value, 0);
      bool is_known = name == "share";
      for (const auto& [parameter, usual] : known) {
        is_known |= parameter == name;
      }
      EXPECT_TRUE(is_known) << figure.scheme << " " << name;
    }
  }
}

cache::Evidence figure(const char* scheme, const char* model, const char* setting, double bits) {
  cache::Evidence evidence;
  evidence.scheme = scheme;
  evidence.model = model;
  evidence.setting = setting;
  evidence.numbers = {{"bits", bits}};
  return evidence;
}

/// The settings in the order in which KIVI in three bits finds them.
std::string order_of(const std::vector<cache::Evidence>& figures, const char* model) {
  const std::vector<std::pair<std::string, double>> asked{{"bits", 3}};
  std::string order;
  for (const cache::Evidence& found : cache::nearest(figures, "kivi", model, asked)) {
    order += found.setting;
  }
  return order;
}

TEST(Quality, NearestFirstByRatio) {
  const std::vector<cache::Evidence> figures{figure("kivi", "m", "8", 8),
                                             figure("xquant", "m", "other", 3),
                                             figure("kivi", "m", "2", 2),
                                             figure("kivi", "m", "4", 4)};
  EXPECT_EQ(order_of(figures, "m"), "428");  // log2(4/3) < log2(3/2) < log2(8/3)
}

TEST(Quality, TheSameModelComesBeforeANearerSetting) {
  const std::vector<cache::Evidence> figures{figure("kivi", "Llama-2-7B", "a", 3),
                                             figure("kivi", "Llama-3.1-8B-Instruct", "b", 3),
                                             figure("kivi", "Llama-3.1-8B", "c", 2),
                                             figure("kivi", "Llama-3.1-8B", "d", 4)};
  EXPECT_EQ(order_of(figures, "meta-llama/Llama 3.1 8B"), "bdca");
  EXPECT_EQ(order_of(figures, "Llama-2-7b-hf"), "abdc");
}

TEST(Quality, AFileOfAnotherFormIsRefused) {
  const std::string path = ::testing::TempDir() + "/quality.json";
  std::ofstream(path) << R"({"figures": [{"scheme": "kivi"}]})";
  EXPECT_THROW((void)read_quality(path), InputError);
}

}  // namespace
}  // namespace kvfathom
