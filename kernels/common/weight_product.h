// Products with stored weights on the CPU: what gemm, moe_ffn and residual_recompute share.
#pragma once

#include <cstdint>

#include "kernels/common/weight_format.h"

namespace kvfathom::kernels {

/// `count` elements of a stored row, from `first` on, as floats; both hold whole blocks.
void widen_weights(
    WeightFormat format, const std::byte* row, std::int64_t first, std::int64_t count, float* to);
/// Activations to floats and back, in the 16-bit format that belongs to the weights.
void widen_activations(WeightFormat weights, const std::uint16_t* from, std::int64_t n, float* to);
void narrow_activations(WeightFormat weights, const float* from, std::int64_t n, std::uint16_t* to);

/// Up to this many rows of x the weights are read once, as stored (GEMV); above, they are widened
/// by panels for OpenBLAS.
inline constexpr int kLargestGemvRows = 8;

/// out[m, n] = x[m, k] weights^T, in float. n_threads = 0: all.
void times_weights(const WeightMatrix& weights, int m, const float* x, float* out, int n_threads);

}  // namespace kvfathom::kernels
