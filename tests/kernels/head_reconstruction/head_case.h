// A layer of stored and predicted heads with everything that its reconstruction reads, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/tolerance.h"
#include "kernels/head_reconstruction/head_reconstruction.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"

namespace kvfathom::kernels {

/// `stored[h]` is what KV head h reads; `predicted[h]` whether through a map.
struct SideSpec {
  std::vector<std::vector<int>> stored;
  std::vector<bool> predicted;
};

struct HeadShape {
  KvFormat format = KvFormat::bf16;
  int query_heads_per_kv_head = 2;
  int head_dim = 32;
  std::vector<int> lengths = {40};
  int n_first = 3, n_last = 2;
  int page_tokens = 0;
  int n_splits = 1;
  bool predict_keys = true, predict_values = true;
};

/// The references stand in a plane of four stored heads, of which the last is another layer's.
inline SideSpec key_side(bool predict) {
  return predict
             ? SideSpec{{{0}, {1}, {2}, {0, 2, 3}, {0, 2, 3}}, {false, false, false, true, true}}
             : SideSpec{{{0}, {1}, {2}, {3}, {1}}, {false, false, false, false, false}};
}
inline SideSpec value_side(bool predict) {
  return predict ? SideSpec{{{0}, {0, 3}, {2}, {1, 2, 3}, {3}}, {false, true, false, true, false}}
                 : SideSpec{{{0}, {1}, {2}, {3}, {1}}, {false, false, false, false, false}};
}

/// One side's arrays on the host.
struct SideData {
  HeadTables tables;
  std::vector<std::uint16_t> maps, exact;
  std::vector<float> bias;

  [[nodiscard]] HeadSources sizes() const {
    HeadSources s;
    s.n_maps = tables.n_maps;
    s.max_references = tables.max_references;
    s.groups.n_groups = static_cast<int>(tables.bounds.size()) / 4;
    s.groups.rows_per_group = tables.rows_per_group;
    s.groups.slices_per_group = tables.slices_per_group;
    return s;
  }
  [[nodiscard]] HeadSources view() const {
    HeadSources s = sizes();
    s.map_of_head = tables.map_of_head.data();
    s.stored = tables.stored.data();
    s.n_stored = tables.n_stored.data();
    s.maps = maps.data();
    s.bias = bias.data();
    s.exact = exact.data();
    s.groups.bounds = tables.bounds.data();
    s.groups.rows = tables.rows.data();
    s.groups.slices = tables.slices.data();
    return s;
  }
};

/// The same on the device.
struct DeviceSideData {
  explicit DeviceSideData(const SideData& s)
      : sizes(s.sizes()),
        map_of_head(s.tables.map_of_head),
        stored(s.tables.stored),
        n_stored(s.tables.n_stored),
        bounds(s.tables.bounds),
        group_rows(s.tables.rows),
        slices(s.tables.slices),
        maps(s.maps),
        exact(s.exact),
        bias(s.bias) {}
  [[nodiscard]] HeadSources view() const {
    HeadSources s = sizes;
    s.map_of_head = map_of_head.data();
    s.stored = stored.data();
    s.n_stored = n_stored.data();
    s.maps = maps.data();
    s.bias = bias.data();
    s.exact = exact.data();
    s.groups.bounds = bounds.data();
    s.groups.rows = group_rows.data();
    s.groups.slices = slices.data();
    return s;
  }
  HeadSources sizes;
  DeviceArray<std::int32_t> map_of_head, stored, n_stored, bounds, group_rows, slices;
  DeviceArray<std::uint16_t> maps, exact;
  DeviceArray<float> bias;
};

class HeadCase {
 public:
  static constexpr int kKvHeads = 5;
  static constexpr int kStored = 4;

  explicit HeadCase(const HeadShape& s)
      : shape(s),
        cache(KvCacheSpec{.format = s.format,
                          .n_kv_heads = kStored,
                          .k_dim = s.head_dim,
                          .v_dim = s.head_dim,
                          .lengths = s.lengths,
                          .page_tokens = s.page_tokens,
                          .seed = 21}),
        random_(4) {
    fill(k, key_side(s.predict_keys));
    fill(v, value_side(s.predict_values));
    for (int i = 0; i < cache.n_sequences() * n_heads() * s.head_dim; ++i) {
      q.push_back(element(random_.normal()));
    }
  }

  [[nodiscard]] int n_heads() const { return kKvHeads * shape.query_heads_per_kv_head; }
  [[nodiscard]] int capacity() const { return cache.longest() + 1; }
  [[nodiscard]] double roundoff() const {
    return shape.format == KvFormat::bf16 ? kUnitRoundoffBf16 : kUnitRoundoffF16;
  }
  [[nodiscard]] std::uint16_t element(float value) const {
    return shape.format == KvFormat::bf16 ? to_bf16(value).bits : to_f16(value).bits;
  }
  [[nodiscard]] float number(std::uint16_t bits) const {
    return shape.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
  }

