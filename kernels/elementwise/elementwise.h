// The operations between the products of a layer: RMSNorm with or without the residual's addition,
// gated activations, and at the end the choice of a token from its logits.
#pragma once

#include <cstdint>

#include "kernels/common/activation.h"
#include "kernels/common/device.h"
#include "kernels/common/element.h"

namespace kvfathom::kernels {

/// out = y / sqrt(mean(y^2) + epsilon) * (weight_offset + weight), row by row; y = x, or, with a
/// residual, the sum residual + x, which replaces the residual first (Zhang and Sennrich 2019).
/// Buffers live where the callee runs.
struct RmsNormParams {
  std::int64_t n_rows = 0;
  int n_columns = 0;  ///< a multiple of 8
  Element element = Element::bf16;
  float epsilon = 1e-6F;
  float weight_offset = 0.0F;    ///< 1 for Gemma, which stores weight - 1
  const void* x = nullptr;       ///< [n_rows, n_columns]
  void* residual = nullptr;      ///< [n_rows, n_columns], read and written; null: none
  const void* weight = nullptr;  ///< [n_columns]
  void* out = nullptr;           ///< [n_rows, n_columns]; may be x
};
/// `out` and the new `residual` (before it is rounded; null: not wanted), each [n_rows, n_columns].
/// The norm is that of the rounded sum.
void rms_norm_reference(const RmsNormParams& params, double* out, double* residual);
void rms_norm_cpu(const RmsNormParams& params, int n_threads = 0);
void rms_norm_launch(const RmsNormParams& params, Stream stream = nullptr);

/// out = a + b.
struct AddParams {
  std::int64_t n = 0;  ///< a multiple of 8
  Element element = Element::bf16;
  const void* a = nullptr;
  const void* b = nullptr;
  void* out = nullptr;  ///< may be a or b
};
void add_reference(const AddParams& params, double* out);
void add_cpu(const AddParams& params, int n_threads = 0);
void add_launch(const AddParams& params, Stream stream = nullptr);

/// out = activation(gate) * up, or activation(gate) alone. A product with both halves of the
/// weights leaves gate and up side by side: up = gate + n_columns, both strides 2 n_columns.
struct GatedActivationParams {
  std::int64_t n_rows = 0;
  int n_columns = 0;  ///< a multiple of 8
  Element element = Element::bf16;
  Activation activation = Activation::silu;
  const void* gate = nullptr;     ///< [n_rows, n_columns]
  const void* up = nullptr;       ///< [n_rows, n_columns]; null: none
  std::int64_t input_stride = 0;  ///< elements between rows of gate and of up; a multiple of 8
  void* out = nullptr;            ///< [n_rows, n_columns] without gaps
};
/// Where the reference puts its results, each [n_rows, n_columns].
struct GatedActivationReference {
  double* out = nullptr;
  double* magnitude = nullptr;  ///< |gate| (|gate| for relu_squared, else 1) |up|
};
void gated_activation_reference(const GatedActivationParams& params,
                                const GatedActivationReference& result);
void gated_activation_cpu(const GatedActivationParams& params, int n_threads = 0);
void gated_activation_launch(const GatedActivationParams& params, Stream stream = nullptr);

/// One token per row from softmax(logits / temperature), among the top_k largest logits and, of
/// those, among the largest that together reach top_p of the mass; what ties with the last one kept
/// is kept. Of the kept tokens, in the order of their indices, the first whose cumulative share
/// exceeds `uniform`: the same number always gives the same token.
struct SampleParams {
  int n_rows = 0;
  int vocab_size = 0;
  Element element = Element::f32;
  const void* logits = nullptr;    ///< [n_rows, vocab_size]; -inf: never chosen
  float temperature = 1.0F;        ///< 0: the largest logit, the first of equals
  int top_k = 0;                   ///< 0: all
  float top_p = 1.0F;              ///< 1: all
  const float* uniform = nullptr;  ///< [n_rows] in [0, 1); unused at temperature 0
  std::int32_t* tokens = nullptr;  ///< [n_rows]
};
/// Where the reference puts its results.
struct SampleReference {
  std::int32_t* tokens = nullptr;  ///< [n_rows]
  /// [n_rows, vocab_size] share of each token in the mass that is kept, 0 for those dropped.
  double* shares = nullptr;
};
void sample_reference(const SampleParams& params, const SampleReference& result);
void sample_cpu(const SampleParams& params, int n_threads = 0);
void sample_launch(const SampleParams& params, Stream stream = nullptr);

}  // namespace kvfathom::kernels
