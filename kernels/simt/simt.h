// The small vocabulary that kernels are written in. nvcc turns it into native CUDA; any C++20
// compiler turns the same source into fibers on the CPU, for tests on machines without a GPU.
//
// Rules for kernel code
//   - kernels are functions marked SIMT_KERNEL, started by simt::launch, never by <<<>>>;
//   - shared memory comes from shared_memory<T>(): `static __shared__` would escape the poison;
//   - every access to global memory goes through ld_stream, cp_async16, ld, ld_index, st or
//     atomic_add, so that the emulator can count what a kernel moves;
//   - inline PTX stands in cuda_primitives.h and nowhere else.
//
// What both implementations define, in namespace simt:
//   thread_idx() block_idx() block_dim() grid_dim()   each with .x .y .z
//   lane_id()                                         0..31
//   shared_memory<T>()          the block's dynamic shared memory, 128-byte aligned
//   syncblock() syncwarp()      barriers
//   shfl(v, lane) shfl_xor(v, mask) ballot(predicate) warp collectives; all 32 lanes take part
//   ld_stream<T>(p)             T of 2, 4, 8 or 16 bytes, read once: no L1 allocation
//   ld(p)                       any trivially copyable T: data that several threads read (cached)
//   ld_index(p)                 page tables and lengths: not part of the traffic that is counted
//   st(p, v)  atomic_add(p, v)
//   atomic_add_shared(p, v)     in shared memory: not part of the traffic
//   cp_async16(shared, global, valid)  cp_async_commit()  cp_async_wait<N>()
//                               16 bytes to shared memory, zeros where not valid; wait until at
//                               most N newest groups are in flight. Below sm_80: an ordinary copy
//   ldmatrix_x4<Transposed>(r, row)    four 8x8 matrices of 16-bit elements; lane i gives row i
//   mma_bf16(d, a, b) mma_f16(d, a, b) D[16x8] += A[16x16] B[16x8], float accumulate, PTX layout
//   exp2_fast(x) rsqrt_fast(x)
//   count_bits(mask)
//   mul_rounded(a, b)           a * b, never fused with a sum that follows
//   sincos_turns(x, sin, cos)   of x full turns, |x| <= 1
//   pack_bf16(lo, hi) pack_f16(lo, hi)  permute_bytes(a, b, selector)
//   mul_f16x2(a, b) sub_f16x2(a, b)     two f16 at once, each rounded
//   f16x2_of_e4m3x2(v)                  the two E4M3 in the low 16 bits as f16, exact
//   bf16x2_of_e4m3x2(v)                 ... as bf16, exact; finite values only
//   launch(kernel, grid, block, shared_bytes, stream, arguments...)
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/number_formats.h"
#include "kernels/simt/types.h"

#if defined(__CUDACC__)
#include "kernels/simt/cuda_primitives.h"
#else
#include "kernels/simt/emulated_primitives.h"
#endif

namespace kvfathom::kernels::simt {

SIMT_DEVICE float bf16_low(std::uint32_t pair) {
  return f32_of_bits(pair << 16);
}
SIMT_DEVICE float bf16_high(std::uint32_t pair) {
  return f32_of_bits(pair & 0xffff0000U);
}
SIMT_DEVICE float f16_low(std::uint32_t pair) {
  return to_f32(F16{static_cast<std::uint16_t>(pair)});
}
SIMT_DEVICE float f16_high(std::uint32_t pair) {
  return to_f32(F16{static_cast<std::uint16_t>(pair >> 16)});
}

/// combine(combine(v0, v1), ...) of all lanes, in every lane; the tree is the same on every run.
template <typename T, typename Combine>
SIMT_DEVICE T warp_reduce(T value, Combine combine) {
  SIMT_UNROLL for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    value = combine(value, shfl_xor(value, mask));
  }
  return value;
}
SIMT_DEVICE float warp_sum(float value) {
  return warp_reduce(value, [](float a, float b) { return a + b; });
}
SIMT_DEVICE float warp_max(float value) {
  return warp_reduce(value, [](float a, float b) { return a > b ? a : b; });
}

}  // namespace kvfathom::kernels::simt
