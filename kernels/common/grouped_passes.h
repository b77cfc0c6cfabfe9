// The passes of grouped_decode.h as kernels, on the tile product of tile_gemm.h. Device code.
#pragma once

#include <algorithm>

#include "kernels/common/device.h"
#include "kernels/common/grouped_decode.h"
#include "kernels/common/tile_gemm.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels::grouped {

inline constexpr float kLog2E = 1.4426950408889634F;

/// The stored heads that a pass reads, of one plane of a cache.
struct StoredHeads {
  KvCacheView cache;
  KvPlane plane;
  int head_dim = 0;
};
SIMT_DEVICE int tokens_of(const StoredHeads& stored, int sequence) {
  return simt::ld_index(stored.cache.lengths + sequence);
}

/// A group's rows of a matrix [n_heads, row_stride], from row `first` of the group on.
template <typename Element>
struct GroupRows {
  const Element* matrix;
  std::int64_t row_stride;
  RowGroup group;
  int first, n_columns;

  SIMT_DEVICE void copy8(void* shared, int row, int column) const {
    const bool valid = first + row < group.n_rows && column < n_columns;
    const Element* from =
        valid ? matrix + row_at(group, first + row) * row_stride + column : matrix;
    simt::cp_async16(shared, from, valid);
  }
};

/// A group's slices of the stored heads side by side: a matrix [tokens, n_slices * head_dim], as
/// B in either layout.
struct SliceRows {
  StoredHeads stored;
  RowGroup group;
  int sequence, first_token, end_token, first_column;

  SIMT_DEVICE const std::byte* at(int token, int column) const {
    const int slice = column / stored.head_dim;
    return row_data(stored.plane, slot_of(stored.cache, sequence, token), slice_at(group, slice)) +
           (column - slice * stored.head_dim) * 2;
  }
  SIMT_DEVICE bool holds(int token, int column) const {
    return token < end_token && column < group.n_slices * stored.head_dim;
  }
  SIMT_DEVICE void copy8(void* shared, int row, int column) const {
    const int token = first_token + row;
    const bool valid = holds(token, first_column + column);
    const void* from = valid ? at(token, first_column + column) : stored.plane.data;
    simt::cp_async16(shared, from, valid);
  }
};

/// Columns in an order that puts the partners of a rotation into one run of 16: eight of the first
/// half of a head, then the eight that turn with them.
SIMT_DEVICE int unpaired_column(int column, int head_dim) {
  const int head = column / head_dim;
  const int within = column - head * head_dim;
  return head * head_dim + within / 16 * 8 + within % 8 + (within % 16 >= 8 ? head_dim / 2 : 0);
}

template <typename Element>
SIMT_DEVICE void widen8(float (&to)[8], simt::U32x4 from) {
  const std::uint32_t words[4] = {from.x, from.y, from.z, from.w};
  SIMT_UNROLL for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<Element, Bf16>) {
      to[2 * i] = simt::bf16_low(words[i]);
      to[2 * i + 1] = simt::bf16_high(words[i]);
    } else {
      to[2 * i] = simt::f16_low(words[i]);
      to[2 * i + 1] = simt::f16_high(words[i]);
    }
  }
}
template <typename Element>
SIMT_DEVICE simt::U32x4 narrow8(const float (&from)[8]) {
  const auto pack = [](float low, float high) {
    if constexpr (std::is_same_v<Element, Bf16>) {
      return simt::pack_bf16(low, high);
    } else {
      return simt::pack_f16(low, high);
    }
  };
  return simt::U32x4{pack(from[0], from[1]),
                     pack(from[2], from[3]),
                     pack(from[4], from[5]),
                     pack(from[6], from[7])};
}

/// The same slices turned back by each token's position, columns in paired order: the first eight
/// of a run of 16 are written together with their partners. `cos_sin` is [position, head_dim / 2,
/// 2]; the pairs are the halves of a head (Llama as on Hugging Face).
template <typename Element>
struct UnrotatedSliceRows {
  SliceRows slices;
  const float* cos_sin;

