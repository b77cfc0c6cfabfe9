// Every model of the catalog under every scheme and every engine, for several users and on several
// GPUs: refused by name, or the ledger adds up, more memory never fits less, and the inverse
// inverts.
#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <span>
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
constexpr std::int64_t kLargeDevice = std::int64_t{4096} << 30;  // no model's weights exceed it
constexpr std::array<std::int64_t, 4> kUsers{1, 2, 3, 8};

std::vector<std::string> catalog_ids() {
  std::vector<std::string> ids;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(KVFATHOM_SOURCE_DIR) + "/data/models")) {
    ids.push_back(entry.path().stem().string());
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

/// Devices, and how an engine that cuts models cuts this one: within layers, or between them.
struct Cut {
  int n_gpus = 1;
  bool within_layers = false;
};

EngineSettings settings_of(const EngineInfo& engine,
                           CacheScheme scheme,
                           std::int64_t users,
                           const Cut& cut) {
  EngineSettings settings;
  settings.n_gpus = cut.n_gpus;
  settings.sequences = users;
  settings.device_memory_bytes = kLargeDevice;
  settings.weights_provenance = Provenance::modelled;
  settings.scheme = scheme;
  if (scheme == CacheScheme::offload) {
    settings.offload.emplace();
  }
  if (cut.n_gpus > 1 && engine.name != "llama.cpp") {
    (cut.within_layers ? settings.tensor_parallel : settings.pipeline_parallel) = cut.n_gpus;
  }
  return settings;
}

bool names(const std::string& text, std::string_view what) {
  return text.find(what) != std::string::npos;
}

/// Null where the triple is refused, by the name of its engine, its scheme or its cut. Any
/// exception that is no Error fails the test.
std::unique_ptr<MemoryPlan> plan_or_refusal(const EngineInfo& engine,
                                            const ModelSpec& model,
                                            const EngineSettings& settings) {
  try {
    return engine.prepare(model, settings);
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(error.exit_code(), 4) << text;
    const bool of_cut = settings.n_gpus > 1 && (names(text, "-parallel") || names(text, "stage"));
    EXPECT_TRUE(names(text, engine.name) || names(text, name(settings.scheme)) || of_cut) << text;
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

/// Every device, and the host, as large as the ledger.
std::vector<Capacity> filled_by(const MemoryLedger& ledger, int n_gpus) {
  std::vector<Capacity> capacities;
  for (int device = Device::kHost; device < n_gpus; ++device) {
    capacities.push_back({{device}, ledger.total({device}).high_bytes});
  }
  return capacities;
}

bool is_no_smaller(const std::vector<Capacity>& a, const std::vector<Capacity>& b) {
  return std::ranges::equal(
      a, b, [](const Capacity& one, const Capacity& other) { return one.bytes >= other.bytes; });
}

/// The longest context, after a look at whether it is that.
std::int64_t longest_checked(const MemoryPlan& plan, const std::vector<Capacity>& capacities) {
  const std::int64_t longest = longest_context(plan, capacities, kLimit).context_tokens;
  EXPECT_TRUE(longest == 0 || fits(plan.evaluate(longest).ledger, capacities)) << longest;
  for (const std::int64_t more : {1, 17, 256, 4099, 30000}) {
    EXPECT_TRUE(longest + more > kLimit || !fits(plan.evaluate(longest + more).ledger, capacities))
        << longest << " + " << more;
  }
  return longest;
}

/// In what a context fills, at least that context fits.
void expect_inverts(const MemoryPlan& plan, int n_gpus, std::span<const std::int64_t> contexts) {
  std::vector<Capacity> smaller;
  std::int64_t smaller_longest = 0;
  for (const std::int64_t at : contexts) {
    const std::vector<Capacity> capacities = filled_by(plan.evaluate(at).ledger, n_gpus);
    const std::int64_t longest = longest_checked(plan, capacities);
    EXPECT_GE(longest, at);
    if (smaller.empty() || is_no_smaller(capacities, smaller)) {
      EXPECT_GE(longest, smaller_longest) << "more memory fits less";
      smaller = capacities;
      smaller_longest = longest;
    }
  }
}

/// Devices of half of what one token needs up to many times as much. An engine that takes a share
/// of a device plans anew for each. Its steps grow with the device, too, by which a larger one may
/// hold less: here they are the same.
void expect_more_fits_more(const EngineInfo& engine,
                           const ModelSpec& model,
                           EngineSettings settings,
                           const MemoryPlan& plan,
                           int index) {
  constexpr std::int64_t kStep = std::int64_t{64} << 20;
  const bool takes_share = engine.name != "ideal" && engine.name != "llama.cpp";
  const Device first{settings.n_gpus == 0 ? Device::kHost : 0};
  settings.max_batched_tokens = 2048;
  settings.max_sequences = 256;
  std::int64_t least = 0;
  for (const LedgerLine& line : plan.evaluate(1).ledger.lines) {
    const bool counts = line.device == first && line.kind != LedgerKind::reserve;
    least += counts ? line.high_bytes : 0;
  }
  std::int64_t smaller_longest = 0;
  for (const std::int64_t tenths : {5, 12, 15, 25, 60}) {
    settings.device_memory_bytes = least * tenths / 10 + index % 7 * kStep;
    const auto own = takes_share ? plan_or_refusal(engine, model, settings) : nullptr;
    if (takes_share && own == nullptr) {
      continue;  // too small for the engine's own share
    }
    std::vector<Capacity> capacities;
    for (int device = first.index; device < settings.n_gpus; ++device) {
      capacities.push_back({{device}, settings.device_memory_bytes});
    }
    const std::int64_t longest = longest_checked(takes_share ? *own : plan, capacities);
    EXPECT_GE(longest, smaller_longest) << "more memory fits less: " << tenths << " tenths";
    smaller_longest = longest;
  }
  EXPECT_GT(smaller_longest, 0);
}

/// What one engine is asked on so many GPUs; none: on the host alone.
struct Sample {
  std::string engine;
  int n_gpus = 1;
  int at_least = 0;  ///< triples that are not refused
};

class EveryTriple : public ::testing::TestWithParam<Sample> {};

TEST_P(EveryTriple, IsRefusedByNameOrIsSound) {
  const EngineInfo& engine = engine_named(GetParam().engine);
  const int n_gpus = GetParam().n_gpus;
  int index = 0;
  int n_answered = 0;
  for (const std::string& id : catalog_ids()) {
    ++index;  // so that the same scheme is not asked for the same users of every model
    ModelSpec model =
        read_inspect(std::string(KVFATHOM_SOURCE_DIR) + "/data/models/" + id + ".json");
    model.tensors = tensor_inventory(model);
    for (const cache::SchemeInfo& row : cache::all_schemes()) {
      const std::int64_t users = kUsers.at(static_cast<std::size_t>(++index) % kUsers.size());
      SCOPED_TRACE(id + " " + std::string(row.name) + " for " + std::to_string(users));
      const Cut cut{n_gpus, index / 4 % 2 == 0};
      const EngineSettings settings = settings_of(engine, row.scheme, users, cut);
      const auto plan = plan_or_refusal(engine, model, settings);
      if (plan == nullptr) {
        continue;
      }
      ++n_answered;
      for (const std::int64_t context : {1, 1000, 40000}) {
        expect_sound(*plan, context, n_gpus);
      }
      const std::array<std::int64_t, 3> contexts{777 + index % 250, 5000 + index, 20000};
      expect_inverts(*plan, n_gpus, contexts);
      expect_more_fits_more(engine, model, settings, *plan, index);
    }
  }
  EXPECT_GE(n_answered, GetParam().at_least);
}

INSTANTIATE_TEST_SUITE_P(Engines,
                         EveryTriple,
                         ::testing::Values(Sample{"ideal", 0, 1650},
                                           Sample{"ideal", 1, 1800},
                                           Sample{"ideal", 2, 1700},
                                           Sample{"ideal", 4, 1500},
                                           Sample{"llama.cpp", 0, 330},
                                           Sample{"llama.cpp", 1, 330},
                                           Sample{"llama.cpp", 2, 330},
                                           Sample{"vllm", 1, 290},
                                           Sample{"vllm", 2, 200},
                                           Sample{"sglang", 1, 180},
                                           Sample{"sglang", 2, 100},
                                           Sample{"tensorrt-llm", 1, 180},
                                           Sample{"tensorrt-llm", 2, 100},
                                           Sample{"huggingface", 1, 240}),
                         [](const auto& sample) {
                           std::string name = sample.param.engine;
                           std::erase_if(name, [](char c) { return c == '.' || c == '-'; });
                           const int n_gpus = sample.param.n_gpus;
                           return n_gpus == 1 ? name : name + "On" + std::to_string(n_gpus);
                         });

}  // namespace
}  // namespace kvfathom::testing
