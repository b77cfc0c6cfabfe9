#include "model/io/engine_history_json.h"

#include <nlohmann/json.hpp>

#include "model/error.h"
#include "model/io/file.h"

namespace kvfathom {

EngineHistory read_engine_history(const std::string& path) {
  try {
    const auto json = nlohmann::json::parse(read_text_file(path));
    EngineHistory history;
    history.engine = json.at("engine").get<std::string>();
    history.oldest_build = json.at("oldest").value("build", std::int64_t{0});
    history.oldest_date = json.at("oldest").at("date").get<std::string>();
    history.newest_version = json.at("newest").at("version").get<std::string>();
    for (const auto& release : json.at("releases")) {
      history.releases.push_back(
          {release.at("version").get<std::string>(), release.at("date").get<std::string>()});
    }
    for (const auto& behaviour : json.at("behaviours")) {
      history.behaviours.push_back({behaviour.at("id").get<std::string>(),
                                    behaviour.value("first_build", std::int64_t{0}),
                                    behaviour.at("first_date").get<std::string>(),
                                    behaviour.at("summary").get<std::string>(),
                                    behaviour.at("source").get<std::string>()});
    }
    return history;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(path, error.what(), "see data/engines/llama.cpp.json for the form");
  }
}

}  // namespace kvfathom
