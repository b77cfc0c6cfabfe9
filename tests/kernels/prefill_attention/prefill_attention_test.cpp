#include "kernels/prefill_attention/prefill_attention.h"

#include <string>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/prefill_attention.h"
#include "tests/kernels/prefill_attention/prefill_case.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

PrefillSpec chunk(int head_dim,
                  std::vector<int> n_queries,
                  std::vector<int> lengths,
                  KvFormat format = KvFormat::bf16) {
  PrefillSpec spec;
  spec.cache = {
      .format = format, .k_dim = head_dim, .v_dim = head_dim, .lengths = std::move(lengths)};
  spec.n_queries = std::move(n_queries);
  return spec;
}
PrefillSpec with_heads(PrefillSpec spec, int n_kv_heads, int heads_per_kv_head) {
  spec.cache.n_kv_heads = n_kv_heads;
  spec.heads_per_kv_head = heads_per_kv_head;
  return spec;
}
PrefillSpec with_window(PrefillSpec spec, int window_tokens) {
  spec.window_tokens = window_tokens;
  return spec;
}
PrefillSpec paged(PrefillSpec spec, int page_tokens) {
  spec.cache.page_tokens = page_tokens;
  return spec;
}
DeviceInfo sm75() {
  return DeviceInfo{.name = "emulated",
                    .emulated = true,
                    .compute_capability = 75,
                    .n_multiprocessors = 4,
                    .shared_bytes_per_block = 64 * 1024,
                    .l2_bytes = 1 << 20,
                    .memory_bytes = 1 << 30};
}
constexpr PrefillKernel kBoth[] = {PrefillKernel::tensor_cores, PrefillKernel::cuda_cores};

// ---- the reference against closed forms ----

TEST(PrefillAttentionReference, TheFirstTokenOfAPromptSeesItself) {
  const PrefillCase data(with_heads(chunk(64, {3}, {3}), 2, 2));
  for (int head = 0; head < 4; ++head) {
    const std::vector<double> v = data.cache.value(0, head / 2, 0);
    for (int i = 0; i < 64; ++i) {
      EXPECT_EQ(data.reference()[head * 64 + i], v[i]);
    }
  }
}

TEST(PrefillAttentionReference, EqualScoresGiveTheMeanOfWhatIsSeen) {
  PrefillCase data(with_window(chunk(64, {4}, {9}), 3));
  data.set_q(0.0F);
  for (int query = 0; query < 4; ++query) {
    const int position = 5 + query;
    for (int i = 0; i < 64; ++i) {
      double mean = 0.0;
      for (int token = position - 2; token <= position; ++token) {
        mean += data.cache.value(0, 0, token)[i] / 3.0;
      }
      EXPECT_NEAR(data.reference()[query * 64 + i], mean, 1e-12);
    }
  }
}

TEST(PrefillAttentionReference, QueriesBeforeTheFirstTokenSeeNothing) {
  const PrefillCase data(chunk(64, {3}, {1}));
  for (int i = 0; i < 2 * 64; ++i) {
    EXPECT_EQ(data.reference()[i], 0.0);
  }
}

// ---- CPU ----

TEST(PrefillAttentionCpu, MatchesTheReference) {
  for (const PrefillSpec& spec :
       {with_heads(chunk(64, {1, 130, 0, 40}, {1, 130, 7, 200}), 2, 3),
        with_heads(chunk(128, {20}, {300}, KvFormat::f16), 1, 5),
        with_window(chunk(80, {150}, {150}), 33),
        paged(with_heads(chunk(96, {33, 5}, {133, 5}, KvFormat::f16), 3, 1), 16),
        chunk(256, {9}, {140}),
        chunk(192, {129}, {129}, KvFormat::f16),
        chunk(64, {5}, {2})}) {
    const PrefillCase data(spec);
    for (const int n_threads : {1, 3}) {
      EXPECT_TRUE(within(data.against_reference(data.on_cpu(n_threads), PrefillKernel::cuda_cores)))
          << "head_dim " << data.head_dim();
    }
  }
}

