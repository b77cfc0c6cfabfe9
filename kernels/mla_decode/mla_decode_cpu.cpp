#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/common/parallel.h"
#include "kernels/mla_decode/mla_decode.h"
#include "kernels/mla_decode/mla_decode_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mla_decode/mla_decode_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/common/attention_tile-inl.h"
#include "kernels/common/widen-inl.h"

#ifndef KVFATHOM_MLA_DECODE_CPU_ONCE
#define KVFATHOM_MLA_DECODE_CPU_ONCE
namespace kvfathom::kernels {

/// The softmax state of one run of tokens, for all heads.
struct MlaCpuRun {
  int sequence = 0;
  int first_token = 0;
  int end_token = 0;
  std::vector<float> out;      // [n_heads, kv_lora_rank], unnormalised
  std::vector<float> maximum;  // [n_heads]
  std::vector<float> sum;      // [n_heads]
};

}  // namespace kvfathom::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {

/// E4M3 to floats times `scale`: its fields shifted into a float stand for 2^-120 of its value.
HWY_INLINE void widen_e4m3(const std::uint8_t* from, int n, float scale, float* to) {
  const TileTag floats;
  const hn::Rebind<std::uint32_t, TileTag> words;
  const hn::Rebind<std::uint8_t, TileTag> bytes;
  const int lanes = static_cast<int>(hn::Lanes(floats));
  const auto unbias = hn::Set(floats, 0x1p120F);
  const auto factor = hn::Set(floats, scale);
  for (int i = 0; i < n; i += lanes) {
    const auto codes = hn::PromoteTo(words, hn::LoadU(bytes, from + i));
    const auto sign = hn::ShiftLeft<24>(hn::And(codes, hn::Set(words, 0x80U)));
    const auto magnitude = hn::ShiftLeft<20>(hn::And(codes, hn::Set(words, 0x7fU)));
    const auto value = hn::Mul(hn::BitCast(floats, hn::Or(sign, magnitude)), unbias);
    hn::StoreU(hn::Mul(value, factor), floats, to + i);
  }
}

HWY_INLINE void widen_k_row(const MlaDecodeParams& params, KvSlot slot, float* to) {
  const std::byte* row = row_data(params.cache.k, slot, 0);
  if (params.cache.format == KvFormat::bf16) {
    widen_bf16(reinterpret_cast<const std::uint16_t*>(row),
               params.kv_lora_rank + params.qk_rope_head_dim,
               to);
    return;
  }
  for (int block = 0; block < kMlaFp8Scales; ++block) {
    float scale = 0.0F;
    std::memcpy(&scale, row + kMlaFp8ScaleOffset + block * sizeof scale, sizeof scale);
    widen_e4m3(reinterpret_cast<const std::uint8_t*>(row) + block * kMlaFp8ScaleBlock,
               kMlaFp8ScaleBlock,
               scale,
               to + block * kMlaFp8ScaleBlock);
  }
  widen_bf16(reinterpret_cast<const std::uint16_t*>(row + kMlaFp8RopeOffset),
             kMlaFp8Rope,
             to + kMlaFp8Latent);
}

