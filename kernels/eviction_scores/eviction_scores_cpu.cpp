#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/kv_rows_cpu.h"
#include "kernels/common/parallel.h"
#include "kernels/eviction_scores/eviction_scores.h"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/eviction_scores/eviction_scores_cpu.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 8>;  // head_dim is a multiple of 8
using VF = hn::Vec<F32>;
constexpr F32 kF32;

/// The products of one key with four query rows, `stride` floats apart.
void dot4(const float* key, const float* queries, int stride, int dim, float* out) {
  VF sum0 = hn::Zero(kF32);
  VF sum1 = hn::Zero(kF32);
  VF sum2 = hn::Zero(kF32);
  VF sum3 = hn::Zero(kF32);
  for (int i = 0; i < dim; i += static_cast<int>(hn::Lanes(kF32))) {
    const VF k = hn::LoadU(kF32, key + i);
    sum0 = hn::MulAdd(k, hn::LoadU(kF32, queries + i), sum0);
    sum1 = hn::MulAdd(k, hn::LoadU(kF32, queries + stride + i), sum1);
    sum2 = hn::MulAdd(k, hn::LoadU(kF32, queries + 2 * stride + i), sum2);
    sum3 = hn::MulAdd(k, hn::LoadU(kF32, queries + 3 * stride + i), sum3);
  }
  out[0] = hn::GetLane(hn::SumOfLanes(kF32, sum0));
  out[1] = hn::GetLane(hn::SumOfLanes(kF32, sum1));
  out[2] = hn::GetLane(hn::SumOfLanes(kF32, sum2));
  out[3] = hn::GetLane(hn::SumOfLanes(kF32, sum3));
}

/// The logits of one key for `n_rows` query rows, a multiple of 4; those of a row are
/// `logit_stride` apart from the next row's.
void dot_rows(const float* key,
              const float* queries,
              int n_rows,
              int dim,
              float scale,
              float* logits,
              std::int64_t logit_stride) {
  for (int row = 0; row < n_rows; row += 4) {
    float sums[4];
    dot4(key, queries + static_cast<std::ptrdiff_t>(row) * dim, dim, dim, sums);
    for (int r = 0; r < 4; ++r) {
      logits[(row + r) * logit_stride] = sums[r] * scale;
    }
  }
}

float largest_of(const float* x, int n) {
  float largest = -INFINITY;
  for (int i = 0; i < n; ++i) {
    largest = std::max(largest, x[i]);
  }
  return largest;
}

/// Replaces x by exp(x - largest) and returns the sum.
float exponentiate(float* x, int n, float largest) {
  const int lanes = static_cast<int>(hn::Lanes(kF32));
  VF sums = hn::Zero(kF32);
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const VF p = hn::Exp(kF32, hn::Sub(hn::LoadU(kF32, x + i), hn::Set(kF32, largest)));
    hn::StoreU(p, kF32, x + i);
    sums = hn::Add(sums, p);
  }
  float sum = hn::GetLane(hn::SumOfLanes(kF32, sums));
  for (; i < n; ++i) {
    x[i] = std::exp(x[i] - largest);
    sum += x[i];
  }
  return sum;
}

