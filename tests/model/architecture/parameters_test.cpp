// How many parameters a model has, whatever its weights are packed in.
#include "model/architecture/parameters.h"

#include <string>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/io/inspect_json.h"
#include "model/weights/recipe.h"

namespace kvfathom {
namespace {

TEST(Parameters, PackingChangesNoCount) {
  const std::string path = std::string(KVFATHOM_SOURCE_DIR) + "/data/models/llama-3.1-8b.json";
  for (const char* recipe : {"awq", "gptq", "int4", "fp8"}) {
    ModelSpec model = read_inspect(path);
    model.tensors = quantised(model, tensor_inventory(model), parse_recipe(recipe));
    const ParameterCount n = count_parameters(model);
    EXPECT_NEAR(static_cast<double>(n.total), 8.030e9, 0.003e9) << recipe;  // model card
    EXPECT_EQ(n.active, n.total);
  }
}

}  // namespace
}  // namespace kvfathom
