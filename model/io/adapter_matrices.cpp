#include "model/io/adapter_matrices.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "model/architecture/tensor_inventory.h"
#include "model/error.h"
#include "model/io/gguf.h"

namespace kvfathom {
namespace {

using Shape = std::array<std::int64_t, 4>;

/// Half of a pair, by its name in the file.
struct Half {
  std::string matrix = {};  ///< of the model, as GGUF names it
  std::string expert =
      {};  ///< of a checkpoint, which has a pair for each; empty: none, or all in one
  bool is_b = false;
  bool embeds = false;  ///< beside an embedding, whose rows are looked up and not multiplied
};

struct Pair {
  const Tensor* a = nullptr;
  const Tensor* b = nullptr;
  bool embeds = false;
};
using Pairs = std::map<std::pair<std::string, std::string>, Pair>;  ///< by matrix and expert

constexpr std::string_view kEmbedding = "token_embd.weight";
constexpr std::string_view kHead = "output.weight";

bool take_prefix(std::string_view& text, std::string_view prefix) {
  const bool starts = text.starts_with(prefix);
  text.remove_prefix(starts ? prefix.size() : 0);
  return starts;
}

bool take_suffix(std::string_view& text, std::string_view suffix) {
  const bool ends = text.ends_with(suffix);
  text.remove_suffix(ends ? suffix.size() : 0);
  return ends;
}

/// "12" of "12.self_attn".
std::optional<std::string> take_number(std::string_view& text) {
  const std::size_t n = std::min(text.find('.'), text.size());
  const std::string_view digits = text.substr(0, n);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  text.remove_prefix(std::min(n + 1, text.size()));
  return std::string(digits);
}

std::optional<Half> gguf_half(std::string_view name) {
  const bool is_a = take_suffix(name, ".lora_a");
  if (!is_a && !take_suffix(name, ".lora_b")) {
    return std::nullopt;
  }
  return Half{
      .matrix = std::string(name), .expert = {}, .is_b = !is_a, .embeds = name == kEmbedding};
}

/// "attn_q" of "self_attn.q_proj", "ffn_up_exps" of "mlp.experts.7.up_proj" with "7".
std::optional<Half> module_of(std::string_view module) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kAttention{
      {{"q_proj", "attn_q"},
       {"k_proj", "attn_k"},
       {"v_proj", "attn_v"},
       {"o_proj", "attn_output"}}};
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kFeedForward{
      {{"gate_proj", "ffn_gate"}, {"up_proj", "ffn_up"}, {"down_proj", "ffn_down"}}};
  Half half;
  std::string suffix;
  if (take_prefix(module, "self_attn.")) {
    const auto* const row =
        std::ranges::find(kAttention, module, &decltype(kAttention)::value_type::first);
    if (row == kAttention.end()) {
      return std::nullopt;
    }
    half.matrix = row->second;
    return half;
  }
  if (!take_prefix(module, "mlp.")) {
    return std::nullopt;
  }
  if (take_prefix(module, "experts.")) {
    const auto expert = take_number(module);
    if (!expert) {
      return std::nullopt;
    }
    half.expert = *expert;
    suffix = "_exps";
  } else if (take_prefix(module, "shared_expert.") || take_prefix(module, "shared_experts.")) {
    suffix = "_shexp";
  }
  const auto* const row =
      std::ranges::find(kFeedForward, module, &decltype(kFeedForward)::value_type::first);
  if (row == kFeedForward.end()) {
    return std::nullopt;
  }
  half.matrix = std::string(row->second) + suffix;
  return half;
}

/// PEFT's names: "base_model.model." + the module of the checkpoint + ".lora_A.weight".
std::optional<Half> peft_half(std::string_view name) {
  const bool is_b = name.find("lora_B") != std::string_view::npos ||
                    name.find("lora_embedding_B") != std::string_view::npos;
  const bool embeds =
      take_suffix(name, ".lora_embedding_A") || take_suffix(name, ".lora_embedding_B");
  const bool is_half =
      embeds || take_suffix(name, ".lora_A.weight") || take_suffix(name, ".lora_B.weight");
  if (!is_half || !take_prefix(name, "base_model.model.")) {
    return std::nullopt;
  }
  take_prefix(name, "language_model.");
  take_prefix(name, "model.");
  take_prefix(name, "language_model.");
  std::optional<Half> half;
  if (name == "embed_tokens") {
    half = Half{.matrix = std::string(kEmbedding)};
  } else if (name == "lm_head") {
    half = Half{.matrix = std::string(kHead)};
  } else if (take_prefix(name, "layers.")) {
    const auto layer = take_number(name);
    half = layer ? module_of(name) : std::nullopt;
    if (half) {
      half->matrix = "blk." + *layer + "." + half->matrix + ".weight";
    }
  }
  if (half) {
    half->is_b = is_b;
    half->embeds = embeds;
  }
  return half;
}

std::string place(const AdapterFile& file, std::string_view tensor) {
  return file.path + ": " + in_quotes(tensor);
}

Pairs pairs_of(const AdapterFile& file) {
  Pairs pairs;
  for (const Tensor& tensor : file.tensors) {
    const auto half = file.gguf ? gguf_half(tensor.name) : peft_half(tensor.name);
    if (half) {
      Pair& pair = pairs[{half->matrix, half->expert}];
      (half->is_b ? pair.b : pair.a) = &tensor;
      pair.embeds = pair.embeds || half->embeds;
    } else if (!file.gguf) {
      throw Unsupported(place(file, tensor.name), "no rule says what of the model it adapts", "");
    } else if (!tensor.name.ends_with("_norm.weight")) {
      throw InputError(place(file, tensor.name), "neither lora_a nor lora_b", "pairs of them");
    }
  }
  return pairs;
}

std::string text_of(const Shape& shape) {
  std::size_t n = shape.size();
  while (n > 2 && shape[n - 1] == 1) {
    --n;
  }
  std::string text;
  for (std::size_t i = 0; i < n; ++i) {
    text += (i == 0 ? "" : " x ") + std::to_string(shape[i]);
  }
  return text;
}

void require_shape(const AdapterFile& file,
                   const Tensor& found,
                   const Shape& right,
                   const Tensor& matrix,
                   const ModelSpec& model) {
  if (found.shape != right) {
    throw InputError(place(file, found.name),
                     "is " + text_of(found.shape) + ", beside " + matrix.name + " (" +
                         text_of(matrix.shape) + ") of " + model.name,
                     text_of(right));
  }
}

void require_fits(const AdapterFile& file,
                  const Pair& pair,
                  const Tensor& matrix,
                  bool one_expert,
                  const ModelSpec& model) {
  const std::int64_t n_experts = one_expert ? 1 : matrix.shape[2];
  const std::int64_t rank = pair.b->shape[0];
  Shape a{matrix.shape[0], rank, n_experts, 1};
  Shape b{rank, matrix.shape[1], n_experts, 1};
  if (pair.embeds) {  // {n_embd, n_vocab}: A is looked up, B makes rows of the model's width
    a = file.gguf ? Shape{rank, matrix.shape[1], 1, 1} : Shape{matrix.shape[1], rank, 1, 1};
    b = {rank, matrix.shape[0], 1, 1};
  }
  require_shape(file, *pair.a, a, matrix, model);
  require_shape(file, *pair.b, b, matrix, model);
}

}  // namespace

std::vector<LoraMatrix> adapter_matrices(const AdapterFile& file, const ModelSpec& model) {
  const std::vector<Tensor> tensors = tensor_inventory(model);
  std::vector<LoraMatrix> matrices;
  for (const auto& [key, pair] : pairs_of(file)) {
    const auto& [name, expert] = key;
    if (pair.a == nullptr || pair.b == nullptr) {
      throw InputError(place(file, (pair.a != nullptr ? pair.a : pair.b)->name),
                       "its other half is missing",
                       "A and B of every matrix");
    }
    const bool tied_head = !file.gguf && name == kHead && model.tied_embeddings;
    const auto matrix =
        std::ranges::find(tensors, tied_head ? std::string(kEmbedding) : name, &Tensor::name);
    if (matrix == tensors.end()) {
      throw InputError(
          place(file, pair.a->name), model.name + " has no " + in_quotes(name), "its own adapter");
    }
    require_fits(file, pair, *matrix, !expert.empty(), model);
    LoraMatrix one = lora_beside(name, model);
    one.a = data_bytes(*pair.a);
    one.b = data_bytes(*pair.b);
    matrices.push_back(one);
  }
  return matrices;
}

}  // namespace kvfathom
