// The vocabulary of simt.h for nvcc. The only file with inline PTX.
#pragma once

#include <utility>

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define SIMT_DEVICE __device__ __forceinline__
#define SIMT_KERNEL __global__
#define SIMT_LAUNCH_BOUNDS(...) __launch_bounds__(__VA_ARGS__)
#define SIMT_UNROLL _Pragma("unroll")
#define SIMT_NO_UNROLL _Pragma("unroll 1")

namespace kvfathom::kernels::simt {

SIMT_DEVICE uint3 thread_idx() {
  return threadIdx;
}
SIMT_DEVICE uint3 block_idx() {
  return blockIdx;
}
SIMT_DEVICE dim3 block_dim() {
  return blockDim;
}
SIMT_DEVICE dim3 grid_dim() {
  return gridDim;
}
SIMT_DEVICE int lane_id() {
  return static_cast<int>(threadIdx.x % kWarpSize);
}

template <typename T>
SIMT_DEVICE T* shared_memory() {
  extern __shared__ __align__(128) unsigned char simt_shared_memory[];
  return reinterpret_cast<T*>(simt_shared_memory);
}

// ---- barriers and warp collectives ----
SIMT_DEVICE void syncblock() {
  __syncthreads();
}
SIMT_DEVICE void syncwarp() {
  __syncwarp();
}
template <typename T>
SIMT_DEVICE T shfl(T value, int lane) {
  return __shfl_sync(0xffffffffU, value, lane);
}
template <typename T>
SIMT_DEVICE T shfl_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffU, value, mask);
}
SIMT_DEVICE std::uint32_t ballot(bool predicate) {
  return __ballot_sync(0xffffffffU, predicate);
}

// ---- global memory ----
template <typename T>
SIMT_DEVICE T ld_stream(const void* address) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  union {
    T value;
    std::uint16_t half;
    std::uint32_t words[(sizeof(T) + 3) / 4];
  } r;
  if constexpr (sizeof(T) == 16) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.words[0]), "=r"(r.words[1]), "=r"(r.words[2]), "=r"(r.words[3])
                 : "l"(address));
  } else if constexpr (sizeof(T) == 8) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0,%1}, [%2];"
                 : "=r"(r.words[0]), "=r"(r.words[1])
                 : "l"(address));
  } else if constexpr (sizeof(T) == 4) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];"
                 : "=r"(r.words[0])
                 : "l"(address));
  } else {
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u16 %0, [%1];"
                 : "=h"(r.half)
                 : "l"(address));
  }
  return r.value;
}
template <typename T>
SIMT_DEVICE T ld(const T* address) {
  return *address;
}
template <typename T>
SIMT_DEVICE T ld_index(const T* address) {
  return __ldg(address);
}
template <typename T>
SIMT_DEVICE void st(T* address, T value) {
  *address = value;
}
template <typename T>
SIMT_DEVICE T atomic_add(T* address, T value) {
  return atomicAdd(address, value);
}
template <typename T>
SIMT_DEVICE T atomic_add_shared(T* shared, T value) {
  return atomicAdd(shared, value);
}

SIMT_DEVICE std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}
SIMT_DEVICE void cp_async16(void* shared, const void* global, bool valid = true) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const int source_bytes = valid ? 16 : 0;  // fewer than 16: the rest is zero-filled
  asm volatile(
      "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
      "l"(global),
      "r"(source_bytes)
      : "memory");
#else
  *static_cast<U32x4*>(shared) = valid ? ld_stream<U32x4>(global) : U32x4{0, 0, 0, 0};
#endif
}
SIMT_DEVICE void cp_async_commit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N>
SIMT_DEVICE void cp_async_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// ---- tensor cores ----
template <bool Transposed = false>
SIMT_DEVICE void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  if constexpr (Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}
/// sm_80 and newer. Below, there is no such instruction: launch rules must choose another kernel,
/// and a kernel that gets here traps.
SIMT_DEVICE void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}
/// sm_75 has the k8 shape only, so two of those.
SIMT_DEVICE void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  SIMT_UNROLL for (int half = 0; half < 2; ++half) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
  }
