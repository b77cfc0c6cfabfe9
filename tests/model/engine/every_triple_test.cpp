// Every model of the catalog under every scheme and every engine: refused by name, or the ledger
// adds up, more memory never fits less, and the inverse inverts.
#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/cache/scheme.h"
#include "model/engine/engine.h"
#include "model/error.h"
#include "model/io/inspect_json.h"
#include "model/memory/inverse.h"

namespace kvfathom::testing {
namespace {

constexpr std::int64_t kLimit = 1 << 16;
constexpr std::int64_t kDeviceBytes = std::int64_t{4096} << 30;  // no model's weights exceed it

std::vector<std::string> catalog_ids() {
  std::vector<std::string> ids;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(KVFATHOM_SOURCE_DIR) + "/data/models")) {
    ids.push_back(entry.path().stem().string());
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

EngineSettings settings_of(CacheScheme scheme, std::int64_t sequences, int n_gpus) {
  EngineSettings settings;
  settings.n_gpus = n_gpus;
  settings.sequences = sequences;
  settings.device_memory_bytes = kDeviceBytes;
  settings.weights_provenance = Provenance::modelled;
  settings.scheme = scheme;
  if (scheme == CacheScheme::offload) {
    settings.offload.emplace();
  }
  return settings;
}

bool names(const std::string& text, std::string_view what) {
  return text.find(what) != std::string::npos;
}

/// Null where the triple is refused, by the name of its engine or its scheme. Any exception that is
/// no Error fails the test.
std::unique_ptr<MemoryPlan> plan_or_refusal(const EngineInfo& engine,
                                            const ModelSpec& model,
                                            CacheScheme scheme,
                                            std::int64_t sequences,
                                            int n_gpus) {
  try {
    return engine.prepare(model, settings_of(scheme, sequences, n_gpus));
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(error.exit_code(), 4) << text;
    EXPECT_TRUE(names(text, engine.name) || names(text, name(scheme))) << text;
    return nullptr;
  }
}

void expect_sound(const MemoryPlan& plan, std::int64_t context, int n_gpus) {
  const MemoryReport report = plan.evaluate(context);
  CacheReport held;
  for (const CacheGroup& group : report.cache.groups) {
    EXPECT_GE(group.k_bytes, 0);
    EXPECT_GE(group.v_bytes, 0);
    EXPECT_GE(group.state_bytes, 0);
    held.k_bytes += group.k_bytes + group.v_bytes + group.state_bytes;
  }
  EXPECT_LE(held.k_bytes, report.cache.bytes()) << "pages may hold padding, never less";
  EXPECT_EQ(report.ledger.bytes_of(LedgerKind::cache) + report.ledger.bytes_of(LedgerKind::state),
            report.cache.bytes());
  std::int64_t bytes = 0;
  for (const LedgerLine& line : report.ledger.lines) {
    EXPECT_GT(line.high_bytes, 0) << name(line.kind);
    EXPECT_LE(line.low_bytes, line.bytes) << name(line.kind);
    EXPECT_LE(line.bytes, line.high_bytes) << name(line.kind);
    EXPECT_TRUE(line.provenance != Provenance::exact || line.low_bytes == line.high_bytes)
        << name(line.kind);
    bytes += line.bytes;
  }
  std::int64_t totals = 0;
  for (int device = Device::kHost; device < n_gpus; ++device) {
    const DeviceTotal total = report.ledger.total({device});
    totals += total.bytes;
    EXPECT_LE(plan.floor_bytes({device}, context), total.high_bytes) << name(Device{device});
  }
  EXPECT_EQ(totals, bytes) << "the devices and the host hold every line";
}

std::vector<Capacity> filled_by(const MemoryLedger& ledger, int n_gpus) {
  std::vector<Capacity> capacities;
  capacities.reserve(static_cast<std::size_t>(n_gpus));
  for (int device = 0; device < n_gpus; ++device) {
    capacities.push_back({{device}, ledger.total({device}).high_bytes});
  }
  return capacities;
}

void expect_inverts(const MemoryPlan& plan, int n_gpus) {
  std::vector<Capacity> smaller(static_cast<std::size_t>(n_gpus));
  std::int64_t smaller_longest = 0;
  for (const std::int64_t at : {777, 20000}) {
    const std::vector<Capacity> capacity = filled_by(plan.evaluate(at).ledger, n_gpus);
    const std::int64_t longest = longest_context(plan, capacity, kLimit).context_tokens;
    EXPECT_GE(longest, at);
    EXPECT_TRUE(fits(plan.evaluate(longest).ledger, capacity));
    for (const std::int64_t more : {1, 17, 256, 4099}) {
      EXPECT_TRUE(longest + more > kLimit || !fits(plan.evaluate(longest + more).ledger, capacity))
          << longest << " + " << more;
    }
    if (std::ranges::equal(capacity, smaller, [](const Capacity& a, const Capacity& b) {
          return a.bytes >= b.bytes;
        })) {
      EXPECT_GE(longest, smaller_longest) << "more memory fits less";
      smaller = capacity;
      smaller_longest = longest;
    }
  }
}

/// Sound triples whose ledgers are looked at: all of an engine whose plans are cheap; of llama.cpp,
/// which builds the graphs of every context, one in so many.
struct Sample {
  std::string engine;
  int one_in = 1;
  int at_least = 0;  ///< triples that are not refused
  int n_gpus = 1;
};

class EveryTriple : public ::testing::TestWithParam<Sample> {};

TEST_P(EveryTriple, IsRefusedByNameOrIsSound) {
  const EngineInfo& engine = engine_named(GetParam().engine);
  int n_answered = 0;
  for (const std::string& id : catalog_ids()) {
    ModelSpec model =
        read_inspect(std::string(KVFATHOM_SOURCE_DIR) + "/data/models/" + id + ".json");
    model.tensors = tensor_inventory(model);
    for (const cache::SchemeInfo& row : cache::all_schemes()) {
      SCOPED_TRACE(id + " " + std::string(row.name));
      const auto plan =
          plan_or_refusal(engine, model, row.scheme, 1 + n_answered % 3, GetParam().n_gpus);
      if (plan == nullptr || ++n_answered % GetParam().one_in != 0) {
        continue;
      }
      for (const std::int64_t context : {1, 1000, 40000}) {
        expect_sound(*plan, context, GetParam().n_gpus);
      }
      expect_inverts(*plan, GetParam().n_gpus);
    }
  }
  EXPECT_GE(n_answered, GetParam().at_least);
}

INSTANTIATE_TEST_SUITE_P(Engines,
                         EveryTriple,
                         ::testing::Values(Sample{"ideal", 1, 1800},
                                           Sample{"ideal", 1, 1800, 2},
                                           Sample{"ideal", 5, 1800, 3},
                                           Sample{"llama.cpp", 41, 330},
                                           Sample{"vllm", 1, 290},
                                           Sample{"sglang", 1, 180},
                                           Sample{"tensorrt-llm", 1, 180},
                                           Sample{"huggingface", 1, 240}),
                         [](const auto& sample) {
                           std::string name = sample.param.engine;
                           std::erase_if(name, [](char c) { return c == '.' || c == '-'; });
                           const int n_gpus = sample.param.n_gpus;
                           return n_gpus == 1 ? name : name + "On" + std::to_string(n_gpus);
                         });

}  // namespace
}  // namespace kvfathom::testing
