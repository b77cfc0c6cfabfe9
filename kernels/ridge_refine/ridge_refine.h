// Ridge refinement of an evicted cache (scheme evict-grkv; GRKV, arXiv 2605.31105, and its code).
//
// After an eviction the kept keys and values are edited once, so that the attention of a window of
// surrogate queries over the kept tokens gives what it gave over the full cache. A problem is one
// KV head of one layer; all problems of a model go in one call. Per problem, with A the attention
// weights over the kept tokens, Y the output over the full cache and w the weights of the queries:
//   V step  min |w^1/2 (A dV - (Y - A V))|^2 + lambda_v |dV|^2, in its dual form: a system of
//           n_rows equations, whatever the number of kept tokens
//   K step  the same for dK with the softmax linearised at (K, V + dV), by conjugate gradients
//   each step is clipped to a fraction of |V| and |K| and rounded to bf16; of {kept, V, V and K}
//   the one that is best under the true objective is returned.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/device.h"
#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

/// What a problem ended with.
struct RidgeRefineOutcome {
  enum Choice : std::int32_t { kept, values, values_and_keys };

  /// Objective sum_r w_r |Y_r - out_r|^2 with the kept cache, after the V step, after both.
  float loss_kept = 0.0F;
  float loss_values = 0.0F;
  float loss_both = 0.0F;
  std::int32_t choice = kept;
  std::int32_t cg_iterations = 0;
  /// 1 + the column where the factorisation met a pivot that is not positive (no V step then); 0.
  std::int32_t failed_pivot = 0;
};

/// The defaults are those of the published code.
struct RidgeRefineSettings {
  float lambda_v = 0.01F;
  float lambda_k = 0.01F;
  float value_clip = 0.1F;  ///< |dV| <= value_clip |V|, Frobenius norms over the kept tokens
  float key_clip = 0.025F;
  int cg_max_iterations = 16;
  float cg_tolerance = 1e-6F;  ///< of the residual, relative to the right-hand side
};

/// Shapes and buffers of one call; buffers live where the callee runs. Strides follow the shapes.
struct RidgeRefineParams {
  int n_problems = 0;     ///< layers x KV heads
  int n_tokens = 0;       ///< of the full cache
  int kept_capacity = 0;  ///< rows that the kept caches hold for each problem
  int n_rows = 0;         ///< surrogate queries: query heads per KV head x window
  int head_dim = 0;       ///< a multiple of 8, at most 256
  float softmax_scale = 1.0F;
  RidgeRefineSettings settings;

  const Bf16* queries = nullptr;       ///< [n_problems, n_rows, head_dim]
  const float* row_weights = nullptr;  ///< [n_rows] w, not negative
  const Bf16* k_full = nullptr;        ///< [n_problems, n_tokens, head_dim]
  const Bf16* v_full = nullptr;
  const Bf16* k_kept = nullptr;  ///< [n_problems, kept_capacity, head_dim]
  const Bf16* v_kept = nullptr;
  const std::int32_t* n_kept = nullptr;  ///< [n_problems] rows in use
  /// [n_problems, kept_capacity] not 0: a guard token, which stays as it is. Null: none.
  const std::uint8_t* fixed = nullptr;

  Bf16* v_stepped = nullptr;  ///< [n_problems, kept_capacity, head_dim] after the V step
  Bf16* k_stepped = nullptr;  ///< after the K step
  Bf16* k_out = nullptr;      ///< the best; rows beyond n_kept are not written
  Bf16* v_out = nullptr;
  RidgeRefineOutcome* outcome = nullptr;  ///< [n_problems]
};

/// One problem by the definition, in double. Each step starts from what the implementation under
/// test wrote before it (v_stepped, k_stepped): a rounding to bf16 is a decision that later steps
/// share. The steps here are not rounded.
struct RidgeRefineReference {
  std::vector<double> target;  ///< [n_rows, head_dim] Y
  std::vector<double> values;  ///< [n_kept, head_dim] V + clipped dV
  std::vector<double> keys;    ///< [n_kept, head_dim] K + clipped dK
  double loss_kept = 0.0, loss_values = 0.0, loss_both = 0.0;
  int cg_iterations = 0;
  /// How far rounding errors of a correct implementation may carry it, from the conditioning of
  /// this problem (tolerance.h): absolute, for every element before it is rounded to bf16.
  double values_error = 0.0, keys_error = 0.0;
  double loss_kept_error = 0.0, loss_values_error = 0.0, loss_both_error = 0.0;
};
[[nodiscard]] RidgeRefineReference ridge_refine_reference(const RidgeRefineParams& params,
                                                          int problem);

/// Throws UnsupportedShape, naming what is wrong, for shapes that the fast versions do not take.
void ridge_refine_check(const RidgeRefineParams& params);

/// The same on the CPU: OpenBLAS products, n_threads threads (0: all). Throws UnsupportedShape.
void ridge_refine_cpu(const RidgeRefineParams& params, int n_threads = 0);

/// How many runs the launch rule cuts the full cache into on this device.
[[nodiscard]] int ridge_refine_splits(const RidgeRefineParams& params, const DeviceInfo& device);
/// Bytes of scratch memory that a launch with `n_splits` needs.
[[nodiscard]] std::int64_t ridge_refine_scratch_bytes(const RidgeRefineParams& params,
                                                      int n_splits);
/// The same on the device, in float on the CUDA cores. The number of launches does not depend on
/// n_problems. Throws NoDevice, DeviceError or UnsupportedShape.
void ridge_refine_launch(const RidgeRefineParams& params,
                         int n_splits,
                         void* scratch,
                         Stream stream);

/// Which tokens of one KV head to keep, by SnapKV's rule: the newest `window_tokens`, and of the
/// others the `budget - window_tokens` with the largest score, averaged over `pool` neighbours (so
/// that runs of tokens stay together). Of equal scores the older token is kept.
struct SpanRetention {
  std::vector<std::int32_t> kept;   ///< ascending
  std::vector<std::uint8_t> fixed;  ///< guards: the window, and the best `guard_fraction` of all
};
[[nodiscard]] SpanRetention retain_spans(const std::vector<float>& scores,
                                         int budget,
                                         int window_tokens,
                                         int pool,
                                         double guard_fraction);

}  // namespace kvfathom::kernels
