// New K and V rows turned, quantised and stored, and a cache read back as float.
#include <algorithm>
#include <cmath>

#include "calibrate/cases/case.h"
#include "calibrate/cases/random_cache.h"
#include "kernels/cache_write/cache_write.h"
#include "kernels/common/tolerance.h"
#include "model/ops/cache_write.h"

namespace kvfathom::bench {
namespace {

using kernels::CacheWriteParams;
using kernels::DequantiseParams;
using kernels::KvCacheView;
using kernels::KvPlane;

/// Elements of one plane.
std::size_t n_elements(const Shape& shape) {
  return static_cast<std::size_t>(shape["n_sequences"] * shape["tokens"] * shape["n_kv_heads"] *
                                  shape["head_dim"]);
}

/// The plane's rows against what they should stand for, `want` being off by the rotation of
/// `magnitude`.
double worst_of_plane(const CacheWriteParams& params,
                      const KvPlane& plane,
                      const std::vector<double>& want,
                      const std::vector<double>& magnitude) {
  const int dim = params.head_dim;
  double worst = 0.0;
  for (std::int64_t row = 0; row < std::int64_t{params.n_tokens} * params.cache.n_kv_heads; ++row) {
    const auto token = row / params.cache.n_kv_heads;
    const auto head = static_cast<int>(row % params.cache.n_kv_heads);
    const std::vector<double> stored =
        stored_row(params.cache, plane, params.sequences[token], head, params.slots[token], dim);
    const double* values = want.data() + row * dim;
    const auto largest = [&](int first, int last) {
      return std::fabs(*std::max_element(values + first, values + last, [](double a, double b) {
        return std::fabs(a) < std::fabs(b);
      }));
    };
    kernels::StoredValue value{.largest_in_row = largest(0, dim)};
    std::vector<double> bound;
    for (int i = 0; i < dim; ++i) {
      if (i % kernels::kQuantBlock == 0) {
        value.largest_in_block = largest(i, std::min(dim, i + kernels::kQuantBlock));
      }
      value.value = values[i];
      bound.push_back(kernels::storage_bound(params.cache.format, value) +
                      kernels::rope_bound(magnitude[row * dim + i]));
    }
    worst = std::max(
        worst,
        worst_ratio(
            std::vector<float>(stored.begin(), stored.end()), std::span(values, dim), bound));
  }
  return worst;
}

/// `tokens` new rows of every sequence, sequence by sequence, and a contiguous cache that has room
/// for those.
struct CacheWriteSet {
  static constexpr auto* kCpu = kernels::cache_write_cpu;
  static constexpr auto* kLaunch = kernels::cache_write_launch;

  Shape shape;
  Array<std::uint16_t> k, v;
  Array<std::int32_t> sequences, slots, positions;
  Array<std::uint64_t> turns;
  RandomCache cache;

  CacheWriteSet(Place place, const Request& request, std::uint64_t set)
      : shape(request.shape),
        k(place, random_bf16(n_elements(shape), 2 * set)),
        v(place, random_bf16(n_elements(shape), 2 * set + 1)),
        sequences(place, per_token(shape, [](auto sequence, auto) { return sequence; })),
        slots(place, per_token(shape, [](auto, auto token) { return token; })),
        positions(place, per_token(shape, [](auto, auto token) { return 1000 + token; })),
        turns(place, kernels::rope_turns_per_position(shape.as_int("head_dim"), 500000.0)),
        cache(place, cache_shape_of(request), set) {}

  template <typename Value>
  static std::vector<std::int32_t> per_token(const Shape& shape, const Value& value) {
    std::vector<std::int32_t> values;
    for (std::int32_t sequence = 0; sequence < shape["n_sequences"]; ++sequence) {
      for (std::int32_t token = 0; token < shape["tokens"]; ++token) {
        values.push_back(value(sequence, token));
      }
    }
    return values;
  }

  [[nodiscard]] CacheWriteParams params() const {
    CacheWriteParams p;
    p.n_tokens = static_cast<int>(shape["n_sequences"] * shape["tokens"]);
    p.head_dim = shape.as_int("head_dim");
    p.cache = cache.view();
    p.rope.rotary_dim = p.head_dim;
    p.rope.turns_per_position = turns.data();
    p.k = k.data();
    p.v = v.data();
    p.sequences = sequences.data();
    p.slots = slots.data();
    p.positions = positions.data();
    return p;
  }

