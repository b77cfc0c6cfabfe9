#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/common/blas.h"
#include "kernels/common/parallel.h"
#include "kernels/prefill_attention/prefill_attention.h"
#include "kernels/prefill_attention/prefill_attention_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/prefill_attention/prefill_attention_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/common/attention_tile-inl.h"
#include "kernels/common/widen-inl.h"

#ifndef KVFATHOM_PREFILL_ATTENTION_CPU_ONCE
#define KVFATHOM_PREFILL_ATTENTION_CPU_ONCE
namespace kvfathom::kernels {

/// Some neighbouring queries of one sequence, for all query heads of one KV head.
struct PrefillCpuTask {
  int sequence = 0;
  int kv_head = 0;
  std::int64_t first_row = 0;
  int n_queries = 0;
  int first_position = 0;
  int first_token = 0;
  int end_token = 0;
};

}  // namespace kvfathom::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {

HWY_INLINE void widen_16bit(KvFormat format, const std::uint16_t* from, std::int64_t n, float* to) {
  format == KvFormat::bf16 ? widen_bf16(from, n, to) : widen_f16(from, n, to);
}

HWY_INLINE void widen_tile(const PrefillAttentionParams& params,
                           const KvPlane& plane,
                           const PrefillCpuTask& task,
                           int first_token,
                           int n_tokens,
                           float* to) {
  for (int t = 0; t < n_tokens; ++t) {
    const std::byte* row =
        row_data(plane, slot_of(params.cache, task.sequence, first_token + t), task.kv_head);
    widen_16bit(params.cache.format,
                reinterpret_cast<const std::uint16_t*>(row),
                params.head_dim,
                to + static_cast<std::int64_t>(t) * params.head_dim);
  }
}

/// Scores of one query's tile to weights; what it does not see weighs nothing.
HWY_INLINE void weigh_tile(const PrefillAttentionParams& params,
                           int position,
                           int first_token,
                           int n_tokens,
                           float* scores,
                           SoftmaxRow& state,
                           float* out) {
  const int oldest = params.window_tokens > 0 ? position - params.window_tokens + 1 : 0;
  const int first = std::max(0, oldest - first_token);
  const int last = std::min(n_tokens, position + 1 - first_token);
  if (first >= last) {
    std::fill_n(scores, n_tokens, 0.0F);
    return;
  }
  add_to_softmax(scores, first, last, params.softmax_scale, state, out, params.head_dim);
  std::fill(scores + last, scores + std::max(last, n_tokens), 0.0F);
}

/// Two products of OpenBLAS a tile of tokens, on this thread alone.
void attend_queries(const PrefillAttentionParams& params, const PrefillCpuTask& task) {
  constexpr int kTileTokens = 128;
  const int dim = params.head_dim;
  const int group = params.n_heads / params.cache.n_kv_heads;
  const int n_rows = task.n_queries * group;
  const std::int64_t first_head = static_cast<std::int64_t>(task.kv_head) * group;
  const auto at = [&](int query) {
    return ((task.first_row + query) * params.n_heads + first_head) * dim;
  };
  std::vector<float> q(static_cast<std::size_t>(n_rows) * dim);
  for (int query = 0; query < task.n_queries; ++query) {
    widen_16bit(params.cache.format,
                params.q + at(query),
                static_cast<std::int64_t>(group) * dim,
                q.data() + static_cast<std::int64_t>(query) * group * dim);
  }
  std::vector<float> k(static_cast<std::size_t>(kTileTokens) * dim);
  std::vector<float> v(k.size());
  std::vector<float> scores(static_cast<std::size_t>(n_rows) * kTileTokens);
  std::vector<float> out(q.size(), 0.0F);
  std::vector<SoftmaxRow> states(n_rows);

  for (int first = task.first_token; first < task.end_token; first += kTileTokens) {
    const int n_tokens = std::min(kTileTokens, task.end_token - first);
    widen_tile(params, params.cache.k, task, first, n_tokens, k.data());
    widen_tile(params, params.cache.v, task, first, n_tokens, v.data());
    sgemm({.m = n_rows, .n = n_tokens, .k = dim, .b_transposed = Transposed::yes},
          {q.data(), dim},
          {k.data(), dim},
          {scores.data(), kTileTokens},
          1);
    for (int row = 0; row < n_rows; ++row) {
      weigh_tile(params,
                 task.first_position + row / group,
                 first,
                 n_tokens,
                 scores.data() + static_cast<std::int64_t>(row) * kTileTokens,
                 states[row],
                 out.data() + static_cast<std::int64_t>(row) * dim);
    }
    sgemm({.m = n_rows, .n = dim, .k = n_tokens, .beta = 1.0F},
          {scores.data(), kTileTokens},
          {v.data(), dim},
          {out.data(), dim},
          1);
  }
  for (int row = 0; row < n_rows; ++row) {
    std::uint16_t* to = params.out + at(row / group) + static_cast<std::int64_t>(row % group) * dim;
    const float inverse = states[row].sum > 0.0F ? 1.0F / states[row].sum : 0.0F;
    for (int i = 0; i < dim; ++i) {
      const float value = out[static_cast<std::size_t>(row) * dim + i] * inverse;
      to[i] = params.cache.format == KvFormat::bf16 ? to_bf16(value).bits : to_f16(value).bits;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {

HWY_EXPORT(attend_queries);

namespace {

/// The most work first, so that threads which take turns end together.
std::vector<PrefillCpuTask> cut_into_tasks(const PrefillAttentionParams& params) {
  constexpr int kRowsPerTask = 256;  // queries times heads: enough to reuse each widened tile
  const int group = params.n_heads / params.cache.n_kv_heads;
  const int queries_per_task = std::max(1, kRowsPerTask / group);
  std::vector<PrefillCpuTask> tasks;
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    const int first_row = params.query_offsets[sequence];
    const int n_queries = params.query_offsets[sequence + 1] - first_row;
    const int length = length_of(params.cache, sequence, 0);
    for (int query = 0; query < n_queries; query += queries_per_task) {
      PrefillCpuTask task;
      task.sequence = sequence;
      task.first_row = first_row + query;
      task.n_queries = std::min(queries_per_task, n_queries - query);
      task.first_position = length - n_queries + query;
      task.end_token = task.first_position + task.n_queries;
      if (params.window_tokens > 0) {
        task.first_token = std::max(0, task.first_position - params.window_tokens + 1);
      }
      for (task.kv_head = 0; task.kv_head < params.cache.n_kv_heads; ++task.kv_head) {
        tasks.push_back(task);
      }
    }
  }
  std::ranges::stable_sort(tasks, std::ranges::greater{}, [](const PrefillCpuTask& task) {
    return static_cast<std::int64_t>(task.n_queries) * (task.end_token - task.first_token);
  });
  return tasks;
}

}  // namespace

void prefill_attention_cpu(const PrefillAttentionParams& params, int n_threads) {
  dispatch_prefill(params, [](auto) {});  // refuses what no kernel is built for
  const std::vector<PrefillCpuTask> tasks = cut_into_tasks(params);
  const int threads = n_threads_or_all(n_threads);
  parallel_shares(threads, threads, [&](int, std::int64_t thread, std::int64_t) {
    for (auto i = static_cast<std::size_t>(thread); i < tasks.size(); i += threads) {
      HWY_DYNAMIC_DISPATCH(attend_queries)(params, tasks[i]);
    }
  });
}

}  // namespace kvfathom::kernels
#endif
