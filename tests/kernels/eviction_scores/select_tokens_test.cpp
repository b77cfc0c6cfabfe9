#include "kernels/eviction_scores/select_tokens.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "model/ops/eviction_scores.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/kv_cache_data.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"
#include "tests/kernels/support/where.h"

namespace kvfathom::kernels {
namespace {

struct Selection {
  std::vector<std::int32_t> kept, n_kept;
  friend bool operator==(const Selection&, const Selection&) = default;
};

struct Problem {
  std::vector<std::int32_t> lengths;
  std::vector<float> scores;
  std::vector<std::int32_t> budgets;
  SelectTokensParams params;

  Problem(std::vector<std::int32_t> lengths_of_rows, int n_heads, int budget)
      : lengths(std::move(lengths_of_rows)) {
    params.n_heads = n_heads;
    params.n_sequences = static_cast<int>(lengths.size()) / n_heads;
    params.lengths_per_head = true;
    params.max_tokens = *std::max_element(lengths.begin(), lengths.end()) + 1;
    params.budget = budget;
    scores.assign(lengths.size() * params.max_tokens, std::numeric_limits<float>::quiet_NaN());
  }
  template <typename ScoreOf>
  Problem& fill(const ScoreOf& score_of) {
    for (std::size_t row = 0; row < lengths.size(); ++row) {
      for (int token = 0; token < lengths[row]; ++token) {
        scores[row * params.max_tokens + token] = score_of(static_cast<int>(row), token);
      }
    }
    return *this;
  }

  using Mutate = std::function<void(SelectTokensParams&)>;
  template <typename Run>
  Selection run_on_host(const Run& run) const {
    Selection out = blank();
    SelectTokensParams p = params;
    p.lengths = lengths.data();
    p.scores = scores.empty() ? nullptr : scores.data();
    p.budgets = budgets.empty() ? nullptr : budgets.data();
    p.kept = out.kept.data();
    p.n_kept = out.n_kept.data();
    run(p);
    return out;
  }
  [[nodiscard]] Selection reference() const { return run_on_host(select_tokens_reference); }
  [[nodiscard]] Selection run(Where where, const Mutate& mutate = {}) const {
    if (where == Where::cpu) {
      return run_on_host([](const SelectTokensParams& p) { select_tokens_cpu(p, 2); });
    }
    const Selection before = blank();
    const DeviceArray<std::int32_t> device_lengths(lengths);
    const DeviceArray<float> device_scores(scores);
    const DeviceArray<std::int32_t> device_budgets(budgets);
    const DeviceArray<std::int32_t> kept(before.kept);
    const DeviceArray<std::int32_t> n_kept(before.n_kept);
    SelectTokensParams p = params;
    p.lengths = device_lengths.data();
    p.scores = scores.empty() ? nullptr : device_scores.data();
    p.budgets = budgets.empty() ? nullptr : device_budgets.data();
    p.kept = kept.data();
    p.n_kept = n_kept.data();
    if (mutate) {
      mutate(p);
    }
    select_tokens_launch(p);
    synchronize();
    return Selection{kept.to_host(), n_kept.to_host()};
  }

