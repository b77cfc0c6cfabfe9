// The tokens that a decode step of DeepSeek Sparse Attention attends to: index_scores, then
// select_tokens on the scores where they lie, against the same chain in double.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/eviction_scores/select_tokens.h"
#include "kernels/index_scores/index_scores.h"
#include "tests/kernels/index_scores/index_case.h"
#include "tests/kernels/support/where.h"

namespace kvfathom::kernels {
namespace {

constexpr int kBudget = 2048;  // DeepSeek-V3.2's index_topk

/// Contexts beyond the budget, of exactly the budget, one more, fewer, and none.
const IndexCase kContexts{.lengths = {5000, 2048, 2049, 300, 0}, .page_tokens = 64};

struct Selection {
  std::vector<std::int32_t> kept;    // [n_sequences, kBudget]
  std::vector<std::int32_t> n_kept;  // [n_sequences]
  [[nodiscard]] std::span<const std::int32_t> of(std::size_t sequence) const {
    return std::span(kept).subspan(sequence * kBudget, n_kept[sequence]);
  }
};

using Mutate = std::function<void(IndexScoresParams&, SelectTokensParams&)>;

/// Both kernels, one after the other. What no token owns scores infinity: chosen, it would show.
Selection select(IndexProblem& problem, Where where, const Mutate& mutate = {}) {
  const std::size_t n = problem.lengths().size();
  std::vector<float> scores(n * problem.max_tokens(), INFINITY);
  Selection chosen{std::vector<std::int32_t>(n * kBudget, -1), std::vector<std::int32_t>(n, -1)};
  const bool on_device = where == Where::device;
  const auto uploaded = [&]<typename T>(const std::vector<T>& host) {
    return on_device ? DeviceArray<T>(host) : DeviceArray<T>();
  };
  const DeviceArray<float> device_scores = uploaded(scores);
  const DeviceArray<std::int32_t> kept = uploaded(chosen.kept);
  const DeviceArray<std::int32_t> n_kept = uploaded(chosen.n_kept);
  IndexScoresParams index = on_device ? problem.device() : problem.host();
  index.scores = on_device ? device_scores.data() : scores.data();
  SelectTokensParams top{.n_sequences = static_cast<int>(n),
                         .n_heads = 1,
                         .max_tokens = problem.max_tokens(),
                         .lengths = index.keys.lengths,
                         .scores = index.scores,
                         .budget = kBudget,
                         .kept = on_device ? kept.data() : chosen.kept.data(),
                         .n_kept = on_device ? n_kept.data() : chosen.n_kept.data()};
  if (mutate) {
    mutate(index, top);
  }
  if (on_device) {
    index_scores_launch(index);
    select_tokens_launch(top);
    synchronize();
    return Selection{kept.to_host(), n_kept.to_host()};
  }
  index_scores_cpu(index, 2);
  select_tokens_cpu(top, 2);
  return chosen;
}

/// One sequence of the reference chain.
struct Ranked {
  std::span<const double> scores, bounds;
  std::vector<std::int32_t> tokens;  // the highest score first; equal ones by position

  Ranked(const IndexExpected& want, const IndexProblem& problem, std::size_t sequence)
      : tokens(problem.lengths()[sequence]) {
    const std::size_t first = sequence * problem.max_tokens();
    scores = std::span(want.scores).subspan(first, tokens.size());
    bounds = std::span(want.bounds).subspan(first, tokens.size());
    std::iota(tokens.begin(), tokens.end(), 0);
    std::stable_sort(tokens.begin(), tokens.end(), [this](std::int32_t a, std::int32_t b) {
      return scores[a] > scores[b];
    });
  }

  /// Whether `kept` are the highest scores, as far as float scores can tell: a token left out may
  /// be above a kept one only by what the bounds of both allow. The set is then the reference's but
  /// for tokens within the tolerance of the last one's score.
  [[nodiscard]] bool allows(std::span<const std::int32_t> kept) const {
    if (kept.size() != std::min<std::size_t>(tokens.size(), kBudget)) {
      return false;
    }
    std::vector<bool> is_kept(tokens.size(), false);
    double lowest_kept = INFINITY;
    std::int32_t last = -1;
    for (const std::int32_t token : kept) {
      if (token <= last || token >= static_cast<std::int32_t>(tokens.size())) {
        return false;
      }
      is_kept[token] = true;
      lowest_kept = std::min(lowest_kept, scores[token] + bounds[token]);
      last = token;
    }
    return std::all_of(tokens.begin(), tokens.end(), [&](std::int32_t token) {
      return is_kept[token] || scores[token] - bounds[token] <= lowest_kept;
    });
  }
};

bool is_right(const Selection& chosen, const IndexProblem& problem, const IndexExpected& want) {
  for (std::size_t sequence = 0; sequence < problem.lengths().size(); ++sequence) {
    if (!Ranked(want, problem, sequence).allows(chosen.of(sequence))) {
      return false;
    }
  }
  return true;
}

TEST(SparseSelection, IsTheReferenceChains) {
  IndexProblem problem(kContexts);
  const IndexExpected want = problem.expected();
  for (const Where where : places()) {
    const Selection chosen = select(problem, where);
    for (std::size_t sequence = 0; sequence < problem.lengths().size(); ++sequence) {
      EXPECT_TRUE(Ranked(want, problem, sequence).allows(chosen.of(sequence)))
          << "sequence " << sequence << (where == Where::cpu ? " on the CPU" : " on the device");
    }
  }
}

// The tolerance is no loophole: a token a few ranks off is noticed.
TEST(SparseSelection, ATokenFromBeyondTheTieShows) {
  const IndexProblem problem(kContexts);
  const IndexExpected want = problem.expected();
  const Ranked longest(want, problem, 0);
  constexpr int kRanksOff = 4;
  const auto with = [&](int rank) {
    std::vector<std::int32_t> kept(longest.tokens.begin(), longest.tokens.begin() + kBudget);
    kept.back() = longest.tokens[rank];
    std::sort(kept.begin(), kept.end());
    return kept;
  };
  EXPECT_TRUE(longest.allows(with(kBudget - 1)));
  EXPECT_FALSE(longest.allows(with(kBudget - 1 + kRanksOff)));
}

TEST(SparseSelection, WrongChainsShow) {
  IndexProblem problem(kContexts);
  const IndexExpected want = problem.expected();
  const std::vector<std::int32_t> shorter = {4999, 2048, 2048, 300, 0};
  const std::vector<Mutate> mistakes = {
      [](IndexScoresParams& index, SelectTokensParams&) { index.n_heads = 32; },
      [](IndexScoresParams& index, SelectTokensParams&) {
        index.keys.k.scale_token_stride_bytes = 0;
      },
      [](IndexScoresParams&, SelectTokensParams& top) { top.scores += 1; },
      [](IndexScoresParams&, SelectTokensParams& top) { top.max_tokens -= 1; },
      [](IndexScoresParams&, SelectTokensParams& top) { top.n_recent = 8; },
      [&](IndexScoresParams&, SelectTokensParams& top) { top.lengths = shorter.data(); },
  };
  ASSERT_TRUE(is_right(select(problem, Where::cpu), problem, want));
  for (std::size_t i = 0; i < mistakes.size(); ++i) {
    EXPECT_FALSE(is_right(select(problem, Where::cpu, mistakes[i]), problem, want)) << i;
  }
}

}  // namespace
}  // namespace kvfathom::kernels
