// The emulator notices planted bugs, does not care about the order of threads, and counts.
#include "kernels/simt/emulator.h"

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/simt/simt.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels::simt {
namespace {

// ---- planted bugs ----
SIMT_KERNEL void divergent_barrier() {
  if (thread_idx().x < 64) {
    syncblock();
  } else {
    syncblock();
  }
}
SIMT_KERNEL void exit_before_barrier() {
  if (thread_idx().x != 5) {
    syncblock();
  }
}
SIMT_KERNEL void different_warp_operations() {
  if (thread_idx().x % 2 == 1) {
    static_cast<void>(shfl_xor(1.0F, 1));
  } else {
    syncwarp();
  }
}
SIMT_KERNEL void exit_before_shuffle() {
  if (thread_idx().x != 3) {
    static_cast<void>(shfl_xor(1.0F, 1));
  }
}
SIMT_KERNEL void wait_for_each_other() {
  if (thread_idx().x % 2 == 1) {
    syncblock();
  } else {
    syncwarp();
  }
}
SIMT_KERNEL void misaligned_copy(const char* from) {
  cp_async16(shared_memory<char>() + 8, from);
  cp_async_commit();
  cp_async_wait<0>();
}
SIMT_KERNEL void copy_beyond_shared_memory(const char* from) {
  cp_async16(shared_memory<char>() + 16 * thread_idx().x, from);
  cp_async_commit();
  cp_async_wait<0>();
}
SIMT_KERNEL void forgotten_copy(const char* from) {
  cp_async16(shared_memory<char>() + 16 * thread_idx().x, from);
  cp_async_commit();
}
SIMT_KERNEL void ldmatrix_outside() {
  std::uint32_t r[4];
  ldmatrix_x4(r, shared_memory<char>() + 16 * thread_idx().x);
}
SIMT_KERNEL void throws() {
  throw std::runtime_error("from a kernel");
}

template <typename Launch>
std::string error_of(const Launch& launch_it) {
  try {
    launch_it();
  } catch (const EmulationError& error) {
    return error.what();
  }
  return "nothing";
}

struct Planted {
  const char* expected;
  std::function<void()> launch_it;
};

TEST(EmulatorSmall, NoticesPlantedBugsInEveryOrder) {
  alignas(16) static char source[16] = {};
  const std::vector<Planted> bugs = {
      {"divergent barrier", [] { launch(divergent_barrier, 1, 128, 0, nullptr); }},
      {"a barrier waits for threads that have exited",
       [] { launch(exit_before_barrier, 1, 64, 0, nullptr); }},
      {"lanes of one warp meet in different operations",
       [] { launch(different_warp_operations, 1, 32, 0, nullptr); }},
      {"a warp operation waits for a lane that has exited",
       [] { launch(exit_before_shuffle, 1, 32, 0, nullptr); }},
      {"deadlock", [] { launch(wait_for_each_other, 1, 32, 0, nullptr); }},
      {"cp_async16 wants", [] { launch(misaligned_copy, 1, 32, 1024, nullptr, source); }},
      {"cp_async16 wants", [] { launch(copy_beyond_shared_memory, 1, 64, 512, nullptr, source); }},
      {"a thread exits with asynchronous copies in flight",
       [] { launch(forgotten_copy, 1, 32, 1024, nullptr, source); }},
      {"ldmatrix wants", [] { launch(ldmatrix_outside, 1, 32, 256, nullptr); }},
  };
  for (const Planted& bug : bugs) {
    for (const Schedule& schedule : all_schedules()) {
      set_schedule(schedule);
      EXPECT_EQ(error_of(bug.launch_it).substr(0, std::string(bug.expected).size()), bug.expected);
    }
  }
  set_schedule({});
}

TEST(EmulatorSmall, MessagesNameBothParties) {
  const std::string text = error_of([] { launch(divergent_barrier, 1, 128, 0, nullptr); });
  EXPECT_NE(text.find("block (0, 0, 0); thread "), std::string::npos) << text;
  const std::string file = "emulator_test.cpp:";
  EXPECT_NE(text.find(file), text.rfind(file)) << text;
}

TEST(EmulatorSmall, WhatAKernelThrowsArrives) {
  EXPECT_THROW(launch(throws, 1, 32, 0, nullptr), std::runtime_error);
}

TEST(EmulatorSmall, RefusesLaunchesThatAGpuWouldRefuse) {
  EXPECT_THROW(launch(exit_before_barrier, 1, 33, 0, nullptr), DeviceError);
  EXPECT_THROW(launch(exit_before_barrier, 1, 2048, 0, nullptr), DeviceError);
  EXPECT_THROW(launch(exit_before_barrier, Dim3(1, 70000), 32, 0, nullptr), DeviceError);
  EXPECT_THROW(launch(exit_before_barrier, 1, 32, 232449, nullptr), DeviceError);
}

// ---- correct kernels ----

// Reverses each block's run of 128 values through shared memory.
SIMT_KERNEL void reverse_blocks(const float* in, float* out) {
  float* shared = shared_memory<float>();
  const unsigned i = thread_idx().x;
  const unsigned n = block_dim().x;
  shared[i] = ld(in + block_idx().x * n + i);
  syncblock();
  st(out + block_idx().x * n + i, shared[n - 1 - i]);
}

TEST(EmulatorSmall, EveryOrderGivesTheSameResult) {
  std::vector<float> in(512);
  std::iota(in.begin(), in.end(), 0.0F);
  under_every_schedule([&] {
    std::vector<float> out(512, NAN);
    launch(reverse_blocks, 4, 128, 128 * sizeof(float), nullptr, in.data(), out.data());
    for (std::size_t i = 0; i < out.size(); ++i) {
      ASSERT_EQ(out[i], in[i / 128 * 128 + 127 - i % 128]);
    }
  });
}

TEST(EmulatorSmall, AMissingBarrierShowsInEveryOrder) {
  std::vector<float> in(128, 1.0F);
  const auto is_right = [&] {
    std::vector<float> out(128, NAN);
    launch(reverse_blocks, 1, 128, 128 * sizeof(float), nullptr, in.data(), out.data());
    return out == in;
  };
  static_cast<void>(take_sync_sites());
  ASSERT_TRUE(is_right());
  const std::vector<SyncSite> sites = take_sync_sites();
  if (sites.empty()) {
    GTEST_SKIP() << "ThreadSanitizer would report the planted race";
  }
  ASSERT_EQ(sites.size(), 1U);
  for (const Order order : {Order::forward, Order::reverse, Order::shuffled}) {
    set_schedule({.order = order});
    skip_sync(sites[0]);
    EXPECT_FALSE(is_right());
    skip_sync({});
    EXPECT_TRUE(is_right());
  }
  set_schedule({});
}

SIMT_KERNEL void copy_through_shared(const float* in, float* out, bool valid) {
  float* shared = shared_memory<float>();
  cp_async16(shared + 4 * thread_idx().x, in + 4 * thread_idx().x, valid);
  cp_async_commit();
  cp_async_wait<0>();
  for (unsigned i = 0; i < 4; ++i) {
    st(out + 4 * thread_idx().x + i, shared[4 * thread_idx().x + i]);
  }
}

TEST(EmulatorSmall, AsyncCopiesLandAtTheWaitAndZeroWhatIsNotValid) {
  alignas(16) float in[128];
  std::iota(in, in + 128, 1.0F);
  std::vector<float> out(128, NAN);
  launch(copy_through_shared, 1, 32, sizeof in, nullptr, in, out.data(), true);
  EXPECT_EQ(out, std::vector<float>(in, in + 128));
  launch(copy_through_shared, 1, 32, sizeof in, nullptr, in, out.data(), false);
  EXPECT_EQ(out, std::vector<float>(128, 0.0F));
  expect_every_sync_matters([&] {
    launch(copy_through_shared, 1, 32, sizeof in, nullptr, in, out.data(), true);
    return out == std::vector<float>(in, in + 128);
  });
}

SIMT_KERNEL void warp_operations(float* sums, std::uint32_t* votes, int* rotated) {
  const int lane = lane_id();
  st(sums + lane, warp_sum(static_cast<float>(lane)));
  st(votes + lane, ballot(lane % 3 == 0));
  st(rotated + lane, shfl(lane, (lane + 5) % kWarpSize));
}

TEST(EmulatorSmall, WarpOperations) {
  std::vector<float> sums(32);
  std::vector<std::uint32_t> votes(32);
  std::vector<int> rotated(32);
  launch(warp_operations, 1, 32, 0, nullptr, sums.data(), votes.data(), rotated.data());
  for (int lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(sums[lane], 496.0F);
    EXPECT_EQ(votes[lane], 0x49249249U);
    EXPECT_EQ(rotated[lane], (lane + 5) % 32);
  }
}

// One 16x8x16 product with fragments gathered element by element as the PTX manual lays them out,
// A's by ldmatrix and B's by ldmatrix.trans.
SIMT_KERNEL void one_product(const F16* a, const F16* b, float* d) {
  F16* shared_a = shared_memory<F16>();  // [16][16]
  F16* shared_b = shared_a + 256;        // [16][8], rows of 16 bytes
  const int lane = lane_id();
  for (int i = lane; i < 256; i += kWarpSize) {
    shared_a[i] = ld(a + i);
  }
  for (int i = lane; i < 128; i += kWarpSize) {
    shared_b[i] = ld(b + i);
  }
  syncwarp();
  std::uint32_t fragment_a[4];
  ldmatrix_x4(fragment_a, shared_a + lane % 16 * 16 + lane / 16 * 8);
  std::uint32_t both[4];
  ldmatrix_x4<true>(both, shared_b + lane % 16 * 8);
  const std::uint32_t fragment_b[2] = {both[0], both[1]};
  float sums[4] = {};
  mma_f16(sums, fragment_a, fragment_b);
  const int row = lane / 4;
  const int column = lane % 4 * 2;
  for (int i = 0; i < 4; ++i) {
    st(d + (row + i / 2 * 8) * 8 + column + i % 2, sums[i]);
  }
}

TEST(EmulatorSmall, MatrixProductsFollowTheFragmentLayouts) {
  std::vector<F16> a(256);
  std::vector<F16> b(128);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = to_f16(static_cast<float>(i % 13) - 6.0F);
  }
  for (std::size_t i = 0; i < b.size(); ++i) {
    b[i] = to_f16(static_cast<float>(i % 7) - 3.0F);
  }
  under_every_schedule([&] {
    std::vector<float> d(128, NAN);
    launch(one_product, 1, 32, 384 * sizeof(F16), nullptr, a.data(), b.data(), d.data());
    for (std::size_t row = 0; row < 16; ++row) {
      for (std::size_t column = 0; column < 8; ++column) {
        float want = 0.0F;
        for (std::size_t k = 0; k < 16; ++k) {
          want += to_f32(a[row * 16 + k]) * to_f32(b[k * 8 + column]);
        }
        ASSERT_EQ(d[row * 8 + column], want);  // small integers: exact
      }
    }
  });
}

SIMT_KERNEL void load_rows(int pitch_bytes) {
  std::uint32_t r[4];
  ldmatrix_x4(r, shared_memory<char>() + pitch_bytes * lane_id());
}

TEST(EmulatorSmall, CountsBankConflictsOfMatrixLoads) {
  if (!take_traffic()) {
    GTEST_SKIP() << "nothing is counted under ThreadSanitizer";
  }
  launch(load_rows, 1, 32, 32 * 144, nullptr, 144);  // 128 + 16: eight rows, eight columns
  Traffic padded = take_traffic().value();
  EXPECT_EQ(padded.ldmatrix_phases, 4U);
  EXPECT_EQ(padded.ldmatrix_cycles, 4U);
  launch(load_rows, 1, 32, 32 * 128, nullptr, 128);  // all rows in one column
  EXPECT_EQ(take_traffic()->ldmatrix_cycles, 32U);
}

SIMT_KERNEL void touch_memory(const float* in, float* out) {
  const auto row = ld_stream<U32x4>(in + 4 * thread_idx().x);
  const float shared_by_all = ld(in);
  st(out + block_idx().x * block_dim().x + thread_idx().x,
     shared_by_all + static_cast<float>(row.x & 0U));
}

TEST(EmulatorSmall, CountsTraffic) {
  alignas(16) static float in[128];
  std::fill(in, in + 128, 2.0F);
  for (const int workers : {1, 2}) {
    set_schedule({.n_workers = workers});
    std::vector<float> out(96);
    if (!take_traffic()) {
      GTEST_SKIP() << "nothing is counted under ThreadSanitizer";
    }
    launch(touch_memory, 3, 32, 0, nullptr, in, out.data());
    const Traffic traffic = take_traffic().value();
    EXPECT_EQ(traffic.streamed_bytes, 3U * 512);  // every request
    EXPECT_EQ(traffic.cached_bytes, 4U);          // distinct addresses of the launch
    EXPECT_EQ(traffic.stored_bytes, 3U * 128);
  }
  set_schedule({});
}

SIMT_KERNEL void add_up(float* sum) {
  static_cast<void>(atomic_add(sum, 1.0F));
}

TEST(EmulatorSmall, AtomicsOfManyBlocksAddUp) {
  set_schedule({.n_workers = 2});
  float sum = 0.0F;
  launch(add_up, 64, 64, 0, nullptr, &sum);
  EXPECT_EQ(sum, 4096.0F);
  set_schedule({});
}

TEST(EmulatorSmall, PackedArithmeticRoundsEachHalf) {
  EXPECT_EQ(mul_f16x2(pack_f16(3.0F, 0.5F), pack_f16(2.0F, 4.0F)), pack_f16(6.0F, 2.0F));
  EXPECT_EQ(sub_f16x2(pack_f16(1027.0F, 1.0F), pack_f16(1152.0F, 1.0F)), pack_f16(-125.0F, 0.0F));
  EXPECT_EQ(permute_bytes(0x33221100U, 0x77665544U, 0x7250U), 0x77225500U);
  for (unsigned bits = 0; bits < 0x7f; ++bits) {
    const float value = to_f32(Fp8E4m3{static_cast<std::uint8_t>(bits)});
    EXPECT_EQ(f16x2_of_e4m3x2(bits | bits << 8 | 0x8000U), pack_f16(value, -value));
  }
}

}  // namespace
}  // namespace kvfathom::kernels::simt
