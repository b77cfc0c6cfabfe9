// Values from keys on the CPU: keys are widened and turned back tile by tile, into the nearest
// cache. Products of all tokens with the projector are OpenBLAS's.
#include <algorithm>
#include <vector>

#include "kernels/common/attention_tile_cpu.h"
#include "kernels/common/blas.h"
#include "kernels/common/kv_rows_cpu.h"
#include "kernels/common/parallel.h"
#include "kernels/value_reconstruction/value_reconstruction.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/value_reconstruction/value_reconstruction_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Undoes the rotation of one head's key, in place; `half` is a multiple of 8.
void turn_back_key(const float* cos_sin, int half, float* key) {
  const hn::CappedTag<float, 8> tag;
  for (int i = 0; i < half; i += static_cast<int>(hn::Lanes(tag))) {
    hn::Vec<decltype(tag)> cosine, sine;
    hn::LoadInterleaved2(tag, cos_sin + 2 * i, cosine, sine);
    const auto low = hn::LoadU(tag, key + i);
    const auto high = hn::LoadU(tag, key + half + i);
    hn::StoreU(hn::MulAdd(low, cosine, hn::Mul(high, sine)), tag, key + i);
    hn::StoreU(hn::MulSub(high, cosine, hn::Mul(low, sine)), tag, key + half + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {

HWY_EXPORT(turn_back_key);

namespace {

using Floats = std::vector<float>;

constexpr int kTileTokens = 64;

int n_tiles(int n) {
  return (n + kTileTokens - 1) / kTileTokens;
}
Floats floats(std::int64_t rows, std::int64_t columns) {
  return Floats(static_cast<std::size_t>(rows * columns));
}

void widen(const ValueReconstructionParams& p, const void* row, int n, float* to) {
  decode_row_cpu(p.cache.format, static_cast<const std::byte*>(row), nullptr, 1.0F, n, to);
}

/// One head's keys of some tokens, as floats side by side.
void widen_keys(
    const ValueReconstructionParams& p, int sequence, int head, int first, int n, MatrixF32 to) {
  for (int i = 0; i < n; ++i) {
    const KvSlot slot = slot_of(p.cache, sequence, first + i);
    widen(p, row_data(p.cache.k, slot, head), p.head_dim, to.data + i * to.stride);
  }
}
/// The same as they were before their rotation.
void widen_turned_back(
    const ValueReconstructionParams& p, int sequence, int head, int first, int n, MatrixF32 to) {
  widen_keys(p, sequence, head, first, n, to);
  const int half = p.head_dim / 2;
  for (int i = 0; i < n && p.cos_sin != nullptr; ++i) {
    const float* turn = p.cos_sin + static_cast<std::int64_t>(first + i) * p.head_dim;
    HWY_DYNAMIC_DISPATCH(turn_back_key)(turn, half, to.data + i * to.stride);
  }
}

/// Softmax weights of one sequence, not yet divided by their sums.
struct Weights {
  Floats rows;  // [n_heads, stride]
  Floats sums;  // [n_heads]
  std::int64_t stride;
};
Weights attention_weights(const ValueReconstructionParams& p, int sequence, int n_threads) {
  const int n = p.cache.lengths[sequence];
  const int group = p.n_heads / p.cache.n_kv_heads;
  const std::int64_t stride = (n + kSoftmaxPadding - 1) / kSoftmaxPadding * kSoftmaxPadding;
  Weights weights{floats(p.n_heads, stride), floats(p.n_heads, 1), stride};
  Floats queries = floats(p.n_heads, p.head_dim);
  const std::int64_t at = static_cast<std::int64_t>(sequence) * p.n_heads * p.head_dim;
  widen(p, p.q + at, p.n_heads * p.head_dim, queries.data());
  parallel_shares(n_threads, n_tiles(n), [&](int, std::int64_t begin, std::int64_t end) {
    Floats keys = floats(kTileTokens, p.head_dim);
    for (auto first = static_cast<int>(begin) * kTileTokens;
         first < std::min<std::int64_t>(n, end * kTileTokens);
         first += kTileTokens) {
      const int tokens = std::min(kTileTokens, n - first);
      for (int head = 0; head < p.cache.n_kv_heads; ++head) {
        widen_keys(p, sequence, head, first, tokens, {keys.data(), p.head_dim});
        score_tile_cpu({queries.data() + head * group * p.head_dim, p.head_dim},
                       group,
                       {keys.data(), p.head_dim},
                       tokens,
                       p.head_dim,
                       {weights.rows.data() + head * group * stride + first, stride});
      }
    }
  });
  parallel_shares(n_threads, p.n_heads, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t head = first; head < last; ++head) {
      weights.sums[head] = softmax_row_cpu(weights.rows.data() + head * stride, n, p.softmax_scale);
    }
  });
  return weights;
}

/// sums [n_heads, kv_width]: P K over the full rows of one sequence.
void sum_keys(const ValueReconstructionParams& p, int sequence, float* sums, int n_threads) {
  const int n = p.cache.lengths[sequence];
  const std::int64_t width = kv_width(p);
  if (n == 0) {
    std::fill_n(sums, p.n_heads * width, 0.0F);
    return;
  }
  const Weights weights = attention_weights(p, sequence, n_threads);
  const auto add_tiles = [&](std::int64_t begin, std::int64_t end, float* to) {
    Floats keys = floats(kTileTokens, p.head_dim);
    for (auto first = static_cast<int>(begin) * kTileTokens;
         first < std::min<std::int64_t>(n, end * kTileTokens);
         first += kTileTokens) {
      const int tokens = std::min(kTileTokens, n - first);
      for (int head = 0; head < p.cache.n_kv_heads; ++head) {
        widen_turned_back(p, sequence, head, first, tokens, {keys.data(), p.head_dim});
        add_values_cpu({weights.rows.data() + first, weights.stride},
                       p.n_heads,
                       {keys.data(), p.head_dim},
                       tokens,
                       p.head_dim,
                       {to + head * p.head_dim, width});
      }
    }
  };
  parallel_sums(n_threads, n_tiles(n), p.n_heads * width, sums, add_tiles);
  for (std::int64_t i = 0; i < p.n_heads * width; ++i) {
    sums[i] /= weights.sums[i / width];
  }
}

/// p.out = sums [n_sequences, n_heads, kv_width] times each head's columns of the projector, whose
/// rows are read once.
void project(const ValueReconstructionParams& p, const float* sums, int n_threads) {
  constexpr std::int64_t kRowsAtOnce = 16;
  const std::int64_t width = kv_width(p);
  const int group = p.n_heads / p.cache.n_kv_heads;
  const auto add_rows = [&](std::int64_t begin, std::int64_t end, float* out) {
    Floats rows = floats(kRowsAtOnce, width);
    for (std::int64_t first = begin; first < end; first += kRowsAtOnce) {
      const auto n = static_cast<int>(std::min(kRowsAtOnce, end - first));
      widen(p, p.projector + first * width, static_cast<int>(n * width), rows.data());
      for (int i = 0; i < p.cache.n_sequences * p.cache.n_kv_heads; ++i) {
        const std::int64_t head = static_cast<std::int64_t>(i) * group;
        add_values_cpu({sums + head * width + first, width},
                       group,
                       {rows.data() + i % p.cache.n_kv_heads * p.head_dim, width},
                       n,
                       p.head_dim,
                       {out + head * p.head_dim, p.head_dim});
      }
    }
  };
  const std::int64_t n_out =
      static_cast<std::int64_t>(p.cache.n_sequences) * p.n_heads * p.head_dim;
  parallel_sums(n_threads, width, n_out, p.out, add_rows);
}

}  // namespace

void value_rows_cpu(const ValueReconstructionParams& p, int n_threads) {
  constexpr int kMostTokens = 512;  // OpenBLAS packs the projector again for each tile
  value_reconstruction_check(p);
  const std::int64_t width = kv_width(p);
  Floats projector = floats(width, width);
  parallel_shares(n_threads, width, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      widen(p, p.projector + row * width, static_cast<int>(width), projector.data() + row * width);
    }
  });
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    const int n = p.cache.lengths[sequence];
    parallel_shares(n_threads, n, [&](int, std::int64_t begin, std::int64_t end) {
      const std::int64_t tile = std::min<std::int64_t>(kMostTokens, end - begin);
      Floats keys = floats(tile, width);
      Floats values = floats(tile, width);
      for (auto first = static_cast<int>(begin); first < end; first += kMostTokens) {
        const int tokens = std::min(kMostTokens, static_cast<int>(end) - first);
        for (int head = 0; head < p.cache.n_kv_heads; ++head) {
          widen_turned_back(
              p, sequence, head, first, tokens, {keys.data() + head * p.head_dim, width});
        }
        sgemm({.m = tokens, .n = static_cast<int>(width), .k = static_cast<int>(width)},
              {keys.data(), width},
              {projector.data(), width},
              {values.data(), width},
              1);
        for (int token = 0; token < tokens; ++token) {
          const std::int64_t row =
              static_cast<std::int64_t>(sequence) * p.token_capacity + first + token;
          encode_row_cpu(p.cache.format,
                         values.data() + token * width,
                         static_cast<int>(width),
                         1.0F,
                         reinterpret_cast<std::byte*>(p.values + row * width),
                         nullptr);
        }
      }
    });
  }
}

void value_decode_cpu(const ValueReconstructionParams& p, int n_threads) {
  value_reconstruction_check(p);
  const std::int64_t of_sequence = static_cast<std::int64_t>(p.n_heads) * kv_width(p);
  Floats sums = floats(p.cache.n_sequences, of_sequence);
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    sum_keys(p, sequence, sums.data() + sequence * of_sequence, n_threads);
  }
  project(p, sums.data(), n_threads);
}

}  // namespace kvfathom::kernels
#endif
