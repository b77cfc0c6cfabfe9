#include <algorithm>
#include <vector>

#include "kernels/common/kv_rows_cpu.h"
#include "kernels/common/parallel.h"
#include "kernels/index_scores/index_scores.h"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/index_scores/index_scores_cpu.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;  // head_dim is a multiple of 32
using VF = hn::Vec<F32>;
constexpr F32 kF32;

/// sum_j w_j ReLU(q_j . key).
float score_key_row(
    const float* key, const float* queries, const float* weights, int n_heads, int dim) {
  float score = 0.0F;
  const int step = static_cast<int>(hn::Lanes(kF32));
  for (int head = 0; head < n_heads; ++head) {
    const float* q = queries + static_cast<std::ptrdiff_t>(head) * dim;
    VF even = hn::Zero(kF32);
    VF odd = hn::Zero(kF32);
    for (int i = 0; i < dim; i += 2 * step) {
      even = hn::MulAdd(hn::LoadU(kF32, q + i), hn::LoadU(kF32, key + i), even);
      odd = hn::MulAdd(hn::LoadU(kF32, q + i + step), hn::LoadU(kF32, key + i + step), odd);
    }
    const float dot = hn::GetLane(hn::SumOfLanes(kF32, hn::Add(even, odd)));
    score += weights[head] * std::max(dot, 0.0F);  // half of them are: a branch is mispredicted
  }
  return score;
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {
namespace {

HWY_EXPORT(score_key_row);

}  // namespace

void index_scores_cpu(const IndexScoresParams& params, int n_threads) {
  check_index_scores(params);
  const int dim = params.head_dim;
  const std::int64_t n_queries = std::int64_t{params.keys.n_sequences} * params.n_heads;
  std::vector<float> queries(n_queries * dim);
  for (std::size_t i = 0; i < queries.size(); ++i) {
    queries[i] = to_f32(params.q[i]);
  }
  const std::int64_t n = std::int64_t{params.keys.n_sequences} * params.max_tokens;
  parallel_shares(n_threads, n, [&](int, std::int64_t begin, std::int64_t end) {
    std::vector<float> key(dim);
    for (std::int64_t i = begin; i < end; ++i) {
      const int sequence = static_cast<int>(i / params.max_tokens);
      const int token = static_cast<int>(i % params.max_tokens);
      if (token >= length_of(params.keys, sequence, 0)) {
        continue;
      }
      const KvSlot at = slot_of(params.keys, sequence, token);
      const std::byte* data = row_data(params.keys.k, at, 0);
      decode_row_cpu(KvFormat::fp8_e4m3, data, nullptr, 1.0F, dim, key.data());
      const std::int64_t first = std::int64_t{sequence} * params.n_heads;
      const float sum = HWY_DYNAMIC_DISPATCH(score_key_row)(
          key.data(), queries.data() + first * dim, params.weights + first, params.n_heads, dim);
      params.scores[i] = sum * *reinterpret_cast<const float*>(row_scales(params.keys.k, at, 0));
    }
  });
}

}  // namespace kvfathom::kernels
#endif
