// Holding what a kernel asks of memory to the model's formula.
#pragma once

#include <gtest/gtest.h>

#include "kernels/simt/emulator_control.h"
#include "model/ops/op_cost.h"

namespace kvfathom::kernels {

/// For EXPECT_TRUE: whether launches since the last simt::take_traffic() read and stored the bytes
/// of `cost`, to the byte. Holds where nothing is counted.
inline testing::AssertionResult moved_bytes_of(const OpCost& cost) {
  const auto traffic = simt::take_traffic();
  if (!traffic) {
    return testing::AssertionSuccess();
  }
  const auto read = static_cast<double>(traffic->read_bytes());
  const auto stored = static_cast<double>(traffic->stored_bytes);
  if (read == cost.read.value() && stored == cost.written.value()) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << "read " << traffic->read_bytes() << " bytes and stored " << traffic->stored_bytes
         << "; the model says " << cost.read.value() << " and " << cost.written.value();
}

}  // namespace kvfathom::kernels
