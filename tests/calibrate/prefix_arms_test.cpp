#include "calibrate/prefix_arms.h"

#include <gtest/gtest.h>

#include "calibrate/loop_shape.h"
#include "model/error.h"

namespace kvfathom::calibrate {
namespace {

TEST(PrefixArms, WordsOfARequestReadBack) {
  const ArmsRequest request{
      .shape = {.hidden_size = 576, .n_layers = 30, .n_heads = 9, .n_kv_heads = 3, .head_dim = 64},
      .link = {.bandwidth_bytes_per_s = 5e6 / 3.0, .call_s = 1e-5, .piece_bytes = 4096},
      .chunk_tokens = 512,
      .n_threads = 3,
      .most_s = 0.125,
      .lengths_tokens = {7, 1048576}};
  EXPECT_EQ(arms_request(words_of(request)), request);
}

TEST(PrefixArms, RefusesOtherWords) {
  EXPECT_THROW((void)arms_request({"hidden=1"}), InputError);
  EXPECT_THROW((void)arms_request({"hidden_size"}), InputError);
  EXPECT_THROW((void)arms_request({"hidden_size=1k"}), InputError);
  EXPECT_THROW((void)arms_request({"tokens=-1"}), InputError);
}

TEST(PrefixArms, LinesOfTimesReadBack) {
  const ArmTime time{.n_tokens = 640,
                     .arm = kRecomputeArm,
                     .time_s = 1.0 / 3.0,
                     .low_s = 0.3,
                     .high_s = 1e-9,
                     .n_layers = 18};
  EXPECT_EQ(arm_time(line_of(time)), time);
  EXPECT_THROW((void)arm_time("640 prompt 0.3"), MachineError);
  EXPECT_THROW((void)arm_time(""), MachineError);
}

/// Llama-3.1-8B's config.json: 32 layers of 4096, 32 heads over 8 of 128, 14336, 128256.
ModelSpec llama() {
  return spec_of({.hidden_size = 4096,
                  .n_layers = 32,
                  .n_heads = 32,
                  .n_kv_heads = 8,
                  .head_dim = 128,
                  .intermediate_size = 14336,
                  .vocab_size = 128256});
}

TEST(LoopShape, IsThatOfTheModel) {
  const LoopShape shape = loop_shape_of(llama());
  EXPECT_EQ(spec_of(shape), llama());
  // Its card: 8.03 G parameters, of which 2 x 128256 x 4096 + 65 x 4096 are no layer's matrices.
  EXPECT_NEAR(32.0 * layer_weight_bytes(shape) / 2.0, 8.030e9 - 1.0509e9, 1e6);
}

TEST(LoopShape, RefusesWhatALoopLeavesOut) {
  const auto refused = [](const auto& change) {
    ModelSpec model = llama();
    change(model);
    EXPECT_THROW((void)loop_shape_of(model), Unsupported);
  };
  const auto attention = [](ModelSpec& model) -> Attention& {
    for (LayerSpec& layer : model.layers) {
      layer = model.layers.front();
    }
    return std::get<Attention>(model.layers.back().mixer);
  };
  refused([&](ModelSpec& m) { attention(m).window_tokens = 4096; });  // of one layer
  refused([](ModelSpec& m) { m.weight_dtype = DType::q4_k; });
  refused([](ModelSpec& m) { m.norm = NormKind::layer; });
  refused([](ModelSpec& m) {
    for (LayerSpec& layer : m.layers) {
      layer.mixer = LatentAttention{.n_heads = 16};
    }
  });
  refused([](ModelSpec& m) {
    for (LayerSpec& layer : m.layers) {
      std::get<Attention>(layer.mixer).rope_dim = 64;
    }
  });
  refused([](ModelSpec& m) {
    for (LayerSpec& layer : m.layers) {
      layer.feed_forward = MixtureOfExperts{.n_experts = 8,
                                            .n_experts_per_token = 2,
                                            .intermediate_size = 512,
                                            .shared_intermediate_size = 512};
    }
  });
}

}  // namespace
}  // namespace kvfathom::calibrate
