#include "model/weights/mtp.h"

#include <numeric>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/weights/recipe.h"

namespace kvfathom {
namespace {

ModelSpec glm_4_5_air() {
  ModelSpec model;
  model.architecture = "glm4moe";
  model.hidden_size = 4096;
  model.vocab_size = 151552;
  LayerSpec layer;
  layer.mixer = Attention{.n_heads = 96,
                          .n_kv_heads = 8,
                          .head_dim = 128,
                          .v_head_dim = 128,
                          .window_tokens = {},
                          .bias = true,
                          .rope_dim = 64};
  layer.feed_forward = DenseFeedForward{.intermediate_size = 10944};
  model.layers.push_back(layer);
  layer.feed_forward = MixtureOfExperts{.n_experts = 128,
                                        .n_experts_per_token = 8,
                                        .n_shared_experts = 1,
                                        .intermediate_size = 1408,
                                        .shared_intermediate_size = 1408,
                                        .router_bias = true};
  model.layers.resize(46, layer);
  model.extras.push_back({"mtp", 3'600'000'000, 1});
  return model;
}

std::int64_t parameters(const std::vector<Tensor>& tensors) {
  return std::transform_reduce(
      tensors.begin(), tensors.end(), std::int64_t{0}, std::plus<>(), n_elements);
}

TEST(Mtp, BlockCompletesThePublishedParameterCount) {
  // GLM-4.5-Air's safetensors: 110.4688 B parameters, one prediction layer with embeddings of its
  // own among them
  const ModelSpec model = glm_4_5_air();
  const std::vector<Tensor> decoder = tensor_inventory(model);
  const std::vector<Tensor> all = with_mtp_blocks(model, decoder);
  EXPECT_NEAR(static_cast<double>(parameters(all)) / 1e9, 110.4688, 0.00005);
  EXPECT_EQ(all[decoder.size()].name.rfind("blk.46.", 0), 0U);
}

TEST(Mtp, NothingIsAddedWithoutPredictionLayers) {
  ModelSpec model = glm_4_5_air();
  model.extras.clear();
  const std::vector<Tensor> decoder = tensor_inventory(model);
  EXPECT_EQ(with_mtp_blocks(model, decoder), decoder);
}

TEST(Mtp, OwnEmbeddingsOnlyWhereTheCountHasThem) {
  ModelSpec model = glm_4_5_air();
  const std::vector<Tensor> decoder = tensor_inventory(model);
  const std::int64_t with = parameters(with_mtp_blocks(model, decoder));
  model.extras[0].n_parameters = 900'000'000;  // GLM-4.6 shares the decoder's
  EXPECT_EQ(with - parameters(with_mtp_blocks(model, decoder)), 2 * 4096 * 151552);
}

}  // namespace
}  // namespace kvfathom
