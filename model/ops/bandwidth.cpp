#include "model/ops/bandwidth.h"

namespace kvfathom {

OpCost read_cost(Bytes size, int n_partial_sums) {
  return OpCost{.read = size, .written = Bytes(4.0 * n_partial_sums), .flops = Flops(0)};
}

OpCost write_cost(Bytes size) {
  return OpCost{.read = Bytes(0), .written = size, .flops = Flops(0)};
}

OpCost copy_cost(Bytes size) {
  return OpCost{.read = size, .written = size, .flops = Flops(0)};
}

}  // namespace kvfathom
