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
    {FileType::f32, "f32", 0, DType::f32, false},
    {FileType::f16, "f16", 1, DType::f16, false},
    {FileType::bf16, "bf16", 32, DType::bf16, false},
    {FileType::q1_0, "q1_0", 40, DType::q1_0, false},
    {FileType::q2_0, "q2_0", 41, DType::q2_0, false},
    {FileType::q4_0, "q4_0", 2, DType::q4_0, false},
    {FileType::q4_1, "q4_1", 3, DType::q4_1, false},
    {FileType::q5_0, "q5_0", 8, DType::q5_0, false},
    {FileType::q5_1, "q5_1", 9, DType::q5_1, false},
    {FileType::q8_0, "q8_0", 7, DType::q8_0, false},
    {FileType::mxfp4_moe, "mxfp4_moe", 38, DType::mxfp4, false},
    {FileType::q2_k, "q2_k", 10, DType::q2_k, false},
    {FileType::q2_k_s, "q2_k_s", 21, DType::q2_k, true},
    {FileType::q3_k_s, "q3_k_s", 11, DType::q3_k, false},
    {FileType::q3_k_m, "q3_k_m", 12, DType::q3_k, false},
    {FileType::q3_k_l, "q3_k_l", 13, DType::q3_k, false},
    {FileType::q4_k_s, "q4_k_s", 14, DType::q4_k, false},
    {FileType::q4_k_m, "q4_k_m", 15, DType::q4_k, false},
    {FileType::q5_k_s, "q5_k_s", 16, DType::q5_k, false},
    {FileType::q5_k_m, "q5_k_m", 17, DType::q5_k, false},
    {FileType::q6_k, "q6_k", 18, DType::q6_k, false},
    {FileType::iq1_s, "iq1_s", 24, DType::iq1_s, true},
    {FileType::iq1_m, "iq1_m", 31, DType::iq1_m, true},
    {FileType::iq2_xxs, "iq2_xxs", 19, DType::iq2_xxs, true},
    {FileType::iq2_xs, "iq2_xs", 20, DType::iq2_xs, true},
    {FileType::iq2_s, "iq2_s", 28, DType::iq2_xs, true},
    {FileType::iq2_m, "iq2_m", 29, DType::iq2_s, true},
    {FileType::iq3_xxs, "iq3_xxs", 23, DType::iq3_xxs, true},
    {FileType::iq3_xs, "iq3_xs", 22, DType::iq3_s, true},
    {FileType::iq3_s, "iq3_s", 26, DType::iq3_s, false},
    {FileType::iq3_m, "iq3_m", 27, DType::iq3_s, false},
    {FileType::iq4_nl, "iq4_nl", 25, DType::iq4_nl, false},
    {FileType::iq4_xs, "iq4_xs", 30, DType::iq4_xs, false},
    {FileType::tq1_0, "tq1_0", 36, DType::tq1_0, false},
    {FileType::tq2_0, "tq2_0", 37, DType::tq2_0, false},
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

/// The type of a tensor that llama-quantize leaves alone, as the converter wrote it: GGUF has no
/// fp8.
DType converted_dtype(const Tensor& t) {
  const bool half = t.dtype == DType::f16 || t.dtype == DType::bf16;
  const bool fp8 = t.dtype == DType::f8_e4m3 || t.dtype == DType::f8_e5m2;
  if (half || fp8) {
    return is_converted_to_f32(t) ? DType::f32 : half ? t.dtype : DType::bf16;
  }
  return t.dtype;
}

/// Lower case, with llama-quantize's aliases and the names that llama.cpp's loader prints ("Q4_K -
/// Medium", "IQ4_XS - 4.25 bpw") replaced by the file type's own.
std::string canonical(std::string_view name) {
  std::string text(name);
  std::ranges::transform(
      text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  struct Alias {
    std::string_view spelt;
    std::string_view name;
  };
  static constexpr auto kAliases = std::to_array<Alias>({
      {"q3_k", "q3_k_m"},
      {"q4_k", "q4_k_m"},
      {"q5_k", "q5_k_m"},
      {"all f32", "f32"},
      {"mxfp4 moe", "mxfp4_moe"},
      {"q2_k - medium", "q2_k"},
      {"q2_k - small", "q2_k_s"},
      {"q3_k - small", "q3_k_s"},
      {"q3_k - medium", "q3_k_m"},
      {"q3_k - large", "q3_k_l"},
      {"q4_k - small", "q4_k_s"},
      {"q4_k - medium", "q4_k_m"},
      {"q5_k - small", "q5_k_s"},
      {"q5_k - medium", "q5_k_m"},
      {"iq3_s mix - 3.66 bpw", "iq3_m"},
  });
  if (const auto* const alias = std::ranges::find(kAliases, text, &Alias::spelt);
      alias != kAliases.end()) {
    return std::string(alias->name);
  }
  if (text.find(" bpw") != std::string::npos) {
    text.resize(std::min(text.size(), text.find(" - ")));
  }
  return text;
}

}  // namespace

std::span<const FileTypeInfo> file_types() {
  return kFileTypes;
}

std::optional<FileType> file_type_named(std::string_view name) {
  const std::string wanted = canonical(name);
  const auto* const row = std::ranges::find(kFileTypes, wanted, &FileTypeInfo::name);
  return row == kFileTypes.end() ? std::nullopt : std::optional(row->file_type);
}

std::optional<FileType> file_type_of_id(std::uint32_t id) {
  const auto* const row = std::ranges::find(kFileTypes, id, &FileTypeInfo::id);
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
      t.dtype = converted_dtype(t);
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