TEST(PrefillAttentionCpu, RefusesWhatNothingIsBuiltFor) {
  EXPECT_THROW(static_cast<void>(PrefillCase(chunk(72, {1}, {1})).on_cpu(1)), UnsupportedShape);
  EXPECT_THROW(static_cast<void>(PrefillCase(chunk(64, {1}, {1}, KvFormat::q8_0)).on_cpu(1)),
               UnsupportedShape);
}

// ---- the launch rule ----

TEST(PrefillAttentionPlan, OldDevicesKeepF16OnTensorCoresWhereItFits) {
  const auto plan = [](int head_dim, KvFormat format) {
    return prefill_attention_plan(PrefillCase(chunk(head_dim, {1}, {1}, format)).host_params(),
                                  sm75());
  };
  EXPECT_EQ(plan(64, KvFormat::bf16).kernel, PrefillKernel::cuda_cores);
  EXPECT_EQ(plan(64, KvFormat::f16).kernel, PrefillKernel::tensor_cores);
  EXPECT_EQ(plan(128, KvFormat::f16).query_tile, 128);
  EXPECT_EQ(plan(256, KvFormat::f16).kernel, PrefillKernel::cuda_cores);
}

TEST(PrefillAttentionPlan, EveryTileFits99KiB) {
  DeviceInfo info = sm75();
  info.compute_capability = 89;
  info.shared_bytes_per_block = 99 * 1024;
  for (const int head_dim : {64, 80, 96, 128, 192, 256}) {
    const PrefillAttentionPlan plan =
        prefill_attention_plan(PrefillCase(chunk(head_dim, {1}, {1})).host_params(), info);
    EXPECT_EQ(plan.query_tile, head_dim <= 128 ? 128 : 64) << head_dim;
  }
}

// ---- launches ----

void expect_device_is_right(PrefillCase& data, const PrefillAttentionPlan& plan) {
  EXPECT_TRUE(within(data.against_reference(data.on_device(plan), plan.kernel)))
      << "head_dim " << data.head_dim() << ", " << plan.query_tile << " queries by "
      << plan.key_tile << " tokens";
}

TEST(PrefillAttention, MatchesTheReferenceAtEdges) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : {KvFormat::bf16, KvFormat::f16}) {
    for (const PrefillSpec& spec : {chunk(64, {1, 63, 0, 65}, {1, 63, 5, 65}, format),
                                    chunk(128, {127, 2}, {127, 129}, format),
                                    chunk(256, {31, 33}, {31, 65}, format)}) {
      PrefillCase data(spec);
      for (const PrefillKernel kernel : kBoth) {
        expect_device_is_right(data, data.plan(kernel));
      }
    }
  }
}

TEST(PrefillAttention, EveryHeadSizeAndFormat) {
  SKIP_WITHOUT_DEVICE();
  for (const int head_dim : {64, 80, 96, 128, 192, 256}) {
    for (const KvFormat format : {KvFormat::bf16, KvFormat::f16}) {
      PrefillCase data(paged(with_heads(chunk(head_dim, {19}, {83}, format), 2, 1), 8));
      for (const PrefillKernel kernel : kBoth) {
        expect_device_is_right(data, data.plan(kernel));
      }
    }
  }
}

TEST(PrefillAttention, AnyHeadRatioOverSeveralKvHeads) {
  SKIP_WITHOUT_DEVICE();
  for (const int ratio : {1, 3, 5, 7}) {
    PrefillCase data(with_heads(chunk(64, {9}, {21}), 3, ratio));
    for (const PrefillKernel kernel : kBoth) {
      expect_device_is_right(data, data.plan(kernel));
    }
  }
}

TEST(PrefillAttention, WindowsOfAllSizes) {
  SKIP_WITHOUT_DEVICE();
  for (const int window : {1, 2, 31, 63, 64, 65, 128, 500}) {
    PrefillCase data(with_window(chunk(64, {140}, {230}), window));
    expect_device_is_right(data, data.plan());
  }
  PrefillCase data(with_window(chunk(96, {40}, {100}), 33));
  expect_device_is_right(data, data.plan(PrefillKernel::cuda_cores));
}

