// Layers spread over GPUs and the host: who pays for what, and what the inverses make of it.
#include <array>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/engine/llama_cpp/compute.h"
#include "model/engine/llama_cpp/policy.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/error.h"
#include "model/io/hf_config.h"
#include "model/io/inspect_json.h"
#include "model/memory/inverse.h"
#include "model/weights/recipe.h"

namespace kvfathom {
namespace {

constexpr Device kHost{Device::kHost};
constexpr std::int64_t kGiB = std::int64_t{1} << 30;

ModelSpec model_of(const std::string& file) {
  ModelSpec model = read_hf_config(KVFATHOM_SOURCE_DIR "/tests/data/configs/" + file + ".json");
  model.tensors = quantised(model, tensor_inventory(model), parse_recipe("q4_k_m"));
  return model;
}

const ModelSpec& dense() {
  static const ModelSpec kModel = model_of("google--gemma-3-4b-it");
  return kModel;
}
const ModelSpec& per_layer_embeddings() {
  static const ModelSpec kModel = model_of("google--gemma-4-E2B-it");
  return kModel;
}
const ModelSpec& experts() {
  static const ModelSpec kModel = model_of("zai-org--GLM-4.7-Flash");
  return kModel;
}

struct Placed {
  const char* name;
  const ModelSpec& (*model)();
  EngineSettings settings;
};

EngineSettings on_gpus(int n_gpus, std::vector<std::int64_t> memory = {}) {
  EngineSettings settings;
  settings.n_gpus = n_gpus;
  settings.gpu_memory_bytes = std::move(memory);
  return settings;
}

EngineSettings with_layers(EngineSettings settings,
                           std::optional<std::int64_t> gpu_layers,
                           std::int64_t cpu_moe_layers) {
  settings.gpu_layers = gpu_layers;
  settings.cpu_moe_layers = cpu_moe_layers;
  return settings;
}

std::vector<Placed> placements() {
  return {{"two GPUs", dense, on_gpus(2)},
          {"three uneven GPUs", dense, on_gpus(3, {24 * kGiB, 8 * kGiB, 12 * kGiB})},
          {"two GPUs, experts", experts, on_gpus(2)},
          {"half of the layers", dense, with_layers(on_gpus(1), 17, 0)},
          {"no layer", dense, with_layers(on_gpus(1), 0, 0)},
          {"half of the layers on two GPUs", experts, with_layers(on_gpus(2), 24, 0)},
          {"some experts on the host", experts, with_layers(on_gpus(1), std::nullopt, 20)},
          {"all experts on the host, two GPUs", experts, with_layers(on_gpus(2), {}, 47)}};
}

class Placements : public ::testing::TestWithParam<Placed> {};

TEST_P(Placements, LinesAddUpOnEveryDevice) {
  const ModelSpec& model = GetParam().model();
  const MemoryReport r = prepare_llama_cpp(model, GetParam().settings)->evaluate(8192);
  std::int64_t lines = 0;
  std::int64_t totals = r.ledger.total(kHost).bytes;
  for (const LedgerLine& line : r.ledger.lines) {
    EXPECT_GT(line.bytes, 0) << name(line.kind);
    lines += line.bytes;
  }
  for (int gpu = 0; gpu < GetParam().settings.n_gpus; ++gpu) {
    totals += r.ledger.total({gpu}).bytes;
  }
  EXPECT_EQ(lines, totals);
  EXPECT_EQ(r.ledger.bytes_of(LedgerKind::cache), r.cache.k_bytes + r.cache.v_bytes);
  std::int64_t layers = 0;
  for (const CacheGroup& group : r.cache.groups) {
    layers += group.n_layers;
  }
  EXPECT_EQ(layers, n_layers(model));
  EXPECT_EQ(r.cache.prefill_peak_bytes, r.cache.bytes() + r.ledger.bytes_of(LedgerKind::compute));
}

// Compute buffers are exact where an engine was seen to plan such a placement (data/truth).
TEST_P(Placements, ComputeIsExactWhereItWasSeen) {
  const std::set<std::string> seen = {
      "two GPUs", "two GPUs, experts", "half of the layers", "no layer"};
  for (const std::int64_t ubatch_tokens : {512, 16}) {
    EngineSettings settings = GetParam().settings;
    settings.ubatch_tokens = ubatch_tokens;
    const auto plan = prepare_llama_cpp(GetParam().model(), settings);
    for (const LedgerLine& line : plan->evaluate(8192).ledger.lines) {
      if (line.kind == LedgerKind::compute) {
        EXPECT_EQ(line.provenance == Provenance::exact,
                  ubatch_tokens == 512 && seen.contains(GetParam().name));
        EXPECT_EQ(line.high_bytes > line.bytes, line.provenance == Provenance::modelled);
      }
    }
  }
}

TEST_P(Placements, EveryLayerIsSomewhere) {
  const auto plan = prepare_llama_cpp(GetParam().model(), GetParam().settings);
  const Placement placement = plan->placement().value();
  std::int64_t layers = 0;
  for (const auto& [device, count] : placement.layers) {
    layers += count;
  }
  EXPECT_EQ(layers, n_layers(GetParam().model()) + 1);  // and the output head
  EXPECT_EQ(placement.host_expert_layers, GetParam().settings.cpu_moe_layers);
}

TEST_P(Placements, FloorsNeverExceedTheLedger) {
  const auto plan = prepare_llama_cpp(GetParam().model(), GetParam().settings);
  for (const std::int64_t context : {300, 4096, 20000, 100000}) {
    const MemoryLedger ledger = plan->evaluate(context).ledger;
    for (int index = Device::kHost; index < GetParam().settings.n_gpus; ++index) {
      EXPECT_LE(plan->floor_bytes({index}, context), ledger.total({index}).high_bytes) << context;
    }
  }
}

TEST_P(Placements, TheInverseInvertsAndMoreMemoryNeverFitsLess) {
  const auto plan = prepare_llama_cpp(GetParam().model(), GetParam().settings);
  std::int64_t last = 0;
  for (const std::int64_t gib : {3, 5, 9, 14, 20, 26}) {
    std::vector<Capacity> capacities;
    for (int gpu = 0; gpu < GetParam().settings.n_gpus; ++gpu) {
      capacities.push_back({{gpu}, gib * kGiB});
    }
    capacities.push_back({kHost, 24 * kGiB});
    constexpr std::int64_t kLimit = 100'000;
    const std::int64_t longest = longest_context(*plan, capacities, kLimit).context_tokens;
    EXPECT_GE(longest, last) << gib;
    EXPECT_TRUE(longest == 0 || fits(plan->evaluate(longest).ledger, capacities));
    for (std::int64_t n = longest + 1; n <= kLimit; n += 4999) {
      ASSERT_FALSE(fits(plan->evaluate(n).ledger, capacities)) << n;
    }
    last = longest;
  }
}

INSTANTIATE_TEST_SUITE_P(LlamaCpp, Placements, ::testing::ValuesIn(placements()));

TEST(LlamaCppPlacement, TheCommandSaysWhereLayersGo) {
  const auto command = [](const ModelSpec& model, const EngineSettings& settings) {
    return prepare_llama_cpp(model, settings)->command(4096, "m");
  };
  const std::string head = "llama-server -m m -c 4096 -np 1 ";
  EXPECT_EQ(command(dense(), on_gpus(2)), head + "-ngl 999 -ts 1,1 --fit off");
  EXPECT_EQ(command(dense(), on_gpus(2, {24 * kGiB, 8 * kGiB})),
            head + "-ngl 999 -ts 24576,8192 --fit off");
  EXPECT_EQ(command(dense(), with_layers(on_gpus(1), 12, 0)), head + "-ngl 12 --fit off");
  EXPECT_EQ(command(experts(), with_layers(on_gpus(1), {}, 9)),
            head + "-ngl 999 --n-cpu-moe 9 --fit off");
  EXPECT_EQ(command(experts(), with_layers(on_gpus(1), {}, 99)),
            head + "-ngl 999 --cpu-moe --fit off");
}

// Naming every layer takes the path of spread layers, which builds all of them: the same ledger.
TEST(LlamaCppPlacement, AllLayersOnOneGpuCostWhatTheyDoByDefault) {
  for (const ModelSpec* model : {&dense(), &experts()}) {
    const auto plain = prepare_llama_cpp(*model, {});
    const auto named = prepare_llama_cpp(*model, with_layers(on_gpus(1), 999, 0));
    for (const std::int64_t context : {256, 8192, 65536}) {
      const auto a = plain->evaluate(context).ledger.lines;
      const auto b = named->evaluate(context).ledger.lines;
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a[i].device, b[i].device);
        EXPECT_EQ(a[i].bytes, b[i].bytes) << name(a[i].kind) << " at " << context;
      }
    }
  }
}

