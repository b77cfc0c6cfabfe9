#include "kernels/common/kv_rows_device.h"
#include "kernels/eviction_scores/eviction_scores.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / simt::kWarpSize;
constexpr int kTileTokens = simt::kWarpSize;  // a lane owns a token
constexpr int kRowsPerWarp = 4;               // query rows whose sums a lane keeps in registers
constexpr int kTileRows = kWarps * kRowsPerWarp;
constexpr int kKeyPad = 4;  // floats: lanes read their own keys 16 bytes at a time, conflict-free
constexpr float kLog2E = 1.44269504088896341F;

/// Scratch: logits, then the largest and the inverse sum of every row of logits.
struct Scratch {
  float* logits;            // [n_sequences, n_heads, n_queries, max_tokens]
  float* row_maxima;        // [n_sequences, n_heads, n_queries]
  float* row_inverse_sums;  // the same
};

/// Tokens that a query sees.
SIMT_DEVICE int tokens_seen(const EvictionScoresParams& params, int length, int query) {
  const int n = length - params.n_queries + query + 1;
  return n > 0 ? n : 0;
}

/// Query rows first .. first + kTileRows - 1 of one KV head to shared memory; row r is query
/// r / group of head r % group. Zeros beyond the last.
SIMT_DEVICE void stage_queries(
    const EvictionScoresParams& params, int sequence, int kv_head, int first, float* queries) {
  const int group = params.n_heads / params.cache.n_kv_heads;
  const int quads = params.head_dim / 4;
  const KvFormat format = params.cache.format == KvFormat::bf16 ? KvFormat::bf16 : KvFormat::f16;
  for (int i = static_cast<int>(simt::thread_idx().x); i < kTileRows * quads; i += kThreads) {
    const int row = first + i / quads;
    float values[4] = {};
    if (row < group * params.n_queries) {
      const std::int64_t query =
          static_cast<std::int64_t>(sequence) * params.n_queries + row / group;
      const std::int64_t offset =
          (query * params.n_heads + kv_head * group + row % group) * params.head_dim;
      const auto* data = reinterpret_cast<const std::byte*>(params.q + offset);
      load_row4(format, DeviceRow{data, nullptr, 1.0F}, i % quads * 4, values);
    }
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      queries[i * 4 + j] = values[j];
    }
  }
}

SIMT_DEVICE void stage_keys(
    const EvictionScoresParams& params, int sequence, int kv_head, int first, int n, float* keys) {
  const int quads = params.head_dim / 4;
  for (int i = static_cast<int>(simt::thread_idx().x); i < kTileTokens * quads; i += kThreads) {
    const int token = i / quads;
    float values[4] = {};
    if (token < n) {
      const KvSlot at = device_slot_of(params.cache, sequence, first + token);
      const DeviceRow row = device_row(params.cache, params.cache.k, at, kv_head);
      load_row4(params.cache.format, row, i % quads * 4, values);
    }
    float* to = keys + token * (params.head_dim + kKeyPad) + i % quads * 4;
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      to[j] = values[j];
    }
  }
}

struct alignas(16) Float4 {
  float x, y, z, w;
};

/// One lane's key against the warp's query rows.
SIMT_DEVICE void multiply(const float* key,
                          const float* queries,
                          int head_dim,
                          float (&sums)[kRowsPerWarp]) {
  for (int i = 0; i < head_dim; i += 4) {
    const Float4 k = *reinterpret_cast<const Float4*>(key + i);
    SIMT_UNROLL for (int r = 0; r < kRowsPerWarp; ++r) {
      const Float4 q = *reinterpret_cast<const Float4*>(queries + r * kWarps * head_dim + i);
      sums[r] += k.x * q.x + k.y * q.y + k.z * q.z + k.w * q.w;
    }
  }
}

