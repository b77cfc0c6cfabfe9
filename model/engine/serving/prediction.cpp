#include "model/engine/serving/prediction.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "model/architecture/parameters.h"
#include "model/architecture/tensor_inventory.h"
#include "model/engine/engine.h"
#include "model/error.h"
#include "model/rounding.h"
#include "model/weights/tensor_name.h"

namespace kvfathom::serving {
namespace {

/// An architecture whose block is a layer like its own, and whether its joining matrix is cut over
/// the ranks (ColumnParallelLinear) or whole on each (nn.Linear).
struct KnownBlock {
  std::string_view architecture;
  bool cut = false;
};

constexpr std::array<KnownBlock, 9> kKnownBlocks{{
    {"deepseek2", false},
    {"deepseek32", false},
    {"glm-dsa", false},
    {"glm4moe", false},
    {"mimo", false},
    {"qwen3next", true},
    {"qwen35", true},
    {"qwen35moe", true},
    {"nemotron_h_moe", true},
}};

constexpr std::string_view kWholeMatrix = "nextn.eh_proj.weight";
constexpr std::string_view kCutMatrix = "nextn.fc.weight";

const ExtraPart& part_of(const ModelSpec& model) {
  const auto part = std::ranges::find(model.extras, std::string("mtp"), &ExtraPart::kind);
  if (part == model.extras.end() || part->n_layers == 0) {
    throw InputError("--mtp", model.name + " has no prediction blocks", "leave it out");
  }
  return *part;
}

const KnownBlock& known_block(const ModelSpec& model) {
  const ExtraPart& part = part_of(model);
  const auto* const known =
      std::ranges::find(kKnownBlocks, model.architecture, &KnownBlock::architecture);
  if (known == kKnownBlocks.end() || part.n_layers != 1) {
    throw Unsupported("--mtp",
                      "no rule for " + std::to_string(part.n_layers) +
                          (part.n_layers == 1 ? " prediction block" : " prediction blocks") +
                          " of architecture \"" + model.architecture + "\"",
                      "leave it out");
  }
  return *known;
}

bool attends(const LayerSpec& layer) {
  return std::holds_alternative<Attention>(layer.mixer) ||
         std::holds_alternative<LatentAttention>(layer.mixer);
}

bool has_indexer(const LayerSpec& layer) {
  const auto* latent = std::get_if<LatentAttention>(&layer.mixer);
  return latent != nullptr && latent->indexer.has_value();
}

bool feeds_forward(const LayerSpec& layer) {
  return !std::holds_alternative<NoFeedForward>(layer.feed_forward);
}

/// The last layer that passes; the number of layers: none does.
template <class Test>
std::size_t last_layer(const ModelSpec& model, Test test) {
  for (std::size_t i = model.layers.size(); i > 0; --i) {
    if (test(model.layers[i - 1])) {
      return i - 1;
    }
  }
  return model.layers.size();
}

/// The layers that the block is like: the last that attends (by an index of its own, where any
/// does), and the last feed-forward where the two are layers apart (Nemotron-H). Unsupported if
/// they do not have the block's parameters.
std::vector<std::size_t> repeated_layers(const ModelSpec& model) {
  const bool sparse = std::ranges::any_of(model.layers, has_indexer);
  const std::size_t attention = last_layer(model, [&](const LayerSpec& layer) {
    return attends(layer) && (!sparse || has_indexer(layer));
  });
  std::vector<std::size_t> repeated{attention};
  if (attention < model.layers.size() && !feeds_forward(model.layers[attention])) {
    repeated.push_back(last_layer(model, feeds_forward));
  }
  const std::int64_t d = model.hidden_size;
  std::int64_t parameters = 2 * d * d + 3 * d;
  for (const std::size_t layer : repeated) {
    parameters += layer < model.layers.size() ? layer_parameters(model, model.layers[layer]) : 0;
  }
  const std::int64_t stored = part_of(model).n_parameters;
  if (stored != parameters && stored != parameters + 2 * d * model.vocab_size) {
    throw Unsupported(
        "--mtp", "the prediction block of " + model.name + " is unlike its layers", "");
  }
  return repeated;
}

std::string block_name(std::size_t layer, std::string_view rest) {
  return "blk." + std::to_string(layer) + "." + std::string(rest);
}

/// Norms and matrix around the layers, which checkpoints keep in 16 bits.
void add_joint(const ModelSpec& model, bool cut, std::vector<Tensor>& tensors) {
  const std::int64_t d = model.hidden_size;
  tensors.push_back(
      {block_name(0, cut ? kCutMatrix : kWholeMatrix), {2 * d, d, 1, 1}, DType::bf16});
  for (const char* const norm : {"enorm", "hnorm", "shared_head_norm"}) {
    tensors.push_back(
        {block_name(0, "nextn." + std::string(norm) + ".weight"), {d, 1, 1, 1}, DType::bf16});
  }
}

bool has(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

/// The model's own tables, of which some checkpoints keep a copy with the block.
bool is_shared_table(std::string_view name) {
  return has(name, "embed_tokens") || has(name, "shared_head.head") || has(name, "lm_head");
}

/// "layers.61.mlp.gate.weight" as layer 0 of the block; nothing for a tensor of another part.
std::optional<std::string> name_in_block(const ModelSpec& model, std::string_view name, bool cut) {
  const bool numbered = is_of_numbered_block(name);
  constexpr std::string_view kMark = "layers.";
  const std::size_t at = name.find(kMark);
  std::int64_t layer = numbered ? 0 : -1;
  std::string_view rest = name;
  if (at != std::string_view::npos) {
    const char* const begin = name.data() + at + kMark.size();
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), layer);
    if (error != std::errc{}) {
      return std::nullopt;
    }
    rest.remove_prefix(std::min(name.size(), static_cast<std::size_t>(end - name.data()) + 1));
    layer -= numbered ? 0 : n_layers(model);
  }
  if (layer < 0 || is_shared_table(name)) {
    return std::nullopt;
  }
  const bool joins = has(name, "eh_proj") || has(name, "input_proj") || has(name, "mtp.fc");
  return block_name(static_cast<std::size_t>(layer),
                    joins ? (cut ? kCutMatrix : kWholeMatrix) : rest);
}

std::vector<Tensor> block_tensors(const ModelSpec& model,
                                  const std::vector<std::size_t>& repeated,
                                  bool cut) {
  std::vector<Tensor> tensors;
  const bool by_recipe = std::ranges::any_of(
      model.tensors, [](const Tensor& t) { return block_of(t.name) != kNoBlock; });
  for (const Tensor& t : model.tensors) {
    std::optional<std::string> name;
    if (!by_recipe) {
      name = name_in_block(model, t.name, cut);
    }
    for (std::size_t i = 0; by_recipe && i < repeated.size(); ++i) {
      const std::string prefix = block_name(repeated[i], "");
      if (t.name.starts_with(prefix)) {
        name = block_name(i, t.name.substr(prefix.size()));
      }
    }
    if (name) {
      tensors.push_back({*name, t.shape, t.dtype});
    }
  }
  if (tensors.empty()) {
    throw InputError("--mtp", "the checkpoint holds no prediction block", "leave it out");
  }
  if (by_recipe) {
    add_joint(model, cut, tensors);
  }
  return tensors;
}

/// The same block with every matrix in 16 bits.
ModelSpec unquantised(ModelSpec block, bool cut) {
  block.tensors.clear();
  for (Tensor& t : tensor_inventory(block)) {
    if (block_of(t.name) != kNoBlock) {
      block.tensors.push_back(std::move(t));
    }
  }
  add_joint(block, cut, block.tensors);
  return block;
}

/// Whether the block is surely in the recipe's type: a model published in FP8 has it so too
/// (DeepSeek-V3). Who quantises later may leave it out: "ignore": ["mtp*"] in
/// huggingface.co/nvidia/Qwen3.6-27B-NVFP4.
bool is_in_own_type(const ModelSpec& block) {
  const auto largest =
      std::ranges::max_element(block.tensors, {}, [](const Tensor& t) { return data_bytes(t); });
  return block.weight_dtype == largest->dtype && largest->dtype == DType::f8_e4m3;
}

/// A convolution keeps the inputs of every drafted token too, so that any of them can be taken back
/// (vLLM model_executor/layers/mamba/mamba_utils.py, num_spec).
void lengthen(Mixer& mixer, std::int64_t draft_tokens) {
  if (auto* mamba = std::get_if<Mamba2>(&mixer)) {
    mamba->d_conv += draft_tokens;
  }
  if (auto* delta = std::get_if<GatedDeltaNet>(&mixer)) {
    delta->d_conv += draft_tokens;
  }
}

/// 16-bit tables of the engine's own beside the block, a rank's share of the vocabulary's rows.
std::int64_t vocabulary_bytes(const ModelSpec& model, std::int64_t copies, std::int64_t ranks) {
  constexpr std::int64_t kPadding = 64;
  const std::int64_t rows = round_up(model.vocab_size, kPadding);
  return copies * 2 * rows * model.hidden_size / ranks;
}

}  // namespace

