#include <cmath>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/state_update/delta_head.h"
#include "kernels/state_update/state_update.h"

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/state_update/state_update_cpu.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace kvfathom::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;  // rows are multiples of 32
using VF = hn::Vec<F32>;
constexpr F32 kF32;

/// Decays the state and sums what it answers to k and to q; then adds the new association. The
/// second sum is completed by (k q) of what was added, so that the state is read twice, not thrice.
void delta_net_head(const DeltaHead& head, float* state, float* recalled, float* out) {
  const int step = static_cast<int>(hn::Lanes(kF32));
  for (int j = 0; j < head.value_dim; j += step) {
    hn::StoreU(hn::Zero(kF32), kF32, recalled + j);
    hn::StoreU(hn::Zero(kF32), kF32, out + j);
  }
  float k_q = 0.0F;
  for (int i = 0; i < head.key_dim; ++i) {
    float* row = state + static_cast<std::ptrdiff_t>(i) * head.value_dim;
    const VF decay = hn::Set(kF32, head.decay[i]);
    const VF k = hn::Set(kF32, head.k[i]);
    const VF q = hn::Set(kF32, head.q[i]);
    k_q += head.k[i] * head.q[i];
    for (int j = 0; j < head.value_dim; j += step) {
      const VF s = hn::Mul(decay, hn::LoadU(kF32, row + j));
      hn::StoreU(s, kF32, row + j);
      hn::StoreU(hn::MulAdd(k, s, hn::LoadU(kF32, recalled + j)), kF32, recalled + j);
      hn::StoreU(hn::MulAdd(q, s, hn::LoadU(kF32, out + j)), kF32, out + j);
    }
  }
  for (int j = 0; j < head.value_dim; j += step) {
    const VF missing = hn::Sub(hn::LoadU(kF32, head.v + j), hn::LoadU(kF32, recalled + j));
    const VF added = hn::Mul(hn::Set(kF32, head.beta), missing);
    hn::StoreU(added, kF32, recalled + j);
    hn::StoreU(hn::MulAdd(hn::Set(kF32, k_q), added, hn::LoadU(kF32, out + j)), kF32, out + j);
  }
  for (int i = 0; i < head.key_dim; ++i) {
    float* row = state + static_cast<std::ptrdiff_t>(i) * head.value_dim;
    const VF k = hn::Set(kF32, head.k[i]);
    for (int j = 0; j < head.value_dim; j += step) {
      const VF s = hn::LoadU(kF32, row + j);
      hn::StoreU(hn::MulAdd(k, hn::LoadU(kF32, recalled + j), s), kF32, row + j);
    }
  }
}

/// One row of a Mamba2 state: returns its product with c.
float mamba2_row(float decay, float dt_x, const float* b, const float* c, int n, float* state) {
  VF sum = hn::Zero(kF32);
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(kF32))) {
    const VF kept = hn::Mul(hn::Set(kF32, decay), hn::LoadU(kF32, state + i));
    const VF s = hn::MulAdd(hn::Set(kF32, dt_x), hn::LoadU(kF32, b + i), kept);
    hn::StoreU(s, kF32, state + i);
    sum = hn::MulAdd(s, hn::LoadU(kF32, c + i), sum);
  }
  return hn::GetLane(hn::SumOfLanes(kF32, sum));
}

}  // namespace
}  // namespace kvfathom::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvfathom::kernels {
namespace {

HWY_EXPORT(delta_net_head);
HWY_EXPORT(mamba2_row);

void load(Element element, const void* array, std::int64_t first, std::vector<float>& to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    to[i] = element_at(element, array, first + static_cast<std::int64_t>(i));
  }
}

struct DeltaBuffers {
  std::vector<float> q, k, v, decay, recalled;
  explicit DeltaBuffers(const DeltaNetParams& params)
      : q(params.key_dim),
        k(params.key_dim),
        v(params.value_dim),
        decay(params.key_dim),
        recalled(params.value_dim) {}
};

