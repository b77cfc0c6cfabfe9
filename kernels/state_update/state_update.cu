#include "kernels/common/dispatch.h"
#include "kernels/common/kv_rows_device.h"
#include "kernels/simt/simt.h"
#include "kernels/state_update/state_update.h"

namespace kvfathom::kernels {
namespace {

// States are read by ld, not ld_stream: what a launch writes must not come by the read-only path.

constexpr float kLog2E = 1.44269504088896341F;

// ---- gated delta net, KDA ----

constexpr int kDeltaWarps = 8;  // each owns an eighth of the key channels
constexpr int kDeltaThreads = kDeltaWarps * simt::kWarpSize;
constexpr int kDeltaColumns = simt::kWarpSize;  // value channels of a block, one a lane

/// The block's vectors and what its warps pass to each other.
struct DeltaShared {
  float* q;         // [key_dim]
  float* k;         // [key_dim]
  float* decay;     // [key_dim]
  float* recalled;  // [kDeltaWarps, kDeltaColumns] k^T Diag(a) S over a warp's channels
  float* answered;  // [kDeltaWarps, kDeltaColumns] q^T Diag(a) S
  float* k_q;       // [kDeltaWarps]
};
SIMT_DEVICE DeltaShared delta_shared(int key_dim) {
  auto* first = simt::shared_memory<float>();
  float* partial = first + 3 * key_dim;
  constexpr int kPartials = kDeltaWarps * kDeltaColumns;
  return DeltaShared{first,
                     first + key_dim,
                     first + 2 * key_dim,
                     partial,
                     partial + kPartials,
                     partial + 2 * kPartials};
}

SIMT_DEVICE void stage_delta_vectors(const DeltaNetParams& params,
                                     std::int64_t key_row,
                                     std::int64_t value_row,
                                     const DeltaShared& shared) {
  for (int i = static_cast<int>(simt::thread_idx().x); i < params.key_dim; i += kDeltaThreads) {
    const std::int64_t at = key_row * params.key_dim + i;
    shared.q[i] = load_element(params.element, params.q, at) * params.q_scale;
    shared.k[i] = load_element(params.element, params.k, at);
    shared.decay[i] = simt::ld(
        params.decay + (params.decay_per_channel ? value_row * params.key_dim + i : value_row));
  }
}

/// A block owns 32 value channels of one sequence and value head; the state stays in registers
/// between its one read and its one write. Grid: (value_dim / 32, n_value_heads, n_sequences).
///
/// out = q^T S' = q^T Diag(a) S + (q k) beta (v - k^T Diag(a) S): both products come from one pass.
template <int RowsPerWarp>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kDeltaThreads) delta_net_kernel(DeltaNetParams params) {
  const int head = static_cast<int>(simt::block_idx().y);
  const std::int64_t sequence = simt::block_idx().z;
  const std::int64_t value_row = sequence * params.n_value_heads + head;
  const std::int64_t key_row =
      sequence * params.n_key_heads + head / (params.n_value_heads / params.n_key_heads);
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  const int column = static_cast<int>(simt::block_idx().x) * kDeltaColumns + simt::lane_id();
  const DeltaShared shared = delta_shared(params.key_dim);
  float* state =
      params.state + (value_row * params.key_dim + warp * RowsPerWarp) * params.value_dim + column;

  float s[RowsPerWarp];
  SIMT_UNROLL for (int r = 0; r < RowsPerWarp; ++r) {
    s[r] = simt::ld(state + r * params.value_dim);
  }
  stage_delta_vectors(params, key_row, value_row, shared);
  simt::syncblock();
  float recalled = 0.0F;
  float answered = 0.0F;
  float k_q = 0.0F;
  SIMT_UNROLL for (int r = 0; r < RowsPerWarp; ++r) {
    const int i = warp * RowsPerWarp + r;
    s[r] *= shared.decay[i];
    recalled += shared.k[i] * s[r];
    answered += shared.q[i] * s[r];
    k_q += shared.k[i] * shared.q[i];
  }
  shared.recalled[warp * kDeltaColumns + simt::lane_id()] = recalled;
  shared.answered[warp * kDeltaColumns + simt::lane_id()] = answered;
  shared.k_q[warp] = k_q;
  simt::syncblock();
  recalled = answered = k_q = 0.0F;
  SIMT_UNROLL for (int w = 0; w < kDeltaWarps; ++w) {
    recalled += shared.recalled[w * kDeltaColumns + simt::lane_id()];
    answered += shared.answered[w * kDeltaColumns + simt::lane_id()];
    k_q += shared.k_q[w];
  }
  const std::int64_t value = value_row * params.value_dim + column;
  const float v = load_element(params.element, params.v, value);
  const float added = simt::ld(params.beta + value_row) * (v - recalled);
  SIMT_UNROLL for (int r = 0; r < RowsPerWarp; ++r) {
    simt::st(state + r * params.value_dim, s[r] + shared.k[warp * RowsPerWarp + r] * added);
  }
  if (warp == 0) {
    simt::st(params.out + value, answered + k_q * added);
  }
}

// ---- Mamba2 ----

constexpr int kMambaWarps = 4;
constexpr int kMambaThreads = kMambaWarps * simt::kWarpSize;
constexpr int kMambaRowsPerWarp = 4;  // state rows in flight
constexpr int kMambaRows = kMambaWarps * kMambaRowsPerWarp;

SIMT_DEVICE float softplus(float x) {
  return x > 20.0F ? x : log1pf(simt::exp2_fast(x * kLog2E));
}

/// A block owns 16 rows of one head's state, a warp 4 of them. Grid: (head_dim / 16, n_heads,
/// n_sequences).
template <int PerLane>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kMambaThreads) mamba2_kernel(Mamba2Params params) {
  const int head = static_cast<int>(simt::block_idx().y);
  const std::int64_t sequence = simt::block_idx().z;
  const std::int64_t row = sequence * params.n_heads + head;
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  const std::int64_t first_p = row * params.head_dim +
                               static_cast<std::int64_t>(simt::block_idx().x) * kMambaRows +
                               warp * kMambaRowsPerWarp;
  const float raw = load_element(params.element, params.dt, row) + simt::ld(params.dt_bias + head);
  const float dt = softplus(raw);
  const float decay = simt::exp2_fast(dt * simt::ld(params.a + head) * kLog2E);
  const float d = simt::ld(params.d + head);
  float* state = params.state + first_p * params.state_dim + simt::lane_id();
  float s[kMambaRowsPerWarp][PerLane];
  SIMT_UNROLL for (int r = 0; r < kMambaRowsPerWarp; ++r) {
    SIMT_UNROLL for (int i = 0; i < PerLane; ++i) {
      s[r][i] = simt::ld(state + r * params.state_dim + i * simt::kWarpSize);
    }
  }
  const std::int64_t group = sequence * params.n_groups + head / (params.n_heads / params.n_groups);
  float b[PerLane];
  float c[PerLane];
  SIMT_UNROLL for (int i = 0; i < PerLane; ++i) {
    const std::int64_t at = group * params.state_dim + i * simt::kWarpSize + simt::lane_id();
    b[i] = load_element(params.element, params.b, at);
    c[i] = load_element(params.element, params.c, at);
  }
  SIMT_UNROLL for (int r = 0; r < kMambaRowsPerWarp; ++r) {
    const float x = load_element(params.element, params.x, first_p + r);
    float sum = 0.0F;
    SIMT_UNROLL for (int i = 0; i < PerLane; ++i) {
      s[r][i] = s[r][i] * decay + dt * x * b[i];
      sum += s[r][i] * c[i];
      simt::st(state + r * params.state_dim + i * simt::kWarpSize, s[r][i]);
    }
    sum = simt::warp_sum(sum);
    if (simt::lane_id() == 0) {
      simt::st(params.out + first_p + r, sum + d * x);
    }
  }
}

