// The serving engines: blocks against logged start-ups, ranks, and what must hold for every engine.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/engine/engine.h"
#include "model/engine/serving/paged_cache.h"
#include "model/engine/serving/ranks.h"
#include "model/error.h"
#include "model/memory/inverse.h"
#include "tests/model/engine/serving/catalog_plan.h"

namespace kvfathom::testing {
namespace {

CachePool vllm_pool(const ModelSpec& model,
                    const EngineSettings& settings,
                    double available_gib,
                    std::int64_t context) {
  return prepared("vllm", model, settings)
      ->pool(static_cast<std::int64_t>(available_gib * kGiB), context)
      .value();
}

TEST(Vllm, WindowsHaveBlockTablesOfTheirOwn) {
  // A log of 0.13.0 on a GB10: 12.94 GiB hold 282,624 tokens, 54.44 x 8,192. Twelve full and
  // twelve windowed layers: 512 blocks of 16 and, for 127 + 2048 tokens, 136 + 1.
  const CachePool pool = vllm_pool(catalog("gpt-oss-20b"), serving_settings(), 12.94, 8192);
  EXPECT_EQ(pool.blocks, 35334);
  EXPECT_NEAR(pool.concurrency, 54.44, 0.01);
  EXPECT_NEAR(static_cast<double>(pool.tokens), 282624, 100);
}

TEST(Vllm, BeforeItHadGroupsWindowsAreFull) {
  EngineSettings settings = serving_settings();
  settings.missing_behaviours = {"window-groups"};
  const CachePool pool = vllm_pool(catalog("gpt-oss-20b"), settings, 12.94, 8192);
  EXPECT_EQ(pool.blocks, static_cast<std::int64_t>(12.94 * kGiB) / (24 * 16 * 2048));
  EXPECT_EQ(pool.tokens, pool.blocks * 16);
}

TEST(Vllm, AttentionBlocksGrowToTheStatesPage) {
  // Logged for Qwen3.x-27B with an fp8 cache: blocks of 1,568 tokens, and 8.18 GiB for 262,144:
  // 168 blocks of attention and one state in each of three tables, sixteen layers each.
  const ModelSpec model = catalog("qwen3.5-27b");
  EngineSettings settings = serving_settings(DType::f8_e4m3);
  settings.missing_behaviours = {"cached-states"};
  const auto plan = prepared("vllm", model, settings);
  const MemoryReport report = plan->evaluate(262144);
  EXPECT_EQ(report.cache.bytes(), 171LL * 16 * 1568 * 2048);
  EXPECT_NEAR(static_cast<double>(report.cache.bytes()) / kGiB, 8.18, 0.005);
}

TEST(Vllm, CacheTypesChangeTheBlock) {
  const ModelSpec model = catalog("qwen3-30b-a3b");
  const auto tokens = [&](DType type) {
    return vllm_pool(model, serving_settings(type), 10.55, 100000).tokens;
  };
  EXPECT_NEAR(static_cast<double>(tokens(DType::f8_e4m3)), 230528, 230528 * 0.0005);  // logged
  EXPECT_NEAR(
      static_cast<double>(tokens(DType::f8_e4m3)) / static_cast<double>(tokens(DType::bf16)),
      2.0,
      0.001);
  EXPECT_NEAR(static_cast<double>(tokens(DType::nvfp4)) / static_cast<double>(tokens(DType::bf16)),
              16.0 / 4.5,
              0.001);
}

TEST(Vllm, SparseFp8RowsAreTheKernelsLayout) {
  const ModelSpec model = catalog("deepseek-v3.2");
  const auto report = prepared("vllm", model, serving_settings(DType::f8_e4m3))->evaluate(64);
  EXPECT_EQ(report.cache.bytes(), 61LL * 64 * (656 + 132));
}

TEST(Vllm, GraphsOutsideTheBudgetArePaidFromTheReserve) {
  const ModelSpec model = catalog("llama-3.1-8b");
  EngineSettings settings = serving_settings();
  settings.device_memory_bytes = std::int64_t{80} << 30;
  const auto bytes = [&](LedgerKind kind) {
    return prepared("vllm", model, settings)->evaluate(4096).ledger.bytes_of(kind);
  };
  const std::int64_t graphs = bytes(LedgerKind::graphs);
  EXPECT_GT(graphs, 0);
  EXPECT_EQ(bytes(LedgerKind::reserve), std::int64_t{8} << 30);
  settings.missing_behaviours = {"graphs-in-budget"};
  EXPECT_EQ(bytes(LedgerKind::graphs), 0);
  EXPECT_EQ(bytes(LedgerKind::reserve), std::int64_t{8} << 30);
  settings.gpu_memory_utilization = 1.0;
  EXPECT_EQ(bytes(LedgerKind::graphs), graphs);
  EXPECT_EQ(bytes(LedgerKind::reserve), 0);
}

TEST(Vllm, ReplicasShareTheSequencesAndTheExperts) {
  const ModelSpec model = catalog("qwen3-30b-a3b");
  EngineSettings settings = serving_settings();
  settings.sequences = 3;
  const auto alone = prepared("vllm", model, settings)->evaluate(1600).ledger;
  settings.data_parallel = 2;
  const auto shared = prepared("vllm", model, settings)->evaluate(1600).ledger;
  const auto of = [](const MemoryLedger& ledger, int device, LedgerKind kind) {
    std::int64_t bytes = 0;
    for (const LedgerLine& line : ledger.lines) {
      bytes += line.device == Device{device} && line.kind == kind ? line.bytes : 0;
    }
    return bytes;
  };
  const std::int64_t all = of(alone, 0, LedgerKind::cache);
  EXPECT_EQ(of(shared, 0, LedgerKind::cache), all / 3 * 2);
  EXPECT_EQ(of(shared, 1, LedgerKind::cache), all / 3);
  const std::int64_t experts = 48LL * 128 * 3 * 2048 * 768 * 2;
  EXPECT_EQ(of(shared, 1, LedgerKind::weights), of(alone, 0, LedgerKind::weights) - experts / 2);
}

TEST(Vllm, KvHeadsAreReplicatedBeyondTheirNumber) {
  const ModelSpec model = catalog("qwen3-30b-a3b");  // four KV heads
  const auto of_rank = [&](std::int64_t ranks) {
    EngineSettings settings = serving_settings();
    settings.tensor_parallel = ranks;
    return prepared("vllm", model, settings)->evaluate(1600).ledger.lines[1].bytes;
  };
  EXPECT_EQ(of_rank(1), 1600LL * 48 * 4 * 128 * 2 * 2);
  EXPECT_EQ(of_rank(4) * 4, of_rank(1));
  EXPECT_EQ(of_rank(8), of_rank(4));
}

TEST(Ranks, LoggedWeights) {
  struct Logged {
    const char* model;
    std::int64_t ranks;
    double gib;
  };
  for (const Logged& log : {Logged{"meta-llama-3-8b", 1, 14.9596},
                            Logged{"meta-llama-3-8b", 4, 3.7418},
                            Logged{"qwen3-32b", 8, 7.6871},
                            Logged{"qwen3-30b-a3b", 2, 28.4571}}) {
    EngineSettings settings = serving_settings();
    settings.tensor_parallel = log.ranks;
    const auto ranks =
        serving::stage_ranks(catalog(log.model), settings, serving::parallel_of(settings));
    EXPECT_NEAR(static_cast<double>(ranks.front().weights_bytes) / kGiB, log.gib, log.gib * 0.01)
        << log.model << " on " << log.ranks;
  }
}

TEST(Ranks, StagesShareOutEveryTensor) {
  const ModelSpec model = catalog("llama-3.1-8b");
  const auto sum = [&](std::int64_t stages) {
    EngineSettings settings = serving_settings();
    settings.pipeline_parallel = stages;
    std::int64_t bytes = 0;
    std::size_t layers = 0;
    for (const auto& rank : serving::stage_ranks(model, settings, serving::parallel_of(settings))) {
      bytes += rank.weights_bytes;
      layers += rank.model.layers.size();
    }
    EXPECT_EQ(layers, model.layers.size());
    return bytes;
  };
  EXPECT_EQ(sum(2), sum(1));
  EXPECT_EQ(sum(3), sum(1));
}

TEST(Ranks, NamesOfCheckpointsAreCutLikeThoseOfFiles) {
  ModelSpec model = catalog("qwen3-30b-a3b");  // 32 heads, 4 KV heads of 128; hidden 2048
  EngineSettings settings = serving_settings();
  settings.weights_provenance = Provenance::exact;
  settings.tensor_parallel = 8;
  const auto share = [&](const char* name, std::int64_t n_in, std::int64_t n_out) {
    model.tensors = {{name, {n_in, n_out, 1, 1}, DType::bf16}};
    const auto ranks = serving::stage_ranks(model, settings, serving::parallel_of(settings));
    return static_cast<double>(n_in * n_out * 2) / static_cast<double>(ranks.front().weights_bytes);
  };
  EXPECT_EQ(share("model.layers.3.self_attn.q_proj.weight", 2048, 4096), 8.0);
  EXPECT_EQ(share("model.layers.3.self_attn.k_proj.weight", 2048, 512), 4.0);
  EXPECT_EQ(share("blk.3.attn_k.weight", 2048, 512), 4.0);
  EXPECT_EQ(share("model.layers.3.self_attn.o_proj.weight", 4096, 2048), 8.0);
  EXPECT_EQ(share("model.layers.3.mlp.experts.7.up_proj.weight", 2048, 768), 8.0);
  EXPECT_EQ(share("model.layers.3.mlp.gate.weight", 2048, 128), 1.0);
  EXPECT_EQ(share("model.layers.3.input_layernorm.weight", 2048, 1), 1.0);
  EXPECT_EQ(share("lm_head.weight", 2048, model.vocab_size), 8.0);  // 151,936 is 64 x 2,374
}

TEST(Ranks, EveryDeviceKeepsItsOwnShareFree) {
  // 0.9 of 24 and of 80 GiB: two ranks of equal size are bound by the smaller device, and two
  // stages each by their own.
  constexpr std::int64_t kSmall = std::int64_t{24} << 30;
  constexpr std::int64_t kLarge = std::int64_t{80} << 30;
  const ModelSpec model = catalog("llama-3.1-8b");
  const auto plan = [&](std::int64_t ranks, std::int64_t stages, std::int64_t a, std::int64_t b) {
    EngineSettings settings = serving_settings();
    settings.tensor_parallel = ranks;
    settings.pipeline_parallel = stages;
    settings.device_memory_bytes = std::min(a, b);
    if (a != b) {
      settings.uneven_device_memory_bytes = {a, b};
    }
    return prepared("vllm", model, settings);
  };
  const auto longest = [](const MemoryPlan& of, std::int64_t a, std::int64_t b) {
    const std::vector<Capacity> capacities{{Device{0}, a}, {Device{1}, b}};
    return longest_context(of, capacities, 5'000'000).context_tokens;
  };
  const auto reserve = [](const MemoryPlan& of, int device) {
    std::int64_t bytes = 0;
    for (const LedgerLine& line : of.evaluate(16).ledger.lines) {
      const bool here = line.device == Device{device} && line.kind == LedgerKind::reserve;
      bytes += here ? line.bytes : 0;
    }
    return bytes;
  };
  const auto tensor = plan(2, 1, kSmall, kLarge);
  EXPECT_NEAR(static_cast<double>(reserve(*tensor, 0)), 2.4 * kGiB, 1.0);
  EXPECT_NEAR(static_cast<double>(reserve(*tensor, 1)), 8.0 * kGiB, 1.0);
  EXPECT_EQ(longest(*tensor, kSmall, kLarge), longest(*plan(2, 1, kSmall, kSmall), kSmall, kSmall));
  const auto staged = plan(1, 2, kSmall, kLarge);
  EXPECT_NEAR(static_cast<double>(reserve(*staged, 1)), 8.0 * kGiB, 1.0);
  // Sixteen layers and half the weights each: the small device binds, whichever stage it holds.
  const std::int64_t first_small = longest(*staged, kSmall, kLarge);
  EXPECT_GT(first_small, longest(*plan(1, 1, kSmall, kSmall), kSmall, kSmall));
  EXPECT_LT(first_small, longest(*plan(1, 2, kLarge, kLarge), kLarge, kLarge));
  EXPECT_EQ(longest(*staged, kSmall, kLarge),
            longest(*plan(1, 2, kSmall, kSmall), kSmall, std::int64_t{1} << 50));
}

TEST(Ranks, RefuseWhatTheEnginesRefuse) {
  const ModelSpec model = catalog("llama-3.1-8b");
  const auto refusal = [&](auto change) {
    EngineSettings settings = serving_settings();
    change(settings);
    try {
      prepared("vllm", model, settings);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  EXPECT_EQ(refusal([](EngineSettings& s) { s.tensor_parallel = 3; }),
            "--tensor-parallel: 3 ranks for 14336 feed-forward channels; the engine takes divisors "
            "only");
  EXPECT_EQ(refusal([](EngineSettings& s) { s.n_gpus = 2; }),
            "--gpus: 2 devices for 1 rank; add --tensor-parallel 2");
  EXPECT_EQ(refusal([](EngineSettings& s) {
              s.n_gpus = 4;
              s.tensor_parallel = 2;
            }),
            "--gpus: 4 devices for 2 ranks; --tensor-parallel x --pipeline-parallel x "
            "--data-parallel must equal it");
  EXPECT_EQ(refusal([](EngineSettings& s) { s.cache_type_k = s.cache_type_v = DType::q8_0; }),
            "--cache-type-k: q8_0 is no cache type of this engine and version; use f16, bf16, "
            "f8_e4m3, f8_e5m2 or nvfp4");
  EXPECT_EQ(refusal([](EngineSettings& s) { s.cache_type_v = DType::f8_e4m3; }),
            "--cache-type-v: f8_e4m3 beside K in bf16; this engine keeps both in one type");
  EXPECT_EQ(refusal([](EngineSettings& s) { s.gpu_memory_utilization = 1.5; }),
            "--gpu-memory-utilization: 1.5 is no share of a device; more than 0, at most 1");
}

TEST(HuggingFace, LatentLayersCacheEveryHead) {
  const auto report =
      prepared("huggingface", catalog("glm-4.7-flash"), serving_settings())->evaluate(100);
  EXPECT_EQ(report.cache.bytes(), 100LL * 47 * 20 * (192 + 64 + 256) * 2);
}

TEST(HuggingFace, EagerScoresGrowWithTheSquare) {
  EngineSettings settings = serving_settings();
  settings.flash_attention = FlashAttention::off;
  const auto plan = prepared("huggingface", catalog("llama-3.1-8b"), settings);
  const auto compute = [&](std::int64_t n) {
    return static_cast<double>(plan->evaluate(n).ledger.bytes_of(LedgerKind::compute));
  };
  EXPECT_NEAR(compute(65536) / compute(32768), 4.0, 0.01);
}

// ---- What holds for every engine -------------------------------------------------------------

TEST(Engines, AskingForTheModelsOwnSchemeIsAskingForNative) {
  const auto bytes = [](const char* engine, const char* model, CacheScheme scheme) {
    EngineSettings settings = serving_settings();
    settings.scheme = scheme;
    return prepared(engine, catalog(model), settings)->evaluate(5000).cache.bytes();
  };
  const auto expect_native = [&](const char* engine, const char* model, CacheScheme scheme) {
    EXPECT_EQ(bytes(engine, model, scheme), bytes(engine, model, CacheScheme::native)) << model;
  };
  expect_native("vllm", "gpt-oss-20b", CacheScheme::window);
  expect_native("vllm", "qwen3.5-27b", CacheScheme::state);
  expect_native("vllm", "glm-4.7-flash", CacheScheme::mla_latent);
  expect_native("sglang", "gpt-oss-20b", CacheScheme::window);
  expect_native("sglang", "deepseek-v3.2", CacheScheme::sparse_index);
  expect_native("tensorrt-llm", "glm-4.7-flash", CacheScheme::mla_latent);
  expect_native("huggingface", "gemma-3-4b-it", CacheScheme::window);
  // Windows beside full layers: `full` still gives the windows every token.
  EXPECT_GT(bytes("vllm", "gpt-oss-20b", CacheScheme::full),
            bytes("vllm", "gpt-oss-20b", CacheScheme::native));
  // transformers caches every head of a latent layer.
  EXPECT_THROW(bytes("huggingface", "glm-4.7-flash", CacheScheme::mla_latent), Unsupported);
  EXPECT_THROW(bytes("vllm", "llama-3.1-8b", CacheScheme::window), InputError);
}

struct Case {
  const char* engine;
  const char* model;
};

class EveryEngine : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr std::int64_t kDevice = std::int64_t{80} << 30;

  static std::unique_ptr<MemoryPlan> plan(std::int64_t memory_bytes, std::int64_t sequences) {
    EngineSettings settings = serving_settings();
    settings.device_memory_bytes = memory_bytes;
    settings.sequences = sequences;
    return prepared(GetParam().engine, catalog(GetParam().model), settings);
  }
};

TEST_P(EveryEngine, LinesAreTheCacheAndWeights) {
  const auto plan = this->plan(kDevice, 3);
  for (const std::int64_t context : {1, 17, 4096, 131073}) {
    const MemoryReport report = plan->evaluate(context);
    EXPECT_EQ(report.ledger.bytes_of(LedgerKind::cache) + report.ledger.bytes_of(LedgerKind::state),
              report.cache.bytes())
        << context;
    EXPECT_LE(report.ledger.total(Device{0}).high_bytes, plan->floor_bytes(Device{0}, context));
    for (const LedgerLine& line : report.ledger.lines) {
      EXPECT_LE(line.low_bytes, line.bytes);
      EXPECT_LE(line.bytes, line.high_bytes);
    }
  }
}

TEST_P(EveryEngine, TheInverseInvertsAndMoreMemoryNeverFitsLess) {
  std::int64_t before = 0;
  for (const std::int64_t gib : {24, 40, 80, 141}) {
    const std::int64_t memory = gib << 30;
    const auto plan = this->plan(memory, 2);
    const std::vector<Capacity> capacities{{Device{0}, memory}};
    constexpr std::int64_t kLimit = 5'000'000;
    const std::int64_t longest = longest_context(*plan, capacities, kLimit).context_tokens;
    EXPECT_GE(longest, before) << gib;
    before = longest;
    if (longest > 0) {
      EXPECT_TRUE(fits(plan->evaluate(longest).ledger, capacities));
    }
    for (const std::int64_t more : {1, 15, 16, 17, 1568, 70000}) {
      if (longest < kLimit) {
        EXPECT_FALSE(fits(plan->evaluate(longest + more).ledger, capacities)) << more;
      }
    }
  }
  EXPECT_GT(before, 0);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         EveryEngine,
                         ::testing::Values(Case{"vllm", "llama-3.1-8b"},
                                           Case{"vllm", "gpt-oss-20b"},
                                           Case{"vllm", "qwen3.5-27b"},
                                           Case{"vllm", "glm-4.7-flash"},
                                           Case{"sglang", "llama-3.1-8b"},
                                           Case{"sglang", "glm-4.7-flash"},
                                           Case{"sglang", "gpt-oss-20b"},
                                           Case{"sglang", "gemma-4-31b-it-nvfp4"},
                                           Case{"tensorrt-llm", "llama-3.1-8b"},
                                           Case{"tensorrt-llm", "qwen3-30b-a3b"},
                                           Case{"huggingface", "llama-3.1-8b"},
                                           Case{"huggingface", "gemma-3-4b-it"}));

}  // namespace
}  // namespace kvfathom::testing
