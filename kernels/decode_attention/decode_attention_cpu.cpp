// Decode attention on the CPU. Threads take equal shares of all attended tokens, so that one long
// sequence keeps them as busy as many short ones; a head that is cut between threads is merged
// afterwards. Within a share: tiles of tokens, a few rows at a time, each met by all query heads of
// its KV head, while the next few are fetched.
#include "kernels/decode_attention/decode_attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "hwy/aligned_allocator.h"
#include "hwy/cache_control.h"
#include "kernels/common/error.h"
#include "kernels/common/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/decode_attention/decode_attention_cpu.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/decode_attention/decode_attention_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {

constexpr int kTileTokens = 128;
/// Rows that are met at a time: 4 KiB of bf16 at head_dim 128, while as much again is fetched.
constexpr int kRowsAtOnce = 16;
constexpr int kScoreStride = kTileTokens + kLargestVectorFloats;

/// Where the rows of a tile lie, and the factors that belong to whole rows.
struct TileRows {
  const std::byte* data[kTileTokens];
  const std::byte* scales[kTileTokens];
  HWY_ALIGN float factors[kScoreStride];
};

/// One share's working memory.
struct Scratch {
  Scratch(int n_group_heads, int head_dim)
      : q(hwy::AllocateAligned<float>(n_group_heads * head_dim)),
        rows(hwy::AllocateAligned<float>(kRowsAtOnce * head_dim)),
        block_scales(hwy::AllocateAligned<float>(kRowsAtOnce * head_dim / kQuantBlock + 1)),
        scores(hwy::AllocateAligned<float>(n_group_heads * kScoreStride)),
        out(hwy::AllocateAligned<float>(n_group_heads * head_dim)) {}
  hwy::AlignedFreeUniquePtr<float[]> q;             // [heads, head_dim]
  hwy::AlignedFreeUniquePtr<float[]> rows;          // [kRowsAtOnce, head_dim]
  hwy::AlignedFreeUniquePtr<float[]> block_scales;  // [kRowsAtOnce, head_dim / kQuantBlock]
  hwy::AlignedFreeUniquePtr<float[]> scores;        // [heads, kScoreStride]
  hwy::AlignedFreeUniquePtr<float[]> out;           // [heads, head_dim]
  TileRows k, v;
};

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

void locate_tile(const DecodeAttentionParams& params,
                 const KvPlane& plane,
                 const AttentionRun& run,
                 const AttendedTokens& attended,
                 int first,
                 int n,
                 float common_factor,
                 TileRows& rows) {
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

/// Asks for the first rows of a tile.
void prefetch(const DecodeAttentionParams& params, const TileRows& tile, int first, int n) {
  const auto row_bytes = row_data_bytes(params.cache.format, params.head_dim);
  for (int r = first; r < first + n; ++r) {
    for (std::int64_t offset = 0; offset < row_bytes; offset += HWY_ALIGNMENT) {
      hwy::Prefetch(tile.data[r] + offset);
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
    if (n_left > 0) {
      prefetch(params, tile, first + n_here, std::min(kRowsAtOnce, n_left));
    } else {
      prefetch(params, next, 0, std::min(kRowsAtOnce, n_next));
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
void score_tile(const DecodeAttentionParams& params, int n, int n_heads, Scratch& scratch) {
  const int head_dim = params.head_dim;
  for_rows<Row>(
      params, scratch.k, n, scratch.v, n, scratch, [&](int first, int n_here, const RowAt* rows) {
        for (int r = 0; r < n_here; r += kScoreRows) {
          for_head_blocks<2>(0, n_heads, [&](int head, auto block) {
            score_rows<Row, block>(head_dim,
                                   scratch.q.get() + head * head_dim,
                                   rows + r,
                                   scratch.scores.get() + head * kScoreStride + first + r,
                                   kScoreStride);
          });
        }
      });
}

template <typename Row>
void weigh_tile(
    const DecodeAttentionParams& params, int n, int n_next, int n_heads, Scratch& scratch) {
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
                        scratch.out.get() + head * head_dim);
                  });
                });
}

/// Scores of all heads to weights; what the heads have so far shrinks to the new maxima.
void softmax_scores(int n, int head_dim, AttentionRun& run, Scratch& scratch) {
  for (std::size_t head = 0; head < run.states.size(); ++head) {
    float* const scores = scratch.scores.get() + head * kScoreStride;
    multiply_values(n, scratch.k.factors, scores);
    const float correction = softmax_tile(n, scores, run.states[head]);
    if (correction != 1.0F) {
      scale_values(head_dim, correction, scratch.out.get() + head * head_dim);
    }
    multiply_values(n, scratch.v.factors, scores);
  }
}