  [[nodiscard]] double worst_error(const CacheWriteSet& ran) const {
    const RandomCache written = ran.cache.on_host();
    CacheWriteParams p = params();
    p.cache = written.view();
    const std::size_t n = n_elements(shape);
    std::vector<double> rotated(n);
    std::vector<double> magnitude(n);
    std::vector<double> as_given;
    cache_write_reference(p, {rotated.data(), magnitude.data()});
    for (std::size_t i = 0; i < n; ++i) {
      as_given.push_back(element_at(p.element, p.v, static_cast<std::int64_t>(i)));
    }
    return std::max(worst_of_plane(p, p.cache.k, rotated, magnitude),
                    worst_of_plane(p, p.cache.v, as_given, std::vector<double>(n)));
  }
};

/// A cache, and its rows as float.
struct DequantiseSet {
  static constexpr auto* kCpu = kernels::dequantise_cpu;
  static constexpr auto* kLaunch = kernels::dequantise_launch;

  Shape shape;
  RandomCache cache;
  Array<float> k, v;

  DequantiseSet(Place place, const Request& request, std::uint64_t set)
      : shape(request.shape),
        cache(place, cache_shape_of(request), set),
        k(place, std::vector<float>(n_elements(shape), NAN)),
        v(place, std::vector<float>(n_elements(shape), NAN)) {}

  [[nodiscard]] DequantiseParams params() const {
    return {.head_dim = shape.as_int("head_dim"),
            .cache = cache.view(),
            .max_tokens = shape.as_int("tokens"),
            .k = k.data(),
            .v = v.data()};
  }
  [[nodiscard]] double worst_error(const DequantiseSet& ran) const {
    return std::max(worst_of_floats(cache.view().k, ran.k.to_host()),
                    worst_of_floats(cache.view().v, ran.v.to_host()));
  }

  /// Each value is rounded once: any other float is wrong, and counts as infinite.
  [[nodiscard]] double worst_of_floats(const KvPlane& plane, const std::vector<float>& got) const {
    const KvCacheView view = cache.view();
    const int dim = shape.as_int("head_dim");
    std::vector<double> want;
    for (int sequence = 0; sequence < view.n_sequences; ++sequence) {
      for (int head = 0; head < view.n_kv_heads; ++head) {
        for (int token = 0; token < shape["tokens"]; ++token) {
          for (const double value : stored_row(view, plane, sequence, head, token, dim)) {
            want.push_back(static_cast<float>(value));
          }
        }
      }
    }
    return worst_ratio(got, want, std::vector<double>(want.size()));
  }
};

CacheWriteShape cost_shape(const Request& request) {
  return {.n_tokens = request.shape["n_sequences"] * request.shape["tokens"],
          .n_kv_heads = request.shape["n_kv_heads"],
          .head_dim = request.shape["head_dim"],
          .rotary_dim = request.shape["head_dim"],
          .stored_row_bytes = stored_row_bytes(request)};
}

template <typename Run>
Case case_of(const Request& request, const OpCost& cost) {
  return Case{.cost = cost,
              .bytes_per_set = (cost.read + cost.written).value(),
              .prepare = prepare_with<Run>(request)};
}

Case write_case(const Request& request) {
  return case_of<SetsRun<CacheWriteSet>>(request, cache_write_cost(cost_shape(request)));
}
Case dequantise_case(const Request& request) {
  return case_of<SetsRun<DequantiseSet>>(request, dequantise_cost(cost_shape(request)));
}

Shape shape_of(int n_sequences, int tokens, int n_kv_heads, int head_dim) {
  return {{"n_sequences", n_sequences},
          {"tokens", tokens},
          {"n_kv_heads", n_kv_heads},
          {"head_dim", head_dim}};
}

/// A prompt's chunk, and a decode step of a batch.
const Registration kCacheWrite({.name = "cache_write",
                                .formats = kv_format_names(),
                                .tiny = shape_of(2, 5, 3, 64),
                                .shapes = {shape_of(1, 2048, 8, 128), shape_of(64, 1, 8, 128)},
                                .make_case = write_case});
const Registration kDequantise({.name = "dequantise",
                                .formats = kv_format_names(),
                                .tiny = shape_of(2, 5, 3, 64),
                                .shapes = {shape_of(1, 4096, 8, 128)},
                                .make_case = dequantise_case});

}  // namespace
}  // namespace kvfathom::bench
