// The operations of a step against figures that are known of the models: bytes of weights, FLOPs
// per token, bytes of cache per token.
#include "model/latency/step_ops.h"

#include <algorithm>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/cache/request_text.h"
#include "model/error.h"
#include "model/weights/recipe.h"
#include "tests/model/catalog.h"

namespace kvfathom {
namespace {

using testing::catalog;

struct Totals {
  double weights = 0.0;
  double cache = 0.0;
  double flops = 0.0;
};

Totals totals(const std::vector<Op>& ops) {
  Totals sum;
  for (const Op& op : ops) {
    const auto n = static_cast<double>(op.n_times);
    sum.weights += n * op.weights.value();
    sum.cache += n * op.cache.value();
    sum.flops += n * op.cost.flops.value();
  }
  return sum;
}

Totals step(const ModelSpec& model, const StepShape& shape, const LatencySettings& settings = {}) {
  std::vector<Op> ops;
  StepOps(model, settings).emit(shape, ops);
  return totals(ops);
}

const Op& op_of(const std::vector<Op>& ops, std::string_view part) {
  return *std::ranges::find(ops, part, &Op::part);
}

// Llama-3.1-8B has 8.03 B parameters (model card), of which the embedding's 128256 x 4096 is looked
// up and not multiplied: 7.505 B in 16 bits.
TEST(StepOps, DecodeReadsEveryWeightOfADenseModelOnce) {
  const Totals sum = step(catalog("llama-3.1-8b"), {.n_cached_tokens = 0});
  EXPECT_NEAR(sum.weights, 2.0 * (8.030e9 - 128256.0 * 4096.0), 0.002e9);
}

// 2 kv_heads head_dim 2 B x 32 layers = 131072 B a token (schemes.md: 128 KiB).
TEST(StepOps, DecodeReadsTheCacheOfEveryToken) {
  const ModelSpec model = catalog("llama-3.1-8b");
  const double small = step(model, {.n_cached_tokens = 9'999}).cache;
  const double large = step(model, {.n_cached_tokens = 19'999}).cache;
  EXPECT_EQ(large - small, 10'000.0 * 131'072.0);
}

// Qwen3.5-397B-A17B (config.json): 45 layers of 64 value heads with states of 128 x 128, each read
// and written in every step: in bf16 two bytes an element less than in f32.
TEST(StepOps, StatesAreReadAndWrittenInTheirType) {
  LatencySettings settings;
  const StepOps ops(catalog("qwen3.5-397b-a17b"), settings);
  settings.state_type = DType::bf16;
  const StepOps halved(catalog("qwen3.5-397b-a17b"), settings);
  const auto state = [](const StepOps& of) {
    std::vector<Op> step;
    of.emit({.n_sequences = 3, .n_cached_tokens = 100}, step);
    const Op& op = op_of(step, "state");
    return static_cast<double>(op.n_times) * (op.cost.read + op.cost.written).value();
  };
  EXPECT_DOUBLE_EQ(state(ops) - state(halved), 3.0 * 45.0 * 64.0 * 128.0 * 128.0 * 2.0 * 2.0);
}

/// Up to eight rows of activations products have kernels of their own, the output head as others;
/// of a prompt only the last token has logits. Experts count the rows of one of them.
TEST(StepOps, ProductsOfFewRowsAreMarked) {
  const auto marked = [](const ModelSpec& model, const StepShape& shape, std::string_view part) {
    std::vector<Op> ops;
    StepOps(model, {}).emit(shape, ops);
    return op_of(ops, part).op_class.few_rows;
  };
  const ModelSpec dense = catalog("llama-3.1-8b");
  for (const std::string_view part : {"q k v", "attention output", "down", "output head"}) {
    EXPECT_TRUE(marked(dense, {.n_sequences = 8}, part)) << part;
    EXPECT_FALSE(marked(dense, {.n_sequences = 9}, part)) << part;
    const StepShape prompt{.phase = Phase::prefill, .n_new_tokens = 512};
    EXPECT_EQ(marked(dense, prompt, part), part == "output head") << part;
  }
  const ModelSpec routed = catalog("qwen3-30b-a3b");  // 8 of 128 experts a token
  EXPECT_TRUE(marked(routed, {.n_sequences = 100}, "experts"));
  EXPECT_FALSE(marked(routed, {.n_sequences = 200}, "experts"));
}

// A latent layer reads 576 values a token, for all heads: 47 layers of GLM-4.7-Flash, 54,144 B.
TEST(StepOps, LatentLayersReadTheLatentAlone) {
  const ModelSpec model = catalog("glm-4.7-flash");
  const double small = step(model, {.n_cached_tokens = 999}).cache;
  const double large = step(model, {.n_cached_tokens = 1'999}).cache;
  EXPECT_EQ(large - small, 1000.0 * 47.0 * 576.0 * 2.0);
  LatencySettings with_v;
  with_v.scheme = CacheScheme::mla_with_v;
  const double copied = step(model, {.n_cached_tokens = 1'999}, with_v).cache -
                        step(model, {.n_cached_tokens = 999}, with_v).cache;
  EXPECT_EQ(copied, 1000.0 * 47.0 * (576.0 + 512.0) * 2.0);
}

// Beyond top_k = 2048 tokens DeepSeek-V3.2 reads no more latents, only 132 B of indexer keys a
// token and layer (128 of E4M3 and a float of scale).
TEST(StepOps, SparseAttentionReadsTheChosenLatentsAndAllIndexKeys) {
  const ModelSpec model = catalog("deepseek-v3.2");
  const double small = step(model, {.n_cached_tokens = 9'999}).cache;
  const double large = step(model, {.n_cached_tokens = 10'999}).cache;
  EXPECT_NEAR(large - small, 1000.0 * 61.0 * 132.0, 1.0);
}

// A prompt costs 2 FLOPs a parameter and token, besides attention: 7.505 B x 2048 x 2 = 30.7 T less
// the logits of all tokens but the last; attention 4 x pairs x heads x head_dim.
TEST(StepOps, PromptFlopsAreTwoPerWeightAndToken) {
  const ModelSpec model = catalog("llama-3.1-8b");
  const double n = 2048.0;
  const double weights = 8.030e9 - 2.0 * 128256.0 * 4096.0;
  const double pairs = 0.5 * n * (n + 1.0);
  const double expected =
      2.0 * weights * n + 2.0 * 128256.0 * 4096.0 + 32.0 * 4.0 * pairs * 32.0 * 128.0;
  const Totals sum = step(model, {.phase = Phase::prefill, .n_new_tokens = 2048});
  EXPECT_NEAR(sum.flops, expected, 0.002 * expected);
}

// Chunks of a prompt add up to its attention.
TEST(StepOps, ChunksOfAPromptSeeWhatTheWholeSees) {
  const ModelSpec model = catalog("qwen3-8b");
  std::vector<Op> ops;
  const StepOps plan(model, {});
  double chunked = 0.0;
  for (const std::int64_t cached : {0, 512, 1024, 1536}) {
    plan.emit({.phase = Phase::prefill, .n_new_tokens = 512, .n_cached_tokens = cached}, ops);
    chunked += op_of(ops, "attention").cost.flops.value();
  }
  plan.emit({.phase = Phase::prefill, .n_new_tokens = 2048}, ops);
  EXPECT_DOUBLE_EQ(chunked, op_of(ops, "attention").cost.flops.value());
}

// 128 experts, 8 of them a token: a batch of one reads 8, one of 64 about 128 (1 - (15/16)^64) =
// 125.9 of them.
TEST(StepOps, ABatchReadsTheExpertsThatItChooses) {
  const ModelSpec model = catalog("qwen3-30b-a3b");
  std::vector<Op> ops;
  const StepOps plan(model, {});
  plan.emit({.n_sequences = 1}, ops);
  const double one = op_of(ops, "experts").weights.value();
  plan.emit({.n_sequences = 64}, ops);
  EXPECT_DOUBLE_EQ(one, 8.0 * 3.0 * 2048.0 * 768.0 * 2.0);
  EXPECT_NEAR(op_of(ops, "experts").weights.value() / one, 125.94 / 8.0, 0.01);
}

// Mamba-2 2.7B keeps 64 layers of 5120 x 128 floats (arXiv 2405.21060): read whole at every step,
// however long the context.
TEST(StepOps, StatesAreReadWholeWhateverTheContext) {
  const ModelSpec model = catalog("mamba2-2.7b");
  const double early = step(model, {.n_cached_tokens = 10}).cache;
  const double late = step(model, {.n_cached_tokens = 100'000}).cache;
  EXPECT_EQ(early, late);
  EXPECT_GT(early, 64.0 * 5120.0 * 128.0 * 4.0);
  EXPECT_LT(early, 1.1 * 64.0 * 5120.0 * 128.0 * 4.0);
}

TEST(StepOps, WindowsBoundWhatIsRead) {
  const ModelSpec model = catalog("gemma-3-4b-it");  // 29 of 34 layers have a window of 1024
  const double near = step(model, {.n_cached_tokens = 9'999}).cache;
  const double far = step(model, {.n_cached_tokens = 10'999}).cache;
  EXPECT_EQ(far - near, 1000.0 * 5.0 * 2.0 * 4.0 * 256.0 * 2.0);
}

// Half of the weights and of the KV heads on each of two ranks; the latents' projections and the
// latent cache are on both.
TEST(StepOps, RanksShareWeightsAndHeads) {
  const ModelSpec model = catalog("llama-3.1-8b");
  LatencySettings two;
  two.tensor_parallel = 2;
  const StepShape shape{.n_cached_tokens = 9'999};
  EXPECT_NEAR(step(model, shape, two).weights, 0.5 * step(model, shape).weights, 1e6);
  EXPECT_NEAR(step(model, shape, two).cache, 0.5 * step(model, shape).cache, 1e6);
  std::vector<Op> ops;
  StepOps(model, two).emit(shape, ops);
  EXPECT_EQ(op_of(ops, "sum over ranks").n_times, 64);
  LatencySettings sixteen;
  sixteen.tensor_parallel = 16;  // 8 KV heads: every rank holds one
  EXPECT_NEAR(step(model, shape, sixteen).cache, step(model, shape).cache / 8.0, 1e6);
  LatencySettings three;
  three.tensor_parallel = 3;
  EXPECT_THROW(StepOps(model, three), InputError);
}

// A scheme that rebuilds at every step pays for every token: 4 hidden kv_width FLOPs a token and
// layer beside the norm's.
TEST(StepOps, ResidualsAreProjectedAgainForEveryToken) {
  const ModelSpec model = catalog("llama-2-7b-hf");
  LatencySettings residual;
  residual.scheme = cache::parse_scheme("residual").request;
  std::vector<Op> ops;
  StepOps(model, residual).emit({.n_cached_tokens = 999}, ops);
  const Op& rebuild = op_of(ops, "rebuild k v");
  const double projection = 1000.0 * 4.0 * 4096.0 * 4096.0;
  EXPECT_GT(rebuild.cost.flops.value(), projection);
  EXPECT_LT(rebuild.cost.flops.value(), 1.01 * projection);
  EXPECT_EQ(rebuild.n_times, 32);
}

// Token ids alone: the whole prompt again, at every step.
TEST(StepOps, TokenIdsMeanAWholePromptAtEveryStep) {
  const ModelSpec model = catalog("llama-2-7b-hf");
  LatencySettings ids;
  ids.scheme = cache::parse_scheme("residual:checkpoints=tokens").request;
  const double decode = step(model, {.n_cached_tokens = 1023}, ids).flops;
  const double prompt = step(model, {.phase = Phase::prefill, .n_new_tokens = 1024}).flops;
  EXPECT_NEAR(decode, prompt, 0.01 * prompt);
}

// Three quarters of the cache come over the link.
// The newest tokens are not packed: as many as there are cost what K and V in 16 bits cost. Of 300,
// KIVI's K has 300 mod 128 = 44 in 16 bits, its V 128; the others take 3 bits a value (2, and 32
// for each 32 values).
TEST(StepOps, TokensThatStayInSixteenBitsAreReadAsSuch) {
  const ModelSpec model = catalog("llama-3.1-8b");
  LatencySettings kivi;
  kivi.scheme = cache::parse_scheme("kivi:bits=2,group=32,residual=128").request;
  for (const std::int64_t tokens : {1, 64, 127}) {
    std::vector<Op> native;
    std::vector<Op> packed;
    StepOps(model, {}).emit({.n_cached_tokens = tokens - 1}, native);
    StepOps(model, kivi).emit({.n_cached_tokens = tokens - 1}, packed);
    const OpCost& cost = op_of(packed, "attention").cost;
    EXPECT_EQ(cost.read, op_of(native, "attention").cost.read) << tokens;
    EXPECT_EQ(cost.flops, op_of(native, "attention").cost.flops) << tokens;
    EXPECT_EQ(op_of(packed, "attention").op_class, op_of(native, "attention").op_class) << tokens;
  }
  const double wide = 1024.0 * 2.0;
  const double narrow = 1024.0 * 3.0 / 8.0;
  const double at_300 = 44.0 * wide + 256.0 * narrow + 128.0 * wide + 172.0 * narrow;
  std::vector<Op> packed;
  StepOps(model, kivi).emit({.n_cached_tokens = 299}, packed);
  const double queries = 32.0 * 128.0 * 2.0;
  EXPECT_EQ(op_of(packed, "attention").cost.read.value(), at_300 + queries);
}

TEST(StepOps, OffloadedCacheIsFetchedAtEveryStep) {
  const ModelSpec model = catalog("llama-3.1-8b");
  LatencySettings offloaded;
  offloaded.offload.emplace();
  std::vector<Op> ops;
  StepOps(model, offloaded).emit({.n_cached_tokens = 8191}, ops);
  const Op& fetch = op_of(ops, "fetch cache");
  EXPECT_EQ(fetch.op_class.kind, OpKind::host_transfer);
  EXPECT_NEAR(fetch.cost.read.value(), 0.75 * 8192.0 * 4096.0, 1.0);
}

TEST(StepOps, ExpertsOnTheHostAreMarked) {
  const ModelSpec model = catalog("qwen3-30b-a3b");
  LatencySettings settings;
  settings.is_on_host = [](std::string_view tensor) {  // of the first ten layers
    return tensor.size() > 5 && tensor.substr(5, 1) == "." && tensor.find("exps") != tensor.npos;
  };
  std::vector<Op> ops;
  StepOps(model, settings).emit({}, ops);
  std::int64_t on_host = 0;
  std::int64_t on_gpu = 0;
  for (const Op& op : ops) {
    on_host += op.on_host ? op.n_times : 0;
    on_gpu += op.part == "experts" && !op.on_host ? op.n_times : 0;
  }
  EXPECT_EQ(on_host, 10);
  EXPECT_EQ(on_gpu, 38);
}

// Layers on the host: a token is computed where they are; a long chunk runs on the device, and what
// it reads of them, weights and what was cached before it, crosses the bus.
TEST(StepOps, LayersOnTheHostStayThereOrAreBrought) {
  const ModelSpec model = catalog("llama-3.1-8b");
  LatencySettings settings;
  settings.brought_from_tokens = 32;
  settings.is_on_host = [](std::string_view tensor) {  // the first ten layers
    return tensor.starts_with("blk.") && tensor.substr(5, 1) == ".";
  };
  const StepOps steps(model, settings);
  const double layer = (2.0 * 4096 * 4096 + 2.0 * 4096 * 1024 + 3.0 * 4096 * 14336) * 2.0;
  const double kv = 2.0 * 8 * 128 * 2.0;
  const double queries = 2.0 * 32 * 128;

  std::vector<Op> ops;
  steps.emit({.n_cached_tokens = 999}, ops);
  double weights = 0.0;
  double cache = 0.0;
  for (const Op& op : ops) {
    EXPECT_NE(op.op_class.kind, OpKind::host_transfer);
    if (op.on_host) {
      EXPECT_EQ(op.n_times % 10, 0) << op.part;
      weights += static_cast<double>(op.n_times) * op.weights.value();
      cache += static_cast<double>(op.n_times) * op.cache.value();
    }
  }
  EXPECT_EQ(weights, 10.0 * layer);
  EXPECT_EQ(cache, 10.0 * (1000.0 * kv + queries));

  steps.emit({.phase = Phase::prefill, .n_new_tokens = 512, .n_cached_tokens = 512}, ops);
  double brought = 0.0;
  for (const Op& op : ops) {
    EXPECT_FALSE(op.on_host) << op.part;
    brought += op.op_class.kind == OpKind::host_transfer
                   ? static_cast<double>(op.n_times) * op.cost.read.value()
                   : 0.0;
  }
  EXPECT_EQ(brought, 10.0 * (layer + 1024.0 * kv));
}

// Sequences of different length cost what they hold together.
TEST(StepOps, RaggedBatchesCostTheirTokens) {
  const ModelSpec model = catalog("llama-3.1-8b");
  const std::vector<std::int64_t> lengths{1000, 3000};
  const double ragged = step(model, {.n_sequences = 2, .ragged = lengths}).cache;
  const double even = step(model, {.n_sequences = 2, .n_cached_tokens = 2000}).cache;
  EXPECT_EQ(ragged, even);
}

// Nothing of a model is forgotten: its products' weights are all that it stores but embeddings,
// norms, biases, convolutions and state constants, which are less than one in fifty.
TEST(StepOps, ProductsHoldTheWeightsOfEveryCatalogModel) {
  int n_models = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(KVFATHOM_SOURCE_DIR "/data/models")) {
    const ModelSpec model = catalog(entry.path().stem().string());
    double stored = 0.0;
    for (const Tensor& tensor : model.tensors) {
      const bool is_table = tensor.name.find("token_embd") != std::string::npos ||
                            tensor.name.starts_with("position_embd");
      stored += is_table ? 0.0 : static_cast<double>(data_bytes(tensor));
    }
    const StepOps plan(model, {});
    const MatrixWork& head = plan.work().output_head;
    double products = model.tied_embeddings ? 0.0 : static_cast<double>(head.weights_bytes);
    for (const MatrixWork& matrix : plan.work().once) {
      products += static_cast<double>(matrix.weights_bytes);
    }
    for (const LayerWork& layer : plan.work().layers) {
      double of_layer = layer.experts ? static_cast<double>(layer.experts->weights_bytes) : 0.0;
      for (const MatrixWork& matrix : layer.matrices) {
        of_layer += static_cast<double>(matrix.weights_bytes);
      }
      products += static_cast<double>(layer.n_layers) * of_layer;
    }
    EXPECT_LE(products, stored) << model.name;
    EXPECT_GT(products, 0.98 * stored) << entry.path();
    ++n_models;
  }
  EXPECT_GT(n_models, 150);
}

// A format changes what is read, never what is computed: every recipe has the same products.
TEST(StepOps, EveryWeightFormatHasTheSameProducts) {
  for (const char* id : {"llama-3.1-8b", "qwen3-30b-a3b", "glm-4.7-flash"}) {
    const ModelSpec plain = catalog(id);
    const StepShape prompt{.phase = Phase::prefill, .n_new_tokens = 512};
    const Totals expected = step(plain, prompt);
    for (const char* recipe :
         {"fp8", "int8", "awq", "gptq", "int4", "nvfp4", "mxfp4", "q8_0", "q4_k_m", "iq4_xs"}) {
      ModelSpec model = plain;
      model.tensors = quantised(model, tensor_inventory(model), parse_recipe(recipe));
      const Totals sum = step(model, prompt);
      EXPECT_NEAR(sum.flops, expected.flops, 1e-6 * expected.flops) << id << " " << recipe;
      EXPECT_LE(sum.weights, expected.weights) << id << " " << recipe;
      EXPECT_GT(sum.weights, 0.2 * expected.weights) << id << " " << recipe;
    }
  }
}

// AWQ: 4 bits and, in groups of 128, a scale of 16 and a zero of 4: 4.16 bits a weight of the
// layers' 6.98 B; the head's 525 M stay in 16.
TEST(StepOps, PackedWeightsCountTheirScales) {
  ModelSpec model = catalog("llama-3.1-8b");
  model.tensors = quantised(model, tensor_inventory(model), parse_recipe("awq"));
  const double expected = 6.979e9 * 4.15625 / 8.0 + 2.0 * 128256.0 * 4096.0;
  EXPECT_NEAR(step(model, {}).weights, expected, 0.002 * expected);
}

}  // namespace
}  // namespace kvfathom