/// Rows are widened once, into the nearest cache, and meet all heads there.
void attend_run(const MlaDecodeParams& params, MlaCpuRun& run) {
  constexpr int kTileTokens = 32;
  const int n_heads = params.n_heads;
  const int v_dim = params.kv_lora_rank;
  const int k_dim = v_dim + params.qk_rope_head_dim;
  const bool separate_v = params.cache.v.data != nullptr;

  std::vector<float> q(static_cast<std::size_t>(n_heads) * k_dim);
  widen_bf16(params.q + static_cast<std::int64_t>(run.sequence) * n_heads * k_dim,
             static_cast<std::int64_t>(n_heads) * k_dim,
             q.data());
  std::vector<float> k(static_cast<std::size_t>(kTileTokens) * k_dim);
  std::vector<float> v(separate_v ? static_cast<std::size_t>(kTileTokens) * v_dim : 0);
  std::vector<float> scores(static_cast<std::size_t>(n_heads) * kTileTokens);
  std::vector<SoftmaxRow> states(n_heads);
  run.out.assign(static_cast<std::size_t>(n_heads) * v_dim, 0.0F);

  for (int first = run.first_token; first < run.end_token; first += kTileTokens) {
    const int n_tokens = std::min(kTileTokens, run.end_token - first);
    for (int t = 0; t < n_tokens; ++t) {
      const KvSlot slot = slot_of(params.cache, run.sequence, first + t);
      widen_k_row(params, slot, k.data() + static_cast<std::int64_t>(t) * k_dim);
      if (separate_v) {
        const std::byte* row = row_data(params.cache.v, slot, 0);
        widen_bf16(reinterpret_cast<const std::uint16_t*>(row),
                   v_dim,
                   v.data() + static_cast<std::int64_t>(t) * v_dim);
      }
    }
    score_tile(
        q.data(), k_dim, n_heads, k.data(), k_dim, n_tokens, k_dim, scores.data(), kTileTokens);
    for (int head = 0; head < n_heads; ++head) {
      add_to_softmax(scores.data() + static_cast<std::int64_t>(head) * kTileTokens,
                     0,
                     n_tokens,
                     params.softmax_scale,
                     states[head],
                     run.out.data() + static_cast<std::int64_t>(head) * v_dim,
                     v_dim);
    }
    add_values(scores.data(),
               kTileTokens,
               n_heads,
               separate_v ? v.data() : k.data(),
               separate_v ? v_dim : k_dim,
               n_tokens,
               v_dim,
               run.out.data(),
               v_dim);
  }
  for (const SoftmaxRow& state : states) {
    run.maximum.push_back(state.maximum);
    run.sum.push_back(state.sum);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {

HWY_EXPORT(attend_run);

namespace {

/// Runs of at least 256 tokens, enough of them that no thread is left without work.
std::vector<MlaCpuRun> cut_into_runs(const MlaDecodeParams& params, int n_threads) {
  constexpr std::int64_t kFewestTokens = 256;
  constexpr std::int64_t kRunsPerThread = 4;
  std::int64_t n_tokens = 0;
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    n_tokens += length_of(params.cache, sequence, 0);
  }
  const auto run_tokens = static_cast<int>(
      std::max(kFewestTokens, n_tokens / (n_threads_or_all(n_threads) * kRunsPerThread)));
  std::vector<MlaCpuRun> runs;
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    const int length = length_of(params.cache, sequence, 0);
    for (int first = 0; first < length; first += run_tokens) {
      MlaCpuRun run;
      run.sequence = sequence;
      run.first_token = first;
      run.end_token = std::min(length, first + run_tokens);
      runs.push_back(std::move(run));
    }
  }
  return runs;
}

void merge_head(const MlaDecodeParams& params,
                std::span<const MlaCpuRun> runs,
                int head,
                float* out) {
  float maximum = -INFINITY;
  for (const MlaCpuRun& run : runs) {
    maximum = std::max(maximum, run.maximum[head]);
  }
  std::fill_n(out, params.kv_lora_rank, 0.0F);
  float sum = 0.0F;
  for (const MlaCpuRun& run : runs) {
    const float weight = std::exp(run.maximum[head] - maximum);
    sum += weight * run.sum[head];
    const float* part = run.out.data() + static_cast<std::int64_t>(head) * params.kv_lora_rank;
    for (int i = 0; i < params.kv_lora_rank; ++i) {
      out[i] += weight * part[i];
    }
  }
  for (int i = 0; i < params.kv_lora_rank && sum > 0.0F; ++i) {
    out[i] /= sum;
  }
}

}  // namespace

void mla_decode_cpu(const MlaDecodeParams& params, int n_threads) {
  dispatch_mla_row(params, [](auto) {});  // refuses what no kernel is built for
  std::vector<MlaCpuRun> runs = cut_into_runs(params, n_threads);
  parallel_shares(n_threads, std::ssize(runs), [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      HWY_DYNAMIC_DISPATCH(attend_run)(params, runs[i]);
    }
  });
  const auto of_sequence = [&](int sequence) {
    const auto first = std::ranges::lower_bound(runs, sequence, {}, &MlaCpuRun::sequence);
    const auto last = std::ranges::upper_bound(runs, sequence, {}, &MlaCpuRun::sequence);
    return std::span<const MlaCpuRun>(first, last);
  };
  const std::int64_t n_rows = static_cast<std::int64_t>(params.cache.n_sequences) * params.n_heads;
  parallel_shares(n_threads, n_rows, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      merge_head(params,
                 of_sequence(static_cast<int>(row / params.n_heads)),
                 static_cast<int>(row % params.n_heads),
                 params.out + row * params.kv_lora_rank);
    }
  });
}

}  // namespace kvfathom::kernels
#endif
