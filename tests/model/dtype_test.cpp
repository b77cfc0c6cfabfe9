#include "model/dtype.h"

#include <gtest/gtest.h>

#include "model/architecture/model_spec.h"

namespace kvfathom {
namespace {

double bits_per_weight(DType dtype) {
  const std::int64_t n = info(dtype).block_elements;
  return static_cast<double>(row_bytes(dtype, n) * 8) / static_cast<double>(n);
}

TEST(DType, RowBytesMatchPublishedBitsPerWeight) {
  // bits per weight as llama-quantize's table of types prints them
  EXPECT_EQ(bits_per_weight(DType::q8_0), 8.5);
  EXPECT_EQ(bits_per_weight(DType::q4_k), 4.5);
  EXPECT_EQ(bits_per_weight(DType::q6_k), 6.5625);
  EXPECT_EQ(bits_per_weight(DType::iq4_xs), 4.25);
  EXPECT_EQ(bits_per_weight(DType::iq1_s), 1.5625);
}

TEST(DType, NamesAndIdsFindTheirRow) {
  for (const DTypeInfo& type : all_dtypes()) {
    EXPECT_EQ(dtype_named(type.name), type.dtype);
    EXPECT_EQ(info(type.dtype).name, type.name);
    if (type.ggml_id) {
      EXPECT_EQ(dtype_of_ggml(*type.ggml_id), type.dtype);
    }
  }
  EXPECT_EQ(dtype_named("Q4_K"), DType::q4_k);
  EXPECT_EQ(dtype_named("q4_9"), std::nullopt);
  EXPECT_EQ(dtype_of_ggml(4), std::nullopt);  // Q4_2 was removed from ggml
}

}  // namespace
}  // namespace kvfathom
