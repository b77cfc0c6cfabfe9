// What the parts of a step's operation list share; internal to model/latency.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "model/latency/step_ops.h"
#include "model/rounding.h"

namespace kvfathom::latency {

/// One layer of a step on one rank, and where its operations go.
struct Emit {
  const LatencySettings& settings;
  const StepShape& step;
  std::int64_t hidden_size;
  std::int64_t n_layers;  ///< equal layers that this stands for
  std::vector<Op>& ops;

  [[nodiscard]] std::int64_t tokens() const { return step.n_sequences * step.n_new_tokens; }
  /// Cached tokens that a sequence has once the step is done: the mean where they differ.
  [[nodiscard]] std::int64_t context() const;
  /// The same of each sequence, or one number for all.
  [[nodiscard]] std::vector<std::int64_t> lengths() const;
  [[nodiscard]] std::int64_t share(std::int64_t n) const {
    return divide_up(n, settings.tensor_parallel);
  }
  /// A rank's query heads in decode, those of every new token of a draft: all read K and V
  /// together.
  [[nodiscard]] std::int64_t query_heads(std::int64_t n_heads) const {
    return share(n_heads) * step.n_new_tokens;
  }
  /// `op.n_times` of it in every layer.
  void add(Op op) const {
    op.n_times *= n_layers;
    ops.push_back(op);
  }
  /// So many in all.
  void add_in_all(Op op, std::int64_t n_times) const {
    op.n_times = n_times;
    ops.push_back(op);
  }
};

/// Whether the layer keeps something by this scheme.
template <class Scheme>
[[nodiscard]] bool holds(const LayerWork& layer) {
  return std::ranges::any_of(layer.schemes, [](const cache::Scheme& scheme) {
    return std::holds_alternative<Scheme>(scheme);
  });
}

/// One product, this rank's share of it.
void emit_matrix(const Emit& emit, const MatrixWork& matrix, const Mixer& mixer);

/// Projections, routed experts and what lies between them.
void emit_products(const Emit& emit, const LayerWork& layer);

/// The cache's part: scores, sums, states, rebuilding, writing, fetching.
void emit_mixer(const Emit& emit, const LayerWork& layer);

/// Attention of a prompt's chunk over what is cached and itself, K and V of `kv` per head.
void emit_prefill_attention(const Emit& emit, const Attention& kv);

/// The products of a layer that recomputing its K and V from earlier layers runs again: a prompt
/// pass over `n_tokens` of each sequence.
void emit_layer_again(const Emit& emit, const LayerWork& layer, std::int64_t n_tokens);

}  // namespace kvfathom::latency
