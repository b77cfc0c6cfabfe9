// What predicted heads add to an absorbed decode: maps of queries before it, the scores of exact
// tokens within it, maps of sums after it. Device code.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/common/grouped_passes.h"
#include "kernels/head_reconstruction/head_reconstruction.h"

namespace kvfathom::kernels::head_maps {

template <typename Element>
SIMT_DEVICE float ld_element(const std::uint16_t* p) {
  return to_f32(Element{simt::ld(p)});
}
template <typename Element>
SIMT_DEVICE std::uint16_t element_of(float value) {
  if constexpr (std::is_same_v<Element, Bf16>) {
    return to_bf16(value).bits;
  } else {
    return to_f16(value).bits;
  }
}

/// What a side holds for one KV head, as every kernel here needs it.
struct SideOfHead {
  int map;      // or -1: the head is stored
  int columns;  // of the stored rows side by side
  int stride;   // of a row of a map
};
SIMT_DEVICE SideOfHead side_of_head(const HeadSources& side, int kv_head, int head_dim) {
  return SideOfHead{simt::ld_index(side.map_of_head + kv_head) - 1,
                    simt::ld_index(side.n_stored + kv_head) * head_dim,
                    side.max_references * head_dim};
}

/// What prepares the queries for scores against stored heads.
struct QueryPass {
  HeadReconstructionParams p;
  std::uint16_t* queries;  // [n_sequences, n_heads, k.max_references * head_dim]
  float* bias;             // [n_sequences, n_heads]
};

/// queries = M^T q and bias = q.beta where the keys are predicted, q and 0 where they are stored;
/// grid: head, sequence. Shared memory: the query.
template <typename Element, int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) map_queries(QueryPass a) {
  const HeadReconstructionParams& p = a.p;
  const auto head = static_cast<int>(simt::block_idx().x);
  const auto thread = static_cast<int>(simt::thread_idx().x);
  const std::int64_t row = static_cast<std::int64_t>(simt::block_idx().y) * p.n_heads + head;
  const SideOfHead side = side_of_head(p.k, head / (p.n_heads / p.n_kv_heads), p.head_dim);
  std::uint16_t* to = a.queries + row * side.stride;
  auto* query = simt::shared_memory<float>();
  float bias = 0.0F;
  for (int d = thread; d < p.head_dim; d += Threads) {
    const std::uint16_t bits = simt::ld(p.q + row * p.head_dim + d);
    query[d] = to_f32(Element{bits});
    if (side.map < 0) {
      simt::st(to + d, bits);
    } else {
      bias += query[d] * simt::ld(p.k.bias + side.map * p.head_dim + d);
    }
  }
  auto* shared = query + p.head_dim;
  bias = grouped::block_reduce<Threads>(bias, shared, [](float x, float y) { return x + y; });
  if (thread == 0) {
    simt::st(a.bias + row, bias);
  }
  if (side.map < 0) {
    return;
  }
  const std::uint16_t* map =
      p.k.maps + static_cast<std::int64_t>(side.map) * p.head_dim * side.stride;
  for (int column = thread * 2; column < side.columns; column += Threads * 2) {
    float sums[2] = {};
    for (int d = 0; d < p.head_dim; ++d) {
      const std::uint32_t pair = simt::ld(reinterpret_cast<const std::uint32_t*>(
          map + static_cast<std::int64_t>(d) * side.stride + column));
      sums[0] += query[d] * to_f32(Element{static_cast<std::uint16_t>(pair)});
      sums[1] += query[d] * to_f32(Element{static_cast<std::uint16_t>(pair >> 16)});
    }
    const std::uint32_t low = element_of<Element>(sums[0]);
    const std::uint32_t high = element_of<Element>(sums[1]);
    simt::st(reinterpret_cast<std::uint32_t*>(to + column), low | high << 16);
  }
}

/// The row of an exact token of a map, among those of a side.
SIMT_DEVICE std::int64_t exact_row(
    const HeadReconstructionParams& p, const HeadSources& side, int sequence, int slot, int map) {
  return ((static_cast<std::int64_t>(sequence) * (p.n_first + p.n_last) + slot) * side.n_maps +
          map) *
         p.head_dim;
}
/// The token of an exact slot, or -1: the sequence is too short to have it.
SIMT_DEVICE int token_of_slot(int slot, int n_tokens, int n_first, int n_last) {
  const int token = slot < n_first ? slot : slot - n_first + n_tokens - n_last;
  return token < n_tokens && token >= 0 && (slot < n_first || token >= n_first) ? token : -1;
}

