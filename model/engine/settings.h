// What a user asks of an engine. An empty optional is "the engine's own default".
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/cache/parameters.h"
#include "model/dtype.h"
#include "model/provenance.h"

namespace kvfathom {

enum class FlashAttention : std::uint8_t { automatic, on, off };

/// How the cache is laid out: `native` is what the model prescribes and the engine version does.
enum class CacheScheme : std::uint8_t {
  native,
  full,
  mla_latent,
  mla_with_v,
  mla_expanded,
  window,
  state,
  sparse_index,
  cross_layer,
  k_only,
  head_linear,
  residual,
  evict_streaming,
  evict_h2o,
  evict_tova,
  evict_snapkv,
  evict_grkv,
  xquant,
  kivi,
  offload,  ///< the native scheme with a share of it elsewhere; others compose
};

/// Matrices of a layer's feed-forward part that llama.cpp's fit moves together; routed experts are
/// among them, shared ones and the router too, but not with `experts`.
enum class MovedMatrices : std::uint8_t {
  experts,     ///< up, gate and down of the routed experts
  all,         ///< every up, gate and down
  all_but_up,  ///< every gate and down
  down,
};

/// Matrices of a layer elsewhere than the layer (llama.cpp --override-tensor).
struct MovedLayer {
  std::int64_t layer = 0;
  MovedMatrices matrices = MovedMatrices::experts;
  int device = -1;  ///< a GPU, or the host
  friend bool operator==(const MovedLayer&, const MovedLayer&) = default;
};

/// A second model that drafts for the first, where the engine makes one plan of both.
struct DraftModel {
  ModelSpec model;
  Provenance weights_provenance = Provenance::exact;
  std::string name;  ///< as the engine is told to load it
};

/// Settings of one run. Words as in the field: batch_tokens and ubatch_tokens are tokens of one
/// logical and physical forward pass (llama.cpp n_batch, n_ubatch).
struct EngineSettings {
  std::int64_t context_tokens = 0;  ///< per sequence, unless context_is_total
  bool context_is_total = false;
  std::int64_t sequences = 1;
  DType cache_type_k = DType::f16;
  DType cache_type_v = DType::f16;
  CacheScheme scheme = CacheScheme::native;
  cache::SchemeParameters scheme_parameters;  ///< of `scheme`, where it takes some
  std::optional<cache::Offload> offload;      ///< a share of its K and V in a slower tier
  std::optional<std::int64_t> batch_tokens;
  std::optional<std::int64_t> ubatch_tokens;
  std::optional<std::int64_t> outputs;  ///< rows of logits reserved; 0: a whole micro-batch
  FlashAttention flash_attention = FlashAttention::automatic;
  std::optional<bool> kv_unified;
  std::optional<bool> swa_full;
  int n_gpus = 1;  ///< 0: everything on the host
  std::int64_t device_memory_bytes =
      0;  ///< of one device, for engines that take a share; 0: not known
  std::vector<std::int64_t> uneven_device_memory_bytes;  ///< of each, where they differ; else empty
  std::string device_name;                         ///< as the catalog spells it; empty: not known
  std::optional<double> gpu_memory_utilization;    ///< the engine's share of a device, (0, 1]
  std::optional<std::int64_t> max_batched_tokens;  ///< tokens in one scheduler step
  std::optional<std::int64_t> max_sequences;       ///< sequences in one scheduler step
  std::optional<std::int64_t> block_tokens;        ///< tokens in one page of the cache
  std::int64_t draft_tokens = 0;  ///< by the model's own prediction block; 0: it is not loaded
  std::shared_ptr<const DraftModel> draft_model = nullptr;
  std::int64_t tensor_parallel = 1;
  std::int64_t pipeline_parallel = 1;
  std::int64_t data_parallel = 1;
  std::int64_t expert_parallel = 1;  ///< 1: experts are cut as dense matrices are
  /// Layers on the GPUs, from the last one on; the output head counts as one. Empty: all.
  std::optional<std::int64_t> gpu_layers;
  std::int64_t cpu_moe_layers = 0;  ///< the experts of so many layers, from the first, on the host
  std::vector<std::int64_t> gpu_memory_bytes;  ///< layers are split by these; empty: evenly
  /// So many of gpu_layers on each GPU, whatever they hold (llama.cpp -ts). Empty: split as above.
  std::vector<std::int64_t> layers_per_gpu;
  std::vector<MovedLayer> moved_layers;  ///< besides cpu_moe_layers, at most one entry a layer
  /// How sure the stored tensors are: `exact` for a file's own, `modelled` where a recipe made them
  /// of a config; then the weights' line gets an interval.
  Provenance weights_provenance = Provenance::exact;
  bool online_fp8 = false;     ///< the engine packs a checkpoint of 16 bits as it loads it
  std::string engine_version;  ///< empty: newest known
  /// Behaviours (ids of data/engines/*.json) that engine_version does not have yet. Empty: today's.
  std::vector<std::string> missing_behaviours;
};

}  // namespace kvfathom
