// The cells of the maps of `kvfathom crossover`.
#include <algorithm>
#include <cmath>

#include "cli/crossover_arms.h"

namespace kvfathom::cli {
namespace {

constexpr int kSide = 100;

/// `n` lengths from one token to `limit` (or each, where there are fewer), none twice: the short
/// ones by ones, then each by the same factor longer.
std::vector<std::int64_t> map_lengths(std::int64_t limit, int n) {
  std::vector<std::int64_t> lengths{1};
  for (int left = n - 1; left > 0 && lengths.back() < limit; --left) {
    const auto before = static_cast<double>(lengths.back());
    const double factor = std::pow(static_cast<double>(limit) / before, 1.0 / left);
    lengths.push_back(std::max<std::int64_t>(lengths.back() + 1, std::llround(before * factor)));
  }
  return lengths;
}

}  // namespace

BandwidthMap bandwidth_map(CrossoverArms& arms,
                           const TierLink& tier,
                           std::int64_t limit_tokens,
                           const Busy& busy) {
  constexpr double kSlowest = 1e8;
  constexpr double kFastest = 1e12;
  BandwidthMap map{.lengths_tokens = map_lengths(limit_tokens, kSide), .rows = {}, .ratios = {}};
  std::vector<double> recompute_s;
  for (const std::int64_t length : map.lengths_tokens) {
    recompute_s.push_back(arms.recompute(length, busy).value);
  }
  TierLink at = tier;
  for (int i = 0; i < kSide; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(kSide - 1);
    map.rows.push_back(kSlowest * std::pow(kFastest / kSlowest, 1.0 - share));
    at.link.bandwidth = BytesPerSecond(map.rows.back());
    for (std::size_t column = 0; column < map.lengths_tokens.size(); ++column) {
      map.ratios.push_back(recompute_s[column] /
                           arms.fetch(at, map.lengths_tokens[column], busy).value);
    }
  }
  return map;
}

BatchMap batch_map(CrossoverArms& arms,
                   const TierLink& tier,
                   std::int64_t limit_tokens,
                   const Busy& busy) {
  constexpr std::int64_t kMost = 512;
  BatchMap map{.lengths_tokens = map_lengths(limit_tokens, kSide), .rows = {}, .ratios = {}};
  for (std::int64_t batch = 1; batch <= kMost; batch *= 2) {
    map.rows.push_back(batch);
    for (const std::int64_t length : map.lengths_tokens) {
      map.ratios.push_back(arms.recompute_many_s(length, batch, busy) /
                           arms.fetch_many_s(tier, length, batch, busy));
    }
  }
  return map;
}

}  // namespace kvfathom::cli
