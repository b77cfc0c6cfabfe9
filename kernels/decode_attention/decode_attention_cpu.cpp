// Decode attention on the CPU, runs of tokens of some KV heads: tiles of tokens, a few rows at a
// time, each met by all query heads of its KV head while the next few are fetched.
#include "kernels/decode_attention/decode_attention_cpu.h"

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

#include "hwy/aligned_allocator.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/decode_attention/decode_attention_cpu.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/decode_attention/decode_attention_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {

/// Tokens of a tile at most: where a KV head's rows follow one another, long tiles keep the CPU's
/// own fetching ahead going; where those of all KV heads lie side by side, in the order of tokens,
/// short ones return to the same pages while they are at hand (docs/performance.md).
constexpr int kStreamTileTokens = 1024;
constexpr int kStridedTileTokens = 256;
/// Rows that are met at a time: 4 KiB of bf16 at head_dim 128, while as much again is fetched.
constexpr int kRowsAtOnce = 16;
constexpr int kScoreStride = kStreamTileTokens + kLargestVectorFloats;

/// Where the rows of a tile lie, and the factors that belong to whole rows.
struct TileRows {
  bool is_stream = false;
  const std::byte* data[kStreamTileTokens];
  const std::byte* scales[kStreamTileTokens];
  HWY_ALIGN float factors[kScoreStride];
};

/// One share's working memory, for `n_runs` KV heads of `n_heads` query heads each.
struct Scratch {
  Scratch(std::size_t n_runs, int n_heads, int head_dim)
      : rows(hwy::AllocateAligned<float>(kRowsAtOnce * head_dim)),
        block_scales(hwy::AllocateAligned<float>(kRowsAtOnce * head_dim / kQuantBlock + 1)),
        scores(hwy::AllocateAligned<float>(n_heads * kScoreStride)),
        all_q(hwy::AllocateAligned<float>(n_runs * n_heads * head_dim)),
        all_out(hwy::AllocateAligned<float>(n_runs * n_heads * head_dim)),
        run_floats(static_cast<std::size_t>(n_heads) * head_dim) {
    std::fill_n(all_out.get(), n_runs * run_floats, 0.0F);
  }
  [[nodiscard]] float* q_of(std::size_t run) const { return all_q.get() + run * run_floats; }
  [[nodiscard]] float* out_of(std::size_t run) const { return all_out.get() + run * run_floats; }

  hwy::AlignedFreeUniquePtr<float[]> rows;          // [kRowsAtOnce, head_dim]
  hwy::AlignedFreeUniquePtr<float[]> block_scales;  // [kRowsAtOnce, head_dim / kQuantBlock]
  hwy::AlignedFreeUniquePtr<float[]> scores;        // [heads, kScoreStride]
  hwy::AlignedFreeUniquePtr<float[]> all_q;         // [runs, heads, head_dim]
  hwy::AlignedFreeUniquePtr<float[]> all_out;       // [runs, heads, head_dim]
  std::size_t run_floats;
  TileRows k, v;
};

/// A tile of a run.
struct TileStep {
  std::size_t run = 0;
  int first = 0;
  int n = 0;
};
/// The tiles of all runs, the first of each, then the second of each, and so on.
std::vector<TileStep> tiles_side_by_side(std::span<const AttentionRun> runs, int tile_tokens) {
  std::vector<TileStep> steps;
  for (int offset = 0, left = 1; left > 0; offset += tile_tokens) {
    left = 0;
    for (std::size_t run = 0; run < runs.size(); ++run) {
      const int first = runs[run].first + offset;
      if (first < runs[run].last) {
        steps.push_back({run, first, std::min(tile_tokens, runs[run].last - first)});
        ++left;
      }
    }
  }
  return steps;
}

