// How prefill attention cuts its work, and what each cut needs of shared memory: known to the
// launch rule and to the kernels alike. Plain constants, no device code.
#pragma once

#include <string>
#include <type_traits>

#include "kernels/common/dispatch.h"
#include "kernels/prefill_attention/prefill_attention.h"

namespace kvfathom::kernels {

inline constexpr int kPrefillWarps = 4;
inline constexpr int kPrefillThreads = 32 * kPrefillWarps;

/// 16 * RowTiles queries a warp by KeyTokens tokens. One buffer each for K and V: while scores are
/// computed from the one, the other fills.
template <int RowTiles, int KeyTokens>
struct PrefillTile {
  static constexpr int kRowTiles = RowTiles;
  static constexpr int kQueries = 16 * RowTiles * kPrefillWarps;
  static constexpr int kKeyTokens = KeyTokens;
};
template <typename... Tiles>
struct PrefillTiles {};

/// Shared memory of the tensor-core kernel, offsets in bytes. Rows are 16 bytes longer than their
/// data, so that the eight rows of an ldmatrix phase lie in different banks.
template <int HeadDim, typename Tile>
struct PrefillLayout {
  static constexpr int kPitch = 2 * HeadDim + 16;
  static constexpr int kQueries = 0;
  static constexpr int kKeys = kQueries + Tile::kQueries * kPitch;
  static constexpr int kValues = kKeys + Tile::kKeyTokens * kPitch;
  static constexpr int kBytes = kValues + Tile::kKeyTokens * kPitch;
};

/// The tiles built for a head size, the better before the worse. 32 queries a warp halve the reads
/// of shared memory per product, where the registers hold their outputs; they hold as many scores
/// as fit beside.
template <int HeadDim>
struct PrefillTilesOf {
  using Type = PrefillTiles<PrefillTile<2, 64>>;
};
template <>
struct PrefillTilesOf<96> {
  using Type = PrefillTiles<PrefillTile<2, 32>>;
};
template <>
struct PrefillTilesOf<128> {
  using Type = PrefillTiles<PrefillTile<2, 32>>;
};
template <>
struct PrefillTilesOf<192> {
  using Type = PrefillTiles<PrefillTile<1, 64>>;
};
template <>
struct PrefillTilesOf<256> {
  using Type = PrefillTiles<PrefillTile<1, 32>>;
};

/// The CUDA-core kernel: queries a warp, and tokens a step, one a lane.
inline constexpr int kPrefillCoreQueries = 4;
inline constexpr int kPrefillCoreTokens = 32;
template <int HeadDim>
struct PrefillCoreLayout {
  static constexpr int kPitch = 2 * HeadDim + 16;
  static constexpr int kKeys = 0;
  static constexpr int kValues = kKeys + kPrefillCoreTokens * kPitch;
  static constexpr int kQueries = kValues + kPrefillCoreTokens * kPitch;
  static constexpr int kWeights = kQueries + kPrefillWarps * kPrefillCoreQueries * HeadDim * 4;
  static constexpr int kBytes =
      kWeights + kPrefillWarps * kPrefillCoreQueries * kPrefillCoreTokens * 4;
};

/// Calls f(std::integral_constant<int, head_dim>{}) after checking the shape. Throws
/// UnsupportedShape.
template <typename F>
void dispatch_prefill(const PrefillAttentionParams& params, F&& f) {
  const KvCacheView& cache = params.cache;
  if (cache.format != KvFormat::bf16 && cache.format != KvFormat::f16) {
    throw UnsupportedShape("prefill attention over " + std::string(name(cache.format)) +
                           " has no kernel; built for: f16, bf16");
  }
  if (cache.lengths_per_head) {
    throw UnsupportedShape("prefill attention takes one length per sequence, not one per head");
  }
  if (cache.n_kv_heads <= 0 || params.n_heads <= 0 || params.n_heads % cache.n_kv_heads != 0) {
    throw UnsupportedShape("prefill attention of " + std::to_string(params.n_heads) +
                           " query heads over " + std::to_string(cache.n_kv_heads) +
                           " KV heads: not a whole number each");
  }
  dispatch(std::integer_sequence<int, 64, 80, 96, 128, 192, 256>{},
           params.head_dim,
           "head_dim",
           std::forward<F>(f));
}

}  // namespace kvfathom::kernels
