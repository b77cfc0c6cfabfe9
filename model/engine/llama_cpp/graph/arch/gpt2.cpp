// GPT-2 (src/models/gpt2.cpp): learned positions, added to the embeddings.
#include <array>

#include "model/engine/llama_cpp/graph/arch/decoder.h"

namespace kvfathom::llama_cpp {

namespace {

void build_gpt2(Builder& b) {
  TensorGraph& g = b.graph;
  const TensorId table = g.host_weight(DType::f32);
  build_sequential(b,
                   {.norm = NormKind::layer, .activation = Activation::gelu, .fused_qkv = true},
                   [&g, &b, table](const DecoderInputs& in) {
                     const TensorId rows = g.operation(Op::get_rows,
                                                       DType::f32,
                                                       {b.model.hidden_size, b.n_tokens, 1, 1},
                                                       {table, in.positions});
                     return g.add(in.x, rows);
                   });
}

}  // namespace

std::span<const ArchitectureRow> gpt2_family() {
  static constexpr auto kRows = std::to_array<ArchitectureRow>({{"gpt2", build_gpt2}});
  return kRows;
}

}  // namespace kvfathom::llama_cpp
