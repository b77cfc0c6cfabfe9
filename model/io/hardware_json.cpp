#include "model/io/hardware_json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "model/error.h"
#include "model/io/file.h"

namespace kvfathom {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxFileBytes = 1 << 20;
constexpr std::string_view kSchema = "kvfathom.hardware/1";

/// One JSON object being read: each getter takes a field, checks it, and ticks it off, so that what
/// is left over at the end is a field nobody knows.
class Object {
 public:
  Object(std::string where, const json& value) : where_(std::move(where)), value_(value) {
    if (!value_.is_object()) {
      throw InputError(where_, shown(value_) + " is no object", "");
    }
  }

  [[nodiscard]] bool has(const char* field) {
    known_.insert(field);
    return value_.contains(field);
  }
  [[nodiscard]] const json& at(const char* field) {
    if (!has(field)) {
      throw InputError(where_, "field \"" + std::string(field) + "\" is missing", "");
    }
    return value_.at(field);
  }
  [[nodiscard]] std::string text(const char* field) {
    const json& value = at(field);
    if (!value.is_string() || value.get_ref<const std::string&>().empty()) {
      refuse(field, value, "a text that is not empty");
    }
    return value.get<std::string>();
  }
  [[nodiscard]] std::string text_or_empty(const char* field) {
    return has(field) ? text(field) : std::string();
  }
  [[nodiscard]] bool flag(const char* field) {
    if (!has(field)) {
      return false;
    }
    const json& value = at(field);
    if (!value.is_boolean()) {
      refuse(field, value, "true or false");
    }
    return value.get<bool>();
  }
  [[nodiscard]] std::int64_t whole(const char* field) {
    const json& value = at(field);
    const bool fits = value.is_number_unsigned() &&
                      value.get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max();
    if (!fits || value.get<std::int64_t>() == 0) {
      refuse(field, value, "a whole number from 1 to 2^63 - 1");
    }
    return value.get<std::int64_t>();
  }
  [[nodiscard]] double positive(const char* field) {
    const json& value = at(field);
    if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>())) {
      refuse(field, value, "a number above 0");
    }
    return value.get<double>();
  }
  [[nodiscard]] std::optional<std::int64_t> whole_if(const char* field) {
    return has(field) ? std::optional(whole(field)) : std::nullopt;
  }
  [[nodiscard]] std::optional<double> positive_if(const char* field) {
    return has(field) ? std::optional(positive(field)) : std::nullopt;
  }
  /// The array of a field, empty if absent.
  [[nodiscard]] const json& array(const char* field) {
    static const json none = json::array();
    if (!has(field)) {
      return none;
    }
    const json& value = at(field);
    if (!value.is_array()) {
      refuse(field, value, "an array");
    }
    return value;
  }
  [[nodiscard]] std::vector<std::string> texts(const char* field) {
    std::vector<std::string> result;
    for (const json& item : array(field)) {
      if (!item.is_string()) {
        refuse(field, item, "an array of texts");
      }
      result.push_back(item.get<std::string>());
    }
    return result;
  }
  /// An object inside this one.
  [[nodiscard]] Object object(const char* field) { return {where_ + ": " + field, at(field)}; }

  [[nodiscard]] const json& value() const { return value_; }
  [[nodiscard]] const std::string& where() const { return where_; }

  /// Refuses fields that nobody asked for.
  void finish() const {
    for (const auto& item : value_.items()) {
      if (!known_.contains(item.key())) {
        std::string allowed = "known are";
        for (const std::string& field : known_) {
          allowed += " " + field;
        }
        throw InputError(where_, "field \"" + item.key() + "\" is not known", allowed);
      }
    }
  }

  [[noreturn]] void refuse(const std::string& field,
                           const json& value,
                           const std::string& allowed) const {
    throw InputError(where_, "\"" + field + "\" is " + shown(value), "allowed is " + allowed);
  }

 private:
  /// A value as a message can hold it: bounded, one line, whatever bytes the file has.
  [[nodiscard]] static std::string shown(const json& value) {
    if (value.is_structured()) {
      return value.is_array() ? "an array" : "an object";
    }
    std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
    constexpr std::size_t kLongest = 60;
    return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
  }

  std::string where_;
  const json& value_;
  std::set<std::string> known_;
};

Provenance provenance_of(Object& group) {
  const std::string text = group.text("provenance");
  if (text == "recalled") {
    return Provenance::assumed;
  }
  const auto* const found = std::find(kProvenanceNames.begin(), kProvenanceNames.end(), text);
  if (found == kProvenanceNames.end()) {
    std::string allowed = "recalled";
    for (const std::string_view name : kProvenanceNames) {
      allowed += ", " + std::string(name);
    }
    group.refuse("provenance", text, allowed);
  }
  return static_cast<Provenance>(found - kProvenanceNames.begin());
}

/// Whether a source's field ("memory_bytes", "peak_flops_per_s.int8") is in the file.
bool names_a_value(const json& document, const std::string& field) {
  const std::size_t point = field.find('.');
  if (point == std::string::npos) {
    return document.contains(field);
  }
  const auto outer = document.find(field.substr(0, point));
  return outer != document.end() && outer->is_object() && outer->contains(field.substr(point + 1));
}

