#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "kernels/cache_write/cache_write.h"
#include "kernels/common/kv_rows_cpu.h"
#include "kernels/common/parallel.h"

namespace kvfathom::kernels {
namespace {

std::byte* writable(const std::byte* row) {
  return const_cast<std::byte*>(row);  // NOLINT: the params ask for writable memory
}

/// Cosine and sine of every pair's angle at one position.
void fill_angles(const Rope& rope, std::int32_t position, std::vector<float>& cosine_sine) {
  const int n_pairs = rope.rotary_dim / 2;
  for (int i = 0; i < n_pairs; ++i) {
    const double turns = rope_turns(rope.turns_per_position[i], position);
    const double angle = 2.0 * std::numbers::pi * turns;
    cosine_sine[i] = static_cast<float>(std::cos(angle));
    cosine_sine[n_pairs + i] = static_cast<float>(std::sin(angle));
  }
}

void rotate(const Rope& rope, const std::vector<float>& cosine_sine, float* row) {
  const int n_pairs = rope.rotary_dim / 2;
  for (int i = 0; i < n_pairs; ++i) {
    float& first = row[rope_first(rope, i)];
    float& second = row[rope_second(rope, i)];
    const float x = first;
    const float y = second;
    first = x * cosine_sine[i] - y * cosine_sine[n_pairs + i];
    second = x * cosine_sine[n_pairs + i] + y * cosine_sine[i];
  }
}

/// Input elements first .. first + head_dim - 1.
void load_row(const CacheWriteParams& params,
              const void* input,
              std::int64_t first,
              std::vector<float>& row) {
  if (params.element == Element::f32) {
    std::copy_n(static_cast<const float*>(input) + first, params.head_dim, row.begin());
    return;
  }
  const KvFormat same = params.element == Element::f16 ? KvFormat::f16 : KvFormat::bf16;
  const auto* bytes = static_cast<const std::byte*>(input) + 2 * first;
  decode_row_cpu(same, bytes, nullptr, 1.0F, params.head_dim, row.data());
}

void write_row(const CacheWriteParams& params,
               const KvPlane& plane,
               int token,
               int head,
               const std::vector<float>& row) {
  const KvCacheView& cache = params.cache;
  const KvSlot at = slot_of(cache, params.sequences[token], params.slots[token]);
  std::byte* scales = row_scale_bytes(cache.format, params.head_dim) > 0
                          ? writable(row_scales(plane, at, head))
                          : nullptr;
  encode_row_cpu(cache.format,
                 row.data(),
                 params.head_dim,
                 head_scale_of(cache, plane, head),
                 writable(row_data(plane, at, head)),
                 scales);
}

void write_token(const CacheWriteParams& params,
                 int token,
                 std::vector<float>& cosine_sine,
                 std::vector<float>& row) {
  fill_angles(params.rope, params.positions != nullptr ? params.positions[token] : 0, cosine_sine);
  for (int head = 0; head < params.cache.n_kv_heads; ++head) {
    const std::int64_t first =
        (std::int64_t{token} * params.cache.n_kv_heads + head) * params.head_dim;
    load_row(params, params.k, first, row);
    rotate(params.rope, cosine_sine, row.data());
    write_row(params, params.cache.k, token, head, row);
    if (params.v != nullptr) {
      load_row(params, params.v, first, row);
      write_row(params, params.cache.v, token, head, row);
    }
  }
}

}  // namespace

void cache_write_cpu(const CacheWriteParams& params, int n_threads) {
  check_cache_write(params);
  parallel_shares(n_threads, params.n_tokens, [&](int, std::int64_t first, std::int64_t last) {
    std::vector<float> cosine_sine(params.rope.rotary_dim);
    std::vector<float> row(params.head_dim);
    for (std::int64_t token = first; token < last; ++token) {
      if (params.sequences[token] >= 0) {
        write_token(params, static_cast<int>(token), cosine_sine, row);
      }
    }
  });
}

void dequantise_cpu(const DequantiseParams& params, int n_threads) {
  check_dequantise(params);
  const KvCacheView& cache = params.cache;
  const std::int64_t n_rows =
      std::int64_t{cache.n_sequences} * cache.n_kv_heads * params.max_tokens;
  const bool scaled = row_scale_bytes(cache.format, params.head_dim) > 0;
  parallel_shares(n_threads, n_rows, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const int token = static_cast<int>(row % params.max_tokens);
      const int head = static_cast<int>(row / params.max_tokens % cache.n_kv_heads);
      const int sequence = static_cast<int>(row / params.max_tokens / cache.n_kv_heads);
      if (token >= length_of(cache, sequence, head)) {
        continue;
      }
      const KvSlot at = slot_of(cache, sequence, token);
      for (const auto& [plane, out] :
           {std::pair{&cache.k, params.k}, std::pair{&cache.v, params.v}}) {
        decode_row_cpu(cache.format,
                       row_data(*plane, at, head),
                       scaled ? row_scales(*plane, at, head) : nullptr,
                       head_scale_of(cache, *plane, head),
                       params.head_dim,
                       out + row * params.head_dim);
      }
    }
  });
}

}  // namespace kvfathom::kernels
