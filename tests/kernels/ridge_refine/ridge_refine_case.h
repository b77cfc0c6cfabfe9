// One ridge refinement on buffers of its own, on the host or the device, for the tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/tolerance.h"
#include "kernels/ridge_refine/ridge_refine.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"

namespace kvfathom::kernels {

inline constexpr Bf16 kPoison{0x7fc1};

struct RidgeShape {
  int n_problems, n_tokens, kept_capacity, n_rows, head_dim;
  std::uint64_t seed = 1;
};

/// Inputs, and outputs that start as NaN. Lengths are ragged; a fifth of the kept tokens is fixed.
struct RidgeCase {
  explicit RidgeCase(const RidgeShape& s) : shape(s) {
    RandomData random(s.seed);
    const std::size_t full = static_cast<std::size_t>(s.n_problems) * s.n_tokens * s.head_dim;
    const std::size_t small = static_cast<std::size_t>(s.n_problems) * s.kept_capacity * s.head_dim;
    queries = random.bf16_normals(static_cast<std::size_t>(s.n_problems) * s.n_rows * s.head_dim);
    k_full = random.bf16_normals(full);
    v_full = random.bf16_normals(full);
    k_kept.assign(small, kPoison);
    v_kept = k_kept;
    fixed.assign(static_cast<std::size_t>(s.n_problems) * s.kept_capacity, 0);
    for (int row = 0; row < s.n_rows; ++row) {
      row_weights.push_back(0.1F + 0.01F * static_cast<float>(random.integer(0, 20)));
    }
    for (int problem = 0; problem < s.n_problems; ++problem) {
      const int most = std::min(s.kept_capacity, s.n_tokens);
      keep(problem, std::max(0, most - problem * 3), random);
    }
    settings.lambda_k = 0.5F;  // well enough conditioned for the iterations to converge
    settings.cg_max_iterations = 8;
  }

  /// Keeps n random tokens of a problem, the newest among them.
  void keep(int problem, int n, RandomData& random) {
    std::vector<int> tokens(static_cast<std::size_t>(shape.n_tokens));
    for (int token = 0; token < shape.n_tokens; ++token) {
      tokens[token] = token;
    }
    if (n > 0) {
      std::shuffle(tokens.begin(), tokens.end() - 1, random.engine());
      std::swap(tokens[n - 1], tokens.back());
      std::sort(tokens.begin(), tokens.begin() + n);
    }
    n_kept.resize(static_cast<std::size_t>(shape.n_problems), 0);
    n_kept[problem] = n;
    for (int slot = 0; slot < n; ++slot) {
      const std::size_t to = (static_cast<std::size_t>(problem) * shape.kept_capacity + slot);
      const std::size_t from = static_cast<std::size_t>(problem) * shape.n_tokens + tokens[slot];
      std::copy_n(&k_full[from * shape.head_dim], shape.head_dim, &k_kept[to * shape.head_dim]);
      std::copy_n(&v_full[from * shape.head_dim], shape.head_dim, &v_kept[to * shape.head_dim]);
      fixed[to] = random.integer(0, 4) == 0 ? 1 : 0;
    }
  }

  [[nodiscard]] RidgeRefineParams shapes() const {
    RidgeRefineParams p;
    p.n_problems = shape.n_problems;
    p.n_tokens = shape.n_tokens;
    p.kept_capacity = shape.kept_capacity;
    p.n_rows = shape.n_rows;
    p.head_dim = shape.head_dim;
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
    p.settings = settings;
    return p;
  }
  /// Host buffers; the outputs are those of the last run.
  [[nodiscard]] RidgeRefineParams params() {
    RidgeRefineParams p = shapes();
    p.queries = queries.data();
    p.row_weights = row_weights.data();
    p.k_full = k_full.data();
    p.v_full = v_full.data();
    p.k_kept = k_kept.data();
    p.v_kept = v_kept.data();
    p.n_kept = n_kept.data();
    p.fixed = fixed.data();
    p.v_stepped = v_stepped.data();
    p.k_stepped = k_stepped.data();
    p.k_out = k_out.data();
    p.v_out = v_out.data();
    p.outcome = outcome.data();
    return p;
  }
  void poison_outputs() {
    v_stepped.assign(k_kept.size(), kPoison);
    k_stepped = k_out = v_out = v_stepped;
    outcome.assign(static_cast<std::size_t>(shape.n_problems), RidgeRefineOutcome{});
  }

