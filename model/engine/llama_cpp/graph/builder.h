// Building blocks of the graphs: one call a part of a layer, in the order in which llama.cpp
// (llama-graph.cpp, llama-kv-cache.cpp, 2026-08/09) creates and expands its tensors.
#pragma once

#include <cstdint>
#include <string_view>

#include "model/architecture/model_spec.h"
#include "model/engine/llama_cpp/compute.h"
#include "model/engine/llama_cpp/graph/tensor_graph.h"

namespace kvfathom::llama_cpp {

/// Which of a model's caches a layer uses.
enum class CacheKind : std::uint8_t { full, window };

/// The inputs that one cache brings into the graph.
struct CacheInputs {
  Affine cells;
  TensorId k_rows = kNoTensor;
  TensorId v_rows = kNoTensor;
  TensorId mask = kNoTensor;
  TensorId k_rotation = kNoTensor;  ///< Hadamard matrices, quantised caches only
  TensorId v_rotation = kNoTensor;
};

struct Qkv {
  TensorId q = kNoTensor;
  TensorId k = kNoTensor;
  TensorId v = kNoTensor;
};

/// How a layer's K and V lie in its cache.
struct CacheShape {
  std::int64_t k_head_dim = 0;
  std::int64_t v_head_dim = 0;
  std::int64_t n_kv_heads = 0;
};

struct AttendOptions {
  bool sinks = false;
  bool softcap = false;
  TensorId score_bias = kNoTensor;
  std::int64_t decompressed_v_dim = 0;  ///< > 0: MLA, results are expanded per head to this width
  std::int64_t cache_of_layer = -1;     ///< >= 0: the layer whose cache is read, wherever that is
  TensorId chosen_cells = kNoTensor;    ///< per token the only cells to attend to (sparse index)
};

enum class Activation : std::uint8_t { silu, gelu, relu, relu_squared };

struct MoeOptions {
  ExpertGating gating = ExpertGating::softmax;
  Activation activation = Activation::silu;
  bool normalise_weights = false;
  bool scale_weights = false;
  bool selection_bias = false;
  bool router_bias = false;
  bool expert_bias = false;
  bool gated = true;
  bool merged_gate_up = false;
  bool weight_before_experts = false;  ///< Llama-4
  std::int64_t n_groups = 1;
  std::int64_t n_groups_used = 1;
  TensorId logits = kNoTensor;  ///< computed by the caller
};

/// A graph under construction.
class Builder {
 public:
  Builder(const ModelSpec& spec, const GraphSettings& graph_settings, std::int64_t tokens);

  const ModelSpec& model;
  const GraphSettings& settings;
  TensorGraph graph;
  const std::int64_t n_tokens;
  const std::int64_t n_outputs;
  const std::int64_t n_streams;
  const std::int64_t n_sequences;
  /// The most cells that this graph is for.
  std::int64_t max_cells = INT64_MAX;
  /// Kind of the norms for which no kind is given: llama.cpp fixes it by architecture.
  NormKind norm_kind = NormKind::rms;

  // Inputs.
  TensorId token_embedding();
  TensorId positions(std::int64_t per_token = 1);
  TensorId output_rows();
  TensorId attention_scale();
  /// Inputs of the cache of layers that keep K and V; `v_width_max`: the widest V row.
  CacheInputs cache_inputs(CacheKind kind);
  /// Inputs of a cache that keeps K only (MLA).
  CacheInputs k_only_inputs(CacheKind kind = CacheKind::full);

  /// One more mask over a cache's cells, of this type.
  TensorId mask(CacheKind kind, DType type);

