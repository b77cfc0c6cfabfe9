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

TEST(Quality, NearestFirstByRatio) {
  const auto figure = [](const char* scheme, const char* setting, double bits) {
    cache::Evidence evidence;
    evidence.scheme = scheme;
    evidence.setting = setting;
    evidence.numbers = {{"bits", bits}};
    return evidence;
  };
  const std::vector<cache::Evidence> figures{figure("kivi", "8", 8),
                                             figure("xquant", "other", 3),
                                             figure("kivi", "2", 2),
                                             figure("kivi", "4", 4)};
  const std::vector<std::pair<std::string, double>> asked{{"bits", 3}};
  std::string order;
  for (const cache::Evidence& found : cache::nearest(figures, "kivi", "", asked)) {
    order += found.setting;
  }
  EXPECT_EQ(order, "428");  // log2(4/3) < log2(3/2) < log2(8/3)
}

TEST(Quality, TheSameModelComesBeforeANearerSetting) {
  const auto figure = [](const char* model, const char* setting, double bits) {
    cache::Evidence evidence;
    evidence.scheme = "kivi";
    evidence.model = model;
    evidence.setting = setting;
    evidence.numbers = {{"bits", bits}};
    return evidence;
  };
  const std::vector<cache::Evidence> figures{figure("Llama-2-7B", "a", 3),
                                             figure("Llama-3.1-8B-Instruct", "b", 3),
                                             figure("Llama-3.1-8B", "c", 2),
                                             figure("Llama-3.1-8B", "d", 4)};
  const std::vector<std::pair<std::string, double>> asked{{"bits", 3}};
  std::string order;
  for (const cache::Evidence& found :
       cache::nearest(figures, "kivi", "meta-llama/Llama 3.1 8B", asked)) {
    order += found.setting;
  }
  EXPECT_EQ(order, "bdca");
}

TEST(Quality, AFileOfAnotherFormIsRefused) {
  const std::string path = ::testing::TempDir() + "/quality.json";
  std::ofstream(path) << R"({"figures": [{"scheme": "kivi"}]})";
  EXPECT_THROW((void)read_quality(path), InputError);
}

}  // namespace
}  // namespace kvfathom
