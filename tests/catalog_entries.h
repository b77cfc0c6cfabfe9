// What data/models must hold: made from tests/data/configs by the reader of this build. Shared by
// the tool that writes the catalog and the test that compares it.
#pragma once

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/error.h"
#include "model/io/hf_config.h"
#include "model/io/inspect_json.h"

namespace kvfathom::catalog {

inline std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Rows of a tab-separated table, without the comment lines.
inline std::vector<std::vector<std::string>> table(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) {
      continue;
    }
    std::stringstream stream(line);
    auto& row = rows.emplace_back();
    for (std::string column; std::getline(stream, column, '\t');) {
      row.push_back(column);
    }
  }
  return rows;
}

/// A config of tests/data/configs, with `patch` (JSON, or "-") merged into it.
inline std::string patched(const std::string& text, const std::string& patch) {
  if (patch == "-") {
    return text;
  }
  nlohmann::json config = nlohmann::json::parse(text);
  config.merge_patch(nlohmann::json::parse(patch));
  return config.dump();
}

/// "zai-org/GLM-4.7-Flash" -> "glm-4.7-flash".
inline std::string id_of(const std::string& hugging_face_id) {
  std::string id = hugging_face_id.substr(hugging_face_id.rfind('/') + 1);
  std::transform(id.begin(), id.end(), id.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return id;
}

struct Entries {
  std::map<std::string, std::string> documents;  ///< by id
  std::map<std::string, std::string> refused;    ///< config's file -> the reader's message
};

/// `configs`: the folder with the configs and sources.tsv.
inline Entries make_entries(const std::string& configs) {
  Entries entries;
  for (const auto& row : table(configs + "/sources.tsv")) {
    try {
      const std::string text = patched(read_all(configs + "/" + row.at(0)), row.at(6));
      ModelSpec model = read_hf_config_text(text, row.at(0));
      model.name = row.at(1).substr(row.at(1).rfind('/') + 1);
      model.source = row.at(3);
      InspectNotes notes{.id = id_of(row.at(1)),
                         .aliases = {row.at(1)},
                         .sources = {"read from " + row.at(2)},
                         .assumed = {}};
      if (row.at(4) == "partial") {
        notes.assumed.push_back("the copy read is partial" +
                                (row.at(5) == "-" ? std::string() : ": " + row.at(5)));
      }
      if (row.at(6) != "-") {
        notes.assumed.push_back(row.at(6) + ": " + row.at(7));
      }
      entries.documents[notes.id] = inspect_document(model, notes);
    } catch (const kvfathom::Error& e) {
      entries.refused[row.at(0)] = e.what();
    }
  }
  return entries;
}

}  // namespace kvfathom::catalog
