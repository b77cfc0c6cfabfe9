#include "model/dtype.h"

#include <gtest/gtest.h>

#include "model/architecture/model_spec.h"

namespace kvfathom {
namespace {

TEST(DType, RowBytesMatchPublishedBitsPerWeight) {
  // bits per weight as llama-quantize's table of types prints them
  EXPECT_EQ(row_bytes(DType::q8_0, 32 * 4) * 8.0 / 128, 8.5);
  EXPECT_EQ(row_bytes(DType::q4_k, 256) * 8.0 / 256, 4.5);
  EXPECT_EQ(row_bytes(DType::q6_k, 256) * 8.0 / 256, 6.5625);
  EXPECT_EQ(row_bytes(DType::iq4_xs, 256) * 8.0 / 256, 4.25);
  EXPECT_EQ(row_bytes(DType::iq1_s, 256) * 8.0 / 256, 1.5625);
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
