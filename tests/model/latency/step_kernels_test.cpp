// Which kernels a step runs and over how many tokens: what layers, ranks and types share.
#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/io/inspect_json.h"
#include "model/latency/step_ops.h"

namespace kvfathom {
namespace {

ModelSpec catalog(const std::string& id) {
  ModelSpec model = read_inspect(std::string(KVFATHOM_SOURCE_DIR) + "/data/models/" + id + ".json");
  model.tensors = tensor_inventory(model);
  return model;
}

const Op& op_of(const std::vector<Op>& ops, std::string_view part) {
  return *std::ranges::find(ops, part, &Op::part);
}

// Caches of 8-bit floats have kernels of their own; integers in blocks and packed rows do not.
TEST(StepOps, ACacheGoesByTheKernelOfItsType) {
  const ModelSpec model = catalog("llama-3.1-8b");
  const auto format = [&](DType k, DType v) {
    std::vector<Op> ops;
    LatencySettings settings;
    settings.cache_type_k = k;
    settings.cache_type_v = v;
    StepOps(model, settings).emit({.n_cached_tokens = 8192}, ops);
    return op_of(ops, "attention").op_class.format;
  };
  EXPECT_EQ(format(DType::f8_e4m3, DType::f8_e4m3), DType::f8_e4m3);
  EXPECT_EQ(format(DType::bf16, DType::bf16), DType::bf16);
  EXPECT_EQ(format(DType::q8_0, DType::q8_0), DType::q8_0);
  EXPECT_EQ(format(DType::q4_0, DType::q4_0), DType::q4_0);
}

}  // namespace
}  // namespace kvfathom
