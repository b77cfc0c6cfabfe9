// The element formats of a K or V cache, as our kernels lay them out.
//
// A row is the K or the V of one token and one KV head. Quantised rows keep their data and their
// scales in two planes: the bytes are those of the engines' interleaved blocks, but every row of
// data starts on a 16-byte boundary, which an 18-byte block cannot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

enum class KvFormat : std::uint8_t {
  f16,
  bf16,
  q8_0,        ///< ggml: 32 int8, one f16 scale
  q4_0,        ///< ggml: 32 nibbles less 8, one f16 scale; byte i holds elements i and i + 16
  int8_token,  ///< int8, one f32 scale per row
  fp8_e4m3,    ///< FP8 E4M3, one f32 scale per KV head for all tokens
};

inline constexpr KvFormat kAllKvFormats[] = {KvFormat::f16,
                                             KvFormat::bf16,
                                             KvFormat::q8_0,
                                             KvFormat::q4_0,
                                             KvFormat::int8_token,
                                             KvFormat::fp8_e4m3};

/// Elements that share a scale in q8_0 and q4_0.
inline constexpr int kQuantBlock = 32;

[[nodiscard]] std::string_view name(KvFormat format);

/// Bytes of the data of one row of `n` elements. Throws UnsupportedShape where n does not hold
/// whole blocks.
[[nodiscard]] std::int64_t row_data_bytes(KvFormat format, int n);
/// Bytes of the scales of one row; 0 for f16, bf16 and fp8_e4m3 (whose scale is per head).
[[nodiscard]] std::int64_t row_scale_bytes(KvFormat format, int n);

/// One row as stored.
struct EncodedRow {
  std::vector<std::byte> data;
  std::vector<std::byte> scales;
};

/// Quantises one row: ggml's rule for q8_0 and q4_0 (ggml-quants.c, quantize_row_q*_0_ref), the
/// largest magnitude over 127 for int8_token, division by `head_scale` for fp8_e4m3.
[[nodiscard]] EncodedRow encode_row(KvFormat format,
                                    std::span<const float> row,
                                    float head_scale = 1.0F);
/// The values that a stored row stands for, exactly: every product here fits a double.
[[nodiscard]] std::vector<double> decode_row(KvFormat format,
                                             int n,
                                             const std::byte* data,
                                             const std::byte* scales,
                                             float head_scale = 1.0F);

}  // namespace kvfathom::kernels