/// Turns n logits into probabilities.
void softmax(float* x, int n) {
  const float inverse = 1.0F / exponentiate(x, n, largest_of(x, n));
  for (int i = 0; i < n; ++i) {
    x[i] *= inverse;
  }
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {
namespace {

HWY_EXPORT(dot_rows);
HWY_EXPORT(softmax);

constexpr int kRowsAtOnce = 4;
constexpr int kTileTokens = 64;

/// What the phases share: the queries as float, and all probabilities.
struct Work {
  const EvictionScoresParams& params;
  int group;
  int n_rows;                  ///< query rows of a KV head: query r / group of head r % group
  int n_padded_rows;           ///< to whole fours; the padding is zeros
  std::vector<float> queries;  ///< [n_sequences, n_kv_heads, n_padded_rows, head_dim]
  std::vector<float> rows;     ///< [n_sequences, n_kv_heads, n_padded_rows, max_tokens]

  explicit Work(const EvictionScoresParams& of)
      : params(of),
        group(of.n_heads / of.cache.n_kv_heads),
        n_rows(group * of.n_queries),
        n_padded_rows((n_rows + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce) {
    const std::size_t n = static_cast<std::size_t>(of.cache.n_sequences) * of.cache.n_kv_heads *
                          static_cast<std::size_t>(n_padded_rows);
    queries.resize(n * of.head_dim);
    rows.resize(n * of.max_tokens);
  }
  [[nodiscard]] std::int64_t first_row(int sequence, int kv_head) const {
    return (std::int64_t{sequence} * params.cache.n_kv_heads + kv_head) * n_padded_rows;
  }
  [[nodiscard]] int seen(int sequence, int kv_head, int row) const {
    const int n = length_of(params.cache, sequence, kv_head) - params.n_queries + row / group + 1;
    return std::max(0, n);
  }
};

void convert_queries(Work& work) {
  const EvictionScoresParams& params = work.params;
  const bool bf16 = params.cache.format == KvFormat::bf16;
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    for (int head = 0; head < params.n_heads; ++head) {
      for (int query = 0; query < params.n_queries; ++query) {
        const std::int64_t from =
            (std::int64_t{sequence} * params.n_queries + query) * params.n_heads + head;
        const std::int64_t to =
            work.first_row(sequence, head / work.group) + query * work.group + head % work.group;
        decode_row_cpu(bf16 ? KvFormat::bf16 : KvFormat::f16,
                       reinterpret_cast<const std::byte*>(params.q + from * params.head_dim),
                       nullptr,
                       1.0F,
                       params.head_dim,
                       work.queries.data() + to * params.head_dim);
      }
    }
  }
}

/// The logits of all query rows for one tile of tokens.
void fill_logits(Work& work, int sequence, int kv_head, int first, std::vector<float>& key) {
  const EvictionScoresParams& params = work.params;
  const KvCacheView& cache = params.cache;
  const bool scaled = row_scale_bytes(cache.format, params.head_dim) > 0;
  const int last = std::min(first + kTileTokens, length_of(cache, sequence, kv_head));
  const std::int64_t row0 = work.first_row(sequence, kv_head);
  for (int token = first; token < last; ++token) {
    const KvSlot at = slot_of(cache, sequence, token);
    decode_row_cpu(cache.format,
                   row_data(cache.k, at, kv_head),
                   scaled ? row_scales(cache.k, at, kv_head) : nullptr,
                   head_scale_of(cache, cache.k, kv_head),
                   params.head_dim,
                   key.data());
    HWY_DYNAMIC_DISPATCH(dot_rows)
    (key.data(),
     work.queries.data() + row0 * params.head_dim,
     work.n_padded_rows,
     params.head_dim,
     params.softmax_scale,
     work.rows.data() + row0 * params.max_tokens + token,
     params.max_tokens);
  }
}

void add_up(const Work& work, int sequence, int group_index, int first, int last) {
  const EvictionScoresParams& params = work.params;
  const int n_groups = params.per_layer ? 1 : params.cache.n_kv_heads;
  const int heads_of_group = params.cache.n_kv_heads / n_groups;
  std::vector<float> sums(last - first, 0.0F);
  for (int h = group_index * heads_of_group; h < (group_index + 1) * heads_of_group; ++h) {
    for (int row = 0; row < work.n_rows; ++row) {
      const float* p = work.rows.data() + (work.first_row(sequence, h) + row) * params.max_tokens;
      const int end = std::min(last, work.seen(sequence, h, row));
      for (int token = first; token < end; ++token) {
        sums[token - first] += p[token];
      }
    }
  }
  float* scores =
      params.scores + (std::int64_t{sequence} * n_groups + group_index) * params.max_tokens;
  for (int token = first; token < last; ++token) {
    const float before = params.accumulate ? scores[token] : 0.0F;
    scores[token] = before + params.weight * sums[token - first];
  }
}

}  // namespace

void eviction_scores_cpu(const EvictionScoresParams& params, int n_threads) {
  check_eviction_scores(params);
  Work work(params);
  convert_queries(work);
  const int n_kv_heads = params.cache.n_kv_heads;
  const int n_tiles = (params.max_tokens + kTileTokens - 1) / kTileTokens;
  const auto tiles_of = [&](int n_groups, const auto& visit) {
    const std::int64_t n = std::int64_t{params.cache.n_sequences} * n_groups * n_tiles;
    parallel_shares(n_threads, n, [&](int, std::int64_t begin, std::int64_t end) {
      std::vector<float> key(params.head_dim);
      for (std::int64_t i = begin; i < end; ++i) {
        const int sequence = static_cast<int>(i / n_tiles / n_groups);
        const int group = static_cast<int>(i / n_tiles % n_groups);
        visit(sequence, group, static_cast<int>(i % n_tiles) * kTileTokens, key);
      }
    });
  };
  tiles_of(n_kv_heads, [&](int sequence, int kv_head, int first, std::vector<float>& key) {
    fill_logits(work, sequence, kv_head, first, key);
  });
  const std::int64_t n_rows =
      std::int64_t{params.cache.n_sequences} * n_kv_heads * work.n_padded_rows;
  parallel_shares(n_threads, n_rows, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const int row = static_cast<int>(i % work.n_padded_rows);
      const int kv_head = static_cast<int>(i / work.n_padded_rows % n_kv_heads);
      const int sequence = static_cast<int>(i / work.n_padded_rows / n_kv_heads);
      const int n = row < work.n_rows ? work.seen(sequence, kv_head, row) : 0;
      if (n > 0) {
        HWY_DYNAMIC_DISPATCH(softmax)(work.rows.data() + i * params.max_tokens, n);
      }
    }
  });
  tiles_of(params.per_layer ? 1 : n_kv_heads,
           [&](int sequence, int group, int first, const std::vector<float>&) {
             const int last =
                 std::min(first + kTileTokens, length_of(params.cache, sequence, group));
             if (first < last) {
               add_up(work, sequence, group, first, last);
             }
           });
}

void pool_scores_cpu(const PoolScoresParams& params, int n_threads) {
  check_pool_scores(params);
  const int n_rows = params.n_sequences * params.n_heads;
  parallel_shares(n_threads, n_rows, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const int length = params.lengths[params.lengths_per_head ? row : row / params.n_heads];
      const int n = length - params.n_window;
      const float* scores = params.scores + row * params.max_tokens;
      float* pooled = params.pooled + row * params.max_tokens;
      for (int token = 0; token < n; ++token) {
        const int first = std::max(0, token - params.width / 2);
        const int last = std::min(n, token + params.width / 2 + 1);
        float sum = 0.0F;
        for (int t = first; t < last; ++t) {
          sum += scores[t];
        }
        pooled[token] = params.pooling == Pooling::average
                            ? sum / static_cast<float>(params.width)
                            : *std::max_element(scores + first, scores + last);
      }
    }
  });
}

}  // namespace kvfathom::kernels
#endif
