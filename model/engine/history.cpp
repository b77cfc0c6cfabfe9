#include "model/engine/history.h"

#include <algorithm>
#include <charconv>

#include "model/error.h"

namespace kvfathom {
namespace {

std::optional<std::int64_t> build_number(const std::string& version) {
  if (version.size() < 2 || version.front() != 'b') {
    return std::nullopt;
  }
  std::int64_t build = 0;
  const char* end = version.data() + version.size();
  const auto [last, error] = std::from_chars(version.data() + 1, end, build);
  return error == std::errc{} && last == end ? std::optional(build) : std::nullopt;
}

/// "2026-01-24": ten characters, digits around two hyphens, a real month and day.
bool is_date(const std::string& text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') {
    return false;
  }
  const auto digits = [&](std::size_t from, std::size_t n) {
    return std::all_of(text.begin() + static_cast<std::ptrdiff_t>(from),
                       text.begin() + static_cast<std::ptrdiff_t>(from + n),
                       [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!digits(0, 4) || !digits(5, 2) || !digits(8, 2)) {
    return false;
  }
  const std::string month = text.substr(5, 2);
  const std::string day = text.substr(8, 2);
  return month >= "01" && month <= "12" && day >= "01" && day <= "31";
}

std::string known_releases(const EngineHistory& history) {
  std::string known;
  for (const EngineRelease& release : history.releases) {
    known += (known.empty() ? "" : ", ") + release.version;
  }
  return known;
}

template <class Lacks>
std::vector<std::string> lacking(const EngineHistory& history, Lacks lacks) {
  std::vector<std::string> ids;
  for (const EngineBehaviour& behaviour : history.behaviours) {
    if (lacks(behaviour)) {
      ids.push_back(behaviour.id);
    }
  }
  return ids;
}

}  // namespace

std::vector<std::string> missing_behaviours(const EngineHistory& history,
                                            const std::string& version) {
  const auto too_old = [&](const std::string& oldest) {
    throw Unsupported("--engine-version",
                      '"' + version + "\" is older than what is known of " + history.engine,
                      "the oldest known is " + oldest);
  };
  if (version.empty()) {
    return {};
  }
  if (const auto build = build_number(version); build && history.oldest_build > 0) {
    if (*build < history.oldest_build) {
      too_old('b' + std::to_string(history.oldest_build));
    }
    return lacking(history, [&](const EngineBehaviour& b) { return *build < b.first_build; });
  }
  std::string date = version;
  const auto release = std::ranges::find(history.releases, version, &EngineRelease::version);
  if (release != history.releases.end()) {
    date = release->date;
  } else if (!is_date(version)) {
    throw InputError("--engine-version",
                     '"' + version + "\" is no version of " + history.engine,
                     (history.oldest_build > 0 ? "use a build (b9000), a date (2026-01-24)"
                                               : std::string("use a date (2026-01-24)")) +
                         " or a release (" + known_releases(history) + ")");
  }
  if (date < history.oldest_date) {
    too_old(history.oldest_date);
  }
  return lacking(history, [&](const EngineBehaviour& b) { return date < b.first_date; });
}

}  // namespace kvfathom