// ---- convolution ----

constexpr int kConvThreads = 128;

/// A thread owns one channel of one sequence.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kConvThreads) conv_state_kernel(ConvStateParams params) {
  const std::int64_t row =
      static_cast<std::int64_t>(simt::block_idx().x) * kConvThreads + simt::thread_idx().x;
  if (row >= static_cast<std::int64_t>(params.n_sequences) * params.n_channels) {
    return;
  }
  const std::int64_t channel = row % params.n_channels;
  const float* weight = params.weight + channel * params.width;
  float* state = params.state + row * (params.width - 1);
  const float x = load_element(params.element, params.x, row);
  float sum = params.bias != nullptr ? simt::ld(params.bias + channel) : 0.0F;
  for (int i = 0; i < params.width - 1; ++i) {
    const float past = simt::ld(state + i);
    sum += simt::ld(weight + i) * past;
    if (i > 0) {
      simt::st(state + i - 1, past);
    }
  }
  simt::st(state + params.width - 2, x);
  sum += simt::ld(weight + params.width - 1) * x;
  simt::st(params.out + row, sum / (1.0F + simt::exp2_fast(-sum * kLog2E)));
}

}  // namespace

void delta_net_launch(const DeltaNetParams& params, Stream stream) {
  check_delta_net(params);
  static_cast<void>(device());
  using KeyDims = std::integer_sequence<int, 32, 64, 128, 256>;
  const std::size_t shared_floats =
      3 * params.key_dim + 2 * kDeltaWarps * kDeltaColumns + kDeltaWarps;
  dispatch(KeyDims{}, params.key_dim, "delta_net: key_dim", [&](auto key_dim) {
    simt::launch(&delta_net_kernel<decltype(key_dim)::value / kDeltaWarps>,
                 simt::Dim3(static_cast<unsigned>(params.value_dim / kDeltaColumns),
                            static_cast<unsigned>(params.n_value_heads),
                            static_cast<unsigned>(params.n_sequences)),
                 kDeltaThreads,
                 shared_floats * sizeof(float),
                 stream,
                 params);
  });
}

void mamba2_launch(const Mamba2Params& params, Stream stream) {
  check_mamba2(params);
  static_cast<void>(device());
  using StateDims = std::integer_sequence<int, 32, 64, 128, 256>;
  dispatch(StateDims{}, params.state_dim, "mamba2: state_dim", [&](auto state_dim) {
    simt::launch(&mamba2_kernel<decltype(state_dim)::value / simt::kWarpSize>,
                 simt::Dim3(static_cast<unsigned>(params.head_dim / kMambaRows),
                            static_cast<unsigned>(params.n_heads),
                            static_cast<unsigned>(params.n_sequences)),
                 kMambaThreads,
                 0,
                 stream,
                 params);
  });
}

void conv_state_launch(const ConvStateParams& params, Stream stream) {
  check_conv_state(params);
  static_cast<void>(device());
  const std::int64_t n = std::int64_t{params.n_sequences} * params.n_channels;
  if (n > 0) {
    simt::launch(&conv_state_kernel,
                 static_cast<unsigned>((n + kConvThreads - 1) / kConvThreads),
                 kConvThreads,
                 0,
                 stream,
                 params);
  }
}

}  // namespace kvfathom::kernels