TEST(PrefillAttention, QueriesThatSeeNothingGiveZeros) {
  SKIP_WITHOUT_DEVICE();
  PrefillCase data(chunk(64, {5}, {2}));
  for (const PrefillKernel kernel : kBoth) {
    expect_device_is_right(data, data.plan(kernel));
  }
}

TEST(PrefillAttention, ExtremeScoresStayFinite) {
  SKIP_WITHOUT_DEVICE();
  PrefillSpec spec = chunk(64, {40}, {90});
  spec.cache.deviation = 100.0F;
  PrefillCase data(spec);
  for (const PrefillKernel kernel : kBoth) {
    expect_device_is_right(data, data.plan(kernel));
  }
}

TEST(PrefillAttention, RandomShapesMatchTheReference) {
  SKIP_WITHOUT_DEVICE();
  RandomData random(21);
  const int head_dims[] = {64, 80, 96, 128};
  for (int i = 0; i < 8; ++i) {
    std::vector<int> n_queries;
    std::vector<int> lengths;
    for (int n = random.integer(1, 3); n > 0; --n) {
      n_queries.push_back(random.integer(0, 90));
      lengths.push_back(n_queries.back() + random.integer(0, 100));
    }
    n_queries[0] += 1;
    lengths[0] += 1;
    PrefillSpec spec = chunk(head_dims[random.integer(0, 3)],
                             n_queries,
                             lengths,
                             random.integer(0, 1) == 0 ? KvFormat::bf16 : KvFormat::f16);
    spec = with_heads(spec, random.integer(1, 2), random.integer(1, 3));
    spec.window_tokens = random.integer(0, 1) * random.integer(1, 120);
    spec.cache.page_tokens = random.integer(0, 1) << random.integer(0, 5);
    spec.cache.token_major = random.integer(0, 1) == 1;
    spec.cache.seed = 50 + i;
    PrefillCase data(spec);
    for (const PrefillKernel kernel : kBoth) {
      expect_device_is_right(data, data.plan(kernel));
    }
  }
}

// Tokens that one query alone cannot miss, at the edges of tiles and of its own view.
TEST(PrefillAttention, SeesDominantTokensWhereverTheyAre) {
  SKIP_WITHOUT_DEVICE();
  for (const PrefillKernel kernel : kBoth) {
    PrefillCase data(with_heads(chunk(64, {130}, {260}), 2, 2));
    const int tokens[] = {0, 31, 32, 63, 64, 127, 128, 191, 192, 255, 259};
    for (const int token : tokens) {
      data.plant(0, 129, 1, token);
    }
    data.plant(0, 20, 2, 150);  // the query's own position
    const PrefillAttentionPlan plan = data.plan(kernel);
    expect_device_is_right(data, plan);
    EXPECT_FALSE(data.against_reference(data.on_device(plan, {.q_rows_later = 1}), kernel).holds());
  }
}

TEST(PrefillAttention, TheComparisonNoticesSmallMistakes) {
  SKIP_WITHOUT_DEVICE();
  PrefillSpec spec = with_window(with_heads(chunk(64, {40}, {90}, KvFormat::f16), 2, 1), 30);
  spec.cache.deviation = 3.0F;
  for (const PrefillKernel kernel : kBoth) {
    PrefillCase data(spec);
    const PrefillAttentionPlan plan = data.plan(kernel);
    const auto holds = [&](const PrefillCase::Mutation& mutation) {
      return data.against_reference(data.on_device(plan, mutation), kernel).holds();
    };
    EXPECT_TRUE(holds({}));
    EXPECT_FALSE(holds({.q_rows_later = 1}));
    EXPECT_FALSE(holds({.scale_factor = 1.01F}));
    EXPECT_FALSE(holds({.window_more = 1}));
    EXPECT_FALSE(holds({.first_kv_head_only = true}));
  }
}

