#include "kernels/cache_write/cache_write.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/kv_rows_device.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * simt::kWarpSize;

/// Turns the pairs of a row that the warp holds in shared memory.
SIMT_DEVICE void rotate_row(const Rope& rope, std::int32_t position, float* row) {
  for (int i = simt::lane_id(); i < rope.rotary_dim / 2; i += simt::kWarpSize) {
    float sine = 0.0F;
    float cosine = 0.0F;
    const std::uint64_t step = simt::ld(rope.turns_per_position + i);
    simt::sincos_turns(rope_turns(step, position), sine, cosine);
    const float x = row[rope_first(rope, i)];
    const float y = row[rope_second(rope, i)];
    row[rope_first(rope, i)] = x * cosine - y * sine;
    row[rope_second(rope, i)] = x * sine + y * cosine;
  }
}

/// The largest magnitude of the warp's row.
SIMT_DEVICE float largest_of_row(const float* row, int n) {
  float largest = 0.0F;
  for (int i = simt::lane_id(); i < n; i += simt::kWarpSize) {
    largest = fabsf(row[i]) > largest ? fabsf(row[i]) : largest;
  }
  return simt::warp_max(largest);
}

SIMT_DEVICE std::int8_t to_int8_half_away(float x) {
  const float whole = truncf(x);
  const float up = fabsf(x - whole) >= 0.5F ? copysignf(1.0F, x) : 0.0F;
  return static_cast<std::int8_t>(whole + up);
}

/// The block's value of largest magnitude, with the sign of the first that has it.
SIMT_DEVICE float extreme_of_block(float x) {
  const float largest = simt::warp_max(fabsf(x));
  const std::uint32_t candidates = simt::ballot(fabsf(x) == largest);
  const std::uint32_t negative = simt::ballot(x < 0.0F);
  const std::uint32_t first = candidates & (0U - candidates);
  return (first & negative) != 0 ? -largest : largest;
}

/// A warp stores one block of 32 elements, of which this lane has one.
SIMT_DEVICE void store_q8_0(float x, int block, std::byte* data, std::byte* scales) {
  const float scale = simt::warp_max(fabsf(x)) / 127.0F;
  const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
  const std::int8_t quantised = to_int8_half_away(simt::mul_rounded(x, inverse));
  auto* to = reinterpret_cast<std::int8_t*>(data) + block * kQuantBlock;
  simt::st(to + simt::lane_id(), quantised);
  if (simt::lane_id() == 0) {
    simt::st(reinterpret_cast<std::uint16_t*>(scales) + block, to_f16(scale).bits);
  }
}
SIMT_DEVICE void store_q4_0(float x, int block, std::byte* data, std::byte* scales) {
  const float scale = extreme_of_block(x) / -8.0F;
  const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
  const int shifted = static_cast<int>(simt::mul_rounded(x, inverse) + 8.5F);
  const std::uint32_t nibble = static_cast<std::uint32_t>(shifted < 15 ? shifted : 15);
  const std::uint32_t high = simt::shfl_xor(nibble, kQuantBlock / 2);
  if (simt::lane_id() < kQuantBlock / 2) {
    auto* to = reinterpret_cast<std::uint8_t*>(data) + block * kQuantBlock / 2;
    simt::st(to + simt::lane_id(), static_cast<std::uint8_t>(nibble | high << 4));
  }
  if (simt::lane_id() == 0) {
    simt::st(reinterpret_cast<std::uint16_t*>(scales) + block, to_f16(scale).bits);
  }
}

SIMT_DEVICE void store_int8_token(const float* row, int n, std::byte* data, std::byte* scales) {
  const float scale = largest_of_row(row, n) / 127.0F;
  for (int i = simt::lane_id(); i < n; i += simt::kWarpSize) {
    const float quotient = scale != 0.0F ? row[i] / scale : 0.0F;
    simt::st(reinterpret_cast<std::int8_t*>(data) + i, static_cast<std::int8_t>(rintf(quotient)));
  }
  if (simt::lane_id() == 0) {
    simt::st(reinterpret_cast<float*>(scales), scale);
  }
}

/// Elements first .. first + 31 of a row, this lane's among them.
template <KvFormat Format>
SIMT_DEVICE void store_lane(
    const float* row, int n, int first, float head_scale, std::byte* data, std::byte* scales) {
  const int i = first + simt::lane_id();
  if constexpr (Format == KvFormat::q8_0) {
    store_q8_0(row[i], first / kQuantBlock, data, scales);
  } else if constexpr (Format == KvFormat::q4_0) {
    store_q4_0(row[i], first / kQuantBlock, data, scales);
  } else if (i < n) {
    if constexpr (Format == KvFormat::f16) {
      simt::st(reinterpret_cast<std::uint16_t*>(data) + i, to_f16(row[i]).bits);
    } else if constexpr (Format == KvFormat::bf16) {
      simt::st(reinterpret_cast<std::uint16_t*>(data) + i, to_bf16(row[i]).bits);
    } else {
      simt::st(reinterpret_cast<std::uint8_t*>(data) + i, to_fp8_e4m3(row[i] / head_scale).bits);
    }
  }
}

