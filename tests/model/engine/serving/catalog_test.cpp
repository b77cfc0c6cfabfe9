// Every model of the catalog under every engine: it is refused by name, or its ledger adds up and
// its inverse inverts.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/architecture/tensor_inventory.h"
#include "model/engine/engine.h"
#include "model/error.h"
#include "model/io/inspect_json.h"
#include "model/memory/inverse.h"

namespace kvfathom::testing {
namespace {

std::vector<std::string> catalog_ids() {
  std::vector<std::string> ids;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(KVFATHOM_SOURCE_DIR) + "/data/models")) {
    ids.push_back(entry.path().stem().string());
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

/// A plan on one device of `memory_bytes`; null where the engine refuses, with a reason.
std::unique_ptr<MemoryPlan> plan_or_refusal(const EngineInfo& engine,
                                            const ModelSpec& model,
                                            std::int64_t memory_bytes) {
  EngineSettings settings;
  settings.weights_provenance = Provenance::modelled;
  settings.device_memory_bytes = memory_bytes;
  try {
    return engine.prepare(model, settings);
  } catch (const Error& error) {
    EXPECT_FALSE(error.found().empty()) << model.name;
    return nullptr;
  }
}

void expect_sums(const MemoryPlan& plan, std::int64_t context, const std::string& where) {
  const MemoryReport report = plan.evaluate(context);
  std::int64_t held = 0;
  for (const CacheGroup& group : report.cache.groups) {
    held += group.k_bytes + group.v_bytes + group.state_bytes;
  }
  EXPECT_LE(held, report.cache.bytes()) << where << ": pages may hold padding, never less";
  EXPECT_EQ(report.ledger.bytes_of(LedgerKind::cache) + report.ledger.bytes_of(LedgerKind::state),
            report.cache.bytes())
      << where;
  std::int64_t sum = 0;
  for (const LedgerLine& line : report.ledger.lines) {
    EXPECT_GT(line.high_bytes, 0) << where << ", " << name(line.kind);
    EXPECT_LE(line.low_bytes, line.bytes) << where << ", " << name(line.kind);
    EXPECT_LE(line.bytes, line.high_bytes) << where << ", " << name(line.kind);
    sum += line.bytes;
  }
  EXPECT_EQ(sum, report.ledger.total(Device{0}).bytes) << where;
  EXPECT_LE(plan.floor_bytes(Device{0}, context), report.ledger.total(Device{0}).high_bytes)
      << where;
}

class Catalog : public ::testing::TestWithParam<std::string> {};

TEST_P(Catalog, EveryModelAddsUpAndInverts) {
  const EngineInfo& engine = engine_named(GetParam());
  int answered = 0;
  for (const std::string& id : catalog_ids()) {
    ModelSpec model =
        read_inspect(std::string(KVFATHOM_SOURCE_DIR) + "/data/models/" + id + ".json");
    model.tensors = tensor_inventory(model);
    std::int64_t before = 0;
    for (const std::int64_t gib : {48, 192, 1536}) {
      const std::int64_t memory = gib << 30;
      const auto plan = plan_or_refusal(engine, model, memory);
      if (plan == nullptr) {
        break;
      }
      ++answered;
      expect_sums(*plan, 1000, id);
      expect_sums(*plan, 40000, id);
      const std::vector<Capacity> capacities{{Device{0}, memory}};
      constexpr std::int64_t kLimit = 300'000;
      const std::int64_t longest = longest_context(*plan, capacities, kLimit).context_tokens;
      EXPECT_GE(longest, before) << id << " in " << gib;
      before = longest;
      EXPECT_TRUE(longest == 0 || fits(plan->evaluate(longest).ledger, capacities)) << id;
      for (const std::int64_t more : {1, 16, 777, 50000}) {
        EXPECT_TRUE(longest == kLimit || !fits(plan->evaluate(longest + more).ledger, capacities))
            << id << " in " << gib << ": " << longest << " + " << more;
      }
    }
  }
  EXPECT_GT(answered, 150);
}

INSTANTIATE_TEST_SUITE_P(Engines,
                         Catalog,
                         ::testing::Values("vllm", "sglang", "tensorrt-llm", "huggingface"));

}  // namespace
}  // namespace kvfathom::testing
