#include "model/engine/llama_cpp/graph/fold.h"

#include <vector>

#include <gtest/gtest.h>

#include "model/engine/llama_cpp/compute.h"
#include "model/io/hf_config.h"

namespace kvfathom::llama_cpp {
namespace {

LayerSpec layer(std::int64_t n_kv_heads) {
  return {
      .mixer = Attention{.n_heads = 8, .n_kv_heads = n_kv_heads, .head_dim = 64, .v_head_dim = 64},
      .feed_forward = DenseFeedForward{1024, true, false}};
}

TEST(FoldLayers, KeepsThreeRepeatsAndWhatFollows) {
  ModelSpec model;
  model.layers.push_back(layer(1));
  for (int i = 0; i < 10; ++i) {
    model.layers.push_back(layer(2));
    model.layers.push_back(layer(4));
  }
  const FoldedModel folded = fold_layers(model);
  EXPECT_EQ(folded.second_boundary, 5U);
  EXPECT_EQ(folded.third_boundary, 7U);
  ASSERT_EQ(folded.model.layers.size(), 9U);  // one repeat has to follow the third
  EXPECT_EQ(folded.model.layers.back(), layer(4));
}

TEST(FoldLayers, LeavesAloneWhatDoesNotRepeatOrLooksAtAllLayers) {
  ModelSpec few;
  few.layers.assign(4, layer(2));
  EXPECT_EQ(fold_layers(few).model.layers.size(), 4U);
  ModelSpec whole;
  whole.layers.assign(40, layer(2));
  EXPECT_EQ(fold_layers(whole).model.layers.size(), 4U);
  whole.per_layer_embedding_size = 256;
  EXPECT_EQ(fold_layers(whole).model.layers.size(), 40U);
}

TEST(FoldLayers, LeavesAloneOfWhichItWouldKeepHalf) {
  ModelSpec model;
  model.layers.assign(8, layer(2));
  EXPECT_EQ(fold_layers(model).model.layers.size(), 8U);
  model.layers.push_back(layer(2));
  EXPECT_EQ(fold_layers(model).model.layers.size(), 4U);
}

TEST(OneLayerOfEachKind, IsTheFirstOfEach) {
  ModelSpec model;
  model.layers = {layer(1), layer(2), layer(2), layer(1), layer(4), layer(2)};
  EXPECT_EQ(one_layer_of_each_kind(model).layers, (std::vector{layer(1), layer(2), layer(4)}));
  model.altup_inputs = 4;
  EXPECT_EQ(one_layer_of_each_kind(model).layers.size(), 6U);
}

// The claim itself: whatever the model, folded and whole passes need the same.
class FoldedPass : public testing::TestWithParam<const char*> {};

TEST_P(FoldedPass, NeedsWhatTheWholePassNeeds) {
  const ModelSpec model = read_hf_config(std::string(KVFATHOM_SOURCE_DIR "/tests/data/configs/") +
                                         GetParam() + ".json");
  for (const bool flash_attention : {true, false}) {
    for (const std::int64_t sequences : {1, 4}) {
      for (const Backend backend : {Backend::cuda, Backend::cpu}) {
        GraphSettings settings;
        settings.backend = backend;
        settings.n_seq_max = sequences;
        settings.n_ctx_seq = 32768;
        settings.n_outputs = sequences;
        settings.flash_attention = flash_attention;
        settings.v_transposed = !flash_attention;
        const ComputePlan folded(model, settings);
        const ComputePlan whole(model, settings, ComputePlan::Layers::all);
        for (const CacheCells cells : {CacheCells{4096, 1536}, CacheCells{131072, 1536}}) {
          EXPECT_EQ(folded.bytes(cells), whole.bytes(cells));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models,
                         FoldedPass,
                         testing::Values("meta-llama--Llama-3.1-8B",
                                         "google--gemma-3-12b-it",
                                         "openai--gpt-oss-20b",
                                         "zai-org--GLM-4.7-Flash",
                                         "Qwen--Qwen3-30B-A3B",
                                         "Qwen--Qwen3-Next-80B-A3B-Thinking",
                                         "nvidia--Nemotron-H-8B-Base-8K",
                                         "ai21labs--AI21-Jamba-1.5-Mini",
                                         "LiquidAI--LFM2-1.2B"));

}  // namespace
}  // namespace kvfathom::llama_cpp