template <KvFormat Format>
SIMT_DEVICE void store_row(
    const float* row, int n, float head_scale, std::byte* data, std::byte* scales) {
  if constexpr (Format == KvFormat::int8_token) {
    store_int8_token(row, n, data, scales);
  } else {
    // Rolled: side by side, the exact divisions of fp8 run out of registers.
    SIMT_NO_UNROLL for (int first = 0; first < n; first += simt::kWarpSize) {
      store_lane<Format>(row, n, first, head_scale, data, scales);
    }
  }
}

KVFATHOM_HD std::int64_t planes_of(const CacheWriteParams& params) {
  return params.v != nullptr ? 2 : 1;
}

/// One warp owns one new row: K or V of one token and KV head.
template <KvFormat Format>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) cache_write_kernel(CacheWriteParams params) {
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  const std::int64_t row_index = static_cast<std::int64_t>(simt::block_idx().x) * kWarps + warp;
  const int n_heads = params.cache.n_kv_heads;
  const std::int64_t n_planes = planes_of(params);
  if (row_index >= n_planes * params.n_tokens * n_heads) {
    return;
  }
  const bool is_k = row_index % n_planes == 0;
  const std::int64_t input_row = row_index / n_planes;
  const int token = static_cast<int>(input_row / n_heads);
  const int head = static_cast<int>(input_row % n_heads);
  const int sequence = simt::ld_index(params.sequences + token);
  if (sequence < 0) {
    return;
  }
  float* row = simt::shared_memory<float>() + warp * params.head_dim;
  for (int i = simt::lane_id(); i < params.head_dim; i += simt::kWarpSize) {
    const void* input = is_k ? params.k : params.v;
    row[i] = load_element(params.element, input, input_row * params.head_dim + i);
  }
  simt::syncwarp();
  if (is_k && params.rope.rotary_dim > 0) {
    rotate_row(params.rope, simt::ld_index(params.positions + token), row);
    simt::syncwarp();
  }
  const KvPlane& plane = is_k ? params.cache.k : params.cache.v;
  const KvSlot at = device_slot_of(params.cache, sequence, simt::ld_index(params.slots + token));
  const DeviceRow to = device_row(params.cache, plane, at, head);
  store_row<Format>(row,
                    params.head_dim,
                    to.head_scale,
                    const_cast<std::byte*>(to.data),
                    const_cast<std::byte*>(to.scales));
}

/// One thread owns four elements of one row, K in the first half of the grid and V in the second.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) dequantise_kernel(DequantiseParams params) {
  const KvCacheView& cache = params.cache;
  const int quads = params.head_dim / 4;
  const std::int64_t n_rows =
      static_cast<std::int64_t>(cache.n_sequences) * cache.n_kv_heads * params.max_tokens;
  const std::int64_t quad =
      static_cast<std::int64_t>(simt::block_idx().x) * kThreads + simt::thread_idx().x;
  std::int64_t row = quad / quads;
  const bool is_k = row < n_rows;
  row -= is_k ? 0 : n_rows;
  if (row >= n_rows) {
    return;
  }
  const int token = static_cast<int>(row % params.max_tokens);
  const int head = static_cast<int>(row / params.max_tokens % cache.n_kv_heads);
  const int sequence = static_cast<int>(row / params.max_tokens / cache.n_kv_heads);
  if (token >= device_length_of(cache, sequence, head)) {
    return;
  }
  const KvSlot at = device_slot_of(cache, sequence, token);
  const int first = static_cast<int>(quad % quads) * 4;
  float values[4];
  load_row4(cache.format, device_row(cache, is_k ? cache.k : cache.v, at, head), first, values);
  float* out = (is_k ? params.k : params.v) + row * params.head_dim + first;
  simt::st(reinterpret_cast<simt::U32x4*>(out),
           simt::U32x4{bits_of_f32(values[0]),
                       bits_of_f32(values[1]),
                       bits_of_f32(values[2]),
                       bits_of_f32(values[3])});
}

unsigned blocks_for(std::int64_t n, int per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

}  // namespace

void cache_write_launch(const CacheWriteParams& params, Stream stream) {
  check_cache_write(params);
  static_cast<void>(device());
  const std::int64_t n_rows = planes_of(params) * params.n_tokens * params.cache.n_kv_heads;
  if (n_rows == 0) {
    return;
  }
  using Formats = std::integer_sequence<KvFormat,
                                        KvFormat::f16,
                                        KvFormat::bf16,
                                        KvFormat::q8_0,
                                        KvFormat::q4_0,
                                        KvFormat::int8_token,
                                        KvFormat::fp8_e4m3>;
  dispatch(Formats{}, params.cache.format, "cache_write: format", [&](auto format) {
    simt::launch(&cache_write_kernel<decltype(format)::value>,
                 blocks_for(n_rows, kWarps),
                 kThreads,
                 kWarps * params.head_dim * sizeof(float),
                 stream,
                 params);
  });
}

void dequantise_launch(const DequantiseParams& params, Stream stream) {
  check_dequantise(params);
  static_cast<void>(device());
  const std::int64_t quads = std::int64_t{2} * params.cache.n_sequences * params.cache.n_kv_heads *
                             params.max_tokens * (params.head_dim / 4);
  if (quads > 0) {
    simt::launch(&dequantise_kernel, blocks_for(quads, kThreads), kThreads, 0, stream, params);
  }
}

}  // namespace kvfathom::kernels
