// What one operation asks of the machine: the numbers that latency prices, benchmarks divide by
// the clock, and tests hold to the bytes that the kernels are seen to move.
#pragma once

#include "model/units.h"

namespace kvfathom {

/// One call of one kernel (or a chain of kernels that is one operation, `launches` of them).
struct OpCost {
  /// From device memory; what repeats within a launch counts once, a second pass twice.
  Bytes read = {};
  Bytes written = {};  ///< to device memory
  Flops flops = {};    ///< 2 per multiply-add, of the useful work: padding not counted
  int launches = 1;

  friend OpCost operator+(const OpCost& a, const OpCost& b) {
    return OpCost{
        a.read + b.read, a.written + b.written, a.flops + b.flops, a.launches + b.launches};
  }
  /// The call `n` times over.
  friend OpCost operator*(int n, const OpCost& cost) {
    return OpCost{n * cost.read, n * cost.written, n * cost.flops, n * cost.launches};
  }
};

}  // namespace kvfathom
