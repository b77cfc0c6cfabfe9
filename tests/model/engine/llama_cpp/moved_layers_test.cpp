// Matrices that are elsewhere than their layers: which ones a pattern takes, who pays for them, and
// how llama-server is told.
#include <regex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/engine/llama_cpp/overrides.h"
#include "model/engine/llama_cpp/policy.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/io/hf_config.h"
#include "model/weights/recipe.h"

namespace kvfathom {
namespace {

constexpr int kHost = Device::kHost;

ModelSpec quantised_model() {
  ModelSpec model =
      read_hf_config(KVFATHOM_SOURCE_DIR "/tests/data/configs/zai-org--GLM-4.7-Flash.json");
  model.tensors = quantised(model, tensor_inventory(model), parse_recipe("q4_k_m"));
  return model;
}

/// 47 layers with experts and shared ones, but the first, which is dense.
const ModelSpec& experts() {
  static const ModelSpec kModel = quantised_model();
  return kModel;
}

/// Bytes of the tensors that llama.cpp's own pattern (common/fit.cpp) finds.
std::int64_t matched_bytes(const std::string& pattern) {
  const std::regex regex(pattern);
  std::int64_t bytes = 0;
  for (const Tensor& t : experts().tensors) {
    bytes += std::regex_search(t.name, regex) ? data_bytes(t) : 0;
  }
  return bytes;
}

struct PatternCase {
  MovedMatrices matrices;
  const char* pattern;
};

class MovedWeights : public ::testing::TestWithParam<PatternCase> {};

TEST_P(MovedWeights, AreThoseOfThePattern) {
  const auto weights = [](std::vector<MovedLayer> moved) {
    return llama_cpp::placed_weights(
        experts(), experts().tensors, {.n_gpus = 2, .moved = std::move(moved)});
  };
  const auto none = weights({});
  for (const std::int64_t layer : {1, 11}) {  // both on the first GPU; "blk.1" is in "blk.11"
    const std::int64_t bytes =
        matched_bytes("blk\\." + std::to_string(layer) + "\\." + GetParam().pattern);
    ASSERT_GT(bytes, 0);
    const auto to_host = weights({{layer, GetParam().matrices, kHost}});
    EXPECT_EQ(none.gpu_bytes[0] - to_host.gpu_bytes[0], bytes);
    EXPECT_EQ(to_host.host_bytes - none.host_bytes, bytes);
    const auto to_next = weights({{layer, GetParam().matrices, 1}});
    EXPECT_EQ(to_next.gpu_bytes[0], to_host.gpu_bytes[0]);
    EXPECT_EQ(to_next.gpu_bytes[1] - none.gpu_bytes[1], bytes);
    EXPECT_EQ(to_next.host_bytes, none.host_bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(
    LlamaCpp,
    MovedWeights,
    ::testing::Values(PatternCase{MovedMatrices::experts, "ffn_(up|down|gate_up|gate)_(ch|)exps"},
                      PatternCase{MovedMatrices::all, "ffn_(gate|up|gate_up|down).*"},
                      PatternCase{MovedMatrices::all_but_up, "ffn_(gate|gate_up|down).*"},
                      PatternCase{MovedMatrices::down, "ffn_down.*"}));

// Layer by layer it is what --n-cpu-moe does.
TEST(MovedLayers, OfTheFirstLayersCostWhatCpuMoeDoes) {
  EngineSettings by_count;
  by_count.cpu_moe_layers = 20;
  EngineSettings by_layer;
  for (std::int64_t layer = 0; layer < 20; ++layer) {
    by_layer.moved_layers.push_back({layer, MovedMatrices::experts, kHost});
  }
  const auto a = prepare_llama_cpp(experts(), by_count)->evaluate(8192).ledger.lines;
  const auto b = prepare_llama_cpp(experts(), by_layer)->evaluate(8192).ledger.lines;
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].device, b[i].device);
    EXPECT_EQ(a[i].bytes, b[i].bytes) << name(a[i].kind);
  }
}

// Products run where their matrices are: what goes in and out of the experts of one layer needs
// room on the other GPU, which has nothing else to do for a layer that early.
TEST(MovedLayers, ComputeFollowsTheMatrices) {
  EngineSettings settings;
  settings.n_gpus = 2;
  settings.layers_per_gpu = {47, 1};  // the second has the output head alone
  settings.gpu_layers = 48;
  const auto compute_of = [](const EngineSettings& s, int gpu) {
    std::int64_t bytes = 0;
    for (const LedgerLine& line : prepare_llama_cpp(experts(), s)->evaluate(8192).ledger.lines) {
      bytes += line.kind == LedgerKind::compute && line.device.index == gpu ? line.bytes : 0;
    }
    return bytes;
  };
  EngineSettings moved = settings;
  moved.moved_layers = {{5, MovedMatrices::down, 1}};
  EngineSettings unmoved = settings;
  unmoved.moved_layers = {{0, MovedMatrices::experts, 1}};  // a dense layer: nothing moves
  // 512 tokens x 4 experts x 2,048 values come out in f32
  EXPECT_GE(compute_of(moved, 1), 512 * 4 * 2048 * 4);
  EXPECT_LT(compute_of(unmoved, 1), 512 * 4 * 2048 * 4);
}

TEST(MovedLayers, AreToldByTensFromTheHostOn) {
  std::vector<MovedLayer> moved;
  for (std::int64_t layer = 8; layer < 24; ++layer) {
    moved.push_back({layer, MovedMatrices::experts, kHost});
  }
  moved.push_back({30, MovedMatrices::experts, kHost});
  moved.push_back({7, MovedMatrices::all_but_up, 1});
  EXPECT_EQ(llama_cpp::override_options(moved),
            " -ot \"blk\\.([8-9]|1[0-9]|2[0-3]|30)\\.ffn_(up|down|gate_up|gate)_(ch|)exps=CPU,"
            "blk\\.(7)\\.ffn_(gate|gate_up|down).*=CUDA1\"");
  EXPECT_EQ(llama_cpp::override_options({}), "");
}

TEST(MovedLayers, StandInTheCommandAndThePlacement) {
  EngineSettings settings;
  settings.n_gpus = 2;
  settings.gpu_layers = 40;
  settings.layers_per_gpu = {18, 22};
  settings.moved_layers = {{46, MovedMatrices::experts, kHost},
                           {25, MovedMatrices::down, 1},
                           {45, MovedMatrices::experts, kHost}};
  const auto plan = prepare_llama_cpp(experts(), settings);
  EXPECT_EQ(plan->command(4096, "m"),
            "llama-server -m m -c 4096 -np 1 -ngl 40 -ts 18,22 "
            "-ot \"blk\\.(4[5-6])\\.ffn_(up|down|gate_up|gate)_(ch|)exps=CPU,"
            "blk\\.(25)\\.ffn_down.*=CUDA1\" --fit off");
  const Placement placement = plan->placement().value();
  const std::vector<std::pair<Device, std::int64_t>> layers{{{0}, 18}, {{1}, 22}, {{kHost}, 8}};
  EXPECT_EQ(placement.layers, layers);
  const auto runs = moved_layers(placement);
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0].first, 25);
  EXPECT_EQ(runs[0].last, 25);
  EXPECT_EQ(runs[1].first, 45);
  EXPECT_EQ(runs[1].last, 46);
}

}  // namespace
}  // namespace kvfathom
