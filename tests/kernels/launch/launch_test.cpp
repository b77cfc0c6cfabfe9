#include "kernels/launch/launch.h"

#include <gtest/gtest.h>

#include "kernels/simt/emulator_control.h"
#include "tests/kernels/support/compare.h"

namespace kvfathom::kernels {
namespace {

TEST(EmptyLaunchSmall, EveryLaunchHappens) {
  SKIP_WITHOUT_DEVICE();
  for (const int n : {0, 1, 7}) {
    const DeviceArray<std::uint32_t> counter(std::vector<std::uint32_t>(1, 0));
    empty_launch_launch({.n_launches = n, .counter = counter.data()});
    synchronize();
    EXPECT_EQ(counter.to_host(), std::vector<std::uint32_t>{static_cast<std::uint32_t>(n)});
  }
}

TEST(EmptyLaunchSmall, WithoutACounterNothingIsTouched) {
  SKIP_WITHOUT_DEVICE();
  static_cast<void>(simt::take_traffic());
  empty_launch_launch({.n_launches = 3});
  synchronize();
  if (const auto traffic = simt::take_traffic()) {
    EXPECT_EQ(traffic->read_bytes() + traffic->stored_bytes, 0U);
  }
}

TEST(EmptyLaunch, EveryRegionHappensOnTheCpu) {
  for (const int n_threads : {0, 1, 3}) {
    std::uint32_t counter = 0;
    empty_launch_cpu({.n_launches = 5, .counter = &counter}, n_threads);
    EXPECT_EQ(counter, 5U);
  }
}

}  // namespace
}  // namespace kvfathom::kernels