/// Scores of exact tokens take the place of predicted ones; a warp owns a token, grid: head,
/// sequence.
template <typename Element, int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads)
    exact_scores(HeadReconstructionParams p, float* scores, int token_stride) {
  const auto head = static_cast<int>(simt::block_idx().x);
  const auto sequence = static_cast<int>(simt::block_idx().y);
  const int kv_head = head / (p.n_heads / p.n_kv_heads);
  const int map = simt::ld_index(p.k.map_of_head + kv_head) - 1;
  if (map < 0) {
    return;
  }
  const int n = simt::ld_index(p.cache.lengths + sequence);
  const std::int64_t row = static_cast<std::int64_t>(sequence) * p.n_heads + head;
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  for (int slot = warp; slot < p.n_first + p.n_last; slot += Threads / simt::kWarpSize) {
    const int token = token_of_slot(slot, n, p.n_first, p.n_last);
    if (token < 0) {
      continue;
    }
    const std::uint16_t* key = p.k.exact + exact_row(p, p.k, sequence, slot, map);
    float sum = 0.0F;
    for (int d = simt::lane_id(); d < p.head_dim; d += simt::kWarpSize) {
      sum += ld_element<Element>(p.q + row * p.head_dim + d) * ld_element<Element>(key + d);
    }
    sum = simt::warp_sum(sum);
    if (simt::lane_id() == 0) {
      simt::st(scores + row * token_stride + token, sum * p.softmax_scale * grouped::kLog2E);
    }
  }
}

/// What the outputs are made of.
struct OutputPass {
  HeadReconstructionParams p;
  const float* sums;   // [n_splits, n_sequences, n_heads, v.max_references * head_dim]
  const float* exact;  // [n_sequences, n_heads, n_first + n_last]
  const float* mass;   // [n_sequences, n_heads]
  int n_splits;
};

/// out = sums where the values are stored; M sums + beta mass + exact rows where they are
/// predicted. Grid: head, sequence. Shared memory: the sums of one row.
template <typename Element, int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) map_outputs(OutputPass a) {
  const HeadReconstructionParams& p = a.p;
  const auto head = static_cast<int>(simt::block_idx().x);
  const auto sequence = static_cast<int>(simt::block_idx().y);
  const auto thread = static_cast<int>(simt::thread_idx().x);
  const std::int64_t row = static_cast<std::int64_t>(sequence) * p.n_heads + head;
  const SideOfHead side = side_of_head(p.v, head / (p.n_heads / p.n_kv_heads), p.head_dim);
  const std::int64_t split_stride =
      static_cast<std::int64_t>(p.cache.n_sequences) * p.n_heads * side.stride;
  auto* sums = simt::shared_memory<float>();
  for (int column = thread; column < side.columns; column += Threads) {
    sums[column] = grouped::summed(a.sums + row * side.stride + column, split_stride, a.n_splits);
  }
  simt::syncblock();
  float* out = p.out + row * p.head_dim;
  if (side.map < 0) {
    for (int d = thread; d < p.head_dim; d += Threads) {
      simt::st(out + d, sums[d]);
    }
    return;
  }
  const int n = simt::ld_index(p.cache.lengths + sequence);
  const float mass = simt::ld(a.mass + row);
  const int lane = simt::lane_id();
  for (int d = thread / simt::kWarpSize; d < p.head_dim; d += Threads / simt::kWarpSize) {
    const std::uint16_t* map =
        p.v.maps + (static_cast<std::int64_t>(side.map) * p.head_dim + d) * side.stride;
    float value = lane == 0 ? simt::ld(p.v.bias + side.map * p.head_dim + d) * mass : 0.0F;
    for (int column = lane; column < side.columns; column += simt::kWarpSize) {
      value += sums[column] * ld_element<Element>(map + column);
    }
    const int n_exact = p.n_first + p.n_last;
    for (int slot = lane; slot < n_exact; slot += simt::kWarpSize) {
      if (token_of_slot(slot, n, p.n_first, p.n_last) >= 0) {
        value += simt::ld(a.exact + row * n_exact + slot) *
                 ld_element<Element>(p.v.exact + exact_row(p, p.v, sequence, slot, side.map) + d);
      }
    }
    value = simt::warp_sum(value);
    if (lane == 0) {
      simt::st(out + d, value);
    }
  }
}

}  // namespace kvfathom::kernels::head_maps
