// The llama.cpp policy end to end: settings in, ledger and command out.
#include "model/engine/llama_cpp/policy.h"

#include <array>
#include <string>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/error.h"
#include "model/io/engine_history_json.h"
#include "model/io/hf_config.h"
#include "model/memory/inverse.h"
#include "model/weights/recipe.h"

namespace kvfathom {
namespace {

ModelSpec model_of(const std::string& file, const std::string& weights = "q4_k_m") {
  ModelSpec model = read_hf_config(KVFATHOM_SOURCE_DIR "/tests/data/configs/" + file + ".json");
  model.tensors = quantised(model, tensor_inventory(model), parse_recipe(weights));
  return model;
}

const ModelSpec& glm() {
  static const ModelSpec kModel = model_of("zai-org--GLM-4.7-Flash");
  return kModel;
}
const ModelSpec& gemma() {
  static const ModelSpec kModel = model_of("google--gemma-3-4b-it");
  return kModel;
}

MemoryReport report(const ModelSpec& model, const EngineSettings& settings, std::int64_t context) {
  return prepare_llama_cpp(model, settings)->evaluate(context);
}

EngineSettings at_version(const std::string& version) {
  static const EngineHistory kHistory =
      read_engine_history(KVFATHOM_SOURCE_DIR "/data/engines/llama.cpp.json");
  EngineSettings settings;
  settings.engine_version = version;
  settings.missing_behaviours = missing_behaviours(kHistory, version);
  return settings;
}

TEST(LlamaCpp, TheVLessCacheNearlyDoublesTheContext) {
  EXPECT_EQ(report(glm(), {}, 200000).cache.bytes(), 10839195648);
  EngineSettings with_v;
  with_v.scheme = CacheScheme::mla_with_v;
  EXPECT_EQ(report(glm(), with_v, 200000).cache.bytes(), 20474036224);
  EXPECT_EQ(report(glm(), at_version("b7831"), 200000).cache.bytes(), 20474036224);
  EXPECT_EQ(report(glm(), at_version("b7832"), 200000).cache.bytes(), 10839195648);
}

// Gemma-3-1B/4B logs before May 2025: windows as long as the context.
TEST(LlamaCpp, WindowsWereFullBeforeTheyHadACacheOfTheirOwn) {
  EXPECT_EQ(report(gemma(), at_version("2025-05-01"), 8192).cache.bytes(), 8192 * 139264);
  EXPECT_LT(report(gemma(), at_version("2025-06-01"), 8192).cache.bytes(), 8192 * 139264 / 2);
}

TEST(LlamaCpp, ComputeOfOlderBuildsIsAnEstimate) {
  const auto compute = [](const std::string& version) {
    for (const LedgerLine& line : report(gemma(), at_version(version), 8192).ledger.lines) {
      if (line.kind == LedgerKind::compute) {
        return line;
      }
    }
    return LedgerLine{};
  };
  EXPECT_EQ(compute("0.5.0").provenance, Provenance::exact);
  EXPECT_EQ(compute("b9000").provenance, Provenance::modelled);
  EXPECT_LT(compute("b9000").low_bytes, compute("b9000").bytes);
  EXPECT_GT(compute("b9000").high_bytes, compute("b9000").bytes);
}

TEST(LlamaCpp, LedgerLinesAreSortedAndAddUp) {
  const MemoryReport r = report(gemma(), {}, 8192);
  std::int64_t sum = 0;
  for (const LedgerLine& line : r.ledger.lines) {
    EXPECT_GT(line.bytes, 0);
    EXPECT_LE(line.low_bytes, line.bytes);
    EXPECT_GE(line.high_bytes, line.bytes);
    sum += line.bytes;
  }
  EXPECT_EQ(sum, r.ledger.total({0}).bytes + r.ledger.total({Device::kHost}).bytes);
  EXPECT_EQ(r.ledger.bytes_of(LedgerKind::cache), r.cache.k_bytes + r.cache.v_bytes);
  std::int64_t groups = 0;
  for (const CacheGroup& group : r.cache.groups) {
    groups += group.k_bytes + group.v_bytes + group.state_bytes;
  }
  EXPECT_EQ(groups, r.cache.bytes());
}

// Contexts of less than a batch ask a pass that was built for others: the ledger is that of a plan
// whose batch is the context.
TEST(LlamaCpp, AContextBelowTheBatchIsPricedAsIfItWereTheBatch) {
  EngineSettings whole_batch;
  whole_batch.outputs = 0;
  EngineSettings three_users;
  three_users.sequences = 3;
  for (const ModelSpec* model : {&glm(), &gemma()}) {
    for (const EngineSettings& settings :
         {EngineSettings{}, whole_batch, three_users, at_version("2025-06-01")}) {
      const auto plan = prepare_llama_cpp(*model, settings);
      for (const std::int64_t context : {100, 511, 512, 513, 640, 300, 170}) {
        EngineSettings own = settings;
        own.batch_tokens = context * settings.sequences;
        const auto lines = plan->evaluate(context).ledger.lines;
        const auto expected = report(*model, own, context).ledger.lines;
        ASSERT_EQ(lines.size(), expected.size());
        for (std::size_t i = 0; i < lines.size(); ++i) {
          EXPECT_EQ(lines[i].bytes, expected[i].bytes) << name(lines[i].kind) << " at " << context;
        }
      }
    }
  }
}

TEST(LlamaCpp, FloorsNeverExceedTheLedger) {
  const auto plan = prepare_llama_cpp(gemma(), {});
  std::int64_t last = 0;
  for (std::int64_t context = 1; context < 40000; context += 509) {
    const std::int64_t floor = plan->floor_bytes({0}, context);
    EXPECT_GE(floor, last);
    EXPECT_LE(floor, plan->evaluate(context).ledger.total({0}).high_bytes);
    last = floor;
  }
}

// Between two contexts that next_smaller names, every ledger is the same.
TEST(LlamaCpp, NextSmallerSkipsNothing) {
  for (const std::int64_t sequences : {1, 3}) {
    EngineSettings settings;
    settings.sequences = sequences;
    const auto plan = prepare_llama_cpp(gemma(), settings);
    std::int64_t from = 2500;
    while (from > 300) {
      const std::int64_t to = plan->next_smaller(from);
      const std::int64_t bytes = plan->evaluate(from).ledger.total({0}).bytes;
      for (std::int64_t between = to + 1; between < from; between += 17) {
        ASSERT_EQ(plan->evaluate(between).ledger.total({0}).bytes, bytes) << between;
      }
      from = to;
    }
  }
}

TEST(LlamaCpp, LongestContextIsTheLongest) {
  const auto plan = prepare_llama_cpp(glm(), {});
  const std::array capacity{Capacity{{0}, std::int64_t{24} << 30}};
  const LongestContext longest = longest_context(*plan, capacity, 202752);
  EXPECT_TRUE(fits(plan->evaluate(longest.context_tokens).ledger, capacity));
  for (std::int64_t n = longest.context_tokens + 1; n <= 202752; n += 100) {
    ASSERT_FALSE(fits(plan->evaluate(n).ledger, capacity)) << n;
  }
}

TEST(LlamaCpp, CommandsRealiseTheAnswer) {
  EXPECT_EQ(prepare_llama_cpp(glm(), {})->command(100000, "glm.gguf"),
            "llama-server -m glm.gguf -c 100000 -np 1 -ngl 999 --fit off");
  EngineSettings settings;
  settings.sequences = 4;
  settings.cache_type_k = DType::q8_0;
  settings.cache_type_v = DType::q8_0;
  settings.flash_attention = FlashAttention::on;
  settings.n_gpus = 0;
  EXPECT_EQ(
      prepare_llama_cpp(gemma(), settings)->command(1000, "g.gguf"),
      "llama-server -m g.gguf -c 4000 -np 4 --device none -fa on -ctk q8_0 -ctv q8_0 --fit off");
  EngineSettings with_v;
  with_v.scheme = CacheScheme::mla_with_v;
  EXPECT_EQ(prepare_llama_cpp(glm(), with_v)->command(1000, "g.gguf"), "");
}

std::string refusal(const ModelSpec& model, const EngineSettings& settings) {
  try {
    (void)report(model, settings, 4096);
  } catch (const Error& error) {
    return error.what();
  }
  return "answered";
}

TEST(LlamaCpp, RefusesWhatTheEngineRefuses) {
  EngineSettings quantised_v;
  quantised_v.cache_type_v = DType::q8_0;
  quantised_v.flash_attention = FlashAttention::off;
  EXPECT_EQ(refusal(gemma(), quantised_v),
            "--cache-type-v: q8_0 without FlashAttention; llama.cpp quantises V only with "
            "--flash-attention on");
  EngineSettings mixed;
  mixed.cache_type_k = DType::q8_0;
  EXPECT_EQ(refusal(glm(), mixed),
            "--cache-type-v: f16 beside q8_0 for K; V is a view of K in latent layers: give both "
            "the same type");
  EngineSettings too_many;
  too_many.n_gpus = 17;
  EXPECT_EQ(refusal(gemma(), too_many),
            "--gpus: 17 devices; at most 16, the most that llama.cpp takes");
  EngineSettings no_gpu;
  no_gpu.n_gpus = 0;
  no_gpu.gpu_layers = 4;
  EXPECT_EQ(refusal(gemma(), no_gpu),
            "--gpu-layers: given without a GPU; leave it out: everything is on the host");
  EngineSettings no_experts;
  no_experts.cpu_moe_layers = 4;
  EXPECT_EQ(refusal(gemma(), no_experts),
            "--cpu-moe-layers: given, but the model has no experts; leave it out");
  EXPECT_EQ(refusal(ModelSpec{}, {}), ": no weight tensors are known; give --weights");
}

}  // namespace
}  // namespace kvfathom