/// The queries of a KV head's group as floats.
void load_queries(const DecodeAttentionParams& params, const AttentionRun& run, float* q) {
  const int n_heads = static_cast<int>(run.states.size());
  const std::int64_t first_head =
      static_cast<std::int64_t>(run.sequence) * params.n_heads + run.kv_head * n_heads;
  const RowAt row{reinterpret_cast<const std::byte*>(params.q + first_head * params.head_dim),
                  nullptr};
  if (params.cache.format == KvFormat::bf16) {
    decode_row_of<Bf16Row>(n_heads * params.head_dim, row, q);
  } else {
    decode_row_of<F16Row>(n_heads * params.head_dim, row, q);
  }
}

template <typename Row>
void attend_run(const DecodeAttentionParams& params, AttentionRun& run) {
  const KvCacheView& cache = params.cache;
  const int n_heads = params.n_heads / cache.n_kv_heads;
  run.states.assign(n_heads, SoftmaxState());
  Scratch scratch(n_heads, params.head_dim);
  load_queries(params, run, scratch.q.get());
  std::fill_n(scratch.out.get(), n_heads * params.head_dim, 0.0F);

  const AttendedTokens attended =
      attended_tokens(params, length_of(cache, run.sequence, run.kv_head));
  const float k_factor = params.softmax_scale * head_scale(cache, cache.k, run.kv_head);
  const float v_factor = head_scale(cache, cache.v, run.kv_head);
  const auto tile_at = [&](int first) { return std::min(kTileTokens, run.last - first); };
  locate_tile(params, cache.k, run, attended, run.first, tile_at(run.first), k_factor, scratch.k);
  for (int first = run.first; first < run.last; first += kTileTokens) {
    const int n = tile_at(first);
    const int n_next = std::max(0, tile_at(first + n));
    locate_tile(params, cache.v, run, attended, first, n, v_factor, scratch.v);
    score_tile<Row>(params, n, n_heads, scratch);
    softmax_scores(n, params.head_dim, run, scratch);
    locate_tile(params, cache.k, run, attended, first + n, n_next, k_factor, scratch.k);
    weigh_tile<Row>(params, n, n_next, n_heads, scratch);
  }
  run.out.assign(scratch.out.get(), scratch.out.get() + n_heads * params.head_dim);
}

