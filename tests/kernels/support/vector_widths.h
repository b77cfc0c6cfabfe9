// CPU versions at every vector width that this machine has, and without vectors.
#pragma once

#include <cstdint>

#include <gtest/gtest.h>
#include <hwy/targets.h>

namespace kvfathom::kernels {

template <typename Test>
void at_every_vector_width(const Test& test) {
  const std::int64_t supported = hwy::SupportedTargets();
  for (std::int64_t target = 1; target > 0 && target <= HWY_SCALAR; target <<= 1) {
    if ((supported & target) != 0 || target == HWY_SCALAR) {
      SCOPED_TRACE(hwy::TargetName(target));
      hwy::SetSupportedTargetsForTest(target);
      test();
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace kvfathom::kernels
