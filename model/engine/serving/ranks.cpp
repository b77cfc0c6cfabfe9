#include "model/engine/serving/ranks.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <variant>

#include "model/engine/serving/prediction.h"
#include "model/error.h"
#include "model/rounding.h"

namespace kvfathom::serving {
namespace {

constexpr std::int64_t kVocabularyPadding = 64;  // vLLM DEFAULT_VOCAB_PADDING_SIZE, SGLang alike

/// A share of a tensor.
struct Share {
  std::int64_t numerator = 1;
  std::int64_t denominator = 1;
};

void require_divides(std::int64_t ranks, std::int64_t n, const char* what) {
  if (n % ranks != 0) {
    throw InputError("--tensor-parallel",
                     std::to_string(ranks) + " ranks for " + std::to_string(n) + " " + what,
                     "the engine takes divisors only");
  }
}

void split(Attention& a, std::int64_t ranks) {
  require_divides(ranks, a.n_heads, "attention heads");
  if (a.n_kv_heads >= ranks) {
    require_divides(ranks, a.n_kv_heads, "KV heads");
  } else {
    require_divides(a.n_kv_heads, ranks, "ranks to replicate its KV heads on");
  }
  a.n_heads /= ranks;
  a.n_kv_heads = std::max<std::int64_t>(1, a.n_kv_heads / ranks);
}

void split(LatentAttention& a, std::int64_t ranks) {
  require_divides(ranks, a.n_heads, "attention heads");
  a.n_heads /= ranks;  // the latent is shared by all heads: every rank keeps all of it
}

void split(Mamba2& m, std::int64_t ranks) {
  require_divides(ranks, m.n_heads, "Mamba-2 heads");
  if (m.n_groups > 1) {
    require_divides(ranks, m.n_groups, "Mamba-2 groups");
    m.n_groups /= ranks;
  }
  m.n_heads /= ranks;
  m.d_inner /= ranks;
}

void split(GatedDeltaNet& g, std::int64_t ranks) {
  require_divides(ranks, g.n_k_heads, "key heads of the delta net");
  require_divides(ranks, g.n_v_heads, "value heads of the delta net");
  g.n_k_heads /= ranks;
  g.n_v_heads /= ranks;
}

void split(SharedAttention& s, std::int64_t ranks) {
  split(s.attention, ranks);
}

void split(ParallelMixers& p, std::int64_t ranks) {
  split(p.attention, ranks);
  split(p.mamba2, ranks);
}

void split(NoMixer& /*none*/, std::int64_t /*ranks*/) {}

template <class M>
void split(M& /*mixer*/, std::int64_t ranks) {
  if (ranks > 1) {
    throw Unsupported("--tensor-parallel",
                      std::string("no rule splits ") + M::kind + " layers over ranks",
                      "use 1");
  }
}

bool has(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

template <std::size_t N>
bool has_any(std::string_view name, const std::array<std::string_view, N>& parts) {
  return std::ranges::any_of(parts, [&](std::string_view part) { return has(name, part); });
}

/// GGUF names, then those of checkpoints. Kept whole on every rank: norms, routers, the down
/// projections of latents, the indexer, biases of row-parallel layers, and what joins embedding and
/// features for a prediction block.
constexpr std::array<std::string_view, 18> kReplicated{"norm",
                                                       "attn_q_a",
                                                       "attn_kv_a",
                                                       "ffn_gate_inp",
                                                       "exp_probs_b",
                                                       "indexer",
                                                       "attn_output.bias",
                                                       "rope_",
                                                       "layer_output_scale",
                                                       "q_a_proj",
                                                       "kv_a_proj",
                                                       "mlp.gate.",
                                                       "router",
                                                       "shared_expert_gate",
                                                       "o_proj.bias",
                                                       "down_proj.bias",
                                                       "position_embd",
                                                       "eh_proj"};
constexpr std::array<std::string_view, 4> kVocabulary{
    "token_embd", "embed_tokens", "lm_head", "word_embeddings"};
constexpr std::array<std::string_view, 2> kExperts{"_exps.", ".experts."};
constexpr std::array<std::string_view, 4> kKeysAndValues{
    ".attn_k.", ".attn_v.", "k_proj.", "v_proj."};
constexpr std::array<std::string_view, 2> kFusedQkv{"attn_qkv", "qkv_proj"};

const Attention* attention_of(const LayerSpec* layer) {
  if (layer == nullptr) {
    return nullptr;
  }
  if (const auto* parallel = std::get_if<ParallelMixers>(&layer->mixer)) {
    return &parallel->attention;
  }
  if (const auto* shared = std::get_if<SharedAttention>(&layer->mixer)) {
    return &shared->attention;
  }
  return std::get_if<Attention>(&layer->mixer);
}

bool is_output_head(std::string_view name) {
  return name == "output.weight" || has(name, "lm_head");
}

bool is_vocabulary(std::string_view name) {
  return (is_output_head(name) || has_any(name, kVocabulary)) && !has(name, "norm");
}

/// Embeddings of every layer, which is looked up before the first: no head reads them.
bool is_per_layer_embedding(std::string_view name) {
  return has(name, "per_layer");
}

/// An expert matrix padded to whole tiles, as a share of the stored one.
Share marlin_share(const Tensor& tensor, const ModelSpec& model, const Parallel& parallel) {
  constexpr std::int64_t kHiddenTile = 256;
  constexpr std::int64_t kWidthTile = 128;
  const bool down = has(tensor.name, "down");
  const std::int64_t width = down ? tensor.shape[0] : tensor.shape[1];
  return {round_up(model.hidden_size, kHiddenTile) * round_up(width / parallel.experts, kWidthTile),
          model.hidden_size * width};
}

Share share_of(const Tensor& tensor,
               const ModelSpec& model,
               const LayerSpec* layer,
               const Parallel& parallel,
               const LoadRules& rules) {
  const std::string_view name = tensor.name;
  if (is_vocabulary(name)) {
    if (rules.as_stored) {
      return {1, parallel.tensor};
    }
    const std::int64_t padded = round_up(model.vocab_size, kVocabularyPadding);
    return {padded, model.vocab_size * parallel.tensor};
  }
  if (has_any(name, kReplicated)) {
    return {};
  }
  if (rules.marlin_mxfp4 && tensor.dtype == DType::mxfp4 && has(name, "_exps.weight")) {
    return marlin_share(tensor, model, parallel);
  }
  if (has_any(name, kExperts)) {
    return {1, parallel.experts};
  }
  const std::int64_t ranks = parallel.attention;
  if (const Attention* a = attention_of(layer)) {
    const std::int64_t kv_heads = std::max<std::int64_t>(1, a->n_kv_heads / ranks);
    if (has_any(name, kKeysAndValues) && !has(name, "linear_attn")) {
      return {kv_heads, a->n_kv_heads};
    }
    if (has_any(name, kFusedQkv)) {
      const std::int64_t kv_width = a->head_dim + a->v_head_dim;
      return {a->n_heads / ranks * a->head_dim + kv_heads * kv_width,
              a->n_heads * a->head_dim + a->n_kv_heads * kv_width};
    }
  }
  const bool of_attention = has(name, "attn_") || has(name, "self_attn") || has(name, "ssm_");
  return {1, of_attention ? ranks : parallel.tensor};
}

/// Whether no tensor is cut or padded but the vocabulary's, and what Marlin takes in mxfp4: then
/// names need not be looked at.
bool is_whole(const Tensor& tensor, const Parallel& parallel, const LoadRules& rules) {
  const bool one_rank = parallel.tensor == 1 && parallel.attention == 1 && parallel.experts == 1;
  const bool is_padded = rules.marlin_mxfp4 && tensor.dtype == DType::mxfp4;
  return one_rank && (rules.as_stored || (!is_padded && !is_vocabulary(tensor.name)));
}

/// The layer a tensor belongs to, by "blk.7." or "layers.7."; -1: none.
std::int64_t layer_index(std::string_view name) {
  for (const std::string_view mark : {"blk.", "layers."}) {
    const std::size_t at = name.find(mark);
    if (at == std::string_view::npos) {
      continue;
    }
    std::int64_t index = -1;
    const char* begin = name.data() + at + mark.size();
    if (std::from_chars(begin, name.data() + name.size(), index).ec == std::errc{}) {
      return index;
    }
  }
  return -1;
}

/// First layer of each stage, and one past the last. Layers that do not divide go to the stages
/// before the last one (vLLM get_pp_indices).
std::vector<std::int64_t> stage_bounds(std::int64_t n_layers, std::int64_t stages) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), n_layers / stages);
  for (std::int64_t i = 0; i < n_layers % stages; ++i) {
    ++counts[static_cast<std::size_t>(std::max<std::int64_t>(0, stages - 2 - i))];
  }
  std::vector<std::int64_t> bounds{0};
  for (const std::int64_t count : counts) {
    bounds.push_back(bounds.back() + count);
  }
  return bounds;
}

