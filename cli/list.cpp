// kvfathom list: what the catalogs and tables hold.
#include <algorithm>
#include <array>

#include "calibrate/calibrations_directory.h"
#include "cli/calibrations.h"
#include "cli/catalog.h"
#include "cli/commands.h"
#include "cli/data_dir.h"
#include "cli/format.h"
#include "cli/json_writer.h"
#include "cli/nearest.h"
#include "cli/table.h"
#include "model/architecture/parameters.h"
#include "model/cache/request_text.h"
#include "model/cache/scheme.h"
#include "model/dtype.h"
#include "model/engine/engine.h"
#include "model/error.h"
#include "model/io/hardware_json.h"
#include "model/weights/recipe.h"

namespace kvfathom::cli {
namespace {

/// A list twice: items for programs, a table for people.
struct Listing {
  Json items = Json::array();
  Table table;
  std::vector<std::array<std::string, 3>> entries = {};  ///< a name and two lines, for prose
  std::string note = {};                                 ///< behind them
};

Listing list_models() {
  Listing listing;
  listing.table.columns = {{"model"},
                           {"architecture"},
                           {"parameters", Align::right},
                           {"active", Align::right},
                           {"trained", Align::right}};
  for (const std::string& id : catalog_model_ids()) {
    const ModelSpec model = read_catalog_model(id);
    Json item = model_json(model);
    item["id"] = id;
    item["trained_context_tokens"] = model.trained_context_tokens;
    listing.table.rows.push_back({{id},
                                  {model.architecture},
                                  {parameters(count_parameters(model).total)},
                                  {parameters(count_parameters(model).active)},
                                  {thousands(model.trained_context_tokens)}});
    listing.items.push_back(std::move(item));
  }
  return listing;
}

Listing list_gpus() {
  Listing listing;
  listing.table.columns = {
      {"gpu"}, {"name", Align::left, true}, {"GiB", Align::right}, {"GB/s", Align::right}};
  for (const HardwareSpec& gpu : list_hardware(data_directory())) {
    constexpr double kGiga = 1e9;
    listing.items.push_back({{"id", gpu.id},
                             {"name", gpu.name},
                             {"aliases", gpu.aliases},
                             {"vendor", gpu.vendor},
                             {"architecture", text_or_null(gpu.architecture)},
                             {"memory_bytes", gpu.memory_bytes},
                             {"memory_provenance", name(gpu.memory_provenance)},
                             {"bandwidth_bytes_per_s", gpu.bandwidth.value()},
                             {"unified_memory", gpu.unified_memory}});
    listing.table.rows.push_back(
        {{gpu.id},
         {gpu.name},
         {gib_number(gpu.memory_bytes)},
         {thousands(static_cast<std::int64_t>(gpu.bandwidth.value() / kGiga))}});
  }
  return listing;
}

Listing list_schemes() {
  Listing listing;
  for (const cache::SchemeInfo& row : cache::all_schemes()) {
    const std::string parameters = cache::parameter_help(row.scheme);
    listing.items.push_back({{"id", row.name},
                             {"formula", row.formula},
                             {"summary", row.summary},
                             {"source", row.source},
                             {"parameters", parameters}});
    std::string what(row.summary.substr(0, row.summary.rfind('.')));
    what.append(" (").append(row.source).append(")");
    listing.entries.push_back({std::string(row.name), std::string(row.formula), std::move(what)});
  }
  listing.note =
      "Behind each name: bytes per token and layer. Parameters, as in --scheme kivi:bits=2, with "
      "their defaults and ranges: --json.";
  return listing;
}

Listing list_types() {
  Listing listing;
  listing.table.columns = {{"type"},
                           {"block", Align::right},
                           {"bytes", Align::right},
                           {"bits per value", Align::right},
                           {"in GGUF"}};
  for (const DTypeInfo& row : all_dtypes()) {
    listing.items.push_back({{"id", row.name},
                             {"block_elements", row.block_elements},
                             {"block_bytes", row.block_bytes},
                             {"ggml_id", row.ggml_id ? Json(*row.ggml_id) : Json(nullptr)}});
    const std::int64_t thousandths = row.block_bytes * 8000 / row.block_elements;
    std::string fraction = std::to_string(1000 + thousandths % 1000).substr(1);
    listing.table.rows.push_back({{std::string(row.name)},
                                  {std::to_string(row.block_elements)},
                                  {std::to_string(row.block_bytes)},
                                  {std::to_string(thousandths / 1000) + "." + fraction},
                                  {row.ggml_id ? "yes" : "no"}});
  }
  return listing;
}

Listing list_engines() {
  Listing listing;
  listing.table.columns = {{"engine"}, {"version"}, {"what", Align::left, true}};
  for (const EngineInfo& row : engines()) {
    listing.items.push_back({{"id", row.name},
                             {"newest_version", text_or_null(std::string(row.newest_version))},
                             {"summary", row.summary},
                             {"source", row.source}});
    listing.table.rows.push_back({{std::string(row.name), Style::bold},
                                  {std::string(row.newest_version)},
                                  {std::string(row.summary)}});
  }
  return listing;
}

/// Of one's own machines; the published ones have a folder of their own.
Listing list_calibrations() {
  Listing listing;
  listing.table.columns = {
      {"device"}, {"when"}, {"classes", Align::right}, {"file", Align::left, true}};
  for (const OwnCalibration& own : calibrations_in(calibrations_directory())) {
    const Calibration& calibration = own.calibration;
    const std::string utc = calibration.session ? calibration.session->utc : "";
    listing.items.push_back({{"device", calibration.device_name},
                             {"utc", text_or_null(utc)},
                             {"classes", calibration.classes.size()},
                             {"file", own.path.string()}});
    listing.table.rows.push_back({{calibration.device_name, Style::bold},
                                  {utc},
                                  {std::to_string(calibration.classes.size())},
                                  {own.path.string()}});
  }
  return listing;
}

struct Kind {
  const char* name;
  Listing (*make)();
};

constexpr std::array<Kind, 6> kKinds{{{"models", list_models},
                                      {"gpus", list_gpus},
                                      {"schemes", list_schemes},
                                      {"types", list_types},
                                      {"engines", list_engines},
                                      {"calibrations", list_calibrations}}};

}  // namespace

int list(const Options& options, Console& console) {
  const auto kind = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& row) {
    return lower(options.list_what) == row.name;
  });
  if (kind == kKinds.end()) {
    throw InputError("list",
                     "'" + printable(options.list_what) + "' is no list",
                     "use one of models, gpus, schemes, types, engines, calibrations");
  }
  Listing listing = kind->make();
  if (console.json) {
    Json json = document("list");
    json["what"] = kind->name;
    json["items"] = std::move(listing.items);
    print_json(console, json);
  } else {
    if (!listing.table.columns.empty()) {
      print(console, listing.table);
    }
    for (const auto& [name, formula, what] : listing.entries) {
      console.paragraph(console.styled(name, Style::bold) + ": " + formula, 2);
      console.paragraph(what, 6);
    }
    if (!listing.note.empty() && !console.quiet) {
      console.line();
      console.paragraph(listing.note, 2);
    }
  }
  return 0;
}

}  // namespace kvfathom::cli
