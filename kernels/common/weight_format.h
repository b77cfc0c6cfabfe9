// The formats of weights, as checkpoints and GGUF files lay them out: rows of whole blocks, each
// block with its scales before its elements (ggml-common.h: block_q8_0, block_q4_0, block_q4_K).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

enum class WeightFormat : std::uint8_t {
  f16,
  bf16,
  q8_0,  ///< 34 bytes per 32: f16 d, 32 int8 q; d q
  q4_0,  ///< 18 bytes per 32: f16 d, 16 bytes; d (nibble - 8); byte i holds elements i and i + 16
  q4_k,  ///< 144 bytes per 256: f16 d, f16 dmin, 12 bytes of eight 6-bit scales s and minima m, 128
         ///< bytes; d s nibble - dmin m; of each 32 bytes the low nibbles come first (q4_K)
};

inline constexpr WeightFormat kAllWeightFormats[] = {WeightFormat::f16,
                                                     WeightFormat::bf16,
                                                     WeightFormat::q8_0,
                                                     WeightFormat::q4_0,
                                                     WeightFormat::q4_k};

[[nodiscard]] std::string_view name(WeightFormat format);

/// Elements of a block, and the bytes it is stored in.
struct WeightBlock {
  int elements;
  int bytes;
};
KVFATHOM_HD constexpr WeightBlock block_of(WeightFormat format) {
  return format == WeightFormat::q8_0   ? WeightBlock{32, 34}
         : format == WeightFormat::q4_0 ? WeightBlock{32, 18}
         : format == WeightFormat::q4_k ? WeightBlock{256, 144}
                                        : WeightBlock{1, 2};
}
KVFATHOM_HD constexpr bool is_quantised(WeightFormat format) {
  return block_of(format).elements > 1;
}
/// Bytes of a row of k elements, for k of whole blocks.
KVFATHOM_HD constexpr std::int64_t weight_row_bytes(WeightFormat format, std::int64_t k) {
  return k / block_of(format).elements * block_of(format).bytes;
}

/// A matrix [n, k] of weights, rows without gaps. Activations that meet it are Bf16 for bf16
/// weights and F16 for all others.
struct WeightMatrix {
  WeightFormat format = WeightFormat::bf16;
  std::int64_t n = 0;
  std::int64_t k = 0;
  const std::byte* data = nullptr;

  [[nodiscard]] KVFATHOM_HD std::int64_t row_bytes() const { return weight_row_bytes(format, k); }
  [[nodiscard]] KVFATHOM_HD const std::byte* row(std::int64_t index) const {
    return data + index * row_bytes();
  }
};
/// Throws UnsupportedShape where k does not hold whole blocks.
void require_whole_blocks(const WeightMatrix& weights, std::string_view what);

/// The values that a stored row stands for, in double. Slow and plain: for references.
[[nodiscard]] std::vector<double> decode_weights(WeightFormat format,
                                                 std::int64_t k,
                                                 const std::byte* row);

/// Weights [n, k] with random elements in all their fields, about `deviation` in size. For tests
/// and benchmarks, where data must not be zeros.
[[nodiscard]] std::vector<std::byte> random_weights(
    WeightFormat format, std::int64_t n, std::int64_t k, float deviation, std::uint64_t seed);

/// A 16-bit activation, as the format of the weights has it.
KVFATHOM_HD float activation_to_f32(WeightFormat weights, std::uint16_t bits) {
  return weights == WeightFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
}
KVFATHOM_HD std::uint16_t activation_of_f32(WeightFormat weights, float value) {
  return weights == WeightFormat::bf16 ? to_bf16(value).bits : to_f16(value).bits;
}
KVFATHOM_HD constexpr double activation_roundoff(WeightFormat weights) {
  return weights == WeightFormat::bf16 ? kUnitRoundoffBf16 : kUnitRoundoffF16;
}

/// What rounding an output to that format costs near zero (tolerance.h).
KVFATHOM_HD constexpr double activation_half_step(WeightFormat weights) {
  return weights == WeightFormat::bf16 ? 0.0 : 0x1p-25;
}

}  // namespace kvfathom::kernels