 private:
  [[nodiscard]] Selection blank() const {
    return Selection{std::vector<std::int32_t>(lengths.size() * params.budget, -1),
                     std::vector<std::int32_t>(lengths.size(), -1)};
  }
};

std::vector<Problem> all_problems() {
  std::vector<Problem> problems;
  RandomData random(4);
  for (const int budget : {0, 1, 20, 255, 256, 700}) {
    Problem distinct({0, 1, 255, 256, 257, 600}, 2, budget);
    distinct.fill([&](int, int) { return random.normal(); });
    problems.push_back(distinct);
    Problem ties({0, 1, 255, 256, 257, 600}, 3, budget);
    ties.fill([&](int, int) { return static_cast<float>(random.integer(-2, 2)) * 0.5F; });
    ties.params.n_sinks = std::min(4, budget / 2);
    ties.params.n_recent = std::min(30, budget / 2);
    problems.push_back(ties);
  }
  Problem close({300, 77}, 1, 40);  // keys that differ in the last digit only
  close.fill([&](int, int) { return f32_of_bits(0x3f800000U + random.integer(0, 300)); });
  problems.push_back(close);
  Problem ragged({90, 90, 90}, 3, 50);
  ragged.budgets = {50, 7, 0};
  ragged.fill([&](int, int) { return random.normal(); });
  problems.push_back(ragged);
  Problem special({12}, 1, 5);
  const float values[] = {-0.0F, 0.0F, -1.0F, INFINITY, -INFINITY, 0.0F, -0.0F, 1e-45F, 0, 0, 0, 0};
  special.fill([&](int, int token) { return values[token]; });
  problems.push_back(special);
  return problems;
}

TEST(SelectTokens, IsTheReferences) {
  int index = 0;
  for (const Problem& problem : all_problems()) {
    for (const Where where : places()) {
      EXPECT_EQ(problem.run(where), problem.reference()) << index;
    }
    ++index;
  }
}

TEST(SelectTokensReference, ClosedForms) {
  Problem problem({6}, 1, 3);
  problem.fill([](int, int token) { return token == 4 ? 2.0F : 1.0F; });
  EXPECT_EQ(problem.reference().kept, (std::vector<std::int32_t>{0, 1, 4}));
  problem.params.n_recent = 1;
  EXPECT_EQ(problem.reference().kept, (std::vector<std::int32_t>{0, 4, 5}));
}

// StreamingLLM: 4 sinks and the last 8, whatever the scores would be.
TEST(SelectTokens, SinksAndRecentTokensAreStreamingLlm) {
  Problem problem({500}, 1, 12);
  problem.scores.clear();
  problem.params.n_sinks = 4;
  problem.params.n_recent = 8;
  const std::vector<std::int32_t> want = {0, 1, 2, 3, 492, 493, 494, 495, 496, 497, 498, 499};
  EXPECT_EQ(problem.reference().kept, want);
  for (const Where where : places()) {
    EXPECT_EQ(problem.run(where).kept, want);
  }
}

TEST(SelectTokens, NanRanksLast) {
  Problem problem({8}, 1, 6);
  problem.fill([](int, int token) { return token < 2 ? NAN : -static_cast<float>(token); });
  const std::vector<std::int32_t> want = {2, 3, 4, 5, 6, 7};
  for (const Where where : places()) {
    EXPECT_EQ(problem.run(where).kept, want);
  }
}

TEST(SelectTokens, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  Problem problem({300, 280}, 1, 40);
  RandomData random(4);
  problem.fill([&](int, int) { return random.normal(); });
  problem.params.n_sinks = 2;
  problem.params.n_recent = 10;
  for (const auto& mutate :
       std::vector<Problem::Mutate>{[](SelectTokensParams& p) { p.n_sinks = 1; },
                                    [](SelectTokensParams& p) { p.n_recent = 11; },
                                    [](SelectTokensParams& p) { p.scores += 1; },
                                    [](SelectTokensParams& p) { p.n_sequences = 1; }}) {
    EXPECT_NE(problem.run(Where::device, mutate), problem.reference());
  }
  problem.params.budget = 11;
  EXPECT_THROW(problem.run(Where::cpu), UnsupportedShape);
}

TEST(SelectTokensSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  Problem problem({270}, 1, 30);
  problem.fill([](int, int token) { return static_cast<float>(token * 37 % 11); });
  under_every_schedule([&] { EXPECT_EQ(problem.run(Where::device), problem.reference()); });
}

TEST(SelectTokensSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  Problem problem({600}, 1, 90);
  RandomData random(6);
  problem.fill([&](int, int) { return static_cast<float>(random.integer(0, 3)) + 0.25F; });
  expect_every_sync_matters([&] { return problem.run(Where::device) == problem.reference(); });
}

TEST(SelectTokens, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  Problem problem({300, 300, 300, 300}, 2, 40);
  problem.fill([](int row, int token) { return static_cast<float>(token * 37 % 101 + row); });
  problem.params.n_sinks = 4;
  problem.params.n_recent = 16;
  static_cast<void>(simt::take_traffic());
  EXPECT_EQ(problem.run(Where::device), problem.reference());
  EXPECT_TRUE(moved_bytes_of(
      select_tokens_cost({.n_sequences = 2, .n_kv_heads = 2, .n_tokens = 300}, 40, 20)));
}

// ---- gather ----

struct Gather {
  KvCacheSpec from_spec, to_spec;
  std::vector<std::int32_t> kept, n_kept;
  bool per_head = true;
  int budget = 6;

  Gather(KvFormat format, int dim, bool per_head_or_layer) : per_head(per_head_or_layer) {
    from_spec.format = format;
    from_spec.n_kv_heads = 2;
    from_spec.k_dim = from_spec.v_dim = dim;
    from_spec.lengths = {9, 21};
    from_spec.page_tokens = 8;
    to_spec = from_spec;
    to_spec.page_tokens = per_head ? 0 : 4;
    to_spec.token_major = per_head;
    to_spec.seed = 77;
    to_spec.lengths_per_head = per_head;
    to_spec.lengths.assign(per_head ? 4 : 2, budget);
    n_kept = per_head ? std::vector<std::int32_t>{3, 6, 0, 5} : std::vector<std::int32_t>{6, 4};
    for (std::size_t row = 0; row < n_kept.size(); ++row) {
      const int length = row < n_kept.size() / 2 ? 9 : 21;
      for (int slot = 0; slot < budget; ++slot) {
        const int last = length - n_kept[row] + slot;  // the last of the sequence is kept
        kept.push_back(slot < n_kept[row] ? (slot < 2 ? slot : last) : -1);
      }
    }
  }

