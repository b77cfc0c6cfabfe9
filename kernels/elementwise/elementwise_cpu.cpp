#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/common/parallel.h"
#include "kernels/elementwise/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/elementwise_cpu.cpp"
// foreach_target comes first: it includes this file again.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>

#include "kernels/common/widen-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels {
namespace HWY_NAMESPACE {

HWY_INLINE void widen(
    Element element, const void* array, std::int64_t first, std::int64_t n, float* to) {
  if (element == Element::f32) {
    std::copy_n(static_cast<const float*>(array) + first, n, to);
  } else if (element == Element::f16) {
    widen_f16(static_cast<const std::uint16_t*>(array) + first, n, to);
  } else {
    widen_bf16(static_cast<const std::uint16_t*>(array) + first, n, to);
  }
}
HWY_INLINE void narrow(
    Element element, const float* from, std::int64_t n, void* array, std::int64_t first) {
  if (element == Element::f32) {
    std::copy_n(from, n, static_cast<float*>(array) + first);
    return;
  }
  auto* to = static_cast<std::uint16_t*>(array) + first;
  for (std::int64_t i = 0; i < n; ++i) {
    to[i] = element == Element::f16 ? to_f16(from[i]).bits : to_bf16(from[i]).bits;
  }
}

/// to = f(floats, a, b) by whole vectors: n is a multiple of 8.
template <typename F>
HWY_INLINE void for_each_vector(
    const float* a, const float* b, std::int64_t n, float* to, const F& f) {
  const hn::CappedTag<float, 8> floats;
  for (std::int64_t i = 0; i < n; i += static_cast<std::int64_t>(hn::Lanes(floats))) {
    hn::StoreU(f(floats, hn::LoadU(floats, a + i), hn::LoadU(floats, b + i)), floats, to + i);
  }
}

HWY_INLINE float sum_of_squares(const float* values, std::int64_t n) {
  const hn::CappedTag<float, 8> floats;
  auto even = hn::Zero(floats);
  auto odd = hn::Zero(floats);
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(floats));
  std::int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto v0 = hn::LoadU(floats, values + i);
    const auto v1 = hn::LoadU(floats, values + i + lanes);
    even = hn::MulAdd(v0, v0, even);
    odd = hn::MulAdd(v1, v1, odd);
  }
  for (; i < n; i += lanes) {
    const auto v = hn::LoadU(floats, values + i);
    even = hn::MulAdd(v, v, even);
  }
  return hn::GetLane(hn::SumOfLanes(floats, hn::Add(even, odd)));
}

void rms_norm_rows(const RmsNormParams& p, std::int64_t first, std::int64_t last) {
  const int n = p.n_columns;
  std::vector<float> y(static_cast<std::size_t>(n));
  std::vector<float> other(y.size());
  std::vector<float> weight(y.size());
  widen(p.element, p.weight, 0, n, weight.data());
  for (std::int64_t row = first; row < last; ++row) {
    widen(p.element, p.x, row * n, n, y.data());
    if (p.residual != nullptr) {
      widen(p.element, p.residual, row * n, n, other.data());
      for_each_vector(
          y.data(), other.data(), n, y.data(), [](auto, auto a, auto b) { return hn::Add(a, b); });
      narrow(p.element, y.data(), n, p.residual, row * n);
      widen(p.element, p.residual, row * n, n, y.data());
    }
    const float mean = sum_of_squares(y.data(), n) / static_cast<float>(n);
    const float inverse = 1.0F / std::sqrt(mean + p.epsilon);
    for_each_vector(y.data(), weight.data(), n, y.data(), [&](auto floats, auto value, auto scale) {
      const auto factor = hn::Add(scale, hn::Set(floats, p.weight_offset));
      return hn::Mul(hn::Mul(value, hn::Set(floats, inverse)), factor);
    });
    narrow(p.element, y.data(), n, p.out, row * n);
  }
}

constexpr std::int64_t kStretch = 1024;

void add_part(const AddParams& p, std::int64_t first, std::int64_t last) {
  float a[kStretch];
  float b[kStretch];
  for (std::int64_t at = first; at < last; at += kStretch) {
    const std::int64_t n = std::min(kStretch, last - at);
    widen(p.element, p.a, at, n, a);
    widen(p.element, p.b, at, n, b);
    for_each_vector(a, b, n, a, [](auto, auto x, auto y) { return hn::Add(x, y); });
    narrow(p.element, a, n, p.out, at);
  }
}