/// Adds rows [first, first + n) of the tile, tokens that follow one another.
void locate(const DecodeAttentionParams& params,
            const KvPlane& plane,
            const AttentionRun& run,
            int token,
            int n,
            int first,
            TileRows& rows) {
  const KvCacheView& cache = params.cache;
  const int page_tokens =
      cache.page_table != nullptr ? 1 << cache.log2_page_tokens : std::numeric_limits<int>::max();
  while (n > 0) {
    const KvSlot at = slot_of(cache, run.sequence, token);
    const int n_here = static_cast<int>(
        std::min<std::int64_t>(n, cache.page_table != nullptr ? page_tokens - at.slot : n));
    const std::byte* data = row_data(plane, at, run.kv_head);
    const std::byte* scales =
        cache.format == KvFormat::fp8_e4m3 ? nullptr : row_scales(plane, at, run.kv_head);
    for (int i = 0; i < n_here; ++i) {
      rows.data[first + i] = data + i * plane.token_stride_bytes;
      rows.scales[first + i] = scales + i * plane.scale_token_stride_bytes;
    }
    token += n_here;
    first += n_here;
    n -= n_here;
  }
}

/// Whether the rows of a KV head follow one another in stretches that the CPU notices by itself.
bool is_stream(const DecodeAttentionParams& params, const KvPlane& plane) {
  constexpr std::int64_t kNoticedBytes = 16384;
  const std::int64_t row_bytes = row_data_bytes(params.cache.format, params.head_dim);
  return plane.token_stride_bytes == row_bytes &&
         (params.cache.page_table == nullptr ||
          row_bytes << params.cache.log2_page_tokens >= kNoticedBytes);
}

void locate_tile(const DecodeAttentionParams& params,
                 const KvPlane& plane,
                 const AttentionRun& run,
                 const AttendedTokens& attended,
                 int first,
                 int n,
                 float common_factor,
                 TileRows& rows) {
  rows.is_stream = is_stream(params, plane);
  const int n_sinks = std::clamp(attended.n_sinks - first, 0, n);
  locate(params, plane, run, first, n_sinks, 0, rows);
  const int token = attended.window_first + (first + n_sinks - attended.n_sinks);
  locate(params, plane, run, token, n - n_sinks, n_sinks, rows);
  for (int t = 0; t < n; ++t) {
    rows.factors[t] = common_factor;
    if (params.cache.format == KvFormat::int8_token) {
      rows.factors[t] *= *reinterpret_cast<const float*>(rows.scales[t]);
    }
  }
}

float head_scale(const KvCacheView& cache, const KvPlane& plane, int kv_head) {
  return cache.format == KvFormat::fp8_e4m3 ? reinterpret_cast<const float*>(plane.scales)[kv_head]
                                            : 1.0F;
}

/// Asks for rows of a tile, into the second-level cache: it has room for many requests at a time,
/// where the first level would make the loads that are needed now wait.
void prefetch(const DecodeAttentionParams& params, const TileRows& tile, int first, int n) {
  constexpr int kForReading = 0;
  constexpr int kSecondLevel = 2;
  const auto row_bytes = row_data_bytes(params.cache.format, params.head_dim);
  for (int r = first; r < first + n; ++r) {
    for (std::int64_t offset = 0; offset < row_bytes; offset += HWY_ALIGNMENT) {
      __builtin_prefetch(tile.data[r] + offset, kForReading, kSecondLevel);
    }
  }
}

/// The row as `Row::load` wants it: q8_0 with its scales, q4_0 all of it, as floats.
template <typename Row>
RowAt ready_row(
    const DecodeAttentionParams& params, const TileRows& tile, int t, int r, Scratch& scratch) {
  const int head_dim = params.head_dim;
  if constexpr (std::is_same_v<Row, F32Row>) {
    float* const floats = scratch.rows.get() + r * head_dim;
    decode_q4_0_row(head_dim, tile.data[t], tile.scales[t], floats);
    return RowAt{reinterpret_cast<const std::byte*>(floats), nullptr};
  } else if constexpr (std::is_same_v<Row, Q8Row>) {
    const int n_blocks = head_dim / kQuantBlock;
    float* const scales = scratch.block_scales.get() + r * n_blocks;
    for (int block = 0; block < n_blocks; ++block) {
      scales[block] = float_of_f16(tile.scales[t] + 2 * block);
    }
    return RowAt{tile.data[t], scales};
  } else {
    return RowAt{tile.data[t], nullptr};
  }
}