  [[nodiscard]] HeadReconstructionParams host() {
    HeadReconstructionParams p = shapes();
    p.cache = cache.host();
    p.k = k.view();
    p.v = v.view();
    p.q = q.data();
    p.out = out.data();
    p.rows = rows.data();
    return p;
  }
  void poison(HeadSide side = HeadSide::keys) {
    out.assign(q.size(), NAN);
    const int n_maps = side == HeadSide::keys ? k.tables.n_maps : v.tables.n_maps;
    rows.assign(
        static_cast<std::size_t>(cache.n_sequences()) * capacity() * n_maps * shape.head_dim,
        0x7fff);
  }
  void decode_on_cpu(int n_threads) {
    poison();
    head_decode_cpu(host(), n_threads);
  }
  void rows_on_cpu(HeadSide side, int n_threads) {
    poison(side);
    head_rows_cpu(host(), side, n_threads);
  }
  /// `mutate` may falsify the arguments; the reference never sees that.
  template <typename Mutate>
  void decode_on_device(const Mutate& mutate) {
    poison();
    const DeviceSideData d_k(k), d_v(v);
    const DeviceArray<std::uint16_t> d_q(q);
    const DeviceArray<float> d_out(out);
    HeadReconstructionParams p = shapes();
    p.cache = cache.device();
    p.k = d_k.view();
    p.v = d_v.view();
    p.q = d_q.data();
    p.out = d_out.data();
    const int longest = cache.longest();
    const DeviceArray<std::byte> scratch(
        static_cast<std::size_t>(head_decode_scratch_bytes(p, longest, shape.n_splits)));
    mutate(p);
    head_decode_launch(p, longest, shape.n_splits, scratch.data(), nullptr);
    synchronize();
    out = d_out.to_host();
  }
  void decode_on_device() {
    decode_on_device([](HeadReconstructionParams&) {});
  }
  void rows_on_device(HeadSide side) {
    poison(side);
    const DeviceSideData d_k(k), d_v(v);
    const DeviceArray<std::uint16_t> d_rows(rows);
    HeadReconstructionParams p = shapes();
    p.cache = cache.device();
    p.k = d_k.view();
    p.v = d_v.view();
    p.rows = d_rows.data();
    head_rows_launch(p, side, cache.longest(), nullptr);
    synchronize();
    rows = d_rows.to_host();
  }

  /// `converts`: mapped queries and weights are rounded to 16 bits.
  [[nodiscard]] testing::AssertionResult decode_is_right(bool converts) {
    std::vector<double> want(out.size());
    std::vector<double> weighted(out.size());
    std::vector<double> score(out.size() / shape.head_dim);
    head_decode_reference(host(), {want.data(), weighted.data(), score.data()});
    Roundings u;
    u.operands = converts && shape.predict_keys ? roundoff() : 0.0;
    u.probabilities = converts ? roundoff() : 0.0;
    // Two sums, over head_dim and over the references: sqrt(a) + sqrt(b) <= sqrt(2 (a + b)).
    const int terms =
        2 * shape.head_dim * (1 + std::max(k.tables.max_references, v.tables.max_references));
    std::vector<double> bounds(out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      const int sequence = static_cast<int>(i) / (n_heads() * shape.head_dim);
      const AttentionMagnitudes m{weighted[i], score[i / shape.head_dim]};
      bounds[i] = attention_bound(want[i], m, cache.length(sequence, 0), terms, u);
    }
    return close_to<float>(out, want, bounds);
  }
  [[nodiscard]] testing::AssertionResult rows_are_right(HeadSide side) {
    std::vector<double> want(rows.size(), NAN);
    std::vector<double> magnitude(rows.size(), 0.0);
    head_rows_reference(host(), side, {want.data(), magnitude.data()});
    Roundings u;
    u.output = roundoff();
    std::vector<float> got(rows.size());
    std::vector<double> bounds(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      got[i] = number(rows[i]);  // beyond a length: still the NaN it was
      // Exact rows are copied, and have no magnitude.
      bounds[i] = magnitude[i] == 0.0
                      ? 0.0
                      : dot_bound(want[i], magnitude[i], 4 * shape.head_dim, u) * (1.0 + u.output);
    }
    return close_to<float>(got, want, bounds);
  }

  HeadShape shape;
  KvCacheData cache;
  SideData k, v;
  std::vector<std::uint16_t> q, rows;
  std::vector<float> out;

 private:
  void fill(SideData& side, const SideSpec& spec) {
    side.tables = group_heads(n_heads(), spec.stored, spec.predicted);
    const int dim = shape.head_dim;
    const int stride = side.tables.max_references * dim;
    for (int head = 0; head < kKvHeads; ++head) {
      if (!spec.predicted[head]) {
        continue;
      }
      const int columns = static_cast<int>(spec.stored[head].size()) * dim;
      for (int d = 0; d < dim; ++d) {
        for (int column = 0; column < stride; ++column) {
          const float scale = 1.0F / std::sqrt(static_cast<float>(columns));
          // What a map with fewer references does not use is NaN.
          side.maps.push_back(column < columns ? element(random_.normal(scale)) : 0x7fff);
        }
        side.bias.push_back(random_.normal(0.5F));
      }
    }
    const int n_exact =
        cache.n_sequences() * (shape.n_first + shape.n_last) * side.tables.n_maps * dim;
    for (int i = 0; i < n_exact; ++i) {
      side.exact.push_back(element(random_.normal()));
    }
  }
  [[nodiscard]] HeadReconstructionParams shapes() const {
    HeadReconstructionParams p;
    p.n_heads = n_heads();
    p.n_kv_heads = kKvHeads;
    p.head_dim = shape.head_dim;
    p.n_first = shape.n_first;
    p.n_last = shape.n_last;
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
    p.token_capacity = capacity();
    return p;
  }

  RandomData random_;
};

}  // namespace kvfathom::kernels
