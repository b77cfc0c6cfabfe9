// Rows of a cache on the CPU, vectorised: the bits of encode_row and the values of decode_row
// (kv_format.h), without their allocations.
#pragma once

#include <cstddef>

#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Quantises `row`, of n elements, to `data` and `scales`. The same bits as encode_row.
void encode_row_cpu(
    KvFormat format, const float* row, int n, float head_scale, std::byte* data, std::byte* scales);

/// The stored row as float: decode_row's values, each rounded once.
void decode_row_cpu(KvFormat format,
                    const std::byte* data,
                    const std::byte* scales,
                    float head_scale,
                    int n,
                    float* row);

/// The scale of one KV head: fp8_e4m3 has one, every other format has 1. Host memory.
[[nodiscard]] inline float head_scale_of(const KvCacheView& cache,
                                         const KvPlane& plane,
                                         int kv_head) {
  return cache.format == KvFormat::fp8_e4m3 ? reinterpret_cast<const float*>(plane.scales)[kv_head]
                                            : 1.0F;
}

}  // namespace kvfathom::kernels
