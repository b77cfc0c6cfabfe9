#include "model/memory/finest_pair.h"

#include <algorithm>
#include <tuple>

namespace kvfathom {
namespace {

bool beats(const PrecisionPair& a, const PrecisionPair& b) {
  const bool at_least = a.weight_bits >= b.weight_bits && a.cache_bits >= b.cache_bits &&
                        a.longest_context_tokens >= b.longest_context_tokens;
  const bool more = a.weight_bits > b.weight_bits || a.cache_bits > b.cache_bits ||
                    a.longest_context_tokens > b.longest_context_tokens;
  return a.fits && at_least && more;
}

}  // namespace

bool is_finer(const PrecisionPair& a, const PrecisionPair& b) {
  const auto rank = [](const PrecisionPair& pair) {
    return std::tuple(
        std::min(pair.weight_bits, pair.cache_bits), pair.weight_bits, pair.cache_bits);
  };
  return rank(a) > rank(b);
}

std::optional<std::size_t> finest_pair(std::span<const PrecisionPair> pairs) {
  std::optional<std::size_t> finest;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i].fits && (!finest || is_finer(pairs[i], pairs[*finest]))) {
      finest = i;
    }
  }
  return finest;
}

std::vector<std::size_t> unbeaten_pairs(std::span<const PrecisionPair> pairs) {
  std::vector<std::size_t> unbeaten;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const bool beaten = std::ranges::any_of(
        pairs, [&](const PrecisionPair& other) { return beats(other, pairs[i]); });
    if (pairs[i].fits && !beaten) {
      unbeaten.push_back(i);
    }
  }
  return unbeaten;
}

}  // namespace kvfathom
