#include "model/ops/head_reconstruction.h"

#include <algorithm>

#include "model/rounding.h"

namespace kvfathom {
namespace {

constexpr std::int64_t kElement = 2;
constexpr std::int64_t kF32 = 4;

/// What one side's groups add up to, per sequence where it depends on one.
struct Side {
  std::int64_t row_columns = 0;     // of all rows, stored heads side by side
  std::int64_t predicted_rows = 0;  // query heads
  std::int64_t predicted_heads = 0;
  std::int64_t references = 0;    // of all predicted heads
  std::int64_t mapped_terms = 0;  // multiply-adds of the maps on one vector a row
  std::int64_t map_bytes = 0;     // maps and their offsets
};
Side side_of(const HeadReconstructionShape& s, const std::vector<HeadGroupShape>& groups) {
  Side side;
  const std::int64_t rows_per_head = s.n_heads / s.n_kv_heads;
  for (const HeadGroupShape& group : groups) {
    side.row_columns += group.n_rows * group.n_slices * s.head_dim;
    if (group.predicted) {
      const std::int64_t heads = group.n_rows / rows_per_head;
      side.predicted_rows += group.n_rows;
      side.predicted_heads += heads;
      side.references += heads * group.n_slices;
      side.mapped_terms += group.n_rows * group.n_slices * s.head_dim * s.head_dim;
      side.map_bytes += heads * s.head_dim * (group.n_slices * s.head_dim * kElement + kF32);
    }
  }
  return side;
}

/// Bytes of stored heads that a pass reads, which takes `rows` rows of a group at a time.
std::int64_t stored_reads(const HeadReconstructionShape& s,
                          const std::vector<HeadGroupShape>& groups,
                          std::int64_t rows) {
  std::int64_t slices = 0;
  for (const HeadGroupShape& group : groups) {
    slices += group.n_slices * divide_up(group.n_rows, rows);
  }
  return s.n_sequences * s.n_tokens * s.head_dim * kElement * slices;
}

std::int64_t sum_rows(const std::vector<HeadGroupShape>& groups) {
  std::int64_t most = 0;
  for (const HeadGroupShape& group : groups) {
    most = std::max(most, group.n_rows);
  }
  return most <= 16 ? 16 : 64;
}

Bytes bytes(std::int64_t n) {
  return Bytes(static_cast<double>(n));
}

}  // namespace

OpCost head_rows_cost(const HeadReconstructionShape& s, const std::vector<HeadGroupShape>& groups) {
  const Side side = side_of(s, groups);
  const std::int64_t row = s.head_dim * kElement;
  const std::int64_t tokens = s.n_sequences * s.n_tokens;
  const std::int64_t exact = s.n_sequences * s.n_exact * side.predicted_heads * row;
  const double terms =
      static_cast<double>(tokens * side.references) * static_cast<double>(s.head_dim * s.head_dim);
  return OpCost{bytes(tokens * side.references * row + side.map_bytes + exact),
                bytes(tokens * side.predicted_heads * row),
                Flops(2.0 * terms),
                1};
}

OpCost head_decode_cost(const HeadReconstructionShape& s) {
  constexpr std::int64_t kScoreRows = 16;
  const Side k = side_of(s, s.k);
  const Side v = side_of(s, s.v);
  const std::int64_t n = s.n_sequences;
  const std::int64_t row = s.head_dim * kElement;
  const std::int64_t of_rows = n * s.n_heads;  // one number a query head
  const std::int64_t queries = of_rows * row;
  const std::int64_t mapped_queries = n * k.row_columns * kElement;
  const std::int64_t scores = of_rows * s.n_tokens * kF32;
  const std::int64_t weights = of_rows * round_up(s.n_tokens, 8) * kElement;
  const std::int64_t sums = s.n_splits * n * v.row_columns * kF32;
  const std::int64_t exact_weights = n * v.predicted_rows * s.n_exact * kF32;
  const std::int64_t mass = n * v.predicted_rows * kF32;
  const auto exact_rows = [&](const Side& side) {
    return n * s.n_exact * side.predicted_heads * row;
  };

  std::int64_t read = queries + k.map_bytes;                                     // queries
  read += mapped_queries + of_rows * kF32 + stored_reads(s, s.k, kScoreRows);    // scores
  read += n * k.predicted_rows * row * (s.n_exact > 0 ? 1 : 0) + exact_rows(k);  // exact
  read += scores;                                                                // weights
  read += weights + stored_reads(s, s.v, sum_rows(s.v));                         // sums
  read += sums + v.map_bytes + mass + exact_weights + exact_rows(v);             // outputs
  const std::int64_t written = mapped_queries + of_rows * kF32 + scores +
                               n * k.predicted_rows * s.n_exact * kF32 + weights + exact_weights +
                               mass + sums + of_rows * s.head_dim * kF32;

  const double products =
      static_cast<double>(n * s.n_tokens) * static_cast<double>(k.row_columns + v.row_columns);
  const double maps = static_cast<double>(n) * static_cast<double>(k.mapped_terms + v.mapped_terms);
  constexpr int kLaunches = 6;
  return OpCost{bytes(read), bytes(written), Flops(2.0 * (products + maps)), kLaunches};
}

}  // namespace kvfathom