  SIMT_DEVICE void copy8(void* shared, int row, int paired) const {
    if (paired % 16 >= 8) {
      return;
    }
    auto* low_to = static_cast<simt::U32x4*>(shared);
    const int token = slices.first_token + row;
    const int head_dim = slices.stored.head_dim;
    if (!slices.holds(token, slices.first_column + paired)) {
      low_to[0] = low_to[1] = simt::U32x4{0, 0, 0, 0};
      return;
    }
    const int column = unpaired_column(slices.first_column + paired, head_dim);
    const std::byte* from = slices.at(token, column);
    float low[8];
    float high[8];
    widen8<Element>(low, simt::ld_stream<simt::U32x4>(from));
    widen8<Element>(high, simt::ld_stream<simt::U32x4>(from + head_dim));  // head_dim / 2 elements
    const float* turn =
        cos_sin + (static_cast<std::int64_t>(token) * (head_dim / 2) + column % head_dim) * 2;
    SIMT_UNROLL for (int i = 0; i < 8; ++i) {
      const float cosine = simt::ld(turn + 2 * i);
      const float sine = simt::ld(turn + 2 * i + 1);
      const float first = low[i];
      low[i] = first * cosine + high[i] * sine;
      high[i] = high[i] * cosine - first * sine;
    }
    low_to[0] = narrow8<Element>(low);
    low_to[1] = narrow8<Element>(high);
  }
};

/// The scores of all groups.
struct ScorePass {
  StoredHeads keys;
  RowGroups groups;
  const void* q = nullptr;  ///< [n_sequences, n_heads, q_stride] in the cache's element
  int q_stride = 0;
  int n_heads = 0;
  float scale_log2 = 1.0F;      ///< the softmax scale times log2(e)
  const float* bias = nullptr;  ///< [n_sequences, n_heads] joins every score; null: none
  float* scores = nullptr;      ///< [n_sequences, n_heads, token_stride]
  int token_stride = 0;         ///< a multiple of 8
};

template <typename Element, TileMath kMath>
using ScoreTile = TileGemm<Element, BLayout::n_by_k, kMath, kScoreRows, kScoreTokens, 1, 4>;

/// Grid: token tile, group x row tile, sequence.
template <typename Element, TileMath kMath>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(ScoreTile<Element, kMath>::kThreads) group_scores(ScorePass p) {
  using Tile = ScoreTile<Element, kMath>;
  const int row_tiles = (p.groups.rows_per_group + kScoreRows - 1) / kScoreRows;
  const auto block = static_cast<int>(simt::block_idx().y);
  const auto sequence = static_cast<int>(simt::block_idx().z);
  const RowGroup group = group_at(p.groups, block / row_tiles);
  const int first_row = block % row_tiles * kScoreRows;
  const int first_token = static_cast<int>(simt::block_idx().x) * kScoreTokens;
  const int n_tokens = tokens_of(p.keys, sequence);
  if (first_row >= group.n_rows || first_token >= n_tokens) {
    return;
  }
  const int width = group.n_slices * p.keys.head_dim;
  const std::int64_t row0 = static_cast<std::int64_t>(sequence) * p.n_heads;
  Tile tile;
  tile.accumulate(simt::shared_memory<Element>(),
                  GroupRows<Element>{static_cast<const Element*>(p.q) + row0 * p.q_stride,
                                     p.q_stride,
                                     group,
                                     first_row,
                                     width},
                  SliceRows{p.keys, group, sequence, first_token, n_tokens, 0},
                  width);
  tile.for_each_pair([&](int row, int column, float value, float next) {
    const int token = first_token + column;
    if (first_row + row >= group.n_rows || token >= n_tokens) {
      return;
    }
    const std::int64_t head = row0 + row_at(group, first_row + row);
    const float bias = p.bias != nullptr ? simt::ld(p.bias + head) : 0.0F;
    float* to = p.scores + head * p.token_stride + token;
    simt::st(to, (value + bias) * p.scale_log2);
    if (token + 1 < n_tokens) {
      simt::st(to + 1, (next + bias) * p.scale_log2);
    }
  });
}

