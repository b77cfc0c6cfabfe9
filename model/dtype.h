// Element types of weights and caches: name, block length and block bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kvfathom {

/// Every element type kvfathom can size. Enumerators are spelled as files spell them; the ggml
/// ones follow ggml.h (types removed from ggml have no enumerator and are refused on reading).
enum class DType : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u8,
  boolean,
  f8_e4m3,
  f8_e5m2,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q8_1,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  q8_k,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq1_s,
  iq1_m,
  iq4_nl,
  iq4_xs,
  tq1_0,
  tq2_0,
  mxfp4,
  nvfp4,
  q1_0,
  q2_0,
};

/// One row of the type table.
struct DTypeInfo {
  DType dtype;
  std::string_view name;
  std::int64_t block_elements;           ///< elements per block; a row must hold whole blocks
  std::int64_t block_bytes;              ///< bytes per block
  std::optional<std::uint32_t> ggml_id;  ///< the id in a GGUF file, if ggml has the type
};

/// All types, in the order of the enum.
[[nodiscard]] std::span<const DTypeInfo> all_dtypes();

[[nodiscard]] const DTypeInfo& info(DType dtype);
[[nodiscard]] inline std::string_view name(DType dtype) {
  return info(dtype).name;
}

/// By name, in any case; nothing if there is no such type.
[[nodiscard]] std::optional<DType> dtype_named(std::string_view name);
/// By the id that GGUF tensor infos carry.
[[nodiscard]] std::optional<DType> dtype_of_ggml(std::uint32_t ggml_id);

/// Bytes of `n_elements` contiguous elements, which must be whole blocks (ggml_row_size).
[[nodiscard]] std::int64_t row_bytes(DType dtype, std::int64_t n_elements);
/// The same, of any number of elements, padded to whole blocks.
[[nodiscard]] std::int64_t padded_row_bytes(DType dtype, std::int64_t n_elements);

}  // namespace kvfathom
