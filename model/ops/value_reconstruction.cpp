#include "model/ops/value_reconstruction.h"

#include "model/rounding.h"

namespace kvfathom {
namespace {

constexpr std::int64_t kElement = 2;
constexpr std::int64_t kF32 = 4;

std::int64_t width(const ValueReconstructionShape& s) {
  return s.n_kv_heads * s.head_dim;
}
std::int64_t key_bytes(const ValueReconstructionShape& s) {
  return s.n_sequences * s.n_tokens * width(s) * kElement;
}
/// Cosine and sine for each position and half a head, shared by all sequences and heads.
std::int64_t rotation_bytes(const ValueReconstructionShape& s) {
  return s.keys_rotated ? s.n_tokens * s.head_dim * kF32 : 0;
}
Bytes bytes(std::int64_t n) {
  return Bytes(static_cast<double>(n));
}

std::int64_t score_passes(const ValueReconstructionShape& s) {
  constexpr std::int64_t kRows = 16;
  return divide_up(s.n_heads / s.n_kv_heads, kRows);
}
std::int64_t sum_passes(const ValueReconstructionShape& s) {
  constexpr std::int64_t kFewRows = 16;
  constexpr std::int64_t kManyRows = 64;
  return divide_up(s.n_heads, s.n_heads <= kFewRows ? kFewRows : kManyRows);
}

}  // namespace

OpCost value_rows_cost(const ValueReconstructionShape& s) {
  const std::int64_t projector = width(s) * width(s) * kElement;
  const auto tokens = static_cast<double>(s.n_sequences * s.n_tokens);
  return OpCost{bytes(key_bytes(s) + projector + rotation_bytes(s)),
                bytes(key_bytes(s)),
                Flops(2.0 * tokens * static_cast<double>(width(s) * width(s))),
                1};
}

std::int64_t value_decode_passes(const ValueReconstructionShape& s) {
  return score_passes(s) + sum_passes(s);
}

OpCost value_decode_cost(const ValueReconstructionShape& s) {
  const std::int64_t rows = s.n_sequences * s.n_heads;
  const std::int64_t queries = rows * s.head_dim * kElement;
  const std::int64_t scores = rows * s.n_tokens * kF32;
  const std::int64_t weights = rows * round_up(s.n_tokens, 8) * kElement;
  const std::int64_t sums = s.n_splits * rows * width(s) * kF32;
  const std::int64_t projector = width(s) * width(s) * kElement;
  const std::int64_t out = rows * s.head_dim * kF32;
  const std::int64_t read = value_decode_passes(s) * key_bytes(s) + queries + scores + weights +
                            rotation_bytes(s) + sums + projector;
  const double per_head = static_cast<double>(s.n_tokens * (s.head_dim + width(s))) +
                          static_cast<double>(width(s) * s.head_dim);
  constexpr int kLaunches = 4;
  return OpCost{bytes(read),
                bytes(scores + weights + sums + out),
                Flops(2.0 * static_cast<double>(rows) * per_head),
                kLaunches};
}

}  // namespace kvfathom
