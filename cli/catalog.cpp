#include "cli/catalog.h"

#include <algorithm>
#include <filesystem>

#include "cli/data_dir.h"
#include "cli/format.h"
#include "cli/nearest.h"
#include "model/error.h"
#include "model/io/file.h"
#include "model/io/inspect_json.h"

namespace kvfathom::cli {
namespace {

std::filesystem::path path_of(const std::string& id) {
  return data_directory() / "models" / (id + ".json");
}

/// Whether a name can be looked up as a file of the catalog: no way out of its folder.
bool is_plain_word(const std::string& word) {
  return !word.empty() && word.front() != '.' &&
         word.find_first_of("/\\\0", 0, 3) == std::string::npos;
}

}  // namespace

std::vector<std::string> catalog_model_ids() {
  std::vector<std::string> ids;
  const auto folder = data_directory() / "models";
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    if (entry.path().extension() == ".json") {
      ids.push_back(entry.path().stem().string());
    }
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

ModelSpec read_catalog_model(const std::string& id) {
  ModelSpec model = read_inspect(path_of(id).string());
  return model;
}

std::optional<std::string> catalog_model_id(const std::string& name) {
  // A Hugging Face id is owner/name; entries are named by the name, or by both where two owners
  // share one.
  std::string whole = lower(name);
  std::replace(whole.begin(), whole.end(), '/', '-');
  const std::string tail = lower(name.substr(name.rfind('/') + 1));
  for (const std::string& id : {whole, tail}) {
    if (is_plain_word(id) && is_regular_file(path_of(id).string())) {
      return id;
    }
  }
  return std::nullopt;
}

}  // namespace kvfathom::cli
