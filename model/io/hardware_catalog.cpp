// Looking a device up in data/hardware/ without reading files that are not asked for: the names of
// the files answer most questions, and of the others only the aliases are read.
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <set>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "model/error.h"
#include "model/hardware/hardware_name.h"
#include "model/io/file.h"
#include "model/io/hardware_json.h"

namespace kvfathom {
namespace {

namespace fs = std::filesystem;

/// The catalog's files, sorted by id.
std::vector<fs::path> catalog_files(const fs::path& data) {
  const fs::path folder = data / "hardware";
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".json") {
      files.push_back(entry->path());
    }
  }
  if (error) {
    throw MachineError(folder.string(), error.message(), "the hardware catalog");
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// Takes "name" and "aliases" from the front of a hardware file and stops the parser there. In a
/// file that is no such thing it finds nothing: whoever reads the file itself says what is wrong.
class NameReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<std::string> names;

  // Anything after "name" but the aliases ends the reading; the catalog keeps them together.
  bool key(string_t& key) override {
    if (depth_ > 1) {
      return true;
    }
    if (seen_name_ && key != "aliases") {
      return false;
    }
    wanted_ = key == "name" || key == "aliases";
    seen_name_ = seen_name_ || key == "name";
    return true;
  }
  bool string(string_t& value) override {
    if (wanted_) {
      names.push_back(value);
    }
    return true;
  }
  bool start_object(std::size_t) override {
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  int depth_ = 0;
  bool wanted_ = false;
  bool seen_name_ = false;
};

/// A device with every name it goes by: id, full name, aliases.
struct Named {
  fs::path file;
  std::vector<std::string> names;
};

std::vector<Named> read_names(const std::vector<fs::path>& files) {
  std::vector<Named> devices;
  devices.reserve(files.size());
  for (const fs::path& file : files) {
    NameReader reader;
    (void)nlohmann::json::sax_parse(read_text_file(file.string()), &reader);
    reader.names.push_back(file.stem().string());
    devices.push_back({file, std::move(reader.names)});
  }
  return devices;
}

bool has_key(const Named& device, const std::string& key) {
  return std::any_of(device.names.begin(), device.names.end(), [&](const std::string& name) {
    return hardware_key(name) == key;
  });
}

/// Whether every word asked for is a word of one of the device's names.
bool has_words(const Named& device, const std::vector<std::string>& wanted) {
  return std::any_of(device.names.begin(), device.names.end(), [&](const std::string& name) {
    const std::vector<std::string> words = hardware_words(name);
    return std::all_of(wanted.begin(), wanted.end(), [&](const std::string& word) {
      return std::find(words.begin(), words.end(), word) != words.end();
    });
  });
}

template <typename Predicate>
std::vector<fs::path> devices_with(const std::vector<Named>& devices, Predicate predicate) {
  std::vector<fs::path> found;
  for (const Named& device : devices) {
    if (predicate(device)) {
      found.push_back(device.file);
    }
  }
  return found;
}

std::string ids_of(const std::vector<fs::path>& files) {
  std::string list;
  for (const fs::path& file : files) {
    list += (list.empty() ? "" : ", ") + file.stem().string();
  }
  return list;
}

/// The three devices whose nearest name takes the fewest changes of a letter.
std::vector<fs::path> nearest(const std::vector<Named>& devices, const std::string& asked) {
  const std::string slug = hardware_slug(asked);
  const std::string key = hardware_key(asked);
  std::vector<std::pair<std::size_t, fs::path>> ranked;
  ranked.reserve(devices.size());
  for (const Named& device : devices) {
    std::size_t best = std::numeric_limits<std::size_t>::max();
    for (const std::string& name : device.names) {
      // As written counts most; without brands makes up for "4909" against "rtx-4090".
      best = std::min({best,
                       edit_distance(slug, hardware_slug(name)),
                       edit_distance(key, hardware_key(name)) + 1});
    }
    ranked.emplace_back(best, device.file);
  }
  std::stable_sort(
      ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<fs::path> files;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, ranked.size()); ++i) {
    files.push_back(ranked[i].second);
  }
  return files;
}

constexpr std::size_t kLongestName = 128;

}  // namespace

HardwareSpec find_hardware(const fs::path& data, std::string_view name) {
  // A name is quoted in the message, so its length is bounded first.
  const std::string shown(name.substr(0, kLongestName));
  const std::string key = hardware_key(shown);
  // The usual case asks for one file and lists nothing. A slug holds no path separator.
  const fs::path direct = data / "hardware" / (hardware_slug(shown) + ".json");
  if (is_regular_file(direct.string())) {
    return read_hardware(direct);
  }
  const std::vector<fs::path> files = catalog_files(data);
  for (const fs::path& file : files) {
    if (!key.empty() && hardware_key(file.stem().string()) == key) {
      return read_hardware(file);
    }
  }
  const std::vector<Named> devices = read_names(files);
  std::vector<fs::path> found =
      devices_with(devices, [&](const Named& device) { return has_key(device, key); });
  if (found.empty() && !key.empty()) {
    const std::vector<std::string> words = hardware_words(shown);
    found = devices_with(devices, [&](const Named& device) { return has_words(device, words); });
  }
  if (found.size() == 1) {
    return read_hardware(found.front());
  }
  if (found.empty()) {
    throw InputError("--gpu",
                     "\"" + shown + "\" is no device of the catalog",
                     "nearest are " + ids_of(nearest(devices, shown)));
  }
  throw InputError(
      "--gpu", "\"" + shown + "\" names several devices", "say which: " + ids_of(found));
}

std::optional<HardwareSpec> match_hardware(const fs::path& data,
                                           std::string_view driver_name,
                                           std::int64_t memory_bytes) {
  const std::string key = hardware_key(driver_name.substr(0, kLongestName));
  std::optional<HardwareSpec> best;
  for (const Named& device : read_names(catalog_files(data))) {
    if (key.empty() || !has_key(device, key)) {
      continue;
    }
    HardwareSpec spec = read_hardware(device.file);
    if (!best ||
        std::abs(spec.memory_bytes - memory_bytes) < std::abs(best->memory_bytes - memory_bytes)) {
      best = std::move(spec);
    }
  }
  return best;
}

std::vector<HardwareSpec> list_hardware(const fs::path& data) {
  std::vector<HardwareSpec> specs;
  for (const fs::path& file : catalog_files(data)) {
    specs.push_back(read_hardware(file));
  }
  return specs;
}

}  // namespace kvfathom