// ---- traffic ----

PrefillAttentionShape shape_of(const PrefillCase& data, int sequence) {
  return {.n_query_tokens = data.spec().n_queries[sequence],
          .n_cached_tokens = data.spec().cache.lengths[sequence],
          .n_heads = data.n_heads(),
          .n_kv_heads = data.spec().cache.n_kv_heads,
          .head_dim = data.head_dim(),
          .window_tokens = data.spec().window_tokens};
}

TEST(PrefillAttention, MovesTheBytesThatTheModelCounts) {
  SKIP_WITHOUT_DEVICE();
  for (const PrefillSpec& spec : {chunk(64, {20}, {50}),  // one tile and one head: every row once
                                  with_heads(chunk(64, {140, 30}, {200, 30}), 2, 3),
                                  with_window(with_heads(chunk(128, {200}, {300}), 1, 2), 50)}) {
    for (const PrefillKernel kernel : kBoth) {
      PrefillCase data(spec);
      const PrefillAttentionPlan plan = data.plan(kernel);
      static_cast<void>(simt::take_traffic());
      static_cast<void>(data.on_device(plan));
      const auto traffic = simt::take_traffic();
      if (!traffic) {
        return;
      }
      Bytes requested;
      OpCost cost{};
      for (int sequence = 0; sequence < std::ssize(spec.n_queries); ++sequence) {
        const PrefillAttentionShape shape = shape_of(data, sequence);
        requested += prefill_attention_requested(shape, plan.query_tile);
        cost = cost + prefill_attention_cost(shape);
      }
      EXPECT_EQ(static_cast<double>(traffic->read_bytes()), requested.value());
      EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
      EXPECT_EQ(traffic->ldmatrix_cycles, traffic->ldmatrix_phases) << "bank conflicts";
      if (spec.n_queries.front() <= plan.query_tile && data.n_heads() == 1) {
        EXPECT_EQ(requested, cost.read);
      }
    }
  }
}

TEST(PrefillAttentionCost, CountsPairsAsTheDefinitionDoes) {
  for (const int window : {0, 1, 7, 100}) {
    for (const int n_cached : {2, 20, 55}) {
      const PrefillAttentionShape shape{
          .n_query_tokens = 20, .n_cached_tokens = n_cached, .window_tokens = window};
      double pairs = 0.0;
      for (int position = n_cached - 20; position < n_cached; ++position) {
        for (int token = 0; token <= position; ++token) {
          pairs += window == 0 || token > position - window ? 1.0 : 0.0;
        }
      }
      EXPECT_EQ(prefill_attention_pairs(shape), pairs) << window << " " << n_cached;
    }
  }
}

TEST(PrefillAttentionCost, AWholePromptIsHalfASquare) {
  const OpCost cost = prefill_attention_cost({.n_query_tokens = 4096,
                                              .n_cached_tokens = 4096,
                                              .n_heads = 32,
                                              .n_kv_heads = 8,
                                              .head_dim = 128});
  EXPECT_EQ(cost.flops.value(), 4.0 * 128 * 32 * 4096.0 * 4097.0 / 2.0);
  EXPECT_EQ(cost.read.value(), 4096.0 * 128 * 2 * (32 + 2 * 8));
}

// ---- schedules ----

TEST(PrefillAttentionSmall, NoScheduleChangesTheResult) {
  SKIP_WITHOUT_DEVICE();
  PrefillCase data(chunk(64, {5}, {70}));
  under_every_schedule([&] {
    for (const PrefillKernel kernel : kBoth) {
      expect_device_is_right(data, data.plan(kernel));
    }
  });
}

TEST(PrefillAttentionSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  PrefillCase data(chunk(64, {17}, {150}));
  for (const PrefillKernel kernel : kBoth) {
    const PrefillAttentionPlan plan = data.plan(kernel);
    expect_every_sync_matters(
        [&] { return data.against_reference(data.on_device(plan), kernel).holds(); });
  }
}

}  // namespace
}  // namespace kvfathom::kernels
