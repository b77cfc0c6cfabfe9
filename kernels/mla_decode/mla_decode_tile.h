// How MLA decode cuts its work, and what each cut needs of shared memory: known to the launch rule
// and to the kernels alike. Plain constants, no device code.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include "kernels/common/error.h"
#include "kernels/mla_decode/mla_decode.h"
#include "kernels/mla_decode/mla_fp8_row.h"

namespace kvfathom::kernels {

/// A kind of cached row that kernels are built for.
template <int KvLoraRank, int RopeDim, bool Fp8, bool SeparateV>
struct MlaRow {
  static constexpr int kRank = KvLoraRank;
  static constexpr int kDim = KvLoraRank + RopeDim;
  static constexpr bool kFp8 = Fp8;
  static constexpr bool kSeparateV = SeparateV;
  static constexpr int kBytes = Fp8 ? kMlaFp8RowBytes : 2 * kDim;
};

/// 16 * HeadTiles heads by Tokens tokens, in a ring of Stages tiles.
template <int HeadTiles, int Tokens, int Stages>
struct MlaTile {
  static constexpr int kHeadTiles = HeadTiles;
  static constexpr int kHeads = 16 * HeadTiles;
  static constexpr int kTokens = Tokens;
  static constexpr int kStages = Stages;
};
template <typename... Tiles>
struct MlaTiles {};

inline constexpr int kMlaWarps = 4;
inline constexpr int kMlaThreads = 32 * kMlaWarps;

/// Shared memory of the tensor-core kernel, offsets in bytes. Rows of bf16 are 16 bytes longer
/// than their data, so that the eight rows of an ldmatrix phase lie in different banks.
template <typename Row, typename Tile>
struct MlaLayout {
  static constexpr int kPitch = 2 * Row::kDim + 16;
  static constexpr int kRingPitch = Row::kFp8 ? Row::kBytes : kPitch;
  static constexpr int kVPitch = Row::kSeparateV ? 2 * Row::kRank + 16 : kPitch;
  static constexpr int kWeightPitch = 2 * Tile::kTokens + 16;
  /// FP8: softmax weights times the token's V scale, a copy for each block of columns.
  static constexpr int kWeightCopies = Row::kFp8 ? kMlaFp8Scales : 1;

  static constexpr int kQueries = 0;
  static constexpr int kRing = kQueries + Tile::kHeads * kPitch;
  static constexpr int kVRing = kRing + Tile::kStages * Tile::kTokens * kRingPitch;
  static constexpr int kDecoded =
      kVRing + (Row::kSeparateV ? Tile::kStages * Tile::kTokens * kVPitch : 0);
  static constexpr int kWeights = kDecoded + (Row::kFp8 ? Tile::kTokens * kPitch : 0);
  static constexpr int kRowMax = kWeights + kWeightCopies * Tile::kHeads * kWeightPitch;
  static constexpr int kRowSum = kRowMax + kMlaWarps * Tile::kHeads * 4;
  static constexpr int kBytes = kRowSum + kMlaWarps * Tile::kHeads * 4;
};

/// The tiles built for a kind of row, the better before the worse: wide ones for 227 KiB of shared
/// memory (sm_90, sm_100), middle ones for 163 KiB (sm_80), narrow ones for 99 KiB (sm_86, sm_89,
/// sm_120).
template <typename Row>
struct MlaTilesOf {
  using Type = MlaTiles<MlaTile<2, 64, 2>,
                        MlaTile<2, 32, 3>,
                        MlaTile<2, 16, 3>,
                        MlaTile<1, 64, 2>,
                        MlaTile<1, 32, 3>,
                        MlaTile<1, 32, 2>>;
};
template <>
struct MlaTilesOf<MlaRow<512, 64, true, false>> {
  using Type = MlaTiles<MlaTile<2, 64, 2>,
                        MlaTile<2, 32, 3>,
                        MlaTile<2, 16, 3>,
                        MlaTile<1, 64, 2>,
                        MlaTile<1, 32, 3>,
                        MlaTile<1, 16, 3>>;
};
template <>
struct MlaTilesOf<MlaRow<512, 64, false, true>> {
  using Type = MlaTiles<MlaTile<2, 32, 2>, MlaTile<1, 32, 2>, MlaTile<1, 16, 2>>;
};
template <>
struct MlaTilesOf<MlaRow<256, 32, false, false>> {
  using Type = MlaTiles<MlaTile<2, 64, 2>, MlaTile<1, 64, 2>>;
};
template <>
struct MlaTilesOf<MlaRow<256, 32, false, true>> {
  using Type = MlaTiles<MlaTile<2, 32, 2>, MlaTile<1, 32, 2>>;
};

/// The CUDA-core kernel: heads that share one reading of the rows, and tokens per step.
inline constexpr int kMlaCoreHeads = 4;
inline constexpr int kMlaCoreTokensPerWarp = 2;
template <typename Row>
inline constexpr int kMlaCoreSharedBytes = kMlaWarps* kMlaCoreHeads*(Row::kRank + 2) * 4;

/// Calls f(MlaRow<...>{}) for the row of `params`. Throws UnsupportedShape.
template <typename F>
void dispatch_mla_row(const MlaDecodeParams& params, F&& f) {
  const bool separate_v = params.cache.v.data != nullptr;
  const bool fp8 = params.cache.format == KvFormat::fp8_e4m3;
  const bool wide = params.kv_lora_rank == 512 && params.qk_rope_head_dim == 64;
  const bool narrow = params.kv_lora_rank == 256 && params.qk_rope_head_dim == 32;
  if (wide && fp8 && !separate_v) {
    f(MlaRow<512, 64, true, false>{});
  } else if (wide && params.cache.format == KvFormat::bf16) {
    separate_v ? f(MlaRow<512, 64, false, true>{}) : f(MlaRow<512, 64, false, false>{});
  } else if (narrow && params.cache.format == KvFormat::bf16) {
    separate_v ? f(MlaRow<256, 32, false, true>{}) : f(MlaRow<256, 32, false, false>{});
  } else {
    throw UnsupportedShape(
        "MLA decode of " + std::to_string(params.kv_lora_rank) + " + " +
        std::to_string(params.qk_rope_head_dim) + " in " + std::string(name(params.cache.format)) +
        (separate_v ? " with a separate V" : "") +
        " has no kernel; built for: 512 + 64 in bf16 and fp8_e4m3, 256 + 32 in bf16, a separate V "
        "in bf16");
  }
}

}  // namespace kvfathom::kernels
