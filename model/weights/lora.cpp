#include "model/weights/lora.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <variant>

#include "model/architecture/tensor_inventory.h"
#include "model/error.h"

namespace kvfathom {
namespace {

struct Target {
  std::string_view word;
  std::string_view tensor;                           ///< behind "blk.N."
  LoraMatrix::Cut cut = LoraMatrix::Cut::by_output;  ///< by_input: row-parallel
};
constexpr std::array<Target, 7> kTargets{Target{"q", "attn_q"},
                                         Target{"k", "attn_k"},
                                         Target{"v", "attn_v"},
                                         Target{"o", "attn_output", LoraMatrix::Cut::by_input},
                                         Target{"gate", "ffn_gate"},
                                         Target{"up", "ffn_up"},
                                         Target{"down", "ffn_down", LoraMatrix::Cut::by_input}};

/// "ffn_up" of "blk.3.ffn_up_exps.weight", and whether the matrix is one of routed experts.
struct Matrix {
  std::string_view name;
  bool experts = false;
};

Matrix matrix_of(std::string_view tensor) {
  if (!tensor.starts_with("blk.") || !tensor.ends_with(".weight")) {
    return {};
  }
  tensor.remove_prefix(tensor.find('.', 4) + 1);
  tensor.remove_suffix(std::string_view(".weight").size());
  const bool experts = tensor.ends_with("_exps");
  for (const std::string_view suffix : {"_exps", "_shexp"}) {
    if (tensor.ends_with(suffix)) {
      tensor.remove_suffix(suffix.size());
    }
  }
  return {tensor, experts};
}

bool is_fused(const ModelSpec& model, const std::vector<Tensor>& tensors) {
  const auto holds = [&](std::string_view name) {
    return std::ranges::any_of(tensors,
                               [&](const Tensor& t) { return matrix_of(t.name).name == name; });
  };
  const bool gated = std::ranges::any_of(model.layers, [](const LayerSpec& layer) {
    const auto* const dense = std::get_if<DenseFeedForward>(&layer.feed_forward);
    return dense != nullptr && dense->gated;
  });
  return holds("attn_qkv") || holds("ffn_gate_up") || (gated && !holds("ffn_gate"));
}

void require_plain(const ModelSpec& model, const std::vector<Tensor>& tensors) {
  for (const LayerSpec& layer : model.layers) {
    if (!std::holds_alternative<Attention>(layer.mixer)) {
      throw Unsupported(model.name,
                        "no rule for adapters of a mixer that is not plain attention",
                        "leave out --lora-rank");
    }
  }
  if (is_fused(model, tensors)) {
    throw Unsupported(
        model.name, "no rule for adapters of fused matrices", "leave out --lora-rank");
  }
}

void require_known(const LoraShape& shape) {
  for (const std::string& word : shape.targets) {
    if (std::ranges::find(kTargets, word, &Target::word) == kTargets.end()) {
      throw InputError("--lora-targets", "'" + word + "'", "q, k, v, o, gate, up, down or all");
    }
  }
}

/// How many of the ranks hold a different part of it.
std::int64_t parts(bool is_cut, const LoraRank& rank) {
  return is_cut ? rank.tensor_parallel : 1;
}

void require_cuttable(const LoraRank& rank,
                      const ModelSpec& model,
                      std::span<const LoraMatrix> matrices) {
  if (rank.tensor_parallel == 1) {
    return;
  }
  for (const LayerSpec& layer : model.layers) {
    const auto* const attention = std::get_if<Attention>(&layer.mixer);
    if (attention != nullptr && attention->n_kv_heads % rank.tensor_parallel != 0) {
      throw Unsupported(model.name,
                        std::to_string(attention->n_kv_heads) + " KV heads over " +
                            std::to_string(rank.tensor_parallel) +
                            " ranks: no rule for their adapters",
                        "leave out --lora-rank");
    }
  }
  if (std::ranges::find(matrices, LoraMatrix::Cut::unknown, &LoraMatrix::cut) != matrices.end()) {
    throw Unsupported("--lora", "no rule cuts it over tensor-parallel ranks", "use one rank");
  }
}

}  // namespace

LoraMatrix lora_beside(std::string_view tensor, const ModelSpec& model) {
  constexpr std::string_view kBlock = "blk.";
  LoraMatrix place;
  place.tensor = tensor;
  if (!tensor.starts_with(kBlock)) {
    const bool head = tensor.starts_with("output");
    place.layer = head ? static_cast<std::int64_t>(model.layers.size()) - 1 : 0;
    place.cut = LoraMatrix::Cut::none;
    return place;
  }
  std::from_chars(tensor.data() + kBlock.size(), tensor.data() + tensor.size(), place.layer);
  const auto* const target = std::ranges::find(kTargets, matrix_of(tensor).name, &Target::tensor);
  place.cut = target != kTargets.end() ? target->cut : LoraMatrix::Cut::unknown;
  return place;
}

std::vector<LoraMatrix> lora_matrices(const ModelSpec& model, const LoraShape& shape) {
  const std::vector<Tensor> tensors = tensor_inventory(model);
  require_plain(model, tensors);
  require_known(shape);
  std::vector<LoraMatrix> matrices;
  for (const Target& target : kTargets) {
    const bool named =
        std::ranges::find(shape.targets, std::string(target.word)) != shape.targets.end();
    if (!named && !shape.targets.empty()) {
      continue;
    }
    bool found = false;
    for (const Tensor& t : tensors) {
      const Matrix matrix = matrix_of(t.name);
      if (matrix.name != target.tensor) {
        continue;
      }
      found = true;
      if (shape.experts || !matrix.experts) {
        LoraMatrix pair = lora_beside(t.name, model);
        pair.a = shape.rank * t.shape[0] * t.shape[2];
        pair.b = shape.rank * t.shape[1] * t.shape[2];
        matrices.push_back(pair);
      }
    }
    if (named && !found) {
      throw InputError("--lora-targets",
                       "'" + std::string(target.word) + "': " + model.name + " has no such matrix",
                       "a target that it has");
    }
  }
  return matrices;
}

std::int64_t held_by(const LoraRank& rank,
                     const ModelSpec& model,
                     std::span<const LoraMatrix> matrices) {
  require_cuttable(rank, model, matrices);
  std::int64_t sum = 0;
  for (const LoraMatrix& matrix : matrices) {
    if (matrix.layer >= rank.first_layer && matrix.layer < rank.end_layer) {
      sum += matrix.a / parts(matrix.cut == LoraMatrix::Cut::by_input, rank) +
             matrix.b / parts(matrix.cut == LoraMatrix::Cut::by_output, rank);
    }
  }
  return sum;
}

}  // namespace kvfathom
