// Inverse of the ledger over precision: which types of weights and cache lose the fewest bits?
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kvfathom {

/// A type for the weights with one for the cache, and how far they go on a machine.
struct PrecisionPair {
  double weight_bits = 0;  ///< per parameter, scales included
  double cache_bits = 0;   ///< per cached value, scales included; the coarser of K and V
  std::int64_t longest_context_tokens = 0;
  bool fits = false;  ///< at the context that is asked about
};

/// Whether `a` is finer: its coarser part keeps more bits; of equals, the weights do; then the
/// cache. The coarser part comes first because bits above those of the other part buy little where
/// that one has lost already: 4.8-bit weights with an 8-bit cache before 5.7 with 4.5.
[[nodiscard]] bool is_finer(const PrecisionPair& a, const PrecisionPair& b);

/// The finest pair that fits.
[[nodiscard]] std::optional<std::size_t> finest_pair(std::span<const PrecisionPair> pairs);

/// The pairs that fit and that no other one that fits beats: as many bits of both parts and as long
/// a context, and more of one of them. In the order given.
[[nodiscard]] std::vector<std::size_t> unbeaten_pairs(std::span<const PrecisionPair> pairs);

}  // namespace kvfathom