/// A converter's f32 norms and routers are in the model's 16-bit type on a serving engine.
std::int64_t loaded_bytes(const Tensor& tensor, bool foretold) {
  if (info(tensor.dtype).block_elements > 1 && tensor.dtype != DType::mxfp4 &&
      tensor.dtype != DType::nvfp4) {
    throw Unsupported("--weights",
                      std::string(name(tensor.dtype)) +
                          " is a GGUF type; this engine serves "
                          "checkpoints",
                      "use bf16, fp8, awq, gptq, int4, mxfp4 or nvfp4");
  }
  return foretold && tensor.dtype == DType::f32 ? 2 * n_elements(tensor) : data_bytes(tensor);
}

void require_dense_widths_divide(const ModelSpec& model, std::int64_t ranks) {
  for (const LayerSpec& layer : model.layers) {
    if (const auto* dense = std::get_if<DenseFeedForward>(&layer.feed_forward)) {
      require_divides(ranks, dense->intermediate_size, "feed-forward channels");
    }
  }
}

StageRank stage_rank(const ModelSpec& model,
                     const EngineSettings& settings,
                     const Parallel& parallel,
                     const LoadRules& rules,
                     std::int64_t first,
                     std::int64_t end) {
  StageRank rank;
  const auto n = static_cast<std::int64_t>(model.layers.size());
  rank.first = first == 0;
  rank.last = end == n;
  rank.model.name = model.name;
  rank.model.architecture = model.architecture;
  rank.model.hidden_size = model.hidden_size;
  rank.model.vocab_size = model.vocab_size;
  rank.model.layers.assign(model.layers.begin() + first, model.layers.begin() + end);
  const bool foretold = settings.weights_provenance != Provenance::exact;
  const bool holds_all = rules.as_stored && rank.first && rank.last;
  for (const Tensor& tensor : model.tensors) {
    if (holds_all && is_whole(tensor, parallel, rules)) {
      rank.weights_bytes += data_bytes(tensor);
      continue;
    }
    const std::int64_t index = is_of_numbered_block(tensor.name) ? n : layer_index(tensor.name);
    const bool at_end =
        index < 0 && (is_output_head(tensor.name) || tensor.name.starts_with("output"));
    const bool tied_copy = model.tied_embeddings && rank.last && !rank.first &&
                           is_vocabulary(tensor.name) && !is_per_layer_embedding(tensor.name);
    const bool behind = rules.as_stored && rank.last && index >= n;  // else MTP stays on disk
    const bool here = index >= 0 ? behind || (index >= first && index < end)
                      : at_end   ? rank.last
                                 : rank.first || tied_copy;
    if (!here) {
      continue;
    }
    const LayerSpec* layer =
        index >= 0 && index < n ? &model.layers[static_cast<std::size_t>(index)] : nullptr;
    const Share share = is_whole(tensor, parallel, rules)
                            ? Share{}
                            : share_of(tensor, model, layer, parallel, rules);
    const std::int64_t bytes =
        rules.as_stored ? data_bytes(tensor) : loaded_bytes(tensor, foretold);
    rank.weights_bytes += bytes / share.denominator * share.numerator +
                          bytes % share.denominator * share.numerator / share.denominator;
  }
  for (const ExtraPart& part : model.extras) {
    const bool tower = part.kind == "vision" || part.kind == "audio";
    rank.vision_bytes += rank.first && tower ? 2 * part.n_parameters : 0;
  }
  for (LayerSpec& layer : rank.model.layers) {
    std::visit([&](auto& mixer) { split(mixer, parallel.attention); }, layer.mixer);
  }
  return rank;
}

}  // namespace

