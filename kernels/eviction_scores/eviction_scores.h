// Scores by which eviction schemes rank cached tokens: attention probabilities of the newest
// queries, summed over queries and heads.
//
//   H2O (2306.14048)    one query a step, summed over a KV head's group, accumulated over steps
//   TOVA (2401.06104)   one query, averaged over all heads of the layer: per_layer, weight 1 /
//   n_heads SnapKV (2404.14469) the last n_queries of the prompt, summed, averaged over the group,
//   pooled
//
// None of it can come out of a flash attention, which never holds a probability: this is a pass of
// its own, which reads K once and writes the logits.
#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Shapes and buffers of one call; buffers live where the callee runs.
struct EvictionScoresParams {
  int n_heads = 0;         ///< query heads, a multiple of cache.n_kv_heads
  int head_dim = 0;        ///< a multiple of 8, at most 256
  KvCacheView cache = {};  ///< V is not read
  /// The newest queries of each sequence: query j stands at token length - n_queries + j and sees
  /// the tokens up to its own. One before the sequence's start sees none.
  int n_queries = 1;
  /// [n_sequences, n_queries, n_heads, head_dim]: Bf16 for a bf16 cache, F16 for any other.
  const std::uint16_t* q = nullptr;
  float softmax_scale = 1.0F;
  bool per_layer = false;   ///< one score for all heads; lengths are then one a sequence
  float weight = 1.0F;      ///< of the sum over queries and heads
  bool accumulate = false;  ///< add to the scores instead of replacing them
  int max_tokens = 0;       ///< no sequence is longer
  /// [n_sequences, n_kv_heads or 1, max_tokens]; from a sequence's length on, untouched.
  float* scores = nullptr;
};

/// What the reference leaves: the scores (added to what is there where `accumulate`), and the
/// magnitude that their bound needs, one for the call.
struct EvictionScoresReference {
  double* scores = nullptr;
  double largest_abs_score = 0.0;  ///< max of scale * sum_i |q_i k_i|
};

/// Throws UnsupportedShape, saying what is wrong.
void check_eviction_scores(const EvictionScoresParams& params);
/// The definition, in double, on host buffers.
void eviction_scores_reference(const EvictionScoresParams& params, EvictionScoresReference& result);
/// The same on the CPU; n_threads threads (0: all).
void eviction_scores_cpu(const EvictionScoresParams& params, int n_threads = 0);
/// Bytes of scratch memory that a launch needs.
[[nodiscard]] std::int64_t eviction_scores_scratch_bytes(const EvictionScoresParams& params);
/// The same on the device. Throws NoDevice, DeviceError or UnsupportedShape.
void eviction_scores_launch(const EvictionScoresParams& params,
                            void* scratch,
                            Stream stream = nullptr);

enum class Pooling : std::uint8_t { average, maximum };

/// SnapKV's smoothing along the tokens before the window, so that neighbours of a strong token are
/// kept with it. As avg_pool1d and max_pool1d with padding width / 2: what lies outside counts as
/// zero in an average (the divisor stays `width`) and not at all in a maximum.
struct PoolScoresParams {
  int n_sequences = 0;
  int n_heads = 0;  ///< rows of scores a sequence: KV heads, or 1
  int max_tokens = 0;
  const std::int32_t* lengths = nullptr;  ///< [n_sequences], or [n_sequences, n_heads]
  bool lengths_per_head = false;
  int n_window = 0;  ///< newest tokens, which are not scored
  Pooling pooling = Pooling::average;
  int width = 5;                  ///< odd
  const float* scores = nullptr;  ///< [n_sequences, n_heads, max_tokens]
  float* pooled = nullptr;        ///< the same; from length - n_window on, untouched
};

void check_pool_scores(const PoolScoresParams& params);
void pool_scores_reference(const PoolScoresParams& params, double* pooled);
void pool_scores_cpu(const PoolScoresParams& params, int n_threads = 0);
void pool_scores_launch(const PoolScoresParams& params, Stream stream = nullptr);

}  // namespace kvfathom::kernels
