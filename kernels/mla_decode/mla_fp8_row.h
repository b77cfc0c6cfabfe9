// A token of FlashMLA's FP8 cache (deepseek-ai/FlashMLA, README: "FP8 KV cache format"): 512 E4M3
// of the latent, 4 float scales of 128 elements each, 64 bf16 of the rotary key; 656 bytes.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace kvfathom::kernels {

inline constexpr int kMlaFp8Latent = 512;
inline constexpr int kMlaFp8Rope = 64;
inline constexpr int kMlaFp8ScaleBlock = 128;  ///< elements of the latent that share a scale
inline constexpr int kMlaFp8Scales = kMlaFp8Latent / kMlaFp8ScaleBlock;
inline constexpr int kMlaFp8ScaleOffset = kMlaFp8Latent;  ///< bytes, as all below
inline constexpr int kMlaFp8RopeOffset = kMlaFp8ScaleOffset + 4 * kMlaFp8Scales;
inline constexpr int kMlaFp8RowBytes = kMlaFp8RopeOffset + 2 * kMlaFp8Rope;
static_assert(kMlaFp8RowBytes == 656);

/// Quantises one row of 576: a block's scale is its largest magnitude over 448.
[[nodiscard]] std::vector<std::byte> encode_mla_fp8_row(std::span<const float> row);
/// The 576 values that a stored row stands for, exactly.
[[nodiscard]] std::vector<double> decode_mla_fp8_row(const std::byte* row);

}  // namespace kvfathom::kernels