/// Weights from scores.
struct WeightPass {
  StoredHeads keys;
  int n_heads = 0;
  const float* scores = nullptr;  ///< [n_sequences, n_heads, token_stride]
  int token_stride = 0;
  void* weights = nullptr;  ///< [n_sequences, n_heads, token_stride] in the cache's element
  /// Where the values of some heads are predicted but those of the first and last tokens are
  /// exact: these weights go to `exact` and are zero in `weights`. Null: no head's are.
  const std::int32_t* predicted = nullptr;  ///< [n_heads / rows_per_flag] not 0: such heads
  int rows_per_flag = 1;
  int n_first = 0, n_last = 0;      ///< exact tokens
  float* exact = nullptr;           ///< [n_sequences, n_heads, n_first + n_last]
  float* predicted_mass = nullptr;  ///< [n_sequences, n_heads] sum of the other weights
};

/// The place of a token among the exact ones, or -1.
KVFATHOM_HD int exact_slot(int token, int n_tokens, int n_first, int n_last) {
  if (token < n_first) {
    return token;
  }
  return token >= n_tokens - n_last ? n_first + token - (n_tokens - n_last) : -1;
}

inline constexpr int kWeightThreads = 256;

/// Combines a value over the block. `shared` holds a float a warp.
template <int Threads, typename Combine>
SIMT_DEVICE float block_reduce(float value, float* shared, Combine combine) {
  const float of_warp = simt::warp_reduce(value, combine);
  simt::syncblock();  // the last result has been read
  if (simt::lane_id() == 0) {
    shared[simt::thread_idx().x / simt::kWarpSize] = of_warp;
  }
  simt::syncblock();
  float all = shared[0];
  SIMT_UNROLL for (int warp = 1; warp < Threads / simt::kWarpSize; ++warp) {
    all = combine(all, shared[warp]);
  }
  return all;
}

/// A block owns a row; grid: head, sequence.
template <typename Element, int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) group_weights(WeightPass p) {
  const auto head = static_cast<int>(simt::block_idx().x);
  const auto sequence = static_cast<int>(simt::block_idx().y);
  const auto thread = static_cast<int>(simt::thread_idx().x);
  const int n = tokens_of(p.keys, sequence);
  const std::int64_t row = static_cast<std::int64_t>(sequence) * p.n_heads + head;
  const float* scores = p.scores + row * p.token_stride;
  auto* shared = simt::shared_memory<float>();

  float largest = -INFINITY;
  for (int token = thread; token < n; token += Threads) {
    largest = fmaxf(largest, simt::ld(scores + token));
  }
  largest = block_reduce<Threads>(largest, shared, [](float a, float b) { return a > b ? a : b; });
  const bool predicted =
      p.predicted != nullptr && simt::ld_index(p.predicted + head / p.rows_per_flag) != 0;
  float sum = 0.0F;
  float mass = 0.0F;
  for (int token = thread; token < n; token += Threads) {
    const float weight = simt::exp2_fast(simt::ld(scores + token) - largest);
    sum += weight;
    mass += predicted && exact_slot(token, n, p.n_first, p.n_last) < 0 ? weight : 0.0F;
  }
  const auto add = [](float a, float b) { return a + b; };
  sum = block_reduce<Threads>(sum, shared, add);

  const float scale = n > 0 ? 1.0F / sum : 0.0F;
  auto* weights = static_cast<std::uint16_t*>(p.weights) + row * p.token_stride;
  for (int token = thread; token < round_to_eight(n); token += Threads) {
    float weight = token < n ? simt::exp2_fast(simt::ld(scores + token) - largest) * scale : 0.0F;
    const int slot = predicted ? exact_slot(token, n, p.n_first, p.n_last) : -1;
    if (slot >= 0 && token < n) {
      simt::st(p.exact + row * (p.n_first + p.n_last) + slot, weight);
      weight = 0.0F;
    }
    if constexpr (std::is_same_v<Element, Bf16>) {
      simt::st(weights + token, to_bf16(weight).bits);
    } else {
      simt::st(weights + token, to_f16(weight).bits);
    }
  }
  if (predicted) {
    mass = block_reduce<Threads>(mass, shared, add);
    if (thread == 0) {
      simt::st(p.predicted_mass + row, mass * scale);
    }
  }
}

/// Weighted sums of the rows of all groups.
struct SumPass {
  StoredHeads stored;
  RowGroups groups;
  const void* weights = nullptr;  ///< [n_sequences, n_heads, token_stride]
  int token_stride = 0;
  int n_heads = 0;
  int n_splits = 1;
  const float* cos_sin = nullptr;  ///< turns the rows back, where not null
  float* sums = nullptr;           ///< [n_splits, n_sequences, n_heads, sum_stride]
  int sum_stride = 0;
};

