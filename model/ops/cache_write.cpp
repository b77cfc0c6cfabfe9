#include "model/ops/cache_write.h"

namespace kvfathom {
namespace {

constexpr double kTurnsBytes = 8.0;  // the angle per position of one pair
constexpr double kPlanes = 2.0;      // K and V

double rows_of_a_plane(const CacheWriteShape& shape) {
  return static_cast<double>(shape.n_tokens) * static_cast<double>(shape.n_kv_heads);
}

}  // namespace

OpCost cache_write_cost(const CacheWriteShape& shape) {
  const double rows = rows_of_a_plane(shape);
  const double planes = shape.has_v ? kPlanes : 1.0;
  const double pairs = static_cast<double>(shape.rotary_dim) / 2.0;
  const double turns = rows > 0.0 ? pairs * kTurnsBytes : 0.0;
  return OpCost{
      .read =
          Bytes(planes * rows * static_cast<double>(shape.head_dim) * shape.element_bytes + turns),
      .written = Bytes(planes * rows * static_cast<double>(shape.stored_row_bytes)),
      .flops = Flops(rows * pairs * 6.0),
  };
}

OpCost dequantise_cost(const CacheWriteShape& shape) {
  const double elements = kPlanes * rows_of_a_plane(shape) * static_cast<double>(shape.head_dim);
  return OpCost{
      .read = Bytes(kPlanes * rows_of_a_plane(shape) * static_cast<double>(shape.stored_row_bytes)),
      .written = Bytes(4.0 * elements),
      .flops = Flops(elements),
  };
}

}  // namespace kvfathom
