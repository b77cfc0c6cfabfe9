// Heads rebuilt from other heads (scheme head-linear; arXiv 2603.13314 and its code): the K or V of
// some KV heads is not cached but predicted, as an affine map of R stored heads of the same token,
// y = M [x_1; ...; x_R] + beta. Maps act on keys as cached, that is after their rotation. K and V
// have maps and references of their own; the first and last tokens of predicted heads are exact.
//   rows    materialised: predicted rows of every token, exact rows in their places
//   decode  absorbed: scores (M^T q).[x] + q.beta for predicted keys, outputs M (sum_t p_t [x_t]) +
//           beta (sum p) for predicted values; only stored heads are read. Query heads that attend
//           through the same stored heads share one reading of them (grouped_decode.h).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/device.h"
#include "kernels/common/grouped_decode.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::kernels {

/// How the keys, or the values, of a layer's KV heads are had. Arrays live where the callee runs.
struct HeadSources {
  int n_maps = 0;          ///< predicted heads; 0: all are stored
  int max_references = 1;  ///< of any map
  /// [n_kv_heads] 1 + the map that predicts the head, or 0: it is stored.
  const std::int32_t* map_of_head = nullptr;
  /// [n_kv_heads, max_references] stored heads: the references, or the head's own place alone.
  const std::int32_t* stored = nullptr;
  const std::int32_t* n_stored = nullptr;  ///< [n_kv_heads] how many of them; 1 for a stored head
  /// [n_maps, head_dim, max_references * head_dim] Element M, by output; unused columns are not
  /// read.
  const std::uint16_t* maps = nullptr;
  const float* bias = nullptr;  ///< [n_maps, head_dim] beta
  /// [n_sequences, n_first + n_last, n_maps, head_dim] Element: rows of the exact tokens.
  const std::uint16_t* exact = nullptr;
  RowGroups groups;  ///< the query heads by the stored heads that they read (group_heads)
};

/// Shapes and buffers of one call; buffers live where the callee runs. Element means Bf16 for a
/// bf16 cache and F16 for an f16 cache; no other format is taken.
struct HeadReconstructionParams {
  int n_heads = 0;     ///< query heads, a multiple of n_kv_heads
  int n_kv_heads = 0;  ///< of the layer, stored or predicted
  int head_dim = 0;    ///< a multiple of 16
  /// Planes of stored heads: this layer's, and those of earlier layers that maps refer to. One
  /// length a sequence.
  KvCacheView cache;
  HeadSources k;
  HeadSources v;
  int n_first = 0;  ///< exact tokens at the start of a sequence ...
  int n_last = 0;   ///< ... and at its end

  const std::uint16_t* q = nullptr;  ///< decode: [n_sequences, n_heads, head_dim] Element
  float softmax_scale = 1.0F;
  float* out = nullptr;  ///< decode: [n_sequences, n_heads, head_dim]; zeros without tokens

  /// rows: [n_sequences, token_capacity, n_maps, head_dim] Element, of k or of v.
  std::uint16_t* rows = nullptr;
  int token_capacity = 0;
};

enum class HeadSide : std::uint8_t { keys, values };

/// Throws UnsupportedShape, naming what is wrong, for what no version takes.
void head_reconstruction_check(const HeadReconstructionParams& params);

/// Rows by the definition, in double, both [n_sequences, token_capacity, n_maps, head_dim]. What
/// lies beyond a length is not touched.
struct HeadRowsReference {
  double* rows = nullptr;
  double* magnitude = nullptr;  ///< sum |M x| + |beta|; 0 for exact rows
};
void head_rows_reference(const HeadReconstructionParams& params,
                         HeadSide side,
                         const HeadRowsReference& result);
void head_rows_cpu(const HeadReconstructionParams& params, HeadSide side, int n_threads = 0);
void head_rows_launch(const HeadReconstructionParams& params,
                      HeadSide side,
                      int longest_tokens,
                      Stream stream);

/// Decode by the definition, in double, [n_sequences, n_heads, head_dim] but for the score.
struct HeadDecodeReference {
  double* out = nullptr;
  double* weighted_abs_v = nullptr;     ///< sum_t p_t (sum |M x| + |beta|)
  double* largest_abs_score = nullptr;  ///< [n_sequences, n_heads]
};
void head_decode_reference(const HeadReconstructionParams& params,
                           const HeadDecodeReference& result);
void head_decode_cpu(const HeadReconstructionParams& params, int n_threads = 0);
/// How many runs the launch rule cuts the tokens into, for the weighted sums.
[[nodiscard]] int head_decode_splits(const HeadReconstructionParams& params,
                                     int longest_tokens,
                                     const DeviceInfo& device);
[[nodiscard]] std::int64_t head_decode_scratch_bytes(const HeadReconstructionParams& params,
                                                     int longest_tokens,
                                                     int n_splits);
void head_decode_launch(const HeadReconstructionParams& params,
                        int longest_tokens,
                        int n_splits,
                        void* scratch,
                        Stream stream);

/// The arrays behind a HeadSources' host side, and its groups.
struct HeadTables {
  std::vector<std::int32_t> map_of_head, stored, n_stored;
  std::vector<std::int32_t> bounds, rows, slices;  ///< of the groups
  int n_maps = 0, max_references = 1, rows_per_group = 0, slices_per_group = 0;
};
/// Tables for KV heads that each read `stored[head]`: one entry that is the head's own place, or
/// the references of a predicted head where `predicted[head]`. Maps are numbered by head. Query
/// heads whose lists are equal form a group, stored and predicted ones apart.
[[nodiscard]] HeadTables group_heads(int n_heads,
                                     const std::vector<std::vector<int>>& stored,
                                     const std::vector<bool>& predicted);

}  // namespace kvfathom::kernels
