// Values from keys on the CPU: keys are widened and turned back tile by tile, products by OpenBLAS.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/common/blas.h"
#include "kernels/common/parallel.h"
#include "kernels/value_reconstruction/value_reconstruction.h"

namespace kvfathom::kernels {
namespace {

constexpr int kTileTokens = 64;

float widened(const ValueReconstructionParams& p, std::uint16_t bits) {
  return p.cache.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
}
std::uint16_t narrowed(const ValueReconstructionParams& p, float value) {
  return p.cache.format == KvFormat::bf16 ? to_bf16(value).bits : to_f16(value).bits;
}

/// One head's keys of some tokens, as floats side by side.
void widen_keys(const ValueReconstructionParams& p,
                int sequence,
                int head,
                int first,
                int n,
                float* to,
                std::int64_t stride) {
  for (int i = 0; i < n; ++i) {
    const auto* row = reinterpret_cast<const std::uint16_t*>(
        row_data(p.cache.k, slot_of(p.cache, sequence, first + i), head));
    for (int d = 0; d < p.head_dim; ++d) {
      to[i * stride + d] = widened(p, row[d]);
    }
  }
}
void turn_back(
    const ValueReconstructionParams& p, int first, int n, float* keys, std::int64_t stride) {
  const int half = p.head_dim / 2;
  for (int i = 0; i < n && p.cos_sin != nullptr; ++i) {
    const float* turn = p.cos_sin + static_cast<std::int64_t>(first + i) * half * 2;
    float* low = keys + i * stride;
    float* high = low + half;
    for (int d = 0; d < half; ++d) {
      const float was = low[d];
      low[d] = was * turn[2 * d] + high[d] * turn[2 * d + 1];
      high[d] = high[d] * turn[2 * d] - was * turn[2 * d + 1];
    }
  }
}

std::vector<float> widened_projector(const ValueReconstructionParams& p, int n_threads) {
  const std::int64_t n = static_cast<std::int64_t>(kv_width(p)) * kv_width(p);
  std::vector<float> wide(static_cast<std::size_t>(n));
  parallel_shares(n_threads, n, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      wide[i] = widened(p, p.projector[i]);
    }
  });
  return wide;
}

/// Softmax of the heads of one KV head over n tokens; `weights` is [group, n].
void head_weights(
    const ValueReconstructionParams& p, int sequence, int kv_head, int n, float* weights) {
  const int group = p.n_heads / p.cache.n_kv_heads;
  const std::int64_t row = static_cast<std::int64_t>(sequence) * p.n_heads + kv_head * group;
  std::vector<float> queries(static_cast<std::size_t>(group) * p.head_dim);
  for (std::size_t i = 0; i < queries.size(); ++i) {
    queries[i] = widened(p, p.q[row * p.head_dim + static_cast<std::int64_t>(i)]);
  }
  std::vector<float> keys(static_cast<std::size_t>(kTileTokens) * p.head_dim);
  for (int first = 0; first < n; first += kTileTokens) {
    const int tokens = std::min(kTileTokens, n - first);
    widen_keys(p, sequence, kv_head, first, tokens, keys.data(), p.head_dim);
    sgemm(SgemmShape{group, tokens, p.head_dim, p.softmax_scale, 0.0F, Transposed::yes},
          {queries.data(), p.head_dim},
          {keys.data(), p.head_dim},
          {weights + first, n},
          1);
  }
  for (int i = 0; i < group; ++i) {
    float* of_row = weights + static_cast<std::int64_t>(i) * n;
    const float largest = *std::max_element(of_row, of_row + n);
    float sum = 0.0F;
    for (int token = 0; token < n; ++token) {
      of_row[token] = std::exp(of_row[token] - largest);
      sum += of_row[token];
    }
    for (int token = 0; token < n; ++token) {
      of_row[token] /= sum;
    }
  }
}