void attend(const DecodeAttentionParams& params, AttentionRun& run) {
  switch (params.cache.format) {
    case KvFormat::f16:
      return attend_run<F16Row>(params, run);
    case KvFormat::bf16:
      return attend_run<Bf16Row>(params, run);
    case KvFormat::q8_0:
      return attend_run<Q8Row>(params, run);
    case KvFormat::q4_0:
      return attend_run<F32Row>(params, run);
    case KvFormat::int8_token:
      return attend_run<Int8Row>(params, run);
    case KvFormat::fp8_e4m3:
      return attend_run<Fp8E4m3Row>(params, run);
  }
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {
namespace {

HWY_EXPORT(attend);

/// A thread with fewer rows than this costs more to wake than it saves.
constexpr std::int64_t kLeastTokensPerThread = 128;

void check(const DecodeAttentionParams& params) {
  if (params.cache.n_kv_heads <= 0 || params.n_heads <= 0 ||
      params.n_heads % params.cache.n_kv_heads != 0) {
    throw UnsupportedShape(
        "n_heads = " + std::to_string(params.n_heads) +
        " is not a multiple of n_kv_heads = " + std::to_string(params.cache.n_kv_heads));
  }
  if (params.head_dim <= 0 || params.head_dim % 16 != 0) {
    throw UnsupportedShape("head_dim = " + std::to_string(params.head_dim) +
                           " is not a multiple of 16");
  }
  static_cast<void>(row_data_bytes(params.cache.format, params.head_dim));  // whole blocks
}

/// Item i of [n_sequences, n_kv_heads] holds the attended tokens [starts[i], starts[i + 1]).
std::vector<std::int64_t> token_starts(const DecodeAttentionParams& params) {
  std::vector<std::int64_t> starts = {0};
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    for (int kv_head = 0; kv_head < params.cache.n_kv_heads; ++kv_head) {
      const int length = length_of(params.cache, sequence, kv_head);
      starts.push_back(starts.back() + attended_tokens(params, length).n);
    }
  }
  return starts;
}

/// Tokens [first, last) of all, cut at the ends of items.
std::vector<AttentionRun> cut_into_runs(const std::vector<std::int64_t>& starts,
                                        int n_kv_heads,
                                        std::int64_t first,
                                        std::int64_t last) {
  std::vector<AttentionRun> runs;
  auto item = std::upper_bound(starts.begin(), starts.end(), first) - starts.begin() - 1;
  for (; first < last; ++item) {
    const std::int64_t end = std::min(last, starts[item + 1]);
    if (end > first) {
      AttentionRun run;
      run.sequence = static_cast<int>(item / n_kv_heads);
      run.kv_head = static_cast<int>(item % n_kv_heads);
      run.first = static_cast<int>(first - starts[item]);
      run.last = static_cast<int>(end - starts[item]);
      runs.push_back(std::move(run));
    }
    first = end;
  }
  return runs;
}

/// Adds what another run made of the same heads.
void merge(const AttentionRun& other, int head_dim, AttentionRun& run) {
  for (std::size_t head = 0; head < run.states.size(); ++head) {
    SoftmaxState& mine = run.states[head];
    const SoftmaxState& theirs = other.states[head];
    const float max = std::max(mine.max, theirs.max);
    const float my_factor = std::exp(mine.max - max);
    const float their_factor = std::exp(theirs.max - max);
    mine = SoftmaxState{max, mine.sum * my_factor + theirs.sum * their_factor};
    for (int i = 0; i < head_dim; ++i) {
      float& x = run.out[head * head_dim + i];
      x = x * my_factor + other.out[head * head_dim + i] * their_factor;
    }
  }
}

/// Divides by the denominator, which the sink joins, and writes.
void finish(const DecodeAttentionParams& params, const AttentionRun& run) {
  const auto n_heads = static_cast<int>(run.states.size());
  for (int h = 0; h < n_heads; ++h) {
    const int head = run.kv_head * n_heads + h;
    const SoftmaxState& state = run.states[h];
    float denominator = state.sum;
    float factor = 1.0F;
    if (params.sink_logits != nullptr) {
      const float max = std::max(state.max, params.sink_logits[head]);
      factor = std::exp(state.max - max);
      denominator = state.sum * factor + std::exp(params.sink_logits[head] - max);
    }
    float* const out =
        params.out +
        (static_cast<std::int64_t>(run.sequence) * params.n_heads + head) * params.head_dim;
    for (int i = 0; i < params.head_dim; ++i) {
      out[i] = run.out[h * params.head_dim + i] * factor / denominator;
    }
  }
}

}  // namespace

AttendedTokens attended_tokens(const DecodeAttentionParams& params, int length) {
  if (params.window_tokens <= 0 || params.window_tokens >= length) {
    return AttendedTokens{0, 0, length};
  }
  const int n_sinks = std::min(params.sink_tokens, length);
  const int window_first = std::max(n_sinks, length - params.window_tokens);
  return AttendedTokens{n_sinks, window_first, n_sinks + length - window_first};
}

void decode_attention_cpu(const DecodeAttentionParams& params, int n_threads) {
  check(params);
  const std::vector<std::int64_t> starts = token_starts(params);
  std::fill_n(
      params.out,
      static_cast<std::int64_t>(params.cache.n_sequences) * params.n_heads * params.head_dim,
      0.0F);
  const std::int64_t n_tokens = starts.back();
  const int n_useful = static_cast<int>(
      std::clamp<std::int64_t>(n_tokens / kLeastTokensPerThread, 1, n_threads_or_all(n_threads)));

  std::vector<std::vector<AttentionRun>> cut_runs(n_useful);  // [thread], in order
  parallel_shares(n_useful, n_tokens, [&](int thread, std::int64_t first, std::int64_t last) {
    for (AttentionRun& run : cut_into_runs(starts, params.cache.n_kv_heads, first, last)) {
      HWY_DYNAMIC_DISPATCH(attend)(params, run);
      const std::size_t item = run.sequence * params.cache.n_kv_heads + run.kv_head;
      if (run.last - run.first == starts[item + 1] - starts[item]) {
        finish(params, run);
      } else {
        cut_runs[thread].push_back(std::move(run));
      }
    }
  });

  AttentionRun* open = nullptr;
  for (std::vector<AttentionRun>& of_thread : cut_runs) {
    for (AttentionRun& run : of_thread) {
      if (open != nullptr && open->sequence == run.sequence && open->kv_head == run.kv_head) {
        merge(run, params.head_dim, *open);
        continue;
      }
      if (open != nullptr) {
        finish(params, *open);
      }
      open = &run;
    }
  }
  if (open != nullptr) {
    finish(params, *open);
  }
}

}  // namespace kvfathom::kernels
#endif