/// Calls use(first, n, rows) for each few rows of a tile, while the next few, and last the first
/// of the tile that follows, are fetched.
template <typename Row, typename Use>
void for_rows(const DecodeAttentionParams& params,
              const TileRows& tile,
              int n,
              const TileRows& next,
              int n_next,
              Scratch& scratch,
              const Use& use) {
  RowAt rows[kRowsAtOnce];
  for (int first = 0; first < n; first += kRowsAtOnce) {
    const int n_here = std::min(kRowsAtOnce, n - first);
    const int n_left = n - first - n_here;
    if (n_left == 0) {
      prefetch(params, next, 0, std::min(kRowsAtOnce, n_next));
    } else if (!tile.is_stream) {
      prefetch(params, tile, first + n_here, std::min(kRowsAtOnce, n_left));
    }
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int t = first + std::min(r, n_here - 1);  // scores are computed in fours
      rows[r] = ready_row<Row>(params, tile, t, r, scratch);
    }
    use(first, n_here, rows);
  }
}

/// Calls use(head, block) for heads [head, head + block), the largest blocks first.
template <int Block, typename Use>
void for_head_blocks(int head, int n_heads, const Use& use) {
  for (; head + Block <= n_heads; head += Block) {
    use(head, std::integral_constant<int, Block>());
  }
  if constexpr (Block > 1) {
    for_head_blocks<Block / 2>(head, n_heads, use);
  }
}

template <typename Row>
void score_tile(
    const DecodeAttentionParams& params, int n, int n_heads, const float* q, Scratch& scratch) {
  const int head_dim = params.head_dim;
  for_rows<Row>(
      params, scratch.k, n, scratch.v, n, scratch, [&](int first, int n_here, const RowAt* rows) {
        for (int r = 0; r < n_here; r += kScoreRows) {
          for_head_blocks<2>(0, n_heads, [&](int head, auto block) {
            score_rows<Row, block>(head_dim,
                                   q + head * head_dim,
                                   rows + r,
                                   scratch.scores.get() + head * kScoreStride + first + r,
                                   kScoreStride);
          });
        }
      });
}

template <typename Row>
void weigh_tile(const DecodeAttentionParams& params,
                int n,
                int n_next,
                int n_heads,
                Scratch& scratch,
                float* out) {
  const int head_dim = params.head_dim;
  for_rows<Row>(params,
                scratch.v,
                n,
                scratch.k,
                n_next,
                scratch,
                [&](int first, int n_here, const RowAt* rows) {
                  for_head_blocks<4>(0, n_heads, [&](int head, auto block) {
                    add_rows<Row, block, 8 / block>(
                        head_dim,
                        0,
                        n_here,
                        scratch.scores.get() + head * kScoreStride + first,
                        kScoreStride,
                        rows,
                        out + head * head_dim);
                  });
                });
}

/// Scores of all heads to weights; what the heads have so far shrinks to the new maxima.
void softmax_scores(int n, int head_dim, AttentionRun& run, Scratch& scratch, float* out) {
  for (std::size_t head = 0; head < run.states.size(); ++head) {
    float* const scores = scratch.scores.get() + head * kScoreStride;
    multiply_values(n, scratch.k.factors, scores);
    const float correction = softmax_tile(n, scores, run.states[head]);
    if (correction != 1.0F) {
      scale_values(head_dim, correction, out + head * head_dim);
    }
    multiply_values(n, scratch.v.factors, scores);
  }
}