  using Mutate = std::function<void(GatherCacheParams&)>;
  bool right(Where where, const Mutate& mutate = {}) {
    KvCacheData from(from_spec);
    KvCacheData to(to_spec);
    GatherCacheParams p;
    p.head_dim = from_spec.k_dim;
    p.budget = budget;
    p.kept_per_head = per_head;
    const bool on_device = where == Where::device;
    const DeviceArray<std::int32_t> device_kept =
        on_device ? DeviceArray<std::int32_t>(kept) : DeviceArray<std::int32_t>();
    const DeviceArray<std::int32_t> device_n_kept =
        on_device ? DeviceArray<std::int32_t>(n_kept) : DeviceArray<std::int32_t>();
    p.kept = on_device ? device_kept.data() : kept.data();
    p.n_kept = on_device ? device_n_kept.data() : n_kept.data();
    p.from = on_device ? from.device() : from.host();
    p.to = on_device ? to.device() : to.host();
    if (mutate) {
      mutate(p);
    }
    if (on_device) {
      gather_cache_launch(p);
      synchronize();
      to.download();
    } else {
      gather_cache_cpu(p, 2);
    }
    return holds_the_kept_rows(from, to);
  }

 private:
  bool holds_the_kept_rows(const KvCacheData& from, const KvCacheData& to) const {
    const KvCacheData before(to_spec);
    bool same = true;
    for (int sequence = 0; sequence < 2; ++sequence) {
      for (int head = 0; head < 2; ++head) {
        const int row = per_head ? sequence * 2 + head : sequence;
        same = same && to.length(sequence, head) == n_kept[row];
        for (int slot = 0; slot < budget; ++slot) {
          const bool copied = slot < n_kept[row];
          const KvCacheData& source = copied ? from : before;
          const int token = copied ? kept[row * budget + slot] : slot;
          same = same && to.key(sequence, head, slot) == source.key(sequence, head, token);
          same = same && to.value(sequence, head, slot) == source.value(sequence, head, token);
        }
      }
    }
    return same;
  }
};

TEST(GatherCache, CopiesTheKeptRows) {
  for (const KvFormat format : kAllKvFormats) {
    for (const int dim : {32, 96, 128}) {
      for (const bool per_head : {true, false}) {
        for (const Where where : places()) {
          EXPECT_TRUE(Gather(format, dim, per_head).right(where)) << name(format) << dim;
        }
      }
    }
  }
  Gather unaligned(KvFormat::int8_token, 72, true);  // 72 bytes: 18 units of 4
  for (const Where where : places()) {
    EXPECT_TRUE(unaligned.right(where));
  }
}

TEST(GatherCache, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  for (const auto& mutate :
       std::vector<Gather::Mutate>{[](GatherCacheParams& p) { p.kept += 1; },
                                   [](GatherCacheParams& p) { p.head_dim = 64; },
                                   [](GatherCacheParams& p) { p.from.k.head_stride_bytes = 0; },
                                   [](GatherCacheParams& p) { std::swap(p.from.k, p.from.v); }}) {
    EXPECT_FALSE(Gather(KvFormat::q8_0, 128, true).right(Where::device, mutate));
  }
  EXPECT_THROW(Gather(KvFormat::f16, 64, true)
                   .right(Where::cpu, [](GatherCacheParams& p) { p.to.format = KvFormat::bf16; }),
               UnsupportedShape);
  EXPECT_THROW(Gather(KvFormat::f16, 64, true)
                   .right(Where::cpu, [](GatherCacheParams& p) { p.kept_per_head = false; }),
               UnsupportedShape);
}

TEST(GatherCacheSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] { EXPECT_TRUE(Gather(KvFormat::q4_0, 32, true).right(Where::device)); });
}

TEST(GatherCache, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const KvFormat format : kAllKvFormats) {
    Gather gather(format, 128, true);
    gather.n_kept.assign(4, 6);
    gather.kept.clear();
    for (int i = 0; i < 4 * 6; ++i) {
      gather.kept.push_back(i % 6);
    }
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(gather.right(Where::device));
    EXPECT_TRUE(moved_bytes_of(gather_cache_cost(
        {.n_sequences = 2,
         .n_kv_heads = 2,
         .stored_row_bytes = row_data_bytes(format, 128) + row_scale_bytes(format, 128)},
        6)))
        << name(format);
  }
}

}  // namespace
}  // namespace kvfathom::kernels