  // Parts of a layer.
  TensorId norm(TensorId x, NormKind kind, bool in_layer = true);
  TensorId norm(TensorId x) { return norm(x, norm_kind); }
  TensorId rope(TensorId x, TensorId pos);
  TensorId bias(TensorId x) { return graph.add(x, channel_weight(x)); }
  /// Times a weight per channel.
  TensorId scale_channels(TensorId x) { return graph.mul(x, channel_weight(x)); }
  TensorId project(TensorId x,
                   std::int64_t n_out,
                   bool with_bias = false,
                   MatrixRole role = MatrixRole::other);
  /// Projections, biases and per-head shape; fused where the file has one QKV matrix.
  Qkv qkv(const Attention& a, TensorId x, bool fused);
  /// Expands q, k and v, stores k and v, attends: [heads*v_head_dim, tokens].
  TensorId attend(const CacheInputs& cache,
                  const CacheShape& shape,
                  Qkv x,
                  const AttendOptions& options = {},
                  bool k_before_v = false);
  /// The same for a cache that keeps K only; V are the first `v_head_dim` of K.
  TensorId attend_k_only(const CacheInputs& cache,
                         const CacheShape& shape,
                         Qkv x,
                         const AttendOptions& options);
  /// Expands the store of `k` into the cache.
  void store_k(const CacheInputs& cache, const CacheShape& shape, TensorId k);
  TensorId cached_k(const CacheInputs& cache, const CacheShape& shape);
  /// [.., heads, tokens] cut into streams: [.., heads, tokens / streams, streams].
  TensorId by_stream(TensorId x);
  TensorId feed_forward(TensorId x, const DenseFeedForward& ff, Activation activation);
  TensorId activate(TensorId x, Activation activation);
  TensorId experts(TensorId x, const MixtureOfExperts& moe, const MoeOptions& options);
  TensorId take_outputs(TensorId x, TensorId rows) { return graph.get_rows(x, rows); }
  /// Final norm and output head; marks both as outputs.
  void head(TensorId x);
  /// Final norm of every token, then the head of the asked-for rows only; both norms and rows are
  /// outputs.
  void head_of_rows(TensorId x, TensorId rows);
  /// The head alone, for `x` that is normalised already.
  void logits(TensorId x);

  [[nodiscard]] static Affine cells(CacheKind kind);
  [[nodiscard]] bool has_tensor(std::string_view name) const;
  /// The caches hold fewer cells than this. Only asked for sparse indices, which then choose all.
  [[nodiscard]] bool fewer_cells_than(std::int64_t n) const { return max_cells < n; }
  /// Whether the engine scores cells in one operation.
  [[nodiscard]] bool fused_indexer(const Indexer& indexer) const;

 private:
  const bool has_rope_factors_;

  TensorId channel_weight(TensorId x) {
    return graph.layer_weight(DType::f32, {graph[x].ne[0], 1, 1, 1});
  }
  TensorId sink_weight(TensorId q);
  TensorId store(TensorId cache, TensorId rows, TensorId ids);
  TensorId store_v(const CacheInputs& cache, const CacheShape& shape, TensorId v);
  TensorId hadamard(TensorId x, TensorId rotation);
  TensorId attend_core(Qkv x, TensorId mask, const AttendOptions& options, bool v_transposed);
  TensorId masked_scores(Qkv x, TensorId mask, const AttendOptions& options);
  TensorId choose_experts(TensorId probabilities,
                          const MixtureOfExperts& moe,
                          const MoeOptions& options);
  TensorId grouped_probabilities(TensorId probabilities,
                                 const MixtureOfExperts& moe,
                                 const MoeOptions& options);
  TensorId expert_weights(TensorId probabilities,
                          TensorId chosen,
                          const MixtureOfExperts& moe,
                          const MoeOptions& options);
  TensorId run_experts(TensorId x,
                       TensorId chosen,
                       const MixtureOfExperts& moe,
                       const MoeOptions& options);
  CacheInputs common_inputs(CacheKind kind);
  TensorId chosen_mask(TensorId mask, TensorId chosen);
  TensorId cached_v(const CacheInputs& cache, const CacheShape& shape);
  [[nodiscard]] std::int64_t widest_v() const;
};

}  // namespace kvfathom::llama_cpp
