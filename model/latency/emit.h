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
  std::int64_t hidden_size = 0;
  std::int64_t n_layers = 1;  ///< equal layers that this stands for
  std::vector<Op>& ops;
  bool on_host = false;  ///< the layer's cache and norms are there

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
  /// `op.n_times` of it in every layer, where the layer is.
  void add(const Op& op) const { add(op, on_host && !is_link(op.op_class.kind)); }
  /// The same, where its weights are.
  void add(Op op, bool weights_on_host) const {
    op.n_times *= n_layers;
    op.on_host = weights_on_host;
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

/// Operations from `first` on whose operands are on the host, as a step of many tokens runs them:
/// on the device, what they read brought over. One of few tokens leaves them where they are.
void bring_from_host(const Emit& emit, std::size_t first);

/// The cache's part: scores, sums, states, rebuilding, writing, fetching.
void emit_mixer(const Emit& emit, const LayerWork& layer);

/// Attention of a prompt's chunk over what is cached and itself, K and V of `kv` per head.
void emit_prefill_attention(const Emit& emit, const Attention& kv);

/// The products of a layer that recomputing its K and V from earlier layers runs again: a prompt
/// pass over `n_tokens` of each sequence.
void emit_layer_again(const Emit& emit, const LayerWork& layer, std::int64_t n_tokens);

}  // namespace kvfathom::latency
