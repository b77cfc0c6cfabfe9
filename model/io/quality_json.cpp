#include "model/io/quality_json.h"

#include <nlohmann/json.hpp>

#include "model/error.h"
#include "model/io/file.h"

namespace kvfathom {

std::vector<cache::Evidence> read_quality(const std::string& path) {
  try {
    const auto json = nlohmann::json::parse(read_text_file(path));
    std::vector<cache::Evidence> figures;
    for (const auto& row : json.at("figures")) {
      cache::Evidence figure{.scheme = row.at("scheme").get<std::string>(),
                             .benchmark = row.at("benchmark").get<std::string>(),
                             .model = row.at("model").get<std::string>(),
                             .setting = row.at("setting").get<std::string>(),
                             .value = row.at("value").get<double>(),
                             .source = row.at("source").get<std::string>()};
      if (!row.at("baseline").is_null()) {
        figure.baseline = row.at("baseline").get<double>();
      }
      for (const auto& [name, value] : row.at("numbers").items()) {
        figure.numbers.emplace_back(name, value.get<double>());
      }
      figures.push_back(std::move(figure));
    }
    return figures;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(path, error.what(), "see data/quality/schemes.json for the form");
  }
}

}  // namespace kvfathom