TEST(LlamaCppPlacement, ExpertsMoveWithTheirLayersWeightsAndNothingElse) {
  const auto weights = [](std::int64_t n) {
    return llama_cpp::placed_weights(
        experts(), experts().tensors, {.n_gpus = 1, .host_expert_layers = n});
  };
  // layer 0 is dense: nothing to move
  EXPECT_EQ(weights(1).gpu_bytes, weights(0).gpu_bytes);
  std::int64_t moved = 0;
  for (const Tensor& t : experts().tensors) {
    moved += t.name.starts_with("blk.1.ffn_") && t.name.find("_exps.") != std::string::npos
                 ? data_bytes(t)
                 : 0;
  }
  EXPECT_GT(moved, 0);
  EXPECT_EQ(weights(2).gpu_bytes.front(), weights(0).gpu_bytes.front() - moved);
  EXPECT_EQ(weights(2).host_bytes, weights(0).host_bytes + moved);
}

TEST(LlamaCppPlacement, SharesDecideWhoGetsHowManyLayers) {
  ModelSpec model;
  model.layers.resize(9);
  const auto places = [&](std::vector<double> shares, std::int64_t gpu_layers) {
    return llama_cpp::layer_places(
               model, {}, {.n_gpus = 2, .gpu_layers = gpu_layers, .shares = std::move(shares)})
        .devices;
  };
  EXPECT_EQ(places({}, 999), (std::vector{0, 0, 0, 0, 0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(places({3, 1}, 999), (std::vector{0, 0, 0, 0, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(places({1, 1}, 4), (std::vector{-1, -1, -1, -1, -1, -1, 0, 0, 1, 1}));
}

TEST(LlamaCppPlacement, TwoGpusWithAQuantisedCacheArePlannedOrRefusedForEveryModel) {
  int n_planned = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(KVFATHOM_SOURCE_DIR "/data/models")) {
    SCOPED_TRACE(entry.path().stem().string());
    ModelSpec model = read_inspect(entry.path().string());
    model.tensors = tensor_inventory(model);
    EngineSettings settings = on_gpus(2);
    settings.cache_type_k = DType::q8_0;
    settings.cache_type_v = DType::q8_0;
    try {
      const MemoryReport report = prepare_llama_cpp(model, settings)->evaluate(8192);
      EXPECT_GT(report.ledger.bytes_of(LedgerKind::compute), 0);
      ++n_planned;
    } catch (const Error& error) {
      EXPECT_NE(error.exit_code(), 4) << error.what();
    }
  }
  EXPECT_GT(n_planned, 100);
}

// What a pass needs is compiled layer by layer: the same as running every event.
TEST(LlamaCppPlacement, CompiledPassesAgreeWithTheFullReplay) {
  std::vector<Placed> all = placements();
  all.push_back({"hundreds of tensors in a layer", per_layer_embeddings, on_gpus(2)});
  all.back().settings.cache_type_k = DType::q8_0;
  all.back().settings.cache_type_v = DType::q8_0;
  for (const Placed& placed : all) {
    const ModelSpec& model = placed.model();
    const EngineSettings& settings = placed.settings;
    llama_cpp::GraphSettings graph;
    graph.n_ctx_seq = 32768;
    graph.places = llama_cpp::layer_places(model,
                                           model.tensors,
                                           {.n_gpus = settings.n_gpus,
                                            .gpu_layers = settings.gpu_layers.value_or(999),
                                            .host_expert_layers = settings.cpu_moe_layers});
    graph.type_k = settings.cache_type_k;
    graph.type_v = settings.cache_type_v;
    const llama_cpp::ComputePlan plan(model, graph);
    for (const std::int64_t cells : {512, 32768}) {
      const llama_cpp::CacheCells cache{cells, std::min<std::int64_t>(cells, 1536)};
      EXPECT_EQ(plan.bytes(cache), plan.bytes_by_full_replay(cache)) << placed.name << cells;
    }
  }
}

}  // namespace
}  // namespace kvfathom
