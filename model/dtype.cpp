#include "model/dtype.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cctype>

#include "model/rounding.h"

namespace kvfathom {
namespace {

// Block sizes and ids: ggml.h and ggml-common.h (static asserts on the block structs) of
// llama.cpp, 2026-08; mxfp4 and fp8: OCP Microscaling Formats v1.0 and OCP 8-bit FP v1.0.
constexpr auto kTypes = std::to_array<DTypeInfo>({
    {DType::f64, "f64", 1, 8, 28},
    {DType::f32, "f32", 1, 4, 0},
    {DType::f16, "f16", 1, 2, 1},
    {DType::bf16, "bf16", 1, 2, 30},
    {DType::i64, "i64", 1, 8, 27},
    {DType::i32, "i32", 1, 4, 26},
    {DType::i16, "i16", 1, 2, 25},
    {DType::i8, "i8", 1, 1, 24},
    {DType::u8, "u8", 1, 1, {}},
    {DType::boolean, "bool", 1, 1, {}},
    {DType::f8_e4m3, "f8_e4m3", 1, 1, {}},
    {DType::f8_e5m2, "f8_e5m2", 1, 1, {}},
    {DType::q4_0, "q4_0", 32, 18, 2},
    {DType::q4_1, "q4_1", 32, 20, 3},
    {DType::q5_0, "q5_0", 32, 22, 6},
    {DType::q5_1, "q5_1", 32, 24, 7},
    {DType::q8_0, "q8_0", 32, 34, 8},
    {DType::q8_1, "q8_1", 32, 36, 9},
    {DType::q2_k, "q2_k", 256, 84, 10},
    {DType::q3_k, "q3_k", 256, 110, 11},
    {DType::q4_k, "q4_k", 256, 144, 12},
    {DType::q5_k, "q5_k", 256, 176, 13},
    {DType::q6_k, "q6_k", 256, 210, 14},
    {DType::q8_k, "q8_k", 256, 292, 15},
    {DType::iq2_xxs, "iq2_xxs", 256, 66, 16},
    {DType::iq2_xs, "iq2_xs", 256, 74, 17},
    {DType::iq2_s, "iq2_s", 256, 82, 22},
    {DType::iq3_xxs, "iq3_xxs", 256, 98, 18},
    {DType::iq3_s, "iq3_s", 256, 110, 21},
    {DType::iq1_s, "iq1_s", 256, 50, 19},
    {DType::iq1_m, "iq1_m", 256, 56, 29},
    {DType::iq4_nl, "iq4_nl", 32, 18, 20},
    {DType::iq4_xs, "iq4_xs", 256, 136, 23},
    {DType::tq1_0, "tq1_0", 256, 54, 34},
    {DType::tq2_0, "tq2_0", 256, 66, 35},
    {DType::mxfp4, "mxfp4", 32, 17, 39},
    {DType::nvfp4, "nvfp4", 64, 36, 40},
    {DType::q1_0, "q1_0", 128, 18, 41},
    {DType::q2_0, "q2_0", 64, 18, 42},
});

static_assert(std::ranges::is_sorted(kTypes, {}, &DTypeInfo::dtype), "rows follow the enum");

}  // namespace

std::span<const DTypeInfo> all_dtypes() {
  return kTypes;
}

const DTypeInfo& info(DType dtype) {
  return kTypes.at(static_cast<std::size_t>(dtype));
}

std::optional<DType> dtype_named(std::string_view name) {
  const auto same = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) ==
           std::tolower(static_cast<unsigned char>(b));
  };
  const auto row = std::ranges::find_if(
      kTypes, [&](const DTypeInfo& t) { return std::ranges::equal(t.name, name, same); });
  return row == kTypes.end() ? std::nullopt : std::optional(row->dtype);
}

std::optional<DType> dtype_of_ggml(std::uint32_t ggml_id) {
  const auto row = std::ranges::find(kTypes, std::optional(ggml_id), &DTypeInfo::ggml_id);
  return row == kTypes.end() ? std::nullopt : std::optional(row->dtype);
}

std::int64_t row_bytes(DType dtype, std::int64_t n_elements) {
  const DTypeInfo& type = info(dtype);
  assert(n_elements % type.block_elements == 0);
  return n_elements / type.block_elements * type.block_bytes;
}

std::int64_t padded_row_bytes(DType dtype, std::int64_t n_elements) {
  return row_bytes(dtype, round_up(n_elements, info(dtype).block_elements));
}

}  // namespace kvfathom