  /// `mutate` may falsify the arguments of the run; the reference never sees that.
  template <typename Mutate>
  void run_cpu(int n_threads, Mutate mutate) {
    poison_outputs();
    RidgeRefineParams p = params();
    mutate(p);
    ridge_refine_cpu(p, n_threads);
  }
  void run_cpu(int n_threads = 1) {
    run_cpu(n_threads, [](RidgeRefineParams&) {});
  }
  template <typename Mutate>
  void run_device(int n_splits, Mutate mutate) {
    poison_outputs();
    const DeviceArray<Bf16> d_queries(queries), d_k_full(k_full), d_v_full(v_full),
        d_k_kept(k_kept), d_v_kept(v_kept), d_v_stepped(v_stepped), d_k_stepped(k_stepped),
        d_k_out(k_out), d_v_out(v_out);
    const DeviceArray<float> d_weights(row_weights);
    const DeviceArray<std::int32_t> d_n_kept(n_kept);
    const DeviceArray<std::uint8_t> d_fixed(fixed);
    const DeviceArray<RidgeRefineOutcome> d_outcome(outcome);
    RidgeRefineParams p = shapes();
    p.queries = d_queries.data();
    p.row_weights = d_weights.data();
    p.k_full = d_k_full.data();
    p.v_full = d_v_full.data();
    p.k_kept = d_k_kept.data();
    p.v_kept = d_v_kept.data();
    p.n_kept = d_n_kept.data();
    p.fixed = d_fixed.data();
    p.v_stepped = d_v_stepped.data();
    p.k_stepped = d_k_stepped.data();
    p.k_out = d_k_out.data();
    p.v_out = d_v_out.data();
    p.outcome = d_outcome.data();
    const DeviceArray<std::byte> scratch(
        static_cast<std::size_t>(ridge_refine_scratch_bytes(p, n_splits)));
    mutate(p);
    ridge_refine_launch(p, n_splits, scratch.data(), nullptr);
    synchronize();
    v_stepped = d_v_stepped.to_host();
    k_stepped = d_k_stepped.to_host();
    k_out = d_k_out.to_host();
    v_out = d_v_out.to_host();
    outcome = d_outcome.to_host();
  }
  void run_device(int n_splits = 1) {
    run_device(n_splits, [](RidgeRefineParams&) {});
  }

  RidgeShape shape;
  RidgeRefineSettings settings;
  std::vector<Bf16> queries, k_full, v_full, k_kept, v_kept;
  std::vector<Bf16> v_stepped, k_stepped, k_out, v_out;
  std::vector<float> row_weights;
  std::vector<std::int32_t> n_kept;
  std::vector<std::uint8_t> fixed;
  std::vector<RidgeRefineOutcome> outcome;
};

/// Rows [0, n_kept) of one problem in `got` against `want`, within `error` and the rounding to
/// bf16; rows beyond still hold the poison.
inline testing::AssertionResult step_is_right(const RidgeCase& c,
                                              int problem,
                                              const std::vector<Bf16>& got,
                                              const std::vector<double>& want,
                                              double error) {
  const std::size_t first =
      static_cast<std::size_t>(problem) * c.shape.kept_capacity * c.shape.head_dim;
  const std::size_t n = want.size();
  std::vector<float> values(n);
  std::vector<double> bounds(n);
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = to_f32(got[first + i]);
    bounds[i] = error + kUnitRoundoffBf16 * (std::fabs(want[i]) + error);
  }
  for (std::size_t i = n; i < static_cast<std::size_t>(c.shape.kept_capacity) * c.shape.head_dim;
       ++i) {
    if (got[first + i].bits != kPoison.bits) {
      return testing::AssertionFailure() << "row " << i / c.shape.head_dim << " was written";
    }
  }
  return close_to<float>(values, want, bounds);
}

inline testing::AssertionResult rows_equal(const RidgeCase& c,
                                           int problem,
                                           const std::vector<Bf16>& got,
                                           const std::vector<Bf16>& want) {
  const std::size_t first =
      static_cast<std::size_t>(problem) * c.shape.kept_capacity * c.shape.head_dim;
  for (std::size_t i = 0; i < static_cast<std::size_t>(c.n_kept[problem]) * c.shape.head_dim; ++i) {
    if (got[first + i].bits != want[first + i].bits) {
      return testing::AssertionFailure() << "element " << i << " differs";
    }
  }
  return testing::AssertionSuccess();
}

inline testing::AssertionResult near_loss(float got, double want, double error) {
  const double bound = error + kUnitRoundoffF32 * want;
  if (std::fabs(static_cast<double>(got) - want) <= bound) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << "loss " << got << " for " << want << " +- " << bound;
}

/// Everything that a run left, against the reference and against itself.
inline testing::AssertionResult refined_rightly(RidgeCase& c) {
  const RidgeRefineParams p = c.params();
  for (int problem = 0; problem < c.shape.n_problems; ++problem) {
    const RidgeRefineReference want = ridge_refine_reference(p, problem);
    const RidgeRefineOutcome& got = c.outcome[problem];
    const bool both = got.choice == RidgeRefineOutcome::values_and_keys;
    const bool stepped = got.choice != RidgeRefineOutcome::kept;
    const float chosen = both ? got.loss_both : stepped ? got.loss_values : got.loss_kept;
    const testing::AssertionResult checks[] = {
        step_is_right(c, problem, c.v_stepped, want.values, want.values_error),
        step_is_right(c, problem, c.k_stepped, want.keys, want.keys_error),
        near_loss(got.loss_kept, want.loss_kept, want.loss_kept_error),
        near_loss(got.loss_values, want.loss_values, want.loss_values_error),
        near_loss(got.loss_both, want.loss_both, want.loss_both_error),
        rows_equal(c, problem, c.v_out, stepped ? c.v_stepped : c.v_kept),
        rows_equal(c, problem, c.k_out, both ? c.k_stepped : c.k_kept),
    };
    for (const testing::AssertionResult& check : checks) {
      if (!check) {
        return testing::AssertionFailure()
               << "problem " << problem << ", check " << &check - checks << ": " << check.message();
      }
    }
    if (chosen > std::min({got.loss_kept, got.loss_values, got.loss_both})) {
      return testing::AssertionFailure() << "problem " << problem << " took a worse choice";
    }
    if (std::abs(got.cg_iterations - want.cg_iterations) > 1 || got.failed_pivot != 0) {
      return testing::AssertionFailure()
             << "problem " << problem << ": " << got.cg_iterations << " iterations for "
             << want.cg_iterations << ", pivot " << got.failed_pivot;
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace kvfathom::kernels