void gated_activation_rows(const GatedActivationParams& p, std::int64_t first, std::int64_t last) {
  float gate[kStretch];
  float up[kStretch];
  for (std::int64_t row = first; row < last; ++row) {
    for (std::int64_t at = 0; at < p.n_columns; at += kStretch) {
      const std::int64_t n = std::min(kStretch, p.n_columns - at);
      widen(p.element, p.gate, row * p.input_stride + at, n, gate);
      if (p.up != nullptr) {
        widen(p.element, p.up, row * p.input_stride + at, n, up);
      } else {
        std::fill_n(up, n, 1.0F);
      }
      for_each_vector(gate, up, n, gate, [&](auto floats, auto x, auto y) {
        if (p.activation == Activation::relu_squared) {
          const auto positive = hn::Max(x, hn::Zero(floats));
          return hn::Mul(hn::Mul(positive, positive), y);
        }
        auto exponent = x;
        if (p.activation == Activation::gelu_tanh) {
          const auto cubic = hn::Mul(hn::Mul(x, x), hn::Set(floats, 0.044715F));
          exponent = hn::Mul(hn::MulAdd(cubic, x, x), hn::Set(floats, 2.0F * 0.7978845608028654F));
        }
        // Beyond +-87 the float exponential ends; the quotient is x or next to 0 long before.
        exponent = hn::Min(hn::Max(exponent, hn::Set(floats, -87.0F)), hn::Set(floats, 87.0F));
        const auto denominator = hn::Add(hn::Set(floats, 1.0F), hn::Exp(floats, hn::Neg(exponent)));
        return hn::Mul(hn::Div(x, denominator), y);
      });
      narrow(p.element, gate, n, p.out, row * p.n_columns + at);
    }
  }
}

void widen_logits(
    Element element, const void* logits, std::int64_t first, std::int64_t n, float* to) {
  widen(element, logits, first, n, to);
}

}  // namespace HWY_NAMESPACE
}  // namespace kvfathom::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {
namespace {

HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(add_part);
HWY_EXPORT(gated_activation_rows);
HWY_EXPORT(widen_logits);

void require_eights(std::int64_t n, const char* what) {
  if (n <= 0 || n % 8 != 0) {
    throw UnsupportedShape(std::string(what) + " = " + std::to_string(n) + " is no multiple of 8");
  }
}

/// The smallest logit that top_p keeps, of those from `least` on whose weights are given.
float top_p_threshold(const std::vector<float>& logits,
                      const std::vector<double>& weights,
                      double wanted) {
  std::vector<int> order;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (weights[i] > 0.0) {
      order.push_back(static_cast<int>(i));
    }
  }
  // A heap and not a sort: few of a model's logits are needed, however large its vocabulary.
  const auto is_less = [&](int a, int b) { return logits[a] < logits[b]; };
  std::make_heap(order.begin(), order.end(), is_less);
  double reached = 0.0;
  for (auto end = order.end(); end != order.begin(); --end) {
    std::pop_heap(order.begin(), end, is_less);
    const int token = *(end - 1);
    reached += weights[token];
    if (reached >= wanted) {
      return logits[token];
    }
  }
  return -std::numeric_limits<float>::infinity();
}

std::int32_t sample_row(const SampleParams& p, std::int64_t row, std::vector<float>& logits) {
  const std::int64_t n = p.vocab_size;
  HWY_DYNAMIC_DISPATCH(widen_logits)(p.element, p.logits, row * n, n, logits.data());
  const auto largest = std::max_element(logits.begin(), logits.end());
  if (p.temperature == 0.0F) {
    return static_cast<std::int32_t>(largest - logits.begin());
  }
  float least = -std::numeric_limits<float>::infinity();
  if (p.top_k > 0 && p.top_k < n) {
    std::vector<float> copy = logits;
    std::nth_element(copy.begin(), copy.begin() + (p.top_k - 1), copy.end(), std::greater<>());
    least = copy[static_cast<std::size_t>(p.top_k - 1)];
  }
  std::vector<double> weights(logits.size());
  double mass = 0.0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    weights[i] = logits[i] >= least ? std::exp((logits[i] - *largest) / p.temperature) : 0.0F;
    mass += weights[i];
  }
  if (p.top_p < 1.0F) {
    const float threshold = top_p_threshold(logits, weights, p.top_p * mass);
    mass = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      weights[i] = logits[i] >= threshold ? weights[i] : 0.0;
      mass += weights[i];
    }
  }
  double rest = p.uniform[row] * mass;
  std::int32_t last = static_cast<std::int32_t>(largest - logits.begin());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (weights[i] > 0.0) {
      last = static_cast<std::int32_t>(i);
      rest -= weights[i];
      if (rest < 0.0) {
        break;
      }
    }
  }
  return last;
}

}  // namespace

void rms_norm_cpu(const RmsNormParams& params, int n_threads) {
  require_eights(params.n_columns, "rms_norm: n_columns");
  parallel_shares(n_threads, params.n_rows, [&](int, std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(rms_norm_rows)(params, first, last);
  });
}

void add_cpu(const AddParams& params, int n_threads) {
  require_eights(params.n, "add: n");
  parallel_shares(n_threads, params.n / 8, [&](int, std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(add_part)(params, 8 * first, 8 * last);
  });
}

void gated_activation_cpu(const GatedActivationParams& params, int n_threads) {
  require_eights(params.n_columns, "gated_activation: n_columns");
  parallel_shares(n_threads, params.n_rows, [&](int, std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(gated_activation_rows)(params, first, last);
  });
}

void sample_cpu(const SampleParams& params, int n_threads) {
  parallel_shares(n_threads, params.n_rows, [&](int, std::int64_t first, std::int64_t last) {
    std::vector<float> logits(static_cast<std::size_t>(params.vocab_size));
    for (std::int64_t row = first; row < last; ++row) {
      params.tokens[row] = sample_row(params, row, logits);
    }
  });
}

}  // namespace kvfathom::kernels
#endif
