// llama.cpp's compute buffers: what one forward pass needs besides weights and cache, on the
// device and on the host. Not a fit: the pass is built as a graph of shapes, split between device
// and host as ggml's scheduler does, and run through ggml's allocator.
//
// Valid for llama.cpp of summer and autumn 2026 (checked to the byte against 0.5.0).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/dtype.h"
#include "model/engine/llama_cpp/graph/affine.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/engine/settings.h"

namespace kvfathom::llama_cpp {

/// The backend that layers and cache live on unless GraphSettings::layer_devices says more: the
/// host, or one CUDA device (with the token embedding on the host, as the engine keeps it).
enum class Backend : std::uint8_t { cpu, cuda };

/// What decides the graph, all after the engine's own rounding and clipping.
struct GraphSettings {
  Backend backend = Backend::cuda;
  std::int64_t n_ctx_seq = 0;  ///< cells of one sequence, padded
  std::int64_t n_seq_max = 1;
  std::int64_t n_batch = 2048;  ///< clipped to the context that was asked for
  std::int64_t n_ubatch = 512;  ///< clipped to n_batch
  std::int64_t n_outputs = 0;   ///< rows of logits reserved at most; 0: a whole batch
  bool flash_attention = true;  ///< resolved: see resolve_flash_attention
  /// V is stored transposed: without FlashAttention, unless `auto` hoped for it at first.
  bool v_transposed = false;
  bool kv_unified = false;
  DType type_k = DType::f16;
  DType type_v = DType::f16;
  /// What latent (MLA) layers cache: mla_latent (K only), mla_with_v (V beside it, as before
  /// January 2026) or mla_expanded (K and V of every head, as for files without
  /// attention.key_length_mla).
  CacheScheme latent = CacheScheme::mla_latent;
  /// Where the layers go if they are not all on the backend (weights.h). `devices` is then not
  /// empty.
  LayerPlaces places;
};

/// Tokens of the pass that the engine reserves for: a micro-batch, a multiple of n_seq_max.
[[nodiscard]] std::int64_t reserved_tokens(const GraphSettings& settings);

struct ComputeBytes {
  std::int64_t device_bytes = 0;                ///< CUDA0; 0 on the CPU backend
  std::int64_t host_bytes = 0;                  ///< CPU, or CUDA_Host
  std::vector<std::int64_t> more_device_bytes;  ///< CUDA1 and up
  friend bool operator==(const ComputeBytes&, const ComputeBytes&) = default;
};

namespace detail {
struct CompiledPass;
}

/// A model under settings, prepared once; cells may then vary at about a microsecond a question.
class ComputePlan {
 public:
  /// Repeating layers are built a few times only (fold.h), or all of them: slower, and the same.
  enum class Layers : std::uint8_t { folded, all };

  /// Throws Unsupported for an architecture without a graph builder. A pass is built when `bytes`
  /// first needs it, so that one plan is for one thread at a time.
  ComputePlan(const ModelSpec& model, GraphSettings settings, Layers layers = Layers::folded);
  ComputePlan(const ComputePlan&) = delete;
  ComputePlan& operator=(const ComputePlan&) = delete;
  ComputePlan(ComputePlan&&) noexcept;
  ComputePlan& operator=(ComputePlan&&) noexcept;
  ~ComputePlan();

  [[nodiscard]] ComputeBytes bytes(const CacheCells& cells) const;

  /// The same by replaying every event of every layer: the reference that `bytes` is tested
  /// against.
  [[nodiscard]] ComputeBytes bytes_by_full_replay(const CacheCells& cells) const;

 private:
  [[nodiscard]] const detail::CompiledPass& pass(const CacheCells& cells) const;

  ModelSpec model_;
  GraphSettings settings_;
  Layers layers_;
  std::int64_t sparse_cells_ = 0;
  mutable std::unique_ptr<detail::CompiledPass> pass_;
  /// The pass over caches too small for a sparse index to choose from, if the model has one.
  mutable std::unique_ptr<detail::CompiledPass> short_pass_;
  /// Over all layers, if a folded pass does not settle.
  mutable std::unique_ptr<ComputePlan> whole_;
};

/// Whether FlashAttention stays on when it is left to the engine (`auto`): it does unless some
/// layer's attention would leave the layer's device; a quantised V cannot do without it.
/// `settings.flash_attention` is ignored.
[[nodiscard]] bool resolve_flash_attention(const ModelSpec& model, const GraphSettings& settings);

/// The buffer of kept logits (host memory, in no breakdown of the engine's): f32 rows for
/// n_seq_max outputs at start.
[[nodiscard]] std::int64_t output_bytes(const ModelSpec& model, std::int64_t n_seq_max);

}  // namespace kvfathom::llama_cpp
