// Recipes against the sizes of real files, from the models' own configs.
#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/io/hf_config.h"
#include "model/weights/recipe.h"
#include "tests/model/weights/tensor_lists.h"

namespace kvfathom {
namespace {

TEST(PublishedFiles, SizesWithinHalfAPercent) {
  int checked = 0;
  for (const std::vector<std::string>& row : testing::rows_of("quant/published.tsv")) {
    const ModelSpec model = read_hf_config(std::string(KVFATHOM_SOURCE_DIR) +
                                           "/tests/data/configs/" + row[0] + ".json");
    const std::vector<Tensor> stored =
        quantised(model, tensor_inventory(model), parse_recipe(row[1]));
    const double unit = row[3] == "GiB" ? 1024.0 * 1024.0 * 1024.0 : 1e9;
    const double actual = std::stod(row[2]);
    // what publishers change (one more bit here and there, a doubled tensor) is 0.42 % at most
    EXPECT_NEAR(static_cast<double>(weight_bytes(stored)) / unit, actual, 0.005 * actual)
        << row[0] << " " << row[1];
    ++checked;
  }
  EXPECT_EQ(checked, 19);
}

}  // namespace
}  // namespace kvfathom
