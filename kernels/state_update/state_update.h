// One decode step of the layers whose cache is a state of fixed size: gated delta net, KDA, Mamba2,
// and the short convolution in front of them. States are float and updated in place.
#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/element.h"

namespace kvfathom::kernels {

/// S <- (I - beta k k^T) Diag(a) S + beta k v^T,  out = q_scale S^T q
/// (Gated DeltaNet, 2412.06464: a is one number a head; Kimi Delta Attention, 2510.26692: one per
/// key channel). Buffers live where the callee runs.
struct DeltaNetParams {
  int n_sequences = 0;
  int n_key_heads = 0;
  int n_value_heads = 0;  ///< a multiple of n_key_heads; value head h reads key head h / ratio
  int key_dim = 0;
  int value_dim = 0;
  Element element = Element::bf16;
  const void* q = nullptr;  ///< [n_sequences, n_key_heads, key_dim]
  const void* k = nullptr;  ///< [n_sequences, n_key_heads, key_dim], normalised by the caller
  const void* v = nullptr;  ///< [n_sequences, n_value_heads, value_dim]
  bool decay_per_channel = false;  ///< KDA
  const float* decay = nullptr;    ///< a: [n_sequences, n_value_heads] or [.., .., key_dim]
  const float* beta = nullptr;     ///< [n_sequences, n_value_heads]
  float q_scale = 1.0F;
  float* state = nullptr;  ///< [n_sequences, n_value_heads, key_dim, value_dim]
  float* out = nullptr;    ///< [n_sequences, n_value_heads, value_dim]
};

/// S <- exp(dt a) S + dt x B^T,  out = S C + d x,  dt = softplus(raw + bias)  (Mamba2, 2405.21060).
struct Mamba2Params {
  int n_sequences = 0;
  int n_heads = 0;
  int n_groups = 1;  ///< of B and C; divides n_heads
  int head_dim = 0;
  int state_dim = 0;
  Element element = Element::bf16;
  const void* x = nullptr;         ///< [n_sequences, n_heads, head_dim]
  const void* dt = nullptr;        ///< [n_sequences, n_heads], before bias and softplus
  const void* b = nullptr;         ///< [n_sequences, n_groups, state_dim]
  const void* c = nullptr;         ///< [n_sequences, n_groups, state_dim]
  const float* a = nullptr;        ///< [n_heads], negative
  const float* dt_bias = nullptr;  ///< [n_heads]
  const float* d = nullptr;        ///< [n_heads]
  float* state = nullptr;          ///< [n_sequences, n_heads, head_dim, state_dim]
  float* out = nullptr;            ///< [n_sequences, n_heads, head_dim]
};

/// out = silu(bias + sum_i weight_i x_i) over the last `width` inputs of each channel.
struct ConvStateParams {
  int n_sequences = 0;
  int n_channels = 0;
  int width = 4;  ///< taps, 2 to 8
  Element element = Element::bf16;
  const void* x = nullptr;        ///< [n_sequences, n_channels]
  const float* weight = nullptr;  ///< [n_channels, width], the newest input's last
  const float* bias = nullptr;    ///< [n_channels]; null: none
  float* state = nullptr;         ///< [n_sequences, n_channels, width - 1], oldest first
  float* out = nullptr;           ///< [n_sequences, n_channels]
};

/// What references leave, in the layouts of `state` and `out`: values, and the magnitudes that
/// their bounds need (sums of absolute values).
struct StateReference {
  double* state = nullptr;
  double* state_magnitude = nullptr;
  double* out = nullptr;
  double* out_magnitude = nullptr;
};

/// Throw UnsupportedShape, saying what is wrong.
void check_delta_net(const DeltaNetParams& params);
void check_mamba2(const Mamba2Params& params);
void check_conv_state(const ConvStateParams& params);

/// The definitions, in double, on host buffers; params.state and params.out are not touched.
void delta_net_reference(const DeltaNetParams& params, const StateReference& result);
void mamba2_reference(const Mamba2Params& params, const StateReference& result);
/// `state` is exact: no magnitudes of it.
void conv_state_reference(const ConvStateParams& params, const StateReference& result);

void delta_net_cpu(const DeltaNetParams& params, int n_threads = 0);
void mamba2_cpu(const Mamba2Params& params, int n_threads = 0);
void conv_state_cpu(const ConvStateParams& params, int n_threads = 0);

/// Throw NoDevice, DeviceError or UnsupportedShape.
void delta_net_launch(const DeltaNetParams& params, Stream stream = nullptr);
void mamba2_launch(const Mamba2Params& params, Stream stream = nullptr);
void conv_state_launch(const ConvStateParams& params, Stream stream = nullptr);

}  // namespace kvfathom::kernels
