// Rebuilding keys and values from what a layer was given: the scheme `residual`.
//
// The layer's input X is cached instead of K and V (HCache, arXiv 2410.05004; XQuant, arXiv
// 2508.10395; what KV-Direct, arXiv 2603.19664, would need per layer). Rebuilding is RMSNorm, one
// product with the stacked weights of K and V, K's norm, RoPE, and the write to a cache, in chunks
// of tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cache_write/cache_write.h"
#include "kernels/common/device.h"

namespace kvfathom::kernels {

/// How the rows of X are stored.
enum class RowFormat : std::uint8_t {
  bf16,
  /// Asymmetric uniform codes of `bits` bits: value = minimum + code * step, step and minimum F16,
  /// shared by groups of 128 (XQuant 4).
  uniform,
};
/// What shares a step and a minimum: 128 channels of one token, or 128 tokens of one channel.
enum class GroupAxis : std::uint8_t { channels, tokens };

inline constexpr int kRowGroup = 128;

/// Rows of X, or of X times a factor of the weights. Pointers live where the callee runs.
struct StoredRows {
  RowFormat format = RowFormat::bf16;
  int n_columns = 0;  ///< a multiple of 32; of 128 where channels share a step
  int bits = 0;       ///< of `uniform`: 2, 3, 4 or 8
  GroupAxis axis = GroupAxis::channels;
  /// bf16: Bf16 [n_tokens, n_columns]. uniform: words [n_tokens, n_columns * bits / 32]; code i of
  /// a row takes bits [i * bits, (i + 1) * bits), from the lowest bit of its first word on.
  const void* data = nullptr;
  /// uniform: F16 [n_tokens, n_columns / 128], or [ceil(n_tokens / 128), n_columns] where tokens
  /// share a step.
  const F16* steps = nullptr;
  const F16* minima = nullptr;
};

/// Bytes of a row's codes and of its share of steps and minima (4 bytes a group of 128 values).
[[nodiscard]] double stored_row_bytes(const StoredRows& rows);

/// Rows as stored, in host memory.
struct EncodedRows {
  std::vector<std::uint32_t> words;
  std::vector<F16> steps;
  std::vector<F16> minima;

  [[nodiscard]] StoredRows view(const StoredRows& like) const;
};
/// Quantises [n_tokens, like.n_columns] values: step = (largest - smallest) / (2^bits - 1) of a
/// group, codes to the nearest. Throws UnsupportedShape for bits, columns or a format that it
/// cannot.
[[nodiscard]] EncodedRows encode_rows(const StoredRows& like, std::span<const float> values);
/// Value (token, column), exactly, in host memory.
[[nodiscard]] double stored_value(const StoredRows& rows, std::int64_t token, int column);

/// Shapes and buffers of one call; buffers live where the callee runs.
struct ResidualRecomputeParams {
  StoredRows x;  ///< [n_tokens, hidden_size], or X U_k of rank n_columns
  /// X U_v where K and V have latents of their own (XQuant's form for grouped queries); no data:
  /// both come from x.
  StoredRows x_v;
  /// [x.n_columns] of the RMSNorm before the projections; null: x was stored after it.
  const Bf16* norm_weight = nullptr;
  float norm_epsilon = 1e-6F;
  /// [2 * n_kv_heads * head_dim, x.n_columns]: W_K's rows, then W_V's. With latents: S B^T of each.
  const Bf16* weights = nullptr;
  const Bf16* k_norm_weight = nullptr;  ///< [head_dim] of the norm of each key head; null: none
  float k_norm_epsilon = 1e-6F;
  int chunk_tokens = 1024;  ///< rebuilt at a time
  /// Where the rows go: n_tokens, cache, rope, sequences, slots, positions. Its element, k and v
  /// are not looked at.
  CacheWriteParams to;
};

/// The rebuilt rows in double: [n_tokens, n_kv_heads, head_dim], K after norm and before RoPE.
struct ResidualRecomputeReference {
  double* k = nullptr;
  double* v = nullptr;
  double* k_magnitude = nullptr;  ///< sum of |products| behind each value, through the norm
  double* v_magnitude = nullptr;
};

/// Throws UnsupportedShape, saying what is wrong.
void check_residual_recompute(const ResidualRecomputeParams& params);

/// The write of `count` rebuilt tokens from `first` on.
[[nodiscard]] CacheWriteParams cache_write_of_chunk(const ResidualRecomputeParams& params,
                                                    std::int64_t first,
                                                    std::int64_t count,
                                                    Element element,
                                                    const void* k,
                                                    const void* v);

/// The definition, in double, on host buffers.
void residual_recompute_reference(const ResidualRecomputeParams& params,
                                  const ResidualRecomputeReference& result);
/// The same on the CPU, into the cache; n_threads threads (0: all). Throws UnsupportedShape.
void residual_recompute_cpu(const ResidualRecomputeParams& params, int n_threads = 0);

/// Tokens and output columns of one block's tile of the product.
inline constexpr int kResidualTileTokens = 128;
inline constexpr int kResidualTileColumns = 64;
/// Bytes of scratch memory that a launch needs: the normalised rows and the products of a chunk.
[[nodiscard]] std::int64_t residual_recompute_scratch_bytes(const ResidualRecomputeParams& params);
/// The same on the device. Throws NoDevice, DeviceError or UnsupportedShape.
void residual_recompute_launch(const ResidualRecomputeParams& params,
                               void* scratch,
                               Stream stream = nullptr);

}  // namespace kvfathom::kernels
