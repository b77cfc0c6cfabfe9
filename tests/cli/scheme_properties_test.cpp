// For every catalog model and every scheme that applies to it: lines add up, more memory never fits
// less, and the inverse inverts.
#include <array>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cli/catalog.h"
#include "model/cache/applicability.h"
#include "model/cache/request_text.h"
#include "model/engine/engine.h"
#include "model/memory/inverse.h"

namespace kvfathom {
namespace {

constexpr std::int64_t kLimit = 1 << 17;

std::vector<cache::ParsedScheme> schemes() {
  std::vector<cache::ParsedScheme> all;
  for (const cache::SchemeInfo& row : cache::all_schemes()) {
    all.push_back(cache::parse_scheme(row.name));
  }
  for (const char* text : {"k-only:projector=learned,rebuild=materialised",
                           "residual:checkpoints=tokens,window=100",
                           "residual:checkpoints=3",
                           "evict-snapkv:budget=700,prefill=layerwise,generated=9",
                           "evict-h2o:budget=64,window=8",
                           "kivi:bits=3,group=8,residual=300",
                           "kivi:residual=0+offload:tier=network,kept=0.1",
                           "native+offload:kept=0.333,chunk=77"}) {
    all.push_back(cache::parse_scheme(text));
  }
  return all;
}

void expect_lines_add_up(const MemoryReport& report, const std::optional<cache::Offload>& offload) {
  std::int64_t k = 0;
  std::int64_t v = 0;
  std::int64_t state = 0;
  for (const CacheGroup& group : report.cache.groups) {
    k += group.k_bytes;
    v += group.v_bytes;
    state += group.state_bytes;
  }
  EXPECT_EQ(report.cache.k_bytes, k);
  EXPECT_EQ(report.cache.v_bytes, v);
  EXPECT_EQ(report.cache.state_bytes, state);
  const bool on_devices = !offload || offload->tier == cache::Offload::kHost;
  const std::int64_t lines = report.ledger.bytes_of(LedgerKind::cache);
  EXPECT_TRUE(on_devices ? lines == k + v : lines <= k + v);
  EXPECT_EQ(report.ledger.bytes_of(LedgerKind::state), state);
  EXPECT_EQ(report.cache.prefill_peak_bytes,
            k + v + state + report.ledger.bytes_of(LedgerKind::compute));
  for (const LedgerLine& line : report.ledger.lines) {
    EXPECT_GT(line.bytes, 0);
  }
}

void expect_the_inverse_inverts(const MemoryPlan& plan) {
  std::int64_t smaller_bytes = 0;
  std::int64_t smaller_longest = 0;
  for (const std::int64_t at : {2, 300, 5001, 70000}) {
    const std::int64_t bytes = plan.evaluate(at).ledger.total({0}).bytes;
    const std::array capacity{Capacity{{0}, bytes}};
    const std::int64_t longest = longest_context(plan, capacity, kLimit).context_tokens;
    EXPECT_GE(longest, at);
    EXPECT_TRUE(fits(plan.evaluate(longest).ledger, capacity));
    EXPECT_LE(plan.floor_bytes({0}, longest), bytes);
    for (std::int64_t n = longest + 1; n <= std::min(longest + 310, kLimit); ++n) {
      ASSERT_FALSE(fits(plan.evaluate(n).ledger, capacity)) << n;
    }
    if (bytes >= smaller_bytes) {
      EXPECT_GE(longest, smaller_longest) << "more memory fits less";
      smaller_bytes = bytes;
      smaller_longest = longest;
    }
  }
}

TEST(SchemeProperties, HoldForEveryCatalogModelAndScheme) {
  int n_priced = 0;
  for (const std::string& id : cli::catalog_model_ids()) {
    ModelSpec model = cli::read_catalog_model(id);
    model.tensors = {{"weights", {1 << 20, 1, 1, 1}, DType::f16}};
    for (const cache::ParsedScheme& scheme : schemes()) {
      if (cache::why_not(model, scheme.request)) {
        continue;
      }
      SCOPED_TRACE(id + " " + cache::spelled(scheme.request, scheme.offload));
      EngineSettings settings;
      settings.scheme = scheme.request.id;
      settings.scheme_parameters = scheme.request.parameters;
      settings.offload = scheme.offload;
      settings.sequences = 1 + n_priced % 3;
      const auto plan = engine_named("ideal").prepare(model, settings);
      for (const std::int64_t tokens : {1, 299, 4096, 99999}) {
        expect_lines_add_up(plan->evaluate(tokens), scheme.offload);
      }
      expect_the_inverse_inverts(*plan);
      ASSERT_FALSE(::testing::Test::HasFailure());
      ++n_priced;
    }
  }
  EXPECT_GT(n_priced, 2000);
}

}  // namespace
}  // namespace kvfathom
