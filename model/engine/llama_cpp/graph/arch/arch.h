// One graph builder a model family, found by llama.cpp's architecture name.
#pragma once

#include <span>
#include <string_view>

#include "model/engine/llama_cpp/graph/builder.h"

namespace kvfathom::llama_cpp {

using BuildGraph = void (*)(Builder&);

struct ArchitectureRow {
  std::string_view name;
  BuildGraph build;
};

/// The builder of `architecture`; Unsupported naming it if there is none.
[[nodiscard]] BuildGraph graph_builder(std::string_view architecture);

// The tables, one a file in this folder.
[[nodiscard]] std::span<const ArchitectureRow> decoder_families();
[[nodiscard]] std::span<const ArchitectureRow> deepseek_family();
[[nodiscard]] std::span<const ArchitectureRow> gpt_oss_family();
[[nodiscard]] std::span<const ArchitectureRow> gpt2_family();
[[nodiscard]] std::span<const ArchitectureRow> mamba_family();
[[nodiscard]] std::span<const ArchitectureRow> gemma3n_family();
[[nodiscard]] std::span<const ArchitectureRow> gemma4_family();
[[nodiscard]] std::span<const ArchitectureRow> lfm2_family();
[[nodiscard]] std::span<const ArchitectureRow> mamba_hybrid_family();
[[nodiscard]] std::span<const ArchitectureRow> delta_net_family();

/// What most families ask of a layer: its attention, or Unsupported naming the layer.
[[nodiscard]] const Attention& attention_of(const Builder& b, std::size_t layer);

/// The routing facts that a file states, as options.
[[nodiscard]] MoeOptions moe_options(const MixtureOfExperts& moe);

}  // namespace kvfathom::llama_cpp