void read_sources(Object& file, HardwareSpec& spec) {
  for (const json& item : file.array("sources")) {
    Object group(file.where() + ": sources", item);
    const FieldSource source{provenance_of(group), group.text("source")};
    for (const std::string& field : group.texts("fields")) {
      if (!names_a_value(file.value(), field)) {
        group.refuse("fields", field, "a field of this file");
      }
      spec.sources[field] = source;
    }
    group.finish();
  }
  const auto memory = spec.sources.find("memory_bytes");
  spec.memory_provenance =
      memory == spec.sources.end() ? Provenance::assumed : memory->second.provenance;
}

std::optional<HardwareLink> read_link(Object& file, const char* field) {
  if (!file.has(field)) {
    return std::nullopt;
  }
  Object object = file.object(field);
  HardwareLink link{object.text("name"), BytesPerSecond(object.positive("bandwidth_bytes_per_s"))};
  object.finish();
  return link;
}

void read_rates(Object& file, HardwareSpec& spec) {
  if (file.has("bandwidth_bytes_per_s")) {
    spec.bandwidth = BytesPerSecond(file.positive("bandwidth_bytes_per_s"));
  }
  if (file.has("peak_flops_per_s")) {
    Object rates = file.object("peak_flops_per_s");
    for (const auto& item : rates.value().items()) {
      spec.peak_rates[item.key()] = FlopsPerSecond(rates.positive(item.key().c_str()));
    }
  }
  spec.host_link = read_link(file, "host_link");
  spec.peer_link = read_link(file, "peer_link");
}

void read_prices(Object& file, HardwareSpec& spec) {
  spec.launch_price_usd = file.positive_if("launch_price_usd");
  for (const json& item : file.array("cloud_prices")) {
    Object price(file.where() + ": cloud_prices", item);
    spec.cloud_prices.push_back({price.positive("usd_per_hour"),
                                 price.text("kind"),
                                 price.text("date"),
                                 price.text("source")});
    price.finish();
  }
}

std::string read_kind(Object& file) {
  if (!file.has("kind")) {
    return "gpu";
  }
  constexpr std::array<std::string_view, 4> kKinds{"gpu", "apu", "tpu", "cpu"};
  std::string kind = file.text("kind");
  if (std::find(kKinds.begin(), kKinds.end(), kind) == kKinds.end()) {
    file.refuse("kind", kind, "gpu, apu, tpu or cpu");
  }
  return kind;
}

void read_memory(Object& file, HardwareSpec& spec) {
  spec.memory_bytes = file.whole("memory_bytes");
  spec.usable_memory_bytes = file.whole_if("usable_memory_bytes");
  if (spec.usable_memory_bytes > spec.memory_bytes) {
    file.refuse("usable_memory_bytes", file.at("usable_memory_bytes"), "at most memory_bytes");
  }
  spec.host_memory_bytes = file.whole_if("host_memory_bytes");
  spec.memory_type = file.text_or_empty("memory_type");
  spec.unified_memory = file.flag("unified_memory");
}

json parse(const std::string& path) {
  const std::string text = read_text_file(path, kMaxFileBytes);
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    throw InputError(path, "no JSON at byte " + std::to_string(error.byte), "");
  }
}

}  // namespace

HardwareSpec read_hardware(const std::filesystem::path& path) {
  const json document = parse(path.string());
  Object file(path.string(), document);
  if (file.text("schema") != kSchema) {
    file.refuse("schema", file.at("schema"), "\"" + std::string(kSchema) + "\"");
  }
  HardwareSpec spec;
  spec.id = path.stem().string();
  if (file.has("id") && file.text("id") != spec.id) {
    file.refuse("id", file.at("id"), "the file's own name, \"" + spec.id + "\"");
  }
  spec.name = file.text("name");
  spec.aliases = file.texts("aliases");
  spec.vendor = file.text_or_empty("vendor");
  spec.architecture = file.text_or_empty("architecture");
  spec.kind = read_kind(file);
  spec.chip = file.text_or_empty("chip");
  if (file.has("compute_capability")) {
    spec.compute_capability = file.text("compute_capability");
  }
  read_memory(file, spec);
  read_rates(file, spec);
  spec.l2_bytes = file.whole_if("l2_bytes");
  spec.last_level_cache_bytes = file.whole_if("last_level_cache_bytes");
  spec.n_compute_units = file.whole_if("n_compute_units");
  spec.boost_clock_hz = file.positive_if("boost_clock_hz");
  spec.tdp_w = file.positive_if("tdp_w");
  if (file.has("launch_year")) {
    spec.launch_year = static_cast<int>(std::min<std::int64_t>(file.whole("launch_year"), 9999));
  }
  read_prices(file, spec);
  spec.notes = file.text_or_empty("notes");
  read_sources(file, spec);
  file.finish();
  return spec;
}

}  // namespace kvfathom
