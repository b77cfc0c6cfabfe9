#include "model/weights/llama_quantize.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <utility>

#include "model/weights/quantise_rules.h"
#include "model/weights/tensor_name.h"

namespace kvfathom {
namespace {

constexpr auto kFileTypes = std::to_array<FileTypeInfo>({
    {FileType::f32, "f32", DType::f32, false},
    {FileType::f16, "f16", DType::f16, false},
    {FileType::bf16, "bf16", DType::bf16, false},
    {FileType::q1_0, "q1_0", DType::q1_0, false},
    {FileType::q2_0, "q2_0", DType::q2_0, false},
    {FileType::q4_0, "q4_0", DType::q4_0, false},
    {FileType::q4_1, "q4_1", DType::q4_1, false},
    {FileType::q5_0, "q5_0", DType::q5_0, false},
    {FileType::q5_1, "q5_1", DType::q5_1, false},
    {FileType::q8_0, "q8_0", DType::q8_0, false},
    {FileType::mxfp4_moe, "mxfp4_moe", DType::mxfp4, false},
    {FileType::q2_k, "q2_k", DType::q2_k, false},
    {FileType::q2_k_s, "q2_k_s", DType::q2_k, true},
    {FileType::q3_k_s, "q3_k_s", DType::q3_k, false},
    {FileType::q3_k_m, "q3_k_m", DType::q3_k, false},
    {FileType::q3_k_l, "q3_k_l", DType::q3_k, false},
    {FileType::q4_k_s, "q4_k_s", DType::q4_k, false},
    {FileType::q4_k_m, "q4_k_m", DType::q4_k, false},
    {FileType::q5_k_s, "q5_k_s", DType::q5_k, false},
    {FileType::q5_k_m, "q5_k_m", DType::q5_k, false},
    {FileType::q6_k, "q6_k", DType::q6_k, false},
    {FileType::iq1_s, "iq1_s", DType::iq1_s, true},
    {FileType::iq1_m, "iq1_m", DType::iq1_m, true},
    {FileType::iq2_xxs, "iq2_xxs", DType::iq2_xxs, true},
    {FileType::iq2_xs, "iq2_xs", DType::iq2_xs, true},
    {FileType::iq2_s, "iq2_s", DType::iq2_xs, true},
    {FileType::iq2_m, "iq2_m", DType::iq2_s, true},
    {FileType::iq3_xxs, "iq3_xxs", DType::iq3_xxs, true},
    {FileType::iq3_xs, "iq3_xs", DType::iq3_s, true},
    {FileType::iq3_s, "iq3_s", DType::iq3_s, false},
    {FileType::iq3_m, "iq3_m", DType::iq3_s, false},
    {FileType::iq4_nl, "iq4_nl", DType::iq4_nl, false},
    {FileType::iq4_xs, "iq4_xs", DType::iq4_xs, false},
    {FileType::tq1_0, "tq1_0", DType::tq1_0, false},
    {FileType::tq2_0, "tq2_0", DType::tq2_0, false},
});

static_assert(std::ranges::is_sorted(kFileTypes, {}, &FileTypeInfo::file_type), "enum order");

// Parts of names that mark a ".weight" which llama-quantize leaves as it is: it is small, or the
// engine computes with it in full precision.
constexpr auto kNeverQuantised = std::to_array<std::string_view>({
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
});

// Of the tensors with two or more axes, those that the converter keeps in F32.
constexpr auto kConvertedToF32 = std::to_array<std::string_view>({
    "ffn_gate_inp.weight",
    "ffn_gate_inp_shexp.weight",
    "position_embd.weight",
    "token_types.weight",
    "ssm_conv1d.weight",
    "shortconv.conv.weight",
    "ssm_conv1d_q.weight",
    "ssm_conv1d_k.weight",
    "ssm_conv1d_v.weight",
    "indexer.proj.weight",
    "time_mix_first.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "altup_correct_coef.weight",
    "altup_predict_coef.weight",
});

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// ggml_n_dims: axes up to the last one longer than 1.
int n_dims(const Tensor& t) {
  for (int axis = 3; axis > 0; --axis) {
    if (t.shape.at(static_cast<std::size_t>(axis)) > 1) {
      return axis + 1;
    }
  }
  return 1;
}

/// Query heads per KV head of the first block, as a GGUF file states it: 0 where the file's
/// per-layer array says that the first block has no KV heads, and for models without attention.
std::int64_t grouping(const ModelSpec& model, bool absorbed_mla) {
  if (model.layers.empty()) {
    return 0;
  }
  const Mixer& first = model.layers.front().mixer;
  if (const auto* latent = std::get_if<LatentAttention>(&first)) {
    return absorbed_mla ? latent->n_heads : 1;
  }
  const auto ratio = [](const Attention& a) {
    return a.n_kv_heads > 0 ? a.n_heads / a.n_kv_heads : 0;
  };
  if (const auto* attention = std::get_if<Attention>(&first)) {
    return ratio(*attention);
  }
  if (const auto* both = std::get_if<ParallelMixers>(&first)) {
    return ratio(both->attention);
  }
  // files of these families state one KV head count for all layers, recurrent ones too
  if (std::holds_alternative<GatedDeltaNet>(first) ||
      std::holds_alternative<LightningAttention>(first)) {
    for (const LayerSpec& layer : model.layers) {
      if (const auto* attention = std::get_if<Attention>(&layer.mixer)) {
        return ratio(*attention);
      }
    }
  }
  return 0;
}

/// What llama.cpp calls LLM_TYPE_70B: decided by architecture and depth alone.
bool is_70b(const ModelSpec& model, std::int64_t n_experts, std::int64_t n_gqa) {
  const std::int64_t n = n_layers(model);
  const std::string& arch = model.architecture;
  if (arch == "llama") {
    return n == 80 && n_experts != 8 && n_gqa != 1;
  }
  return (n == 80 && (arch == "qwen2" || arch == "deci" || arch == "olmo")) ||
         (n == 68 && arch == "jais2");
}

std::int64_t expert_count(const ModelSpec& model) {
  std::int64_t n_experts = 0;
  for (const LayerSpec& layer : model.layers) {
    if (const auto* experts = std::get_if<MixtureOfExperts>(&layer.feed_forward)) {
      n_experts = std::max(n_experts, experts->n_experts);
    }
  }
  return n_experts;
}

QuantiseFacts facts_of(const ModelSpec& model,
                       std::span<const Tensor> tensors,
                       FileType file_type,
                       bool imatrix) {
  QuantiseFacts facts;
  facts.file_type = file_type;
  facts.imatrix = imatrix;
  facts.architecture = model.architecture;
  facts.n_experts = expert_count(model);
  facts.n_blocks = n_layers(model);
  bool absorbed_mla = false;
  for (const Tensor& t : tensors) {
    const TensorRole role = role_of(t.name);
    facts.tied_embeddings = facts.tied_embeddings && role != TensorRole::output;
    facts.n_attention_v += role == TensorRole::attention_v ? 1 : 0;
    facts.n_blocks = std::max(facts.n_blocks, block_of(t.name) + 1);
    absorbed_mla = absorbed_mla || contains(t.name, "attn_k_b.weight");
  }
  facts.n_gqa = grouping(model, absorbed_mla);
  facts.is_70b = is_70b(model, facts.n_experts, facts.n_gqa);
  return facts;
}

}  // namespace

std::span<const FileTypeInfo> file_types() {
  return kFileTypes;
}

std::optional<FileType> file_type_named(std::string_view name) {
  std::string lower(name);
  std::ranges::transform(
      lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (lower == "q3_k" || lower == "q4_k" || lower == "q5_k") {
    lower += "_m";
  }
  const auto row = std::ranges::find(kFileTypes, lower, &FileTypeInfo::name);
  return row == kFileTypes.end() ? std::nullopt : std::optional(row->file_type);
}

bool is_quantisable(const Tensor& tensor) {
  const std::string_view name = tensor.name;
  return n_dims(tensor) >= 2 && name.ends_with("weight") && name != "position_embd.weight" &&
         name != "token_types.weight" &&
         std::ranges::none_of(kNeverQuantised,
                              [&](std::string_view part) { return contains(name, part); });
}

bool is_converted_to_f32(const Tensor& tensor) {
  const std::string_view name = tensor.name;
  return n_dims(tensor) <= 1 || name.ends_with("_norm.weight") || !name.ends_with(".weight") ||
         std::ranges::any_of(kConvertedToF32,
                             [&](std::string_view suffix) { return name.ends_with(suffix); });
}

std::vector<Tensor> llama_quantised(const ModelSpec& model,
                                    std::vector<Tensor> tensors,
                                    FileType file_type,
                                    bool imatrix) {
  const QuantiseFacts facts = facts_of(model, tensors, file_type, imatrix);
  const DType default_dtype = kFileTypes.at(static_cast<std::size_t>(file_type)).dtype;
  const bool mixture = info(default_dtype).block_elements > 1;

  // visited by block, then by name: the counters of the rule depend on it
  std::vector<std::pair<std::int64_t, std::size_t>> order(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    order[i] = {block_of(tensors[i].name), i};
  }
  std::ranges::sort(order, [&](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : tensors[a.second].name < tensors[b.second].name;
  });

  QuantiseCounters counters;
  for (const auto& [block, index] : order) {
    Tensor& t = tensors[index];
    const bool floating = info(t.dtype).block_elements == 1;
    if (!is_quantisable(t)) {
      const bool half = t.dtype == DType::f16 || t.dtype == DType::bf16;
      t.dtype = half && is_converted_to_f32(t) ? DType::f32 : t.dtype;
      continue;
    }
    const DType chosen = mixture
                             ? fallback(t, chosen_dtype(facts, counters, default_dtype, t, block))
                             : default_dtype;
    t.dtype = floating ? chosen : t.dtype;
  }
  return tensors;
}

}  // namespace kvfathom
