// Values rebuilt from keys (scheme k-only): a cache of keys alone, V = K W with a projector W.
//
// W is exact for square W_K (Slim attention, arXiv 2503.05840: W = W_K^-1 W_V), or learned from
// samples by ridge regression (any number of KV heads). A value row needs the whole key row of its
// token, all heads side by side, as it was before its rotation.
//   rows    materialised: V of every cached token, one product K W
//   decode  absorbed: first P K over the full rows, then W; the keys are read in two explicit
//           passes, the second once for every 16 query heads (up to 16), or 64 (more)
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/dense_solve.h"
#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// Shapes and buffers of one call; buffers live where the callee runs. Element means Bf16 for a
/// bf16 cache and F16 for an f16 cache; no other format is taken.
struct ValueReconstructionParams {
  int n_heads = 0;    ///< query heads, a multiple of cache.n_kv_heads
  int head_dim = 0;   ///< a multiple of 16
  KvCacheView cache;  ///< its k; one length a sequence
  /// [positions, head_dim / 2, 2] cosine and sine of the rotation that the cached keys have had,
  /// for positions from 0 to the longest length; the pairs are the halves of a head. Null: the
  /// keys are cached as they were multiplied.
  const float* cos_sin = nullptr;
  /// [kv_width, kv_width] Element, kv_width = n_kv_heads * head_dim: value row = key row x this.
  const std::uint16_t* projector = nullptr;

  const std::uint16_t* q = nullptr;  ///< decode: [n_sequences, n_heads, head_dim] Element
  float softmax_scale = 1.0F;
  float* out = nullptr;  ///< decode: [n_sequences, n_heads, head_dim]; zeros without tokens

  std::uint16_t* values = nullptr;  ///< rows: [n_sequences, token_capacity, kv_width] Element
  int token_capacity = 0;
};

[[nodiscard]] inline int kv_width(const ValueReconstructionParams& params) {
  return params.cache.n_kv_heads * params.head_dim;
}
/// Throws UnsupportedShape, naming what is wrong, for what no version takes.
void value_reconstruction_check(const ValueReconstructionParams& params);

/// The cosines and sines of a rotation with frequencies base^(-2 i / head_dim), for positions
/// [0, n_positions), as cos_sin wants them.
[[nodiscard]] std::vector<float> rotation_cos_sin(int head_dim, double base, int n_positions);

/// Rows by the definition, in double: values and the magnitudes that their bounds need, both
/// [n_sequences, token_capacity, kv_width]. Rows beyond a length are not touched.
struct ValueRowsReference {
  double* values = nullptr;
  double* magnitude = nullptr;  ///< sum_i |k_i w_i|
};
void value_rows_reference(const ValueReconstructionParams& params,
                          const ValueRowsReference& result);
void value_rows_cpu(const ValueReconstructionParams& params, int n_threads = 0);
/// `longest_tokens` is the longest length. Throws NoDevice, DeviceError or UnsupportedShape.
void value_rows_launch(const ValueReconstructionParams& params, int longest_tokens, Stream stream);

/// Decode by the definition, in double, [n_sequences, n_heads, head_dim] but for the score.
struct ValueDecodeReference {
  double* out = nullptr;
  double* weighted_abs_v = nullptr;     ///< sum_t p_t sum_i |k_ti w_i|
  double* largest_abs_score = nullptr;  ///< [n_sequences, n_heads]
};
void value_decode_reference(const ValueReconstructionParams& params,
                            const ValueDecodeReference& result);
void value_decode_cpu(const ValueReconstructionParams& params, int n_threads = 0);
/// How many runs the launch rule cuts the tokens into, for the second pass.
[[nodiscard]] int value_decode_splits(const ValueReconstructionParams& params,
                                      int longest_tokens,
                                      const DeviceInfo& device);
[[nodiscard]] std::int64_t value_decode_scratch_bytes(const ValueReconstructionParams& params,
                                                      int longest_tokens,
                                                      int n_splits);
void value_decode_launch(const ValueReconstructionParams& params,
                         int longest_tokens,
                         int n_splits,
                         void* scratch,
                         Stream stream);

// ---- offline: the projector ----

/// W_K^-1 W_V for weights [hidden, kv_width] with hidden = kv_width. Throws UnsupportedShape where
/// W_K is singular.
[[nodiscard]] DenseMatrix exact_projector(const DenseMatrix& w_k, const DenseMatrix& w_v);
/// The W that minimises |keys W - values|^2 + lambda |W|^2 over samples of keys before rotation
/// and of values, [n_samples, kv_width] both.
[[nodiscard]] DenseMatrix learned_projector(const DenseMatrix& keys,
                                            const DenseMatrix& values,
                                            double lambda);

/// What a projector loses on samples.
struct ProjectorLoss {
  double r_squared = 0.0;      ///< mean over the columns of V (mean_r_squared)
  double largest_error = 0.0;  ///< max |V - K W|
};
[[nodiscard]] ProjectorLoss projector_loss(const DenseMatrix& keys,
                                           const DenseMatrix& values,
                                           const DenseMatrix& projector);
/// |out with V = K W - out with V| / |out with V| of attention with these weights [n_rows,
/// n_tokens], over one head's columns of the samples (Frobenius norms).
[[nodiscard]] double projector_output_error(const DenseMatrix& weights,
                                            const DenseMatrix& keys,
                                            const DenseMatrix& values,
                                            const DenseMatrix& projector);

}  // namespace kvfathom::kernels