void decode_sequence(const ValueReconstructionParams& p,
                     int sequence,
                     const float* projector,
                     int n_threads) {
  const int n = p.cache.lengths[sequence];
  const int width = kv_width(p);
  const int group = p.n_heads / p.cache.n_kv_heads;
  float* out = p.out + static_cast<std::int64_t>(sequence) * p.n_heads * p.head_dim;
  if (n == 0) {
    std::fill(out, out + p.n_heads * p.head_dim, 0.0F);
    return;
  }
  std::vector<float> weights(static_cast<std::size_t>(p.n_heads) * n);
  std::vector<float> sums(static_cast<std::size_t>(p.n_heads) * width, 0.0F);
  parallel_shares(n_threads, p.cache.n_kv_heads, [&](int, auto first, auto last) {
    for (auto head = first; head < last; ++head) {
      head_weights(p, sequence, static_cast<int>(head), n, weights.data() + head * group * n);
    }
  });
  // A thread owns the columns of some KV heads, for all query heads.
  parallel_shares(n_threads, p.cache.n_kv_heads, [&](int, auto first, auto last) {
    std::vector<float> keys(static_cast<std::size_t>(kTileTokens) * p.head_dim);
    for (auto head = first; head < last; ++head) {
      for (int token = 0; token < n; token += kTileTokens) {
        const int tokens = std::min(kTileTokens, n - token);
        widen_keys(p, sequence, static_cast<int>(head), token, tokens, keys.data(), p.head_dim);
        turn_back(p, token, tokens, keys.data(), p.head_dim);
        sgemm(SgemmShape{p.n_heads, p.head_dim, tokens, 1.0F, 1.0F},
              {weights.data() + token, n},
              {keys.data(), p.head_dim},
              {sums.data() + head * p.head_dim, width},
              1);
      }
    }
  });
  parallel_shares(n_threads, p.cache.n_kv_heads, [&](int, auto first, auto last) {
    for (auto head = first; head < last; ++head) {
      sgemm(SgemmShape{group, p.head_dim, width},
            {sums.data() + head * group * width, width},
            {projector + head * p.head_dim, width},
            {out + head * group * p.head_dim, p.head_dim},
            1);
    }
  });
}

}  // namespace

void value_rows_cpu(const ValueReconstructionParams& p, int n_threads) {
  value_reconstruction_check(p);
  const int width = kv_width(p);
  const std::vector<float> projector = widened_projector(p, n_threads);
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    const int n = p.cache.lengths[sequence];
    const std::int64_t tiles = (n + kTileTokens - 1) / kTileTokens;
    parallel_shares(n_threads, tiles, [&](int, auto first, auto last) {
      std::vector<float> keys(static_cast<std::size_t>(kTileTokens) * width);
      std::vector<float> values(keys.size());
      for (auto tile = first; tile < last; ++tile) {
        const int token = static_cast<int>(tile) * kTileTokens;
        const int tokens = std::min(kTileTokens, n - token);
        for (int head = 0; head < p.cache.n_kv_heads; ++head) {
          float* of_head = keys.data() + head * p.head_dim;
          widen_keys(p, sequence, head, token, tokens, of_head, width);
          turn_back(p, token, tokens, of_head, width);
        }
        sgemm(SgemmShape{tokens, width, width},
              {keys.data(), width},
              {projector.data(), width},
              {values.data(), width},
              1);
        std::uint16_t* to =
            p.values + (static_cast<std::int64_t>(sequence) * p.token_capacity + token) * width;
        for (std::int64_t i = 0; i < static_cast<std::int64_t>(tokens) * width; ++i) {
          to[i] = narrowed(p, values[i]);
        }
      }
    });
  }
}

void value_decode_cpu(const ValueReconstructionParams& p, int n_threads) {
  value_reconstruction_check(p);
  const std::vector<float> projector = widened_projector(p, n_threads);
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    decode_sequence(p, sequence, projector.data(), n_threads);
  }
}

}  // namespace kvfathom::kernels
