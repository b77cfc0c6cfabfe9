// When an engine learnt what: the table that turns `--engine-version` into rules.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvfathom {

/// One change of an engine's memory behaviour.
struct EngineBehaviour {
  std::string id;
  std::int64_t first_build = 0;
  std::string first_date;  ///< ISO 8601
  std::string summary;
  std::string source;
};

/// A named release.
struct EngineRelease {
  std::string version;
  std::string date;
};

/// data/engines/<engine>.json.
struct EngineHistory {
  std::string engine;
  std::int64_t oldest_build = 0;  ///< nothing is known of builds before it; 0: has no builds
  std::string oldest_date;
  std::string newest_version;
  std::vector<EngineRelease> releases;
  std::vector<EngineBehaviour> behaviours;
};

/// Ids of the behaviours that `version` lacks. A version is a build ("b9000"), a release
/// ("0.5.0"), a date ("2026-01-24": the state of that day) or empty (newest). Throws Unsupported
/// for one older than the history knows, InputError for one that is none of these.
[[nodiscard]] std::vector<std::string> missing_behaviours(const EngineHistory& history,
                                                          const std::string& version);

}  // namespace kvfathom