/// A block owns 32 tokens of one sequence and KV head, and goes through all their query rows.
/// Grid: (token tiles, KV heads, sequences).
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads)
    logits_kernel(EvictionScoresParams params, Scratch scratch) {
  const int sequence = static_cast<int>(simt::block_idx().z);
  const int kv_head = static_cast<int>(simt::block_idx().y);
  const int first_token = static_cast<int>(simt::block_idx().x) * kTileTokens;
  const int length = device_length_of(params.cache, sequence, kv_head);
  if (first_token >= length) {
    return;
  }
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  const int token = first_token + simt::lane_id();
  float* keys = simt::shared_memory<float>();
  float* queries = keys + kTileTokens * (params.head_dim + kKeyPad);
  const int group = params.n_heads / params.cache.n_kv_heads;
  stage_keys(params, sequence, kv_head, first_token, length - first_token, keys);
  for (int first_row = 0; first_row < group * params.n_queries; first_row += kTileRows) {
    stage_queries(params, sequence, kv_head, first_row, queries);
    simt::syncblock();
    float sums[kRowsPerWarp] = {};
    multiply(keys + simt::lane_id() * (params.head_dim + kKeyPad),
             queries + warp * params.head_dim,
             params.head_dim,
             sums);
    SIMT_UNROLL for (int r = 0; r < kRowsPerWarp; ++r) {
      const int row = first_row + r * kWarps + warp;
      const int query = row / group;
      if (row < group * params.n_queries && token < tokens_seen(params, length, query)) {
        const std::int64_t head =
            static_cast<std::int64_t>(sequence) * params.n_heads + kv_head * group + row % group;
        simt::st(scratch.logits + (head * params.n_queries + query) * params.max_tokens + token,
                 sums[r] * params.softmax_scale);
      }
    }
    simt::syncblock();
  }
}

/// combine() of one value per thread, in every thread.
template <typename Combine>
SIMT_DEVICE float block_reduce(float value, const Combine& combine, float* shared) {
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  value = simt::warp_reduce(value, combine);
  if (simt::lane_id() == 0) {
    shared[warp] = value;
  }
  simt::syncblock();
  value = shared[0];
  for (int w = 1; w < kWarps; ++w) {
    value = combine(value, shared[w]);
  }
  simt::syncblock();
  return value;
}

/// A block owns one row of logits.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads)
    row_sums_kernel(EvictionScoresParams params, Scratch scratch) {
  const std::int64_t row = simt::block_idx().x;
  const int query = static_cast<int>(row % params.n_queries);
  const int head = static_cast<int>(row / params.n_queries % params.n_heads);
  const int sequence = static_cast<int>(row / params.n_queries / params.n_heads);
  const int kv_head = head / (params.n_heads / params.cache.n_kv_heads);
  const int n = tokens_seen(params, device_length_of(params.cache, sequence, kv_head), query);
  if (n == 0) {
    return;
  }
  const float* logits = scratch.logits + row * params.max_tokens;
  const int thread = static_cast<int>(simt::thread_idx().x);
  float* shared = simt::shared_memory<float>();
  float largest = -INFINITY;
  for (int i = thread; i < n; i += kThreads) {
    const float x = simt::ld(logits + i);
    largest = x > largest ? x : largest;
  }
  largest = block_reduce(
      largest, [](float a, float b) { return a > b ? a : b; }, shared);
  float sum = 0.0F;
  for (int i = thread; i < n; i += kThreads) {
    sum += simt::exp2_fast((simt::ld(logits + i) - largest) * kLog2E);
  }
  sum = block_reduce(
      sum, [](float a, float b) { return a + b; }, shared);
  if (thread == 0) {
    simt::st(scratch.row_maxima + row, largest);
    simt::st(scratch.row_inverse_sums + row, 1.0F / sum);
  }
}

