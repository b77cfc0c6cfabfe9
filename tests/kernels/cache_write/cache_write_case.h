// New rows to be written into a cache, and what the cache must hold afterwards.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/cache_write/cache_write.h"
#include "kernels/common/tolerance.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/elements.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/where.h"

namespace kvfathom::kernels {

struct CacheWriteCase {
  KvCacheSpec cache;
  int n_tokens = 5;
  int rotary_dim = 0;
  RopeStyle style = RopeStyle::halves;
  double base = 10000.0;
  Element element = Element::f32;
  std::int32_t first_position = 0;
};

/// New rows for a cache that is full of other rows; every second token of a sequence is replaced.
class CacheWriteProblem {
 public:
  explicit CacheWriteProblem(const CacheWriteCase& of)
      : case_(of), cache_(of.cache), expected_(of.cache) {
    RandomData random(99);
    const int dim = of.cache.k_dim;
    const int heads = of.cache.n_kv_heads;
    const std::size_t n = static_cast<std::size_t>(of.n_tokens) * heads * dim;
    k_ = ElementArray(of.element, random.normals(n)).bytes;
    v_ = ElementArray(of.element, random.normals(n)).bytes;
    std::vector<int> next(cache_.n_sequences(), 0);
    for (int token = 0; token < of.n_tokens; ++token) {
      const int sequence = token % (cache_.n_sequences() + 1) - 1;  // each round has a padding row
      sequences_.push_back(sequence);
      slots_.push_back(sequence < 0 ? 0 : next[sequence]);
      if (sequence >= 0) {
        next[sequence] += 2;
      }
      positions_.push_back(of.first_position + 7 * token);
    }
    turns_ = rope_turns_per_position(of.rotary_dim, of.base);
  }

  CacheWriteParams params(const KvCacheView& view) const {
    return CacheWriteParams{.n_tokens = case_.n_tokens,
                            .head_dim = case_.cache.k_dim,
                            .cache = view,
                            .rope = {case_.rotary_dim, case_.style, turns_.data()},
                            .element = case_.element,
                            .k = k_.data(),
                            .v = v_.data(),
                            .sequences = sequences_.data(),
                            .slots = slots_.data(),
                            .positions = positions_.data()};
  }

  /// Writes with `mutate` applied to the arguments.
  void write(Where where, const std::function<void(CacheWriteParams&)>& mutate = {}) {
    if (where == Where::cpu) {
      CacheWriteParams p = params(cache_.host());
      if (mutate) {
        mutate(p);
      }
      cache_write_cpu(p, 2);
      return;
    }
    const DeviceArray<std::byte> k(k_);
    const DeviceArray<std::byte> v(v_);
    const DeviceArray<std::int32_t> sequences(sequences_);
    const DeviceArray<std::int32_t> slots(slots_);
    const DeviceArray<std::int32_t> positions(positions_);
    const DeviceArray<std::uint64_t> turns(turns_);
    CacheWriteParams p = params(cache_.device());
    p.k = k.data();
    p.v = v.data();
    p.sequences = sequences.data();
    p.slots = slots.data();
    p.positions = positions.data();
    p.rope.turns_per_position = turns.data();
    if (mutate) {
      mutate(p);
    }
    cache_write_launch(p);
    synchronize();
    cache_.download();
  }

  /// Without RoPE: the whole cache equals one that encode_row wrote, untouched rows included.
  bool stored_exactly() {
    const int dim = case_.cache.k_dim;
    for_each_row([&](int token, int head, std::int64_t row) {
      std::vector<float> k(dim);
      std::vector<float> v(dim);
      for (int i = 0; i < dim; ++i) {
        k[i] = element_at(case_.element, k_.data(), row + i);
        v[i] = element_at(case_.element, v_.data(), row + i);
      }
      expected_.set_key(sequences_[token], head, slots_[token], k);
      expected_.set_value(sequences_[token], head, slots_[token], v);
    });
    return cache_.bytes() == expected_.bytes();
  }

  /// With RoPE: K as stored against the rotation in double.
  Comparison compare_keys() {
    const int dim = case_.cache.k_dim;
    const std::size_t n = static_cast<std::size_t>(case_.n_tokens) * case_.cache.n_kv_heads * dim;
    std::vector<double> rotated(n);
    std::vector<double> magnitude(n);
    cache_write_reference(params(cache_.host()), {rotated.data(), magnitude.data()});
    std::vector<double> got;
    std::vector<double> want;
    std::vector<double> bound;
    for_each_row([&](int token, int head, std::int64_t row) {
      const std::vector<double> stored = cache_.key(sequences_[token], head, slots_[token]);
      const std::span values = std::span<const double>(rotated).subspan(row, dim);
      for (int i = 0; i < dim; ++i) {
        const int block = i / kQuantBlock * kQuantBlock;
        StoredValue value{.value = values[i], .head_scale = 0.01 + 0.003 * head};
        for (int j = 0; j < dim; ++j) {
          const double size = std::fabs(values[j]);
          value.largest_in_row = std::max(value.largest_in_row, size);
          if (j >= block && j < block + kQuantBlock) {
            value.largest_in_block = std::max(value.largest_in_block, size);
          }
        }
        got.push_back(stored[i]);
        want.push_back(values[i]);
        bound.push_back(storage_bound(case_.cache.format, value) + rope_bound(magnitude[row + i]));
      }
    });
    return compare<double>(got, want, bound);
  }

  KvCacheData& cache() { return cache_; }
  std::int64_t n_written() const {
    return std::count_if(sequences_.begin(), sequences_.end(), [](int s) { return s >= 0; });
  }

 private:
  void for_each_row(const std::function<void(int, int, std::int64_t)>& visit) const {
    for (int token = 0; token < case_.n_tokens; ++token) {
      for (int head = 0; sequences_[token] >= 0 && head < case_.cache.n_kv_heads; ++head) {
        visit(
            token,
            head,
            (static_cast<std::int64_t>(token) * case_.cache.n_kv_heads + head) * case_.cache.k_dim);
      }
    }
  }

  CacheWriteCase case_;
  KvCacheData cache_, expected_;
  std::vector<std::byte> k_, v_;
  std::vector<std::int32_t> sequences_, slots_, positions_;
  std::vector<std::uint64_t> turns_;
};

inline KvCacheSpec cache_write_spec(KvFormat format, int dim, bool paged) {
  KvCacheSpec out;
  out.format = format;
  out.n_kv_heads = 3;
  out.k_dim = out.v_dim = dim;
  out.lengths = {9, 17};
  out.page_tokens = paged ? 4 : 0;
  out.token_major = paged;
  return out;
}

}  // namespace kvfathom::kernels