bool is_of_numbered_block(std::string_view name) {
  return has(name, "mtp") &&
         (name.starts_with("mtp.") || has(name, ".mtp.") || has(name, "mtp_layers."));
}

ModelSpec prediction_block(const ModelSpec& model) {
  const KnownBlock& known = known_block(model);
  const std::vector<std::size_t> repeated = repeated_layers(model);
  ModelSpec block = model;
  block.layers.clear();
  block.extras.clear();
  for (const std::size_t layer : repeated) {
    block.layers.push_back(model.layers[layer]);
  }
  block.tensors = block_tensors(model, repeated, known.cut);
  return block;
}

void add_prediction_block(const ModelSpec& model,
                          const EngineSettings& settings,
                          const Parallel& parallel,
                          const LoadRules& rules,
                          std::vector<StageRank>& ranks) {
  if (!rules.prediction) {
    throw Unsupported("--mtp", "this engine: no rule for prediction blocks", "leave it out");
  }
  if (ranks.size() > 1) {
    throw Unsupported(
        "--mtp", "no rule for a prediction block behind pipeline stages", "--pipeline-parallel 1");
  }
  StageRank& rank = ranks.front();
  const ModelSpec block = prediction_block(model);
  const auto on_a_rank = [&](const ModelSpec& spec) {
    return std::move(stage_ranks(spec, settings, parallel, rules).front());
  };
  const StageRank loaded = on_a_rank(block);
  std::int64_t widest = loaded.weights_bytes;
  if (settings.weights_provenance != Provenance::exact && !is_in_own_type(block)) {
    const ModelSpec plain = unquantised(block, known_block(model).cut);
    widest = std::max(widest, on_a_rank(plain).weights_bytes);
  }
  const std::int64_t tables =
      vocabulary_bytes(model, rules.prediction->vocabulary_copies, parallel.tensor);
  rank.draft = weights_line(Device{0}, loaded.weights_bytes + tables, settings);
  rank.draft->kind = LedgerKind::draft;
  rank.draft->high_bytes = std::max(rank.draft->high_bytes, widest + tables);
  rank.model.layers.insert(
      rank.model.layers.end(), loaded.model.layers.begin(), loaded.model.layers.end());
  for (LayerSpec& layer : rank.model.layers) {
    lengthen(layer.mixer, rules.prediction->longer_convolutions ? settings.draft_tokens : 0);
  }
}

}  // namespace kvfathom::serving
