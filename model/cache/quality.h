// What was published about the quality of lossy schemes: evidence, never a prediction.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvfathom::cache {

/// One published figure.
struct Evidence {
  std::string scheme;  ///< id
  std::string benchmark;
  std::string model;
  std::string setting;
  std::optional<double> baseline = std::nullopt;  ///< nothing: not published beside it
  double value = 0;
  std::string source;
  /// The setting as numbers, by the scheme's own parameters; `share` is budget / context.
  std::vector<std::pair<std::string, double>> numbers = {};
  friend bool operator==(const Evidence&, const Evidence&) = default;
};

/// The figures of one scheme: of the model itself first, however tuned (-Instruct), then of others;
/// among these those of the nearest setting, by the ratios of the numbers that both have. A number
/// that is not asked for does not count.
[[nodiscard]] std::vector<Evidence> nearest(std::span<const Evidence> all,
                                            std::string_view scheme,
                                            std::string_view model,
                                            std::span<const std::pair<std::string, double>> asked);

}  // namespace kvfathom::cache
