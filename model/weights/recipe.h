// Weight formats by name: `--weights q4_k_m` as a rule from an unquantised model to the type of
// every tensor.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/provenance.h"
#include "model/weights/llama_quantize.h"

namespace kvfathom {

/// What turns a checkpoint into stored tensors.
enum class WeightFormat : std::uint8_t {
  llama_quantize,  ///< a GGUF file type; f32, f16 and bf16 are among them
  fp8_blocks,      ///< e4m3, one f32 scale per 128 x 128 block (DeepSeek-V3 report s3.3)
  fp8_channels,    ///< e4m3, one bf16 scale per output channel (compressed-tensors)
  int8_channels,   ///< int8, one bf16 scale per output channel (compressed-tensors W8A8)
  int4,            ///< eight 4-bit values an int32, one f16 scale per group (W4A16, symmetric)
  gptq,            ///< int4 with 4-bit zeros per group and an int32 group index per input
  awq,             ///< int4 with 4-bit zeros per group
  mxfp4,           ///< experts in MXFP4, the rest as it is (gpt-oss checkpoints)
  /// 4-bit e2m1, one e4m3 scale per 16 values, one f32 scale a tensor; of models with experts the
  /// feed-forward matrices alone
  nvfp4,
};

/// A parsed `--weights` name.
struct WeightRecipe {
  std::string name;  ///< canonical, lower case: "q4_k_m", "q4_0+imatrix", "awq-g64"
  WeightFormat format = WeightFormat::llama_quantize;
  FileType file_type = FileType::f16;  ///< llama_quantize only
  bool imatrix = false;                ///< llama_quantize only: quantised with an importance matrix
  std::int64_t group_size = 0;         ///< int4, gptq, awq
  Provenance provenance = Provenance::exact;  ///< llama-quantize's own rule, or modelled
  friend bool operator==(const WeightRecipe&, const WeightRecipe&) = default;
};

/// By name, in any case. GGUF file types take "+imatrix"; int4, gptq and awq take a group size
/// ("awq-g64", default 128). InputError naming the allowed ones otherwise.
[[nodiscard]] WeightRecipe parse_recipe(std::string_view name);

/// Every name that parse_recipe takes, without suffixes.
[[nodiscard]] std::vector<std::string_view> recipe_names();

/// The tensors as `recipe` stores them: for GGUF file types the same tensors with their types
/// set, for the others a packed matrix and its scales in the place of a quantised matrix.
/// `unquantised` are the tensors of a checkpoint (GGUF names, ggml shapes) in any order; those
/// that are quantised already keep their type, as llama-quantize refuses to requantise.
[[nodiscard]] std::vector<Tensor> quantised(const ModelSpec& model,
                                            std::vector<Tensor> unquantised,
                                            const WeightRecipe& recipe);

/// Sum of data_bytes: what an engine that adds no padding holds.
[[nodiscard]] std::int64_t weight_bytes(std::span<const Tensor> tensors);

/// Bytes of the data section of a GGUF file: every tensor padded to general.alignment (32).
[[nodiscard]] std::int64_t gguf_data_bytes(std::span<const Tensor> tensors,
                                           std::int64_t alignment = 32);

/// Bytes of the GGUF header without its metadata: the fixed part and the tensor infos (GGUF v3).
/// The metadata (the vocabulary, mostly) comes on top: 1 to 15 MB in published files.
[[nodiscard]] std::int64_t gguf_tensor_info_bytes(std::span<const Tensor> tensors);

}  // namespace kvfathom
