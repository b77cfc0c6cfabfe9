#include "model/weights/serving_formats.h"

#include <algorithm>
#include <string>

#include "model/rounding.h"

namespace kvfathom {
namespace {

constexpr std::int64_t kFp8Block = 128;      // DeepSeek-V3's weight_block_size
constexpr std::int64_t kValuesPerInt32 = 8;  // 4-bit values in the int32 words of AWQ and GPTQ

/// A matrix of a decoder block, not an embedding, head, router, norm or convolution.
bool is_packed(const Tensor& t) {
  return t.name.starts_with("blk.") && is_quantisable(t) && !is_converted_to_f32(t) &&
         info(t.dtype).block_elements == 1;
}

std::string sibling(const Tensor& t, std::string_view suffix) {
  constexpr std::string_view kWeight = "weight";
  return t.name.substr(0, t.name.size() - kWeight.size()) + std::string(suffix);
}

void pack_int4(const Tensor& t, const WeightRecipe& recipe, std::vector<Tensor>& out) {
  const auto [inputs, outputs, experts, rest] = t.shape;
  const std::int64_t groups = inputs / recipe.group_size;
  if (inputs % recipe.group_size != 0 || inputs % kValuesPerInt32 != 0 ||
      outputs % kValuesPerInt32 != 0) {
    out.push_back(t);  // the kernels take whole groups only: such a matrix is left as it is
    return;
  }
  const std::int64_t words = inputs / kValuesPerInt32;
  out.push_back({sibling(t, "qweight"), {words, outputs, experts, rest}, DType::i32});
  out.push_back({sibling(t, "scales"), {groups, outputs, experts, rest}, DType::f16});
  if (recipe.format != WeightFormat::int4) {
    const std::int64_t zeros = outputs / kValuesPerInt32;
    out.push_back({sibling(t, "qzeros"), {groups, zeros, experts, rest}, DType::i32});
  }
  if (recipe.format == WeightFormat::gptq) {
    out.push_back({sibling(t, "g_idx"), {inputs, 1, experts, rest}, DType::i32});
  }
}

void pack_8_bit(const Tensor& t, const WeightRecipe& recipe, std::vector<Tensor>& out) {
  const auto [inputs, outputs, experts, rest] = t.shape;
  const bool blocks = recipe.format == WeightFormat::fp8_blocks;
  Tensor packed = t;
  packed.dtype = recipe.format == WeightFormat::int8_channels ? DType::i8 : DType::f8_e4m3;
  out.push_back(packed);
  if (blocks) {
    out.push_back({sibling(t, "weight_scale_inv"),
                   {divide_up(inputs, kFp8Block), divide_up(outputs, kFp8Block), experts, rest},
                   DType::f32});
  } else {
    out.push_back({sibling(t, "weight_scale"), {1, outputs, experts, rest}, DType::bf16});
  }
}

bool is_of_experts(const Tensor& t) {
  return t.name.find("_exps.") != std::string::npos;
}

/// NVIDIA's NVFP4 checkpoints of models with experts leave attention and states as they are, all or
/// all but its output (hf_quant_config.json of DeepSeek-V3.1 and V3.2, GLM-5, Kimi-K2.5,
/// MiniMax-M2.5, Qwen3.5-397B-A17B; Qwen3-235B-A22B's does not). Some leave shared experts too.
bool packs(const Tensor& t, WeightFormat format, bool has_experts) {
  if (format == WeightFormat::mxfp4) {
    return is_of_experts(t);
  }
  return !has_experts || t.name.find(".ffn_") != std::string::npos;
}

void pack_4_bit_float(const Tensor& t,
                      const WeightRecipe& recipe,
                      bool has_experts,
                      std::vector<Tensor>& out) {
  const DType dtype = recipe.format == WeightFormat::mxfp4 ? DType::mxfp4 : DType::nvfp4;
  Tensor packed = t;
  if (t.shape[0] % info(dtype).block_elements == 0 && packs(t, recipe.format, has_experts)) {
    packed.dtype = dtype;
  }
  out.push_back(packed);
  if (packed.dtype == DType::nvfp4) {
    out.push_back({sibling(t, "weight_scale_2"), {1, 1, t.shape[2], t.shape[3]}, DType::f32});
  }
}

}  // namespace

std::vector<Tensor> packed_for_serving(const std::vector<Tensor>& tensors,
                                       const WeightRecipe& recipe) {
  std::vector<Tensor> out;
  out.reserve(tensors.size() * 2);
  const bool has_experts = std::ranges::any_of(tensors, is_of_experts);
  for (const Tensor& t : tensors) {
    if (!is_packed(t)) {
      out.push_back(t);
      continue;
    }
    switch (recipe.format) {
      case WeightFormat::int4:
      case WeightFormat::gptq:
      case WeightFormat::awq:
        pack_int4(t, recipe, out);
        break;
      case WeightFormat::fp8_blocks:
      case WeightFormat::fp8_channels:
      case WeightFormat::int8_channels:
        pack_8_bit(t, recipe, out);
        break;
      case WeightFormat::mxfp4:
      case WeightFormat::nvfp4:
        pack_4_bit_float(t, recipe, has_experts, out);
        break;
      case WeightFormat::llama_quantize:
        out.push_back(t);
        break;
    }
  }
  return out;
}

}  // namespace kvfathom
