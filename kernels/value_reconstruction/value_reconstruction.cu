// Values from keys on the device: rows of K W, and absorbed decode in passes.
#include <string>
#include <type_traits>

#include "kernels/common/error.h"
#include "kernels/common/grouped_passes.h"
#include "kernels/value_reconstruction/value_decode_scratch.h"
#include "kernels/value_reconstruction/value_reconstruction.h"

namespace kvfathom::kernels {
namespace {

using namespace grouped;

/// Rows of the projector as B, from one of its columns on, in the order of the keys' columns.
template <typename Element>
struct ProjectorRows {
  const Element* projector;
  int width, first_column, head_dim;
  bool paired;
  SIMT_DEVICE void copy8(void* shared, int row, int column) const {
    const bool valid = row < width && first_column + column < width;
    const int from = paired ? unpaired_column(row, head_dim) : row;
    simt::cp_async16(
        shared,
        valid ? projector + static_cast<std::int64_t>(from) * width + first_column + column
              : projector,
        valid);
  }
};

constexpr int kRowTokens = 64;
constexpr int kRowColumns = 128;
template <typename Element, TileMath kMath>
using RowTile = TileGemm<Element, BLayout::k_by_n, kMath, kRowTokens, kRowColumns, 2, 4>;

/// V = K W; grid: column tile, token tile, sequence.
template <typename Element, TileMath kMath>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(RowTile<Element, kMath>::kThreads)
    value_rows(ValueReconstructionParams p) {
  const int width = p.cache.n_kv_heads * p.head_dim;
  const int first_column = static_cast<int>(simt::block_idx().x) * kRowColumns;
  const int first_token = static_cast<int>(simt::block_idx().y) * kRowTokens;
  const auto sequence = static_cast<int>(simt::block_idx().z);
  const int n_tokens = simt::ld_index(p.cache.lengths + sequence);
  if (first_token >= n_tokens) {
    return;
  }
  const RowGroup all_heads{nullptr, nullptr, 0, 0, 0, p.cache.n_kv_heads};
  const SliceRows keys{
      {p.cache, p.cache.k, p.head_dim}, all_heads, sequence, first_token, n_tokens, 0};
  const bool paired = p.cos_sin != nullptr;
  const ProjectorRows<Element> projector{
      reinterpret_cast<const Element*>(p.projector), width, first_column, p.head_dim, paired};
  RowTile<Element, kMath> tile;
  auto* shared = simt::shared_memory<Element>();
  if (paired) {
    tile.accumulate(shared, UnrotatedSliceRows<Element>{keys, p.cos_sin}, projector, width);
  } else {
    tile.accumulate(shared, keys, projector, width);
  }
  tile.for_each_pair([&](int row, int column, float value, float next) {
    if (first_token + row < n_tokens && first_column + column < width) {
      const std::int64_t at =
          (static_cast<std::int64_t>(sequence) * p.token_capacity + first_token + row) * width +
          first_column + column;
      simt::st(reinterpret_cast<std::uint32_t*>(p.values + at),
               std::is_same_v<Element, Bf16> ? simt::pack_bf16(value, next)
                                             : simt::pack_f16(value, next));
    }
  });
}

constexpr int kProjectThreads = 256;
constexpr int kProjectColumns = 32;
constexpr std::size_t kProjectSharedBytes =
    kProjectThreads / simt::kWarpSize * kProjectColumns * sizeof(float);

/// What the projection of the sums reads.
struct Projection {
  ValueReconstructionParams p;
  const float* sums;  // [n_splits, n_sequences, n_heads, kv_width]
  int n_splits;
};

/// out = sums W, of one query head's columns; a thread owns 8 of 32 columns and every 64th row of
/// W. Grid: column group, head, sequence.
template <typename Element, int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) project_sums(Projection a) {
  const ValueReconstructionParams& p = a.p;
  const int width = p.cache.n_kv_heads * p.head_dim;
  const int rows = p.cache.n_sequences * p.n_heads;
  const auto head = static_cast<int>(simt::block_idx().y);
  const int row = static_cast<int>(simt::block_idx().z) * p.n_heads + head;
  const auto thread = static_cast<int>(simt::thread_idx().x);
  const int column = static_cast<int>(simt::block_idx().x) * kProjectColumns + thread % 4 * 8;
  const auto* projector = reinterpret_cast<const simt::U32x4*>(
      p.projector + head / (p.n_heads / p.cache.n_kv_heads) * p.head_dim + column);
  const float* sums = a.sums + static_cast<std::int64_t>(row) * width;
  float out[8] = {};
  SIMT_NO_UNROLL for (int from = thread / 4; from < width && column < p.head_dim;
                      from += Threads / 4) {
    const float sum = summed(sums + from, static_cast<std::int64_t>(rows) * width, a.n_splits);
    float weights[8];
    widen8<Element>(weights, simt::ld(projector + static_cast<std::int64_t>(from) * (width / 8)));
    SIMT_UNROLL for (int i = 0; i < 8; ++i) {
      out[i] += sum * weights[i];
    }
  }
  auto* shared = simt::shared_memory<float>();  // [warp][column]
  SIMT_UNROLL for (int i = 0; i < 8; ++i) {
    SIMT_UNROLL for (int mask = 16; mask >= 4; mask /= 2) {
      out[i] += simt::shfl_xor(out[i], mask);
    }
    if (simt::lane_id() < 4) {
      shared[thread / simt::kWarpSize * kProjectColumns + thread % 4 * 8 + i] = out[i];
    }
  }
  simt::syncblock();
  const int owned = static_cast<int>(simt::block_idx().x) * kProjectColumns + thread;
  if (thread < kProjectColumns && owned < p.head_dim) {
    float total = 0.0F;
    for (int warp = 0; warp < Threads / simt::kWarpSize; ++warp) {
      total += shared[warp * kProjectColumns + thread];
    }
    simt::st(p.out + static_cast<std::int64_t>(row) * p.head_dim + owned, total);
  }
}

template <typename Element, TileMath kMath>
void decode(const ValueReconstructionParams& p,
            int longest_tokens,
            int n_splits,
            const ValueDecodeScratch& scratch,
            Stream stream) {
  const StoredHeads keys{p.cache, p.cache.k, p.head_dim};
  const auto sequences = static_cast<unsigned>(p.cache.n_sequences);
  const int group = p.n_heads / p.cache.n_kv_heads;
  const int token_stride = round_to_eight(longest_tokens);

  ScorePass scores;
  scores.keys = keys;
  scores.groups = RowGroups{p.cache.n_kv_heads, group, 1};
  scores.q = p.q;
  scores.q_stride = p.head_dim;
  scores.n_heads = p.n_heads;
  scores.scale_log2 = p.softmax_scale * kLog2E;
  scores.scores = scratch.scores;
  scores.token_stride = token_stride;
  simt::launch(group_scores<Element, kMath>,
               simt::Dim3(parts(longest_tokens, kScoreTokens),
                          static_cast<unsigned>(p.cache.n_kv_heads) * parts(group, kScoreRows),
                          sequences),
               ScoreTile<Element, kMath>::kThreads,
               ScoreTile<Element, kMath>::kRingBytes,
               stream,
               scores);

  WeightPass weights;
  weights.keys = keys;
  weights.n_heads = p.n_heads;
  weights.scores = scratch.scores;
  weights.token_stride = token_stride;
  weights.weights = scratch.weights;
  simt::launch(group_weights<Element, kWeightThreads>,
               simt::Dim3(static_cast<unsigned>(p.n_heads), sequences),
               kWeightThreads,
               kWeightThreads / simt::kWarpSize * sizeof(float),
               stream,
               weights);

  SumPass sums;
  sums.stored = keys;
  sums.groups = RowGroups{1, p.n_heads, p.cache.n_kv_heads};
  sums.weights = scratch.weights;
  sums.token_stride = token_stride;
  sums.n_heads = p.n_heads;
  sums.n_splits = n_splits;
  sums.cos_sin = p.cos_sin;
  sums.sums = scratch.sums;
  sums.sum_stride = kv_width(p);
  const auto run_sums = [&](auto rows) {
    using Tile = SumTile<Element, kMath, rows.value>;
    simt::launch(group_sums<Element, kMath, rows.value>,
                 simt::Dim3(parts(kv_width(p), kSumColumns),
                            parts(p.n_heads, rows.value),
                            sequences * static_cast<unsigned>(n_splits)),
                 Tile::kThreads,
                 Tile::kRingBytes,
                 stream,
                 sums);
  };
  if (sum_rows(p.n_heads) == 16) {
    run_sums(std::integral_constant<int, 16>{});
  } else {
    run_sums(std::integral_constant<int, 64>{});
  }

  simt::launch(
      project_sums<Element, kProjectThreads>,
      simt::Dim3(parts(p.head_dim, kProjectColumns), static_cast<unsigned>(p.n_heads), sequences),
      kProjectThreads,
      kProjectSharedBytes,
      stream,
      Projection{p, scratch.sums, n_splits});
}

template <typename Element, TileMath kMath>
void rows(const ValueReconstructionParams& p, int longest_tokens, Stream stream) {
  using Tile = RowTile<Element, kMath>;
  simt::launch(value_rows<Element, kMath>,
               simt::Dim3(parts(kv_width(p), kRowColumns),
                          parts(longest_tokens, kRowTokens),
                          static_cast<unsigned>(p.cache.n_sequences)),
               Tile::kThreads,
               Tile::kRingBytes,
               stream,
               p);
}

}  // namespace

void value_rows_launch(const ValueReconstructionParams& params, int longest_tokens, Stream stream) {
  value_reconstruction_check(params);
  if (params.token_capacity < longest_tokens) {
    throw UnsupportedShape("token_capacity is less than the longest length");
  }
  if (params.cache.n_sequences > 0 && longest_tokens > 0) {
    for_element(params.cache.format, [&]<typename Element, TileMath kMath>() {
      rows<Element, kMath>(params, longest_tokens, stream);
    });
  }
}

void value_decode_launch(const ValueReconstructionParams& params,
                         int longest_tokens,
                         int n_splits,
                         void* scratch,
                         Stream stream) {
  value_reconstruction_check(params);
  if (n_splits < 1) {
    throw UnsupportedShape("n_splits = " + std::to_string(n_splits) + " is not positive");
  }
  if (params.cache.n_sequences > 0) {
    const ValueDecodeScratch at(params, longest_tokens, n_splits, scratch);
    for_element(params.cache.format, [&]<typename Element, TileMath kMath>() {
      decode<Element, kMath>(params, longest_tokens, n_splits, at, stream);
    });
  }
}

}  // namespace kvfathom::kernels
