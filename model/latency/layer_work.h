// The matrices of each layer as products that a step runs, equal layers counted once.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/cache/scheme.h"

namespace kvfathom {

/// Matrices that read the same input and run as one product: weights [n_out, n_in], `n_stack` times
/// (heads of a latent layer).
struct MatrixWork {
  std::string_view part;  ///< "q k v", "gate up", "down", ...
  std::int64_t n_in = 0;
  std::int64_t n_out = 0;
  std::int64_t n_stack = 1;
  DType dtype = DType::bf16;
  std::int64_t weights_bytes = 0;
  bool replicated = false;    ///< whole on every rank
  bool block_scales = false;  ///< of 8-bit floats
  bool on_host = false;       ///< stored there
  friend bool operator==(const MatrixWork&, const MatrixWork&) = default;
};

/// Routed experts of one layer.
struct ExpertWork {
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t n_experts = 0;
  std::int64_t n_chosen = 0;
  bool gated = true;
  DType dtype = DType::bf16;
  std::int64_t weights_bytes = 0;  ///< of all experts
  bool block_scales = false;       ///< of 8-bit floats
  bool on_host = false;            ///< stored there
  friend bool operator==(const ExpertWork&, const ExpertWork&) = default;
};

/// Layers that run the same products over the same cache.
struct LayerWork {
  LayerSpec layer;
  std::vector<cache::Scheme> schemes;
  std::vector<MatrixWork> matrices;
  std::optional<ExpertWork> experts;
  /// Latent attention: tokens that an indexer chooses at most, its own or, of a layer without one,
  /// that of the last layer before it which has one (GLM-5.2's "shared" layers); 0: all.
  std::int64_t selected_tokens = 0;
  std::int64_t n_layers = 0;
  bool on_host = false;  ///< where the cache is; matrices may be elsewhere
};

struct ModelWork {
  std::vector<LayerWork> layers;
  std::vector<MatrixWork> once;  ///< of no layer: what feeds per-layer inputs and side streams
  MatrixWork output_head;
};

/// Whether a tensor, by its name in a GGUF, is on the host; empty: none is.
using IsOnHost = std::function<bool(std::string_view)>;

/// Every layer of the model under a cache scheme. The tensors are the spec's where they are named
/// as GGUF names them, else those that tensor_inventory lists; vectors, convolutions and embeddings
/// are no products and left out. A layer's cache is where its norms are. InputError where no
/// weights are known.
[[nodiscard]] ModelWork model_work(const ModelSpec& model,
                                   const cache::SchemeRequest& requested,
                                   const IsOnHost& is_on_host = {});

}  // namespace kvfathom
