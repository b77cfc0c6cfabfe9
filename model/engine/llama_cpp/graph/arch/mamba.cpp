// Mamba and Mamba-2 (src/models/mamba.cpp): nothing but state layers.
#include <array>
#include <string>

#include "model/engine/llama_cpp/graph/arch/arch.h"
#include "model/engine/llama_cpp/graph/recurrent.h"
#include "model/error.h"

namespace kvfathom::llama_cpp {

namespace {

TensorId mixer(Builder& b, const StateInputs& states, std::size_t layer, TensorId x) {
  const Mixer& m = b.model.layers[layer].mixer;
  if (const auto* second = std::get_if<Mamba2>(&m)) {
    return mamba2_layer(b, states, *second, x);
  }
  if (const auto* first = std::get_if<Mamba>(&m)) {
    return mamba_layer(b, states, *first, x);
  }
  throw Unsupported("layer " + std::to_string(layer),
                    "a mixer that architecture \"" + b.model.architecture + "\" does not have",
                    "a Mamba layer");
}

void build_mamba(Builder& b) {
  TensorGraph& g = b.graph;
  TensorId x = b.token_embedding();
  const StateInputs states = state_inputs(b);
  const TensorId rows = b.output_rows();
  const std::size_t n_layers = b.model.layers.size();
  for (std::size_t i = 0; i < n_layers; ++i) {
    g.set_layer(static_cast<std::int64_t>(i));
    TensorId t = mixer(b, states, i, b.norm(x));
    if (i + 1 == n_layers) {
      t = b.take_outputs(t, rows);
      x = b.take_outputs(x, rows);
    }
    x = g.add(t, x);
  }
  g.set_layer(static_cast<std::int64_t>(n_layers));
  b.head(x);
}

}  // namespace

std::span<const ArchitectureRow> mamba_family() {
  static constexpr std::array<ArchitectureRow, 2> kRows{
      {{"mamba", build_mamba}, {"mamba2", build_mamba}}};
  return kRows;
}

}  // namespace kvfathom::llama_cpp
