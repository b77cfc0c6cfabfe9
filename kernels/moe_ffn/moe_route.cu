// Scores, choice and grouping: which expert gets which tokens.
#include <cmath>

#include "kernels/moe_ffn/moe_scratch.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / simt::kWarpSize;
constexpr float kLog2OfE = 1.4426950408889634F;

SIMT_DEVICE float router_logit(const MoeFfnParams& p, const std::uint16_t* x, int expert) {
  const std::uint16_t* router = p.router + static_cast<std::int64_t>(expert) * p.hidden_size;
  float sum = 0.0F;
  for (int i = 8 * simt::lane_id(); i < p.hidden_size; i += 8 * simt::kWarpSize) {
    const auto a = simt::ld(reinterpret_cast<const simt::U32x4*>(x + i));
    const auto b = simt::ld(reinterpret_cast<const simt::U32x4*>(router + i));
    const std::uint32_t of_x[4] = {a.x, a.y, a.z, a.w};
    const std::uint32_t of_router[4] = {b.x, b.y, b.z, b.w};
    SIMT_UNROLL for (int j = 0; j < 8; ++j) {
      const int shift = 16 * (j % 2);
      sum += activation_to_f32(p.format, static_cast<std::uint16_t>(of_x[j / 2] >> shift)) *
             activation_to_f32(p.format, static_cast<std::uint16_t>(of_router[j / 2] >> shift));
    }
  }
  return simt::warp_sum(sum);
}

/// The first warp turns the logits in shared memory into scores.
SIMT_DEVICE void score_experts(const MoeFfnParams& p, float* scores) {
  float largest = -INFINITY;
  for (int expert = simt::lane_id(); expert < p.n_experts; expert += simt::kWarpSize) {
    largest = scores[expert] > largest ? scores[expert] : largest;
  }
  largest = p.score == RouterScore::softmax ? simt::warp_max(largest) : 0.0F;
  float sum = 0.0F;
  for (int expert = simt::lane_id(); expert < p.n_experts; expert += simt::kWarpSize) {
    const float logit = (scores[expert] - largest) * kLog2OfE;
    scores[expert] = p.score == RouterScore::softmax ? simt::exp2_fast(logit)
                                                     : 1.0F / (1.0F + simt::exp2_fast(-logit));
    sum += scores[expert];
  }
  sum = p.score == RouterScore::softmax ? simt::warp_sum(sum) : 1.0F;
  for (int expert = simt::lane_id(); expert < p.n_experts; expert += simt::kWarpSize) {
    scores[expert] /= sum;
  }
}

/// The first warp takes the best of what is left, n_chosen times. Each lane touches the shared
/// memory of its own experts only; the rest goes by shuffles.
SIMT_DEVICE void choose_experts(const MoeFfnParams& p,
                                const float* scores,
                                float* biased,
                                const MoeScratch& scratch) {
  for (int expert = simt::lane_id(); expert < p.n_experts; expert += simt::kWarpSize) {
    biased[expert] =
        scores[expert] + (p.choice_bias != nullptr ? simt::ld(p.choice_bias + expert) : 0.0F);
  }
  const std::int64_t pair0 = static_cast<std::int64_t>(simt::block_idx().x) * p.n_chosen;
  float sum = 0.0F;
  int chosen_by_lane = 0;  // lane i keeps choice i
  float score_by_lane = 0.0F;
  for (int slot = 0; slot < p.n_chosen; ++slot) {
    float best_score = -INFINITY;
    int best = p.n_experts;
    for (int expert = simt::lane_id(); expert < p.n_experts; expert += simt::kWarpSize) {
      if (biased[expert] > best_score) {
        best_score = biased[expert];
        best = expert;
      }
    }
    SIMT_UNROLL for (int mask = simt::kWarpSize / 2; mask > 0; mask /= 2) {
      const float other_score = simt::shfl_xor(best_score, mask);
      const int other = simt::shfl_xor(best, mask);
      if (other_score > best_score || (other_score == best_score && other < best)) {
        best_score = other_score;
        best = other;
      }
    }
    const bool owner = best < p.n_experts && best % simt::kWarpSize == simt::lane_id();
    const float score = simt::shfl(owner ? scores[best] : 0.0F, best % simt::kWarpSize);
    if (owner) {
      biased[best] = -INFINITY;
    }
    sum += score;
    if (slot == simt::lane_id()) {
      chosen_by_lane = best;
      score_by_lane = score;
    }
  }
  if (simt::lane_id() < p.n_chosen) {
    const float share = p.normalise ? sum : 1.0F;
    simt::st(scratch.experts + pair0 + simt::lane_id(), chosen_by_lane);
    simt::st(scratch.weights + pair0 + simt::lane_id(), score_by_lane * p.routed_scaling / share);
  }
}

/// One token per block; warps take experts in turn for the logits.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads)
    route_kernel(const MoeFfnParams p, const MoeScratch scratch) {
  auto* scores = simt::shared_memory<float>();
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  const std::uint16_t* x = p.x + static_cast<std::int64_t>(simt::block_idx().x) * p.hidden_size;
  for (int expert = warp; expert < p.n_experts; expert += kWarps) {
    const float logit = router_logit(p, x, expert);
    if (simt::lane_id() == 0) {
      scores[expert] = logit;
    }
  }
  simt::syncblock();
  if (warp == 0) {
    score_experts(p, scores);
    choose_experts(p, scores, scores + p.n_experts, scratch);
  }
}

/// One block; thread e lists the pairs of expert e, in order.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kMostExperts)
    group_kernel(const MoeScratch scratch, int n_pairs, int n_experts) {
  auto* starts = simt::shared_memory<std::int32_t>();
  const int expert = static_cast<int>(simt::thread_idx().x);
  int count = 0;
  for (int pair = 0; pair < n_pairs; ++pair) {
    count += simt::ld_index(scratch.experts + pair) == expert ? 1 : 0;
  }
  starts[expert] = count;
  simt::syncblock();
  int start = 0;
  for (int other = 0; other < expert; ++other) {
    start += starts[other];
  }
  if (expert >= n_experts) {
    return;
  }
  simt::st(scratch.starts + expert, start);
  if (expert == n_experts - 1) {
    simt::st(scratch.starts + n_experts, start + count);
  }
  for (int pair = 0; pair < n_pairs; ++pair) {
    if (simt::ld_index(scratch.experts + pair) == expert) {
      simt::st(scratch.order + start, pair);
      ++start;
    }
  }
}

}  // namespace

void moe_route_launch(const MoeFfnParams& params, const MoeScratch& scratch, Stream stream) {
  simt::launch(route_kernel,
               static_cast<unsigned>(params.n_tokens),
               kThreads,
               2 * sizeof(float) * static_cast<std::size_t>(params.n_experts),
               stream,
               params,
               scratch);
  const unsigned group_threads = (static_cast<unsigned>(params.n_experts) + 31) / 32 * 32;
  simt::launch(group_kernel,
               1,
               group_threads,
               sizeof(std::int32_t) * group_threads,
               stream,
               scratch,
               params.n_tokens * params.n_chosen,
               params.n_experts);
}

}  // namespace kvfathom::kernels