Parallel parallel_of(const EngineSettings& settings) {
  Parallel parallel{.tensor = settings.tensor_parallel,
                    .attention = settings.tensor_parallel,
                    .experts = settings.tensor_parallel * settings.data_parallel,
                    .stages = settings.pipeline_parallel,
                    .replicas = settings.data_parallel};
  if (settings.n_gpus == 0) {
    throw Unsupported(
        "--gpus", "0: no rule for this engine without a GPU is known", "use 1 or more");
  }
  if (settings.n_gpus > 1 && settings.n_gpus != parallel.devices()) {
    const bool is_cut = parallel.devices() > 1;
    throw InputError("--gpus",
                     std::to_string(settings.n_gpus) + " devices for " +
                         std::to_string(parallel.devices()) + (is_cut ? " ranks" : " rank"),
                     is_cut
                         ? "--tensor-parallel x --pipeline-parallel x --data-parallel must equal it"
                         : "add --tensor-parallel " + std::to_string(settings.n_gpus));
  }
  if (settings.expert_parallel != 1 && settings.expert_parallel != parallel.experts) {
    throw InputError("--expert-parallel",
                     std::to_string(settings.expert_parallel) + " ranks",
                     "use 1 or " + std::to_string(parallel.experts) + ", tensor x data parallel");
  }
  return parallel;
}

std::vector<StageRank> stage_ranks(const ModelSpec& model,
                                   const EngineSettings& settings,
                                   const Parallel& parallel,
                                   const LoadRules& rules) {
  if (model.tensors.empty()) {
    throw InputError(model.name, "no weight tensors are known", "give --weights");
  }
  const auto n = static_cast<std::int64_t>(model.layers.size());
  if (parallel.stages > n) {
    throw InputError(
        "--pipeline-parallel",
        std::to_string(parallel.stages) + " stages for " + std::to_string(n) + " layers",
        "at most one per layer");
  }
  require_dense_widths_divide(model, parallel.tensor);
  const std::vector<std::int64_t> bounds =
      parallel.stage_bounds.empty() ? stage_bounds(n, parallel.stages) : parallel.stage_bounds;
  std::vector<StageRank> ranks;
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
    ranks.push_back(stage_rank(model, settings, parallel, rules, bounds[i], bounds[i + 1]));
  }
  return ranks;
}

}  // namespace kvfathom::serving