template <typename Element, TileMath kMath, int kRows>
using SumTile =
    TileGemm<Element, BLayout::k_by_n, kMath, kRows, kSumColumns, (kRows > 16 ? 2 : 1), 4>;

/// Grid: column tile, group x row tile, sequence x split.
template <typename Element, TileMath kMath, int kRows>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(SumTile<Element, kMath, kRows>::kThreads)
    group_sums(SumPass p) {
  using Tile = SumTile<Element, kMath, kRows>;
  const int row_tiles = (p.groups.rows_per_group + kRows - 1) / kRows;
  const auto block = static_cast<int>(simt::block_idx().y);
  const auto split = static_cast<int>(simt::block_idx().z) % p.n_splits;
  const auto sequence = static_cast<int>(simt::block_idx().z) / p.n_splits;
  const RowGroup group = group_at(p.groups, block / row_tiles);
  const int first_row = block % row_tiles * kRows;
  const int first_column = static_cast<int>(simt::block_idx().x) * kSumColumns;
  const int head_dim = p.stored.head_dim;
  const int width = group.n_slices * head_dim;
  if (first_row >= group.n_rows || first_column >= width) {
    return;
  }
  const int n_tokens = tokens_of(p.stored, sequence);
  const int run = round_to_eight((n_tokens + p.n_splits - 1) / p.n_splits);
  const int begin = split * run;
  const int end = begin + run < n_tokens ? begin + run : n_tokens;
  const int depth = begin < end ? round_to_eight(end - begin) : 0;
  const std::int64_t row0 = static_cast<std::int64_t>(sequence) * p.n_heads;

  Tile tile;
  const GroupRows<Element> weights{
      static_cast<const Element*>(p.weights) + row0 * p.token_stride + begin,
      p.token_stride,
      group,
      first_row,
      depth};
  const SliceRows slices{p.stored, group, sequence, begin, end, first_column};
  auto* shared = simt::shared_memory<Element>();
  if (p.cos_sin != nullptr) {
    tile.accumulate(shared, weights, UnrotatedSliceRows<Element>{slices, p.cos_sin}, depth);
  } else {
    tile.accumulate(shared, weights, slices, depth);
  }
  const std::int64_t row_of_sums =
      static_cast<std::int64_t>(split) * p.stored.cache.n_sequences * p.n_heads + row0;
  tile.for_each_pair([&](int row, int column, float value, float next) {
    if (first_row + row < group.n_rows && first_column + column < width) {
      const int to = p.cos_sin != nullptr ? unpaired_column(first_column + column, head_dim)
                                          : first_column + column;
      float* sums = p.sums + (row_of_sums + row_at(group, first_row + row)) * p.sum_stride + to;
      simt::st(reinterpret_cast<simt::U32x2*>(sums),
               simt::U32x2{bits_of_f32(value), bits_of_f32(next)});
    }
  });
}

/// sum over the splits of one element.
SIMT_DEVICE float summed(const float* sums, std::int64_t split_stride, int n_splits) {
  float sum = 0.0F;
  SIMT_NO_UNROLL for (int split = 0; split < n_splits; ++split) {
    sum += simt::ld(sums);
    sums += split_stride;
  }
  return sum;
}

// ---- launches ----

/// How many parts of `part` hold n, at least one.
inline unsigned parts(int n, int part) {
  return static_cast<unsigned>((std::max(n, 1) + part - 1) / part);
}

/// Calls f<Element, math>() for a format of 16 bits, and for what the device can multiply.
template <typename F>
void for_element(KvFormat format, const F& f) {
  constexpr int kFirstWithBf16Mma = 80;
  if (format == KvFormat::f16) {
    f.template operator()<F16, TileMath::tensor_cores>();
  } else if (device().compute_capability >= kFirstWithBf16Mma) {
    f.template operator()<Bf16, TileMath::tensor_cores>();
  } else {
    f.template operator()<Bf16, TileMath::cuda_cores>();
  }
}

}  // namespace kvfathom::kernels::grouped