/// The queries of a KV head's group as floats, in the order of Row's elements.
template <typename Row>
void load_queries(const DecodeAttentionParams& params, const AttentionRun& run, float* q) {
  const int n_heads = static_cast<int>(run.states.size());
  const std::int64_t first_head =
      static_cast<std::int64_t>(run.sequence) * params.n_heads + run.kv_head * n_heads;
  const RowAt row{reinterpret_cast<const std::byte*>(params.q + first_head * params.head_dim),
                  nullptr};
  constexpr bool kIsBf16 = std::is_same_v<Row, Bf16Row> || std::is_same_v<Row, Bf16PairRow>;
  decode_row_of<std::conditional_t<kIsBf16, Row, F16Row>>(n_heads * params.head_dim, row, q);
}

/// Outputs from the order of Row's elements to their own.
template <typename Row>
void store_outputs(std::size_t n, const float* out, AttentionRun& run) {
  run.out.resize(n);
  constexpr std::size_t kStep = Row::kVectors;
  const std::size_t lanes = hn::Lanes(FloatTag());
  for (std::size_t i = 0; i < n; i += kStep * lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      for (std::size_t j = 0; j < kStep; ++j) {
        run.out[i + kStep * lane + j] = out[i + j * lanes + lane];
      }
    }
  }
}

template <typename Row>
void attend_runs(const DecodeAttentionParams& params, std::span<AttentionRun> runs) {
  const KvCacheView& cache = params.cache;
  const int n_heads = params.n_heads / cache.n_kv_heads;
  Scratch scratch(runs.size(), n_heads, params.head_dim);
  std::vector<AttendedTokens> attended;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    runs[i].states.assign(n_heads, SoftmaxState());
    load_queries<Row>(params, runs[i], scratch.q_of(i));
    attended.push_back(
        attended_tokens(params, length_of(cache, runs[i].sequence, runs[i].kv_head)));
  }
  const auto locate_step = [&](const TileStep& step, const KvPlane& plane, TileRows& rows) {
    const AttentionRun& run = runs[step.run];
    const float factor =
        head_scale(cache, plane, run.kv_head) * (&plane == &cache.k ? params.softmax_scale : 1.0F);
    locate_tile(params, plane, run, attended[step.run], step.first, step.n, factor, rows);
  };
  const std::vector<TileStep> steps =
      tiles_side_by_side(runs, is_stream(params, cache.k) ? kStreamTileTokens : kStridedTileTokens);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const TileStep& step = steps[i];
    float* const out = scratch.out_of(step.run);
    if (i == 0) {
      locate_step(step, cache.k, scratch.k);
    }
    locate_step(step, cache.v, scratch.v);
    score_tile<Row>(params, step.n, n_heads, scratch.q_of(step.run), scratch);
    softmax_scores(step.n, params.head_dim, runs[step.run], scratch, out);
    const int n_next = i + 1 < steps.size() ? steps[i + 1].n : 0;
    if (n_next > 0) {
      locate_step(steps[i + 1], cache.k, scratch.k);
    }
    weigh_tile<Row>(params, step.n, n_next, n_heads, scratch, out);
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    store_outputs<Row>(scratch.run_floats, scratch.out_of(i), runs[i]);
  }
}

void attend_here(const DecodeAttentionParams& params, std::span<AttentionRun> runs) {
  switch (params.cache.format) {
    case KvFormat::f16:
      return attend_runs<F16Row>(params, runs);
    case KvFormat::bf16:
      return params.head_dim % (Bf16PairRow::kVectors * hn::Lanes(FloatTag())) == 0
                 ? attend_runs<Bf16PairRow>(params, runs)
                 : attend_runs<Bf16Row>(params, runs);
    case KvFormat::q8_0:
      return attend_runs<Q8Row>(params, runs);
    case KvFormat::q4_0:
      return attend_runs<F32Row>(params, runs);
    case KvFormat::int8_token:
      return attend_runs<Int8Row>(params, runs);
    case KvFormat::fp8_e4m3:
      return attend_runs<Fp8E4m3Row>(params, runs);
  }
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {

HWY_EXPORT(attend_here);

void attend(const DecodeAttentionParams& params, std::span<AttentionRun> runs) {
  HWY_DYNAMIC_DISPATCH(attend_here)(params, runs);
}

}  // namespace kvfathom::kernels
#endif
