#include "model/ops/ridge_refine.h"

namespace kvfathom {
namespace {

constexpr std::int64_t kF32 = 4;
constexpr std::int64_t kBf16 = 2;
constexpr std::int64_t kNormParts = 16;  // partial norms of a step
constexpr std::int64_t kCgStateBytes = 16;

/// Sizes of one problem's arrays.
struct Arrays {
  std::int64_t full, kept, kept_f32, queries, rows_f32, weights, triangle, row_floats;
};

struct Traffic {
  std::int64_t read = 0, written = 0;
  void add(std::int64_t times, std::int64_t read_bytes, std::int64_t written_bytes) {
    read += times * read_bytes;
    written += times * written_bytes;
  }
};

Traffic of_problem(const RidgeRefineShape& s, const Arrays& a) {
  Traffic t;
  const std::int64_t states = s.n_rows * s.n_splits * (s.head_dim + 2) * kF32;
  const std::int64_t norms = 2 * kNormParts * kF32;
  t.add(1, a.queries + 2 * a.full, states);                                 // full attention
  t.add(1, states, a.rows_f32);                                             // merge of its runs
  t.add(2, a.queries + a.kept, a.weights);                                  // scores
  t.add(2, a.weights, a.weights);                                           // softmax
  t.add(3, a.weights + a.kept + a.rows_f32, 2 * a.rows_f32);                // outputs, residuals
  t.add(3, a.rows_f32, kF32);                                               // losses
  t.add(1, a.weights, a.triangle);                                          // Gram matrix
  t.add(1, a.triangle, a.triangle + kF32);                                  // Cholesky factor
  t.add(1, a.triangle + a.rows_f32, a.rows_f32);                            // solution
  t.add(1, a.weights + a.rows_f32, a.kept_f32);                             // dV
  t.add(2, a.kept_f32 + a.kept, norms);                                     // clips
  t.add(2, norms + a.kept_f32 + a.kept, a.kept);                            // V + dV, K + dK
  t.add(1, 3 * a.rows_f32, 3 * a.rows_f32 + a.row_floats + kCgStateBytes);  // start of CG
  const std::int64_t back_read =
      a.rows_f32 + a.kept + 2 * a.weights + a.row_floats + a.queries;  // J^T
  const std::int64_t forth_read =
      a.queries + a.kept_f32 + 2 * a.weights + a.kept + a.rows_f32;  // J
  t.add(s.cg_iterations + 1, back_read, a.weights + a.kept_f32);
  t.add(s.cg_iterations, forth_read, a.weights + a.rows_f32);
  t.add(s.cg_iterations, 5 * a.rows_f32, 3 * a.rows_f32 + a.row_floats + kCgStateBytes);
  t.add(1, 2 * a.rows_f32, a.row_floats + 2 * kF32);  // end of CG
  t.add(1, 2 * a.kept, 2 * a.kept + kF32);            // the best goes out
  return t;
}

}  // namespace

OpCost ridge_refine_cost(const RidgeRefineShape& s) {
  Arrays a{};
  a.full = s.n_tokens * s.head_dim * kBf16;
  a.kept = s.n_kept * s.head_dim * kBf16;
  a.kept_f32 = s.n_kept * s.head_dim * kF32;
  a.queries = s.n_rows * s.head_dim * kBf16;
  a.rows_f32 = s.n_rows * s.head_dim * kF32;
  a.weights = s.n_rows * ((s.n_kept + 3) / 4 * 4) * kF32;
  a.triangle = s.n_rows * (s.n_rows + 1) / 2 * kF32;
  a.row_floats = s.n_rows * kF32;
  const Traffic traffic = of_problem(s, a);

  // Products of [n_rows, n_kept] with head_dim, at 2 FLOP a multiply-add: scores twice, outputs
  // three times, dV; in the K step four an iteration and two at the end.
  const auto rows = static_cast<double>(s.n_rows);
  const double product = 2.0 * rows * static_cast<double>(s.n_kept * s.head_dim);
  const double flops = 4.0 * rows * static_cast<double>(s.n_tokens * s.head_dim) +
                       product * static_cast<double>(8 + 4 * s.cg_iterations) +
                       rows * (rows + 1.0) * static_cast<double>(s.n_kept) +
                       rows * rows * rows / 3.0 +
                       2.0 * rows * rows * static_cast<double>(s.head_dim);
  const auto problems = static_cast<double>(s.n_problems);
  constexpr int kFixedLaunches = 25;
  constexpr int kLaunchesPerIteration = 5;
  return OpCost{
      Bytes(problems * static_cast<double>(traffic.read)),
      Bytes(problems * static_cast<double>(traffic.written)),
      Flops(problems * flops),
      kFixedLaunches + kLaunchesPerIteration * static_cast<int>(s.cg_max_iterations),
  };
}

}  // namespace kvfathom
