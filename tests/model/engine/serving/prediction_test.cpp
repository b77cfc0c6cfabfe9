// Prediction blocks under the serving engines: bytes by hand from published configs, pages against
// logged start-ups.
#include "model/engine/serving/prediction.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/model/engine/serving/catalog_plan.h"

namespace kvfathom::testing {
namespace {

EngineSettings drafting(std::int64_t tokens, DType cache = DType::bf16) {
  EngineSettings settings = serving_settings(cache);
  settings.draft_tokens = tokens;
  return settings;
}

LedgerLine line_of(const MemoryLedger& ledger, LedgerKind kind, int device = 0) {
  const auto line = std::ranges::find_if(ledger.lines, [&](const LedgerLine& l) {
    return l.kind == kind && l.device.index == device;
  });
  return line == ledger.lines.end() ? LedgerLine{} : *line;
}

LedgerLine draft_line(const char* engine, const ModelSpec& model, const EngineSettings& settings) {
  return line_of(prepared(engine, model, settings)->evaluate(4096).ledger, LedgerKind::draft);
}

/// DeepSeek-V3, which is published in FP8.
ModelSpec deepseek_v3(DType matrices) {
  ModelSpec model = catalog("deepseek-v3");
  for (Tensor& t : model.tensors) {
    t.dtype = t.dtype == DType::f8_e4m3 ? matrices : t.dtype;
  }
  return model;
}

// ---- Weights ---------------------------------------------------------------------------------

// DeepSeek-V3 (huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/config.json), the parts of its
// block 61 that every rank has and those that the ranks share.
constexpr std::int64_t kHidden = 7168;
constexpr std::int64_t kWhole = kHidden * 1536 + 1536 +               // down to the queries' latent
                                kHidden * (512 + 64) + 512 +          // and to the keys'
                                kHidden * 256 + 256 +                 // router and its bias
                                2 * kHidden +                         // norms of the layer
                                2 * kHidden * kHidden + 3 * kHidden;  // of the block
constexpr std::int64_t kShared = 1536LL * 128 * (128 + 64) + 512LL * 128 * (128 + 128) +
                                 kHidden * 128 * 128 + kHidden * 2048 * 3 * (256 + 1);

TEST(PredictionWeights, AreDeepSeeksElevenAndAHalfBillion) {
  // README_WEIGHTS.md of the checkpoint: "11.5B unique parameters (excluding the shared 0.9B
  // Embedding and 0.9B output Head)".
  EXPECT_NEAR(static_cast<double>(kWhole + kShared), 11.5e9, 0.15e9);
  const LedgerLine line = draft_line("vllm", deepseek_v3(DType::bf16), drafting(1));
  EXPECT_EQ(line.bytes, 2 * (kWhole + kShared));
  // In FP8, router, norms and the joining matrix stay in 16 bits, here as in the checkpoint.
  const std::int64_t wide = kHidden * 256 + 256 + 1536 + 512 + 5 * kHidden + 2 * kHidden * kHidden;
  const LedgerLine packed = draft_line("vllm", deepseek_v3(DType::f8_e4m3), drafting(1));
  EXPECT_EQ(packed.bytes, kWhole + kShared + wide);
  EXPECT_LT(packed.high_bytes, line.bytes / 10 * 6);
}

TEST(PredictionWeights, AreCutAsTheModelsAre) {
  EngineSettings settings = drafting(1);
  settings.tensor_parallel = 8;
  settings.n_gpus = 8;
  const ModelSpec model = deepseek_v3(DType::bf16);
  EXPECT_EQ(draft_line("vllm", model, settings).bytes, 2 * (kWhole + kShared / 8));
  settings.expert_parallel = 8;
  EXPECT_EQ(draft_line("vllm", model, settings).bytes, 2 * (kWhole + kShared / 8));
  const auto ledger = prepared("vllm", model, settings)->evaluate(4096).ledger;
  EXPECT_EQ(line_of(ledger, LedgerKind::draft, 7).bytes, 2 * (kWhole + kShared / 8));
}

TEST(PredictionWeights, OfSglangHaveTablesOfTheirOwnWhenThePoolIsSized) {
  // sgl-project/sglang issue 36452: "each tensor is 2.54 GiB" for 248,320 x 5,120 in 16 bits.
  EXPECT_NEAR(248320.0 * 5120 * 2 / kGiB, 2.54, 0.2);
  const ModelSpec model = deepseek_v3(DType::bf16);
  const std::int64_t tables = kHidden * 129280 * 2 * 2;
  EXPECT_EQ(draft_line("sglang", model, drafting(3)).bytes, 2 * (kWhole + kShared) + tables);
}

TEST(PredictionWeights, OfGlm47Flash) {
  const std::int64_t d = 2048;
  const std::int64_t attention = d * 768 + 768 + 768LL * 20 * 256 + d * (512 + 64) + 512 +
                                 512LL * 20 * (192 + 256) + d * 20 * 256;
  const std::int64_t experts = d * 1536 * 3 * (64 + 1) + 64 * d + 64;
  const std::int64_t block = attention + experts + 2 * d + 2 * d * d + 3 * d;
  EXPECT_EQ(draft_line("vllm", catalog("glm-4.7-flash"), drafting(1)).bytes, 2 * block);
}

TEST(PredictionWeights, OfQwen3Next) {
  // 81,324,862,720 parameters of the checkpoint less 79,674,391,296 of the decoder.
  const std::int64_t block = 81'324'862'720 - 79'674'391'296;
  const std::int64_t d = 2048;
  const std::int64_t attention = d * 2 * 16 * 256 + 2 * d * 2 * 256 + d * 16 * 256 + 2LL * 256;
  const std::int64_t experts = d * 512 * 3 * (512 + 1) + 512 * d + d;
  EXPECT_EQ(attention + experts + 2 * d + 2 * d * d + 3 * d, block);
  const ModelSpec model = catalog("qwen3-next-80b-a3b-thinking");
  EXPECT_EQ(draft_line("vllm", model, drafting(2)).bytes, 2 * block);
  // The joining matrix is cut too; keys and values, gates and norms are not.
  EngineSettings two = drafting(2);
  two.tensor_parallel = 2;
  two.n_gpus = 2;
  const std::int64_t whole = 512 * d + d + 2LL * 256 + 2 * d + 3 * d;
  EXPECT_EQ(draft_line("vllm", model, two).bytes, 2 * (whole + (block - whole) / 2));
}

TEST(PredictionWeights, MayBeIn16BitsWhereARecipePacksTheRest) {
  // "ignore": ["mtp*"] in the config of nvidia/Qwen3.6-27B-NVFP4.
  ModelSpec model = catalog("qwen3.5-27b");
  for (Tensor& t : model.tensors) {
    const bool in_blocks = t.shape[0] % info(DType::nvfp4).block_elements == 0;
    const bool matrix = t.name.starts_with("blk.") && t.shape[1] > 1;
    t.dtype = matrix && in_blocks ? DType::nvfp4 : t.dtype;
  }
  const LedgerLine line = draft_line("vllm", model, drafting(1));
  const std::int64_t block = 5120 * (2 * 24 * 256 + 2 * 4 * 256 + 24 * 256 + 3 * 17408) + 2 * 256 +
                             2 * 5120 + 2 * 5120 * 5120 + 3 * 5120;
  EXPECT_EQ(line.high_bytes, 2 * block);
  EXPECT_LT(line.bytes, block);
}

// ---- Cache -----------------------------------------------------------------------------------

TEST(PredictionCache, IsALayerMore) {
  const ModelSpec model = catalog("deepseek-v3");
  const MemoryReport report = prepared("vllm", model, drafting(3))->evaluate(64);
  EXPECT_EQ(report.cache.bytes(), 62LL * 64 * 576 * 2);
  EXPECT_EQ(report.cache.groups.front().n_layers, 62);
  // Sparse attention: the block has an indexer of its own.
  const auto sparse = prepared("vllm", catalog("deepseek-v3.2"), drafting(1, DType::f8_e4m3));
  EXPECT_EQ(sparse->evaluate(64).cache.bytes(), 62LL * 64 * (656 + 132));
}

TEST(PredictionCache, OfSglangHasAsManyTokens) {
  // pool_configurator.py: cell_size x (1 + 1 / 61); twice four tokens are reserved for a step.
  const std::int64_t cell = 576LL * 2 * 61 * 62 / 61;
  const auto plan = prepared("sglang", catalog("deepseek-v3"), drafting(3));
  EXPECT_EQ(plan->evaluate(100).cache.bytes(), (100 + 8 + 1) * cell);
}

TEST(PredictionCache, KeepsAStateMoreForEveryToken) {
  // A log of 0.19.2 for Nemotron-3-Super with an fp8 cache: blocks of 8,432 tokens; 36.25 GiB hold
  // 1,399,712 tokens, 27.81 x 131,072. Nine layers share a page: 16 blocks of attention, and four
  // states (three tokens are drafted) in each of five tables.
  const ModelSpec model = catalog("nvidia-nemotron-3-super-120b-a12b-fp8");
  EngineSettings settings = drafting(3, DType::f8_e4m3);
  settings.missing_behaviours = {"cached-states"};
  const auto plan = prepared("vllm", model, settings);
  const CachePool pool = plan->pool(static_cast<std::int64_t>(36.25 * kGiB), 131072).value();
  EXPECT_EQ(pool.blocks, 1001);
  EXPECT_EQ(pool.tokens, 1001 / 6 * 8432);
  EXPECT_NEAR(pool.concurrency, 27.81, 0.005);
  const MemoryReport report = plan->evaluate(131072);
  EXPECT_EQ(report.cache.bytes(), 9LL * 8432 * 512 * (16 + 5 * 4));
  EXPECT_EQ(report.ledger.bytes_of(LedgerKind::state), 9LL * 8432 * 512 * 5 * 4);
  EXPECT_EQ(report.cache.bytes(),
            report.ledger.bytes_of(LedgerKind::cache) + report.ledger.bytes_of(LedgerKind::state));
}

TEST(PredictionCache, LengthensTheConvolutionsOfDeltaNets) {
  // Logs of 0.20.0 and 0.20.2 with fp8 caches: Qwen3.6-27B drafting one token has blocks of 1,584
  // tokens, 93 of them in 4.8 GiB (36,432 tokens in four tables); Qwen3.6-35B-A3B drafting three
  // 2,144 tokens, and 64.69 GiB are 20.8406 x 138 blocks.
  const auto pool = [](const char* model, std::int64_t tokens, double gib) {
    EngineSettings settings = drafting(tokens, DType::f8_e4m3);
    settings.missing_behaviours = {"cached-states"};
    return prepared("vllm", catalog(model), settings)
        ->pool(static_cast<std::int64_t>(gib * kGiB), 65536)
        .value();
  };
  EXPECT_EQ(pool("qwen3.5-27b", 1, 4.8).tokens, 36432);
  EXPECT_EQ(pool("qwen3.5-27b", 1, 4.8).blocks, 93);
  EXPECT_EQ(pool("qwen3.6-35b-a3b", 3, 64.69).blocks, 2876);
  EXPECT_EQ(pool("qwen3.6-35b-a3b", 3, 64.69).tokens, 2876 / 4 * 2144);
}

TEST(PredictionPages, OfCachedPrefixesAreAStateMore) {
  // A log of 0.22.1rc1.dev26 for Qwen3.6-35B-A3B with --enable-prefix-caching ("Mamba cache mode is
  // set to 'align'"), an fp8 cache and two drafted tokens: blocks of 2,128 tokens, "3 padding
  // layers" for 30 states beside 11 layers of attention, and 74.76 GiB hold 6,455,296 tokens, 24.62
  // x 262,144. That is 3,349 blocks over 124 of attention and 3 x (2 + 2) states, pages of 1,024
  // bytes a token (github.com/vllm-project/vllm, v1/kv_cache_interface.py, MambaSpec).
  constexpr std::int64_t kBlock = 11LL * 2128 * 1024;
  EngineSettings settings = drafting(2, DType::f8_e4m3);
  const auto pool = [&] {
    return prepared("vllm", catalog("qwen3.6-35b-a3b"), settings)
        ->pool(3349 * kBlock, 262144)
        .value();
  };
  EXPECT_NEAR(static_cast<double>(3349 * kBlock) / kGiB, 74.76, 0.01);
  EXPECT_EQ(pool().blocks, 3349);
  EXPECT_NEAR(pool().concurrency, 24.62, 0.006);
  settings.missing_behaviours = {"cached-states"};
  EXPECT_NEAR(pool().concurrency, 3349.0 / (124 + 3 * (1 + 2)), 1e-9);
}

// ---- Other lines, and what must hold ---------------------------------------------------------

TEST(PredictionLines, ComputeHasInputsOfTheBlockAndLogitsOfACheck) {
  EngineSettings settings = drafting(2);
  settings.max_batched_tokens = 8192;
  settings.max_sequences = 256;
  const ModelSpec model = catalog("deepseek-v3");
  const auto compute = [&] {
    return line_of(prepared("vllm", model, settings)->evaluate(4096).ledger, LedgerKind::compute);
  };
  const std::int64_t with = compute().bytes;
  settings.draft_tokens = 0;
  const std::int64_t without = compute().bytes;
  const std::int64_t inputs = 2LL * 8192 * 7168 * 2;
  const std::int64_t logits = 256LL * 129280 * 4 * 2;
  EXPECT_GE(with - without, inputs);
  EXPECT_LE(with - without, inputs + logits);
}

struct Drafted {
  const char* engine;
  const char* model;
};

class Prediction : public ::testing::TestWithParam<Drafted> {};

TEST_P(Prediction, NeverTakesLessThanWithout) {
  const auto& [engine, name] = GetParam();
  const ModelSpec model = catalog(name);
  for (const std::int64_t ranks : {1, 2}) {
    EngineSettings settings = serving_settings();
    settings.tensor_parallel = ranks;
    settings.n_gpus = static_cast<int>(ranks);
    std::vector<std::int64_t> before;
    for (const std::int64_t tokens : {0, 1, 4}) {
      settings.draft_tokens = tokens;
      const auto plan = prepared(engine, model, settings);
      std::vector<std::int64_t> now;
      for (const std::int64_t context : {1, 1000, 20000, 131072}) {
        const MemoryReport report = plan->evaluate(context);
        const DeviceTotal total = report.ledger.total({static_cast<int>(ranks) - 1});
        now.push_back(total.bytes);
        EXPECT_GE(total.high_bytes, plan->floor_bytes({0}, context));
        EXPECT_EQ(line_of(report.ledger, LedgerKind::draft).bytes > 0, tokens > 0);
      }
      for (std::size_t i = 0; i < before.size(); ++i) {
        EXPECT_GE(now[i], before[i]) << name << ", " << tokens << " tokens, " << i;
      }
      before = std::move(now);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Catalog,
                         Prediction,
                         ::testing::Values(Drafted{"vllm", "deepseek-v3"},
                                           Drafted{"vllm", "deepseek-v3.2"},
                                           Drafted{"vllm", "glm-4.5-air"},
                                           Drafted{"vllm", "glm-4.7-flash"},
                                           Drafted{"vllm", "glm-5.2"},
                                           Drafted{"vllm", "mimo-7b-base"},
                                           Drafted{"vllm", "qwen3-next-80b-a3b-thinking"},
                                           Drafted{"vllm", "qwen3.5-9b"},
                                           Drafted{"vllm", "qwen3.5-122b-a10b"},
                                           Drafted{"vllm", "nvidia-nemotron-3-super-120b-a12b-fp8"},
                                           Drafted{"sglang", "deepseek-r1"},
                                           Drafted{"sglang", "glm-4.6"},
                                           Drafted{"sglang", "glm-5"},
                                           Drafted{"sglang", "mimo-7b-base"},
                                           Drafted{"sglang", "qwen3.5-9b"},
                                           Drafted{"sglang", "qwen3-next-80b-a3b-thinking"}));

TEST(PredictionRefusals, NameWhatIsNotKnown) {
  const auto refused = [](const char* engine, const char* model, const EngineSettings& settings) {
    EXPECT_THROW(static_cast<void>(prepared(engine, catalog(model), settings)), Unsupported)
        << engine << " " << model;
  };
  refused("vllm", "step-3.7-flash", drafting(3));
  refused("sglang", "step-3.7-flash", drafting(1));
  refused("tensorrt-llm", "glm-4.7-flash", drafting(1));
  EngineSettings stages = drafting(1);
  stages.pipeline_parallel = 2;
  stages.n_gpus = 2;
  refused("vllm", "glm-4.7-flash", stages);
  EngineSettings old = drafting(1);
  old.missing_behaviours = {"shared-head"};
  refused("vllm", "glm-4.7-flash", old);
  EXPECT_THROW(static_cast<void>(prepared("vllm", catalog("qwen3-8b"), drafting(1))), InputError);
}

// ---- Checkpoints -----------------------------------------------------------------------------

std::vector<std::string> names_of(const ModelSpec& model) {
  std::vector<std::string> names;
  for (const Tensor& t : model.tensors) {
    names.push_back(t.name);
  }
  return names;
}

TEST(PredictionOfCheckpoints, TakesTheTensorsBehindTheDecoder) {
  ModelSpec model = catalog("glm-4.7-flash");
  model.tensors = {{"model.embed_tokens.weight", {2048, 154880, 1, 1}, DType::bf16},
                   {"model.layers.46.mlp.gate.weight", {2048, 64, 1, 1}, DType::bf16},
                   {"model.layers.47.eh_proj.weight", {4096, 2048, 1, 1}, DType::bf16},
                   {"model.layers.47.embed_tokens.weight", {2048, 154880, 1, 1}, DType::bf16},
                   {"model.layers.47.mlp.gate.weight", {2048, 64, 1, 1}, DType::bf16},
                   {"model.layers.47.shared_head.head.weight", {2048, 154880, 1, 1}, DType::bf16},
                   {"model.layers.47.shared_head.norm.weight", {2048, 1, 1, 1}, DType::bf16}};
  EXPECT_EQ(
      names_of(serving::prediction_block(model)),
      (std::vector<std::string>{
          "blk.0.nextn.eh_proj.weight", "blk.0.mlp.gate.weight", "blk.0.shared_head.norm.weight"}));
  model.tensors.resize(2);
  EXPECT_THROW(static_cast<void>(serving::prediction_block(model)), InputError);
}

TEST(PredictionOfCheckpoints, KnowsBlocksThatAreNumberedApart) {
  ModelSpec model = catalog("qwen3.5-27b");
  model.tensors = {
      {"model.language_model.layers.0.mlp.up_proj.weight", {5120, 17408, 1, 1}, DType::bf16},
      {"mtp.fc.weight", {10240, 5120, 1, 1}, DType::bf16},
      {"mtp.layers.0.mlp.up_proj.weight", {5120, 17408, 1, 1}, DType::bf16},
      {"mtp.norm.weight", {5120, 1, 1, 1}, DType::bf16}};
  EXPECT_EQ(names_of(serving::prediction_block(model)),
            (std::vector<std::string>{
                "blk.0.nextn.fc.weight", "blk.0.mlp.up_proj.weight", "blk.0.mtp.norm.weight"}));
  // Without --mtp they stay on disk.
  EngineSettings settings = serving_settings();
  settings.weights_provenance = Provenance::exact;
  const auto ledger = prepared("vllm", model, settings)->evaluate(64).ledger;
  EXPECT_EQ(line_of(ledger, LedgerKind::weights).bytes, 5120LL * 17408 * 2);
}

}  // namespace
}  // namespace kvfathom::testing