#endif
}

// ---- arithmetic ----
SIMT_DEVICE float exp2_fast(float x) {
  return exp2f(x);
}
SIMT_DEVICE float rsqrt_fast(float x) {
  return rsqrtf(x);
}
SIMT_DEVICE int count_bits(std::uint32_t mask) {
  return __popc(mask);
}
SIMT_DEVICE float mul_rounded(float a, float b) {
  return __fmul_rn(a, b);
}
SIMT_DEVICE void sincos_turns(float turns, float& sine, float& cosine) {
  sincospif(2.0F * turns, &sine, &cosine);
}
SIMT_DEVICE std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  return __byte_perm(a, b, selector);
}
SIMT_DEVICE std::uint32_t pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return static_cast<std::uint32_t>(to_bf16(low).bits) |
         static_cast<std::uint32_t>(to_bf16(high).bits) << 16;
#endif
}
SIMT_DEVICE __half2 half2_of(std::uint32_t pair) {
  return *reinterpret_cast<__half2*>(&pair);
}
SIMT_DEVICE std::uint32_t bits_of(__half2 pair) {
  return *reinterpret_cast<std::uint32_t*>(&pair);
}
SIMT_DEVICE std::uint32_t pack_f16(float low, float high) {
  return bits_of(__floats2half2_rn(low, high));
}
SIMT_DEVICE std::uint32_t mul_f16x2(std::uint32_t a, std::uint32_t b) {
  return bits_of(__hmul2(half2_of(a), half2_of(b)));
}
SIMT_DEVICE std::uint32_t sub_f16x2(std::uint32_t a, std::uint32_t b) {
  return bits_of(__hsub2(half2_of(a), half2_of(b)));
}
SIMT_DEVICE std::uint32_t f16x2_of_e4m3x2(std::uint32_t pair) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  std::uint32_t out;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"(static_cast<unsigned short>(pair)));
  return out;
#else  // the fields of an E4M3 shifted into a binary16 stand for 2^-8 of its value, exactly
  const std::uint32_t wide = permute_bytes(pair, 0, 0x1404);  // byte 0 and 1 as upper halves
  const std::uint32_t fields = (wide & 0x80008000U) | (wide & 0x7f007f00U) >> 1;
  return mul_f16x2(fields, 0x5c005c00U);  // 256
#endif
}

SIMT_DEVICE std::uint32_t bf16x2_of_e4m3x2(std::uint32_t pair) {
  // The fields of an E4M3 shifted into a bf16 stand for 2^-120 of its value, exactly.
  const std::uint32_t wide = permute_bytes(pair, 0, 0x1404);
  const std::uint32_t fields = (wide & 0x80008000U) | (wide & 0x7f007f00U) >> 4;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t out;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;"  // times 2^120, plus -0
      : "=r"(out)
      : "r"(fields), "r"(0x7b807b80U), "r"(0x80008000U));
  return out;
#else
  return pack_bf16(f32_of_bits(fields << 16) * 0x1p120F,
                   f32_of_bits(fields & 0xffff0000U) * 0x1p120F);
#endif
}

/// Throws DeviceError in the driver's words.
void check_launch(const char* what);
void allow_shared_bytes(const void* kernel, std::size_t shared_bytes);

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...),
            Dim3 grid,
            Dim3 block,
            std::size_t shared_bytes,
            Stream stream,
            Arguments&&... arguments) {
  if (shared_bytes > kDefaultSharedBytes) {
    allow_shared_bytes(reinterpret_cast<const void*>(kernel), shared_bytes);
  }
  kernel<<<dim3(grid.x, grid.y, grid.z), dim3(block.x, block.y, block.z), shared_bytes, stream>>>(
      Parameters(std::forward<Arguments>(arguments))...);
  check_launch("launch");
}

}  // namespace kvfathom::kernels::simt