void step_delta_head(const DeltaNetParams& params, std::int64_t row, DeltaBuffers& buffers) {
  const std::int64_t ratio = params.n_value_heads / params.n_key_heads;
  const std::int64_t sequence = row / params.n_value_heads;
  const std::int64_t key_row = sequence * params.n_key_heads + row % params.n_value_heads / ratio;
  load(params.element, params.q, key_row * params.key_dim, buffers.q);
  load(params.element, params.k, key_row * params.key_dim, buffers.k);
  load(params.element, params.v, row * params.value_dim, buffers.v);
  for (int i = 0; i < params.key_dim; ++i) {
    buffers.q[i] *= params.q_scale;
    buffers.decay[i] =
        params.decay_per_channel ? params.decay[row * params.key_dim + i] : params.decay[row];
  }
  const DeltaHead head{buffers.q.data(),
                       buffers.k.data(),
                       buffers.v.data(),
                       buffers.decay.data(),
                       params.beta[row],
                       params.key_dim,
                       params.value_dim};
  HWY_DYNAMIC_DISPATCH(delta_net_head)
  (head,
   params.state + row * params.key_dim * params.value_dim,
   buffers.recalled.data(),
   params.out + row * params.value_dim);
}

float softplus(float x) {
  return x > 20.0F ? x : std::log1p(std::exp(x));
}

}  // namespace

void delta_net_cpu(const DeltaNetParams& params, int n_threads) {
  check_delta_net(params);
  const std::int64_t n = std::int64_t{params.n_sequences} * params.n_value_heads;
  parallel_shares(n_threads, n, [&](int, std::int64_t begin, std::int64_t end) {
    DeltaBuffers buffers(params);
    for (std::int64_t row = begin; row < end; ++row) {
      step_delta_head(params, row, buffers);
    }
  });
}

void mamba2_cpu(const Mamba2Params& params, int n_threads) {
  check_mamba2(params);
  const std::int64_t n = std::int64_t{params.n_sequences} * params.n_heads;
  parallel_shares(n_threads, n, [&](int, std::int64_t begin, std::int64_t end) {
    std::vector<float> b(params.state_dim);
    std::vector<float> c(params.state_dim);
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t head = row % params.n_heads;
      const std::int64_t group = head / (params.n_heads / params.n_groups);
      const std::int64_t shared =
          (row / params.n_heads * params.n_groups + group) * params.state_dim;
      load(params.element, params.b, shared, b);
      load(params.element, params.c, shared, c);
      const float dt = softplus(element_at(params.element, params.dt, row) + params.dt_bias[head]);
      const float decay = std::exp(dt * params.a[head]);
      for (std::int64_t p = row * params.head_dim; p < (row + 1) * params.head_dim; ++p) {
        const float x = element_at(params.element, params.x, p);
        float* state = params.state + p * params.state_dim;
        const float product = HWY_DYNAMIC_DISPATCH(mamba2_row)(
            decay, dt * x, b.data(), c.data(), params.state_dim, state);
        params.out[p] = product + params.d[head] * x;
      }
    }
  });
}

void conv_state_cpu(const ConvStateParams& params, int n_threads) {
  check_conv_state(params);
  const std::int64_t n = std::int64_t{params.n_sequences} * params.n_channels;
  parallel_shares(n_threads, n, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t channel = row % params.n_channels;
      const float* weight = params.weight + channel * params.width;
      float* state = params.state + row * (params.width - 1);
      const float x = element_at(params.element, params.x, row);
      float sum = params.bias != nullptr ? params.bias[channel] : 0.0F;
      for (int i = 0; i < params.width - 1; ++i) {
        sum += weight[i] * state[i];
        state[i] = i + 1 < params.width - 1 ? state[i + 1] : x;
      }
      sum += weight[params.width - 1] * x;
      params.out[row] = sum / (1.0F + std::exp(-sum));
    }
  });
}

}  // namespace kvfathom::kernels
#endif
