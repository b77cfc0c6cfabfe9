#include "model/latency/layer_work.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <utility>

#include "model/architecture/tensor_inventory.h"
#include "model/cache/groups.h"
#include "model/error.h"

namespace kvfathom {
namespace {

/// How a tensor of a layer is run. Parts of the same name read the same input.
struct PartRule {
  std::string_view mark;  ///< found in the tensor's name
  std::string_view part;
  bool replicated = false;
};

constexpr std::array<PartRule, 31> kParts{{
    {"attn_qkv.", "q k v", false},
    {"attn_q_a.", "latents", true},
    {"attn_kv_a_mqa.", "latents", true},
    {"attn_kv_a.", "latents", true},
    {"attn_q_b.", "q from latent", false},
    {"attn_kv_b.", "k v from latent", false},
    {"attn_k_b.", "absorb k", false},
    {"attn_v_b.", "absorb v", false},
    {"attn_q.", "q k v", false},
    {"attn_k.", "q k v", false},
    {"attn_v.", "q k v", false},
    {"attn_gate.", "gate of attention", false},
    {"attn_output.", "attention output", false},
    {"indexer.", "indexer", true},
    {"ssm_in.", "state input", false},
    {"ssm_x.", "state input", false},
    {"ssm_dt.", "state input", false},
    {"ssm_ba.", "state input", false},
    {"ssm_beta.", "state input", false},
    {"ssm_alpha.", "state input", false},
    {"ssm_f_", "state input", false},
    {"ssm_g", "state input", false},
    {"ssm_out.", "state output", false},
    {"time_mix_", "time mix", false},
    {"shortconv.", "short convolution", false},
    {"_shexp.", "shared expert", false},
    {"ffn_gate.", "gate up", false},
    {"ffn_up.", "gate up", false},
    {"ffn_down.", "down", false},
    {"channel_mix_", "channel mix", false},
    {"", "other", true},  // per-layer inputs, side branches
}};

bool has(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

const PartRule& rule_of(std::string_view name) {
  return *std::ranges::find_if(kParts, [&](const PartRule& rule) { return has(name, rule.mark); });
}

/// A product's weights: two axes of some length, and no convolution or state constant.
bool is_matrix(const Tensor& tensor) {
  return tensor.shape[0] > 1 && tensor.shape[1] > 1 && tensor.name.ends_with(".weight") &&
         !has(tensor.name, "norm") && !has(tensor.name, "conv1d") &&
         !has(tensor.name, "shortconv.conv.") && !has(tensor.name, "lerp") &&
         !has(tensor.name, "time_mix_decay") && !has(tensor.name, "time_mix_first") &&
         !has(tensor.name, "altup_correct") && !has(tensor.name, "altup_predict");
}

/// Looked up by token or position, or the output head, which is counted by itself.
bool is_table(const Tensor& tensor) {
  return has(tensor.name, "token_embd") || tensor.name == "position_embd.weight" ||
         tensor.name == "output.weight";
}

/// "blk.7.": 7; -1 for what belongs to no layer.
std::int64_t layer_of(std::string_view name) {
  constexpr std::string_view kMark = "blk.";
  std::int64_t index = -1;
  if (name.starts_with(kMark)) {
    std::from_chars(name.data() + kMark.size(), name.data() + name.size(), index);
  }
  return index;
}

/// A matrix in its logical shape, and what it takes as stored: scales and zeros among it.
struct StoredTensor {
  Tensor tensor;
  std::int64_t bytes = 0;
  bool block_scales = true;  ///< 8-bit floats: a scale a block, not one a row or matrix
};

/// Checkpoints pack eight 4-bit values of a row into each word of a `qweight`, with tensors of
/// scales behind it (AWQ, GPTQ): such a matrix has the type that reads as much and unpacks alike.
std::vector<StoredTensor> unpacked(const std::vector<Tensor>& tensors) {
  constexpr std::string_view kPacked = "qweight";
  constexpr std::int64_t kValuesPerWord = 8;
  std::vector<StoredTensor> all;
  all.reserve(tensors.size());
  std::string_view base;  // of the packed matrix at hand
  for (const Tensor& tensor : tensors) {
    const std::string_view name = tensor.name;
    if (name.ends_with(kPacked)) {
      base = name.substr(0, name.size() - kPacked.size());
      Tensor matrix = tensor;
      matrix.name = std::string(base) + "weight";
      matrix.shape[0] *= kValuesPerWord;
      matrix.dtype = DType::q4_0;
      all.push_back({std::move(matrix), data_bytes(tensor)});
    } else if (!base.empty() && name.starts_with(base)) {
      all.back().bytes += data_bytes(tensor);
    } else if (name.ends_with("weight_scale") && !all.empty() &&
               name.starts_with(all.back().tensor.name)) {
      all.back().block_scales = false;
    } else {
      base = {};
      all.push_back({tensor, data_bytes(tensor)});
    }
  }
  return all;
}

void add_matrix(const StoredTensor& stored, bool on_host, std::vector<MatrixWork>& matrices) {
  const Tensor& tensor = stored.tensor;
  const PartRule& rule = rule_of(tensor.name);
  const auto same = std::ranges::find_if(matrices, [&](const MatrixWork& m) {
    return m.part == rule.part && m.block_scales == stored.block_scales &&
           m.n_in == tensor.shape[0] && m.dtype == tensor.dtype && m.n_stack == tensor.shape[2] &&
           tensor.shape[2] == 1 && m.on_host == on_host;
  });
  if (same != matrices.end()) {
    same->n_out += tensor.shape[1];
    same->weights_bytes += stored.bytes;
    return;
  }
  matrices.push_back({.part = rule.part,
                      .n_in = tensor.shape[0],
                      .n_out = tensor.shape[1],
                      .n_stack = tensor.shape[2],
                      .dtype = tensor.dtype,
                      .weights_bytes = stored.bytes,
                      .replicated = rule.replicated,
                      .block_scales = stored.block_scales,
                      .on_host = on_host});
}

void add_experts(const StoredTensor& stored,
                 const MixtureOfExperts& moe,
                 std::int64_t hidden_size,
                 std::optional<ExpertWork>& experts) {
  if (!experts) {
    experts = ExpertWork{.hidden_size = moe.latent_size > 0 ? moe.latent_size : hidden_size,
                         .intermediate_size = moe.intermediate_size,
                         .n_experts = moe.n_experts,
                         .n_chosen = moe.n_experts_per_token,
                         .gated = moe.gated};
  }
  experts->dtype = stored.tensor.dtype;  // of the down projection where they differ: it comes last
  experts->weights_bytes += stored.bytes;
  experts->block_scales = stored.block_scales;
}

bool equal(const LayerWork& a, const LayerWork& b) {
  return a.layer == b.layer && a.schemes == b.schemes && a.selected_tokens == b.selected_tokens &&
         a.on_host == b.on_host && a.experts == b.experts && a.matrices == b.matrices;
}

bool named_as_gguf(const ModelSpec& model) {
  return std::ranges::any_of(model.tensors,
                             [](const Tensor& t) { return t.name.starts_with("blk."); });
}

const Tensor* named(const std::vector<Tensor>& tensors, std::string_view name) {
  const auto tensor = std::ranges::find(tensors, name, &Tensor::name);
  return tensor == tensors.end() ? nullptr : &*tensor;
}

MatrixWork output_head(const ModelSpec& model,
                       const std::vector<Tensor>& tensors,
                       const IsOnHost& is_on_host) {
  constexpr std::string_view kName = "output.weight";
  const Tensor* head = named(tensors, kName);
  head = head != nullptr ? head : named(tensors, "token_embd.weight");
  MatrixWork work{.part = "output head", .n_in = model.hidden_size, .n_out = model.vocab_size};
  work.dtype = head != nullptr ? head->dtype : DType::bf16;
  work.on_host = is_on_host && is_on_host(kName);
  work.weights_bytes =
      head != nullptr ? data_bytes(*head) : 2 * model.hidden_size * model.vocab_size;
  return work;
}

/// Layers of latents without an indexer behind one that has some attend to what it chose.
void add_selections(std::vector<LayerWork>& layers) {
  std::int64_t selected = 0;
  for (LayerWork& layer : layers) {
    if (const auto* latent = std::get_if<LatentAttention>(&layer.layer.mixer)) {
      selected = latent->indexer ? latent->indexer->top_k : selected;
      layer.selected_tokens = selected;
    }
  }
}

}  // namespace

ModelWork model_work(const ModelSpec& model,
                     const cache::SchemeRequest& requested,
                     const IsOnHost& is_on_host) {
  const std::vector<Tensor> tensors =
      named_as_gguf(model) ? model.tensors : tensor_inventory(model);
  const auto schemes = cache::layer_schemes(model, requested);
  ModelWork work{.layers = {}, .once = {}, .output_head = output_head(model, tensors, is_on_host)};
  std::vector<LayerWork> layers(model.layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers[i].layer = model.layers[i];
    layers[i].schemes = schemes[i];
    layers[i].n_layers = 1;
    layers[i].on_host = is_on_host && is_on_host("blk." + std::to_string(i) + ".attn_norm.weight");
  }
  add_selections(layers);
  for (const StoredTensor& stored : unpacked(tensors)) {
    const Tensor& tensor = stored.tensor;
    const std::int64_t index = layer_of(tensor.name);
    if (index >= n_layers(model) || !is_matrix(tensor) || is_table(tensor)) {
      continue;
    }
    const bool on_host = is_on_host && is_on_host(tensor.name);
    if (index < 0) {
      add_matrix(stored, on_host, work.once);
      continue;
    }
    LayerWork& layer = layers[static_cast<std::size_t>(index)];
    const auto* moe = std::get_if<MixtureOfExperts>(&layer.layer.feed_forward);
    if (moe != nullptr && has(tensor.name, "_exps.")) {
      add_experts(stored, *moe, model.hidden_size, layer.experts);
      layer.experts->on_host = on_host;
    } else if (moe == nullptr || !has(tensor.name, "ffn_gate_inp.")) {  // routing is the experts'
      add_matrix(stored, on_host, layer.matrices);
    }
  }
  for (LayerWork& layer : layers) {
    const auto same = std::ranges::find_if(
        work.layers, [&](const LayerWork& other) { return equal(layer, other); });
    if (same == work.layers.end()) {
      work.layers.push_back(std::move(layer));
    } else {
      ++same->n_layers;
    }
  }
  return work;
}

}  // namespace kvfathom