/// A thread owns one token of one row of scores. Grid: (token tiles, groups, sequences).
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads)
    scores_kernel(EvictionScoresParams params, Scratch scratch) {
  const int sequence = static_cast<int>(simt::block_idx().z);
  const int group = static_cast<int>(simt::block_idx().y);
  const int n_groups = params.per_layer ? 1 : params.cache.n_kv_heads;
  const int n_rows = params.n_heads / n_groups * params.n_queries;
  const int token = static_cast<int>(simt::block_idx().x * kThreads + simt::thread_idx().x);
  const int length = device_length_of(params.cache, sequence, group);
  if (token >= length) {
    return;
  }
  const std::int64_t score_row = static_cast<std::int64_t>(sequence) * n_groups + group;
  float sum = 0.0F;
  for (int i = 0; i < n_rows; ++i) {
    const std::int64_t row = score_row * n_rows + i;
    if (token < tokens_seen(params, length, i % params.n_queries)) {
      const float logit = simt::ld_stream<float>(scratch.logits + row * params.max_tokens + token);
      const float below = logit - simt::ld(scratch.row_maxima + row);
      sum += simt::exp2_fast(below * kLog2E) * simt::ld(scratch.row_inverse_sums + row);
    }
  }
  float* score = params.scores + score_row * params.max_tokens + token;
  const float before = params.accumulate ? simt::ld(score) : 0.0F;
  simt::st(score, before + params.weight * sum);
}

/// A thread owns one token of one row of scores. Grid: (token tiles, rows).
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) pool_kernel(PoolScoresParams params) {
  const int row = static_cast<int>(simt::block_idx().y);
  const int token = static_cast<int>(simt::block_idx().x * kThreads + simt::thread_idx().x);
  const int length =
      simt::ld_index(params.lengths + (params.lengths_per_head ? row : row / params.n_heads));
  const int n = length - params.n_window;
  if (token >= n) {
    return;
  }
  const float* scores = params.scores + static_cast<std::int64_t>(row) * params.max_tokens;
  float sum = 0.0F;
  float largest = -INFINITY;
  for (int t = token - params.width / 2; t <= token + params.width / 2; ++t) {
    if (t >= 0 && t < n) {
      const float score = simt::ld(scores + t);
      sum += score;
      largest = score > largest ? score : largest;
    }
  }
  simt::st(params.pooled + static_cast<std::int64_t>(row) * params.max_tokens + token,
           params.pooling == Pooling::average ? sum / static_cast<float>(params.width) : largest);
}

unsigned tiles(int n, int per_tile) {
  return static_cast<unsigned>((n + per_tile - 1) / per_tile);
}

}  // namespace

void eviction_scores_launch(const EvictionScoresParams& params, void* scratch, Stream stream) {
  check_eviction_scores(params);
  static_cast<void>(device());
  const std::int64_t n_rows =
      std::int64_t{params.cache.n_sequences} * params.n_heads * params.n_queries;
  if (n_rows == 0 || params.max_tokens == 0) {
    return;
  }
  auto* logits = static_cast<float*>(scratch);
  float* statistics = logits + n_rows * params.max_tokens;
  const Scratch parts{logits, statistics, statistics + n_rows};
  const auto n_sequences = static_cast<unsigned>(params.cache.n_sequences);
  const auto n_kv_heads = static_cast<unsigned>(params.cache.n_kv_heads);
  const std::size_t shared_floats =
      kTileTokens * (params.head_dim + kKeyPad) + kTileRows * params.head_dim;
  simt::launch(&logits_kernel,
               simt::Dim3(tiles(params.max_tokens, kTileTokens), n_kv_heads, n_sequences),
               kThreads,
               shared_floats * sizeof(float),
               stream,
               params,
               parts);
  simt::launch(&row_sums_kernel,
               static_cast<unsigned>(n_rows),
               kThreads,
               kWarps * sizeof(float),
               stream,
               params,
               parts);
  simt::launch(
      &scores_kernel,
      simt::Dim3(
          tiles(params.max_tokens, kThreads), params.per_layer ? 1U : n_kv_heads, n_sequences),
      kThreads,
      0,
      stream,
      params,
      parts);
}

void pool_scores_launch(const PoolScoresParams& params, Stream stream) {
  check_pool_scores(params);
  static_cast<void>(device());
  const auto n_rows = static_cast<unsigned>(params.n_sequences * params.n_heads);
  if (n_rows > 0 && params.max_tokens > 0) {
    simt::launch(&pool_kernel,
                 simt::Dim3(tiles(params.max_tokens, kThreads), n_rows),
                 kThreads,
                 0,
                 stream,
                 params);
  }
}

}  // namespace kvfathom::kernels
