// Which type llama-quantize gives each tensor.
//
// Source: llama.cpp 0.5.0 (September 2026), src/llama-quant.cpp and tools/quantize: the rule is
// reproduced to the tensor, with its dependence on names, layer numbers and hyper-parameters.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom {

/// The file types that llama-quantize offers (llama_ftype).
enum class FileType : std::uint8_t {
  f32,
  f16,
  bf16,
  q1_0,
  q2_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  mxfp4_moe,
  q2_k,
  q2_k_s,
  q3_k_s,
  q3_k_m,
  q3_k_l,
  q4_k_s,
  q4_k_m,
  q5_k_s,
  q5_k_m,
  q6_k,
  iq1_s,
  iq1_m,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq2_m,
  iq3_xxs,
  iq3_xs,
  iq3_s,
  iq3_m,
  iq4_nl,
  iq4_xs,
  tq1_0,
  tq2_0,
};

struct FileTypeInfo {
  FileType file_type;
  std::string_view name;
  std::uint32_t id;    ///< general.file_type of a GGUF file
  DType dtype;         ///< what a matrix gets that no rule singles out
  bool needs_imatrix;  ///< llama-quantize refuses to write it without an importance matrix
};

[[nodiscard]] std::span<const FileTypeInfo> file_types();

/// By name in any case; q3_k, q4_k and q5_k mean the medium mixes. What llama.cpp's loader prints
/// ("Q4_K - Medium") is understood too.
[[nodiscard]] std::optional<FileType> file_type_named(std::string_view name);
/// By the id that a GGUF file's general.file_type holds; most publishers' own mixes carry the
/// nearest one, so it names a file's recipe only where the tensors agree.
[[nodiscard]] std::optional<FileType> file_type_of_id(std::uint32_t id);

/// Whether llama-quantize touches the tensor at all: 2-D or 3-D, a ".weight", and none of the
/// norms, routers, convolutions, position tables and other small tensors that it leaves alone.
[[nodiscard]] bool is_quantisable(const Tensor& tensor);

/// Whether the converter (convert_hf_to_gguf, same release) stores the tensor as F32 whatever
/// the output type: 1-D, norms, routers, convolutions, and all that is not a ".weight".
[[nodiscard]] bool is_converted_to_f32(const Tensor& tensor);

/// Sets the type of every tensor as llama-quantize would. Tensors keep their order. A tensor
/// that is quantised already keeps its type. Unsupported where llama-quantize itself fails: rows
/// that are no multiple of 32 under a type that has no fallback.
[[nodiscard]] std::vector<Tensor> llama_quantised(const ModelSpec& model,
                                                  std::vector<Tensor> tensors,
                                                  FileType file_type,
                                                  bool imatrix);

}  // namespace kvfathom
