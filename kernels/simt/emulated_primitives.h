// The vocabulary of simt.h for a C++ compiler: every CUDA thread is a fiber, every collective goes
// through the emulator. See emulator.h for what it notices.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/simt/emulator.h"

#define SIMT_DEVICE inline
#define SIMT_KERNEL
#define SIMT_LAUNCH_BOUNDS(...)
#define SIMT_UNROLL
#define SIMT_NO_UNROLL

namespace kvfathom::kernels::simt {

using emulator::here;
using emulator::Location;

SIMT_DEVICE emulator::Index3 thread_idx() {
  return emulator::thread_idx();
}
SIMT_DEVICE emulator::Index3 block_idx() {
  return emulator::block_idx();
}
SIMT_DEVICE emulator::Index3 block_dim() {
  return emulator::block_dim();
}
SIMT_DEVICE emulator::Index3 grid_dim() {
  return emulator::grid_dim();
}
SIMT_DEVICE int lane_id() {
  return emulator::lane();
}
template <typename T>
SIMT_DEVICE T* shared_memory() {
  return reinterpret_cast<T*>(emulator::shared_memory());
}

// ---- barriers and warp collectives ----
SIMT_DEVICE void syncblock(Location at = here()) {
  emulator::sync_block(at);
}
SIMT_DEVICE void syncwarp(Location at = here()) {
  emulator::sync_warp(at);
}
template <typename T>
SIMT_DEVICE T shfl(T value, int lane, Location at = here()) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= emulator::kSlotBytes);
  emulator::exchange(&value, sizeof(T), lane, at);
  return value;
}
template <typename T>
SIMT_DEVICE T shfl_xor(T value, int mask, Location at = here()) {
  return shfl(value, emulator::lane() ^ mask, at);
}
SIMT_DEVICE std::uint32_t ballot(bool predicate, Location at = here()) {
  return emulator::ballot(predicate, at);
}

// ---- global memory ----
template <typename T>
SIMT_DEVICE T ld_stream(const void* address) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  emulator::count_streamed(address, sizeof(T));
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}
template <typename T>
SIMT_DEVICE T ld(const T* address) {
  emulator::count_cached(address, sizeof(T));
  return *address;
}
template <typename T>
SIMT_DEVICE T ld_index(const T* address) {
  return *address;
}
template <typename T>
SIMT_DEVICE void st(T* address, std::type_identity_t<T> value) {
  emulator::count_stored(address, sizeof(T));
  *address = value;
}
template <typename T>
SIMT_DEVICE T atomic_add(T* address, std::type_identity_t<T> value) {
  emulator::count_stored(address, sizeof(T));
  return std::atomic_ref<T>(*address).fetch_add(value, std::memory_order_relaxed);
}
template <typename T>
SIMT_DEVICE T atomic_add_shared(T* shared, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*shared).fetch_add(value, std::memory_order_relaxed);
}

SIMT_DEVICE void cp_async16(void* shared,
                            const void* global,
                            bool valid = true,
                            Location at = here()) {
  emulator::copy_async16(shared, global, valid, at);
}
SIMT_DEVICE void cp_async_commit() {
  emulator::copy_async_commit();
}
template <int N>
SIMT_DEVICE void cp_async_wait(Location at = here()) {
  emulator::copy_async_wait(N, at);
}

// ---- tensor cores ----
template <bool Transposed = false>
SIMT_DEVICE void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, Location at = here()) {
  emulator::ldmatrix_x4(r, row, Transposed, at);
}
SIMT_DEVICE void mma_bf16(float (&d)[4],
                          const std::uint32_t (&a)[4],
                          const std::uint32_t (&b)[2],
                          Location at = here()) {
  emulator::mma_16x8x16(emulator::Operand::bf16, d, a, b, at);
}
SIMT_DEVICE void mma_f16(float (&d)[4],
                         const std::uint32_t (&a)[4],
                         const std::uint32_t (&b)[2],
                         Location at = here()) {
  emulator::mma_16x8x16(emulator::Operand::f16, d, a, b, at);
}

// ---- arithmetic ----
SIMT_DEVICE float exp2_fast(float x) {
  return std::exp2(x);
}
SIMT_DEVICE float rsqrt_fast(float x) {
  return 1.0F / std::sqrt(x);
}
SIMT_DEVICE int count_bits(std::uint32_t mask) {
  return std::popcount(mask);
}
SIMT_DEVICE float mul_rounded(float a, float b) {
  const volatile float product = a * b;  // volatile: no compiler fuses it with what follows
  return product;
}
SIMT_DEVICE void sincos_turns(float turns, float& sine, float& cosine) {
  const double angle = 2.0 * 3.14159265358979323846 * static_cast<double>(turns);
  sine = static_cast<float>(std::sin(angle));
  cosine = static_cast<float>(std::cos(angle));
}
SIMT_DEVICE std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
  std::uint32_t out = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned from = selector >> 4 * i & 7U;
    out |= static_cast<std::uint32_t>(bytes >> 8 * from & 0xffU) << 8 * i;
  }
  return out;
}
SIMT_DEVICE std::uint32_t pack_bf16(float low, float high) {
  return static_cast<std::uint32_t>(to_bf16(low).bits) |
         static_cast<std::uint32_t>(to_bf16(high).bits) << 16;
}
SIMT_DEVICE std::uint32_t pack_f16(float low, float high) {
  return static_cast<std::uint32_t>(to_f16(low).bits) |
         static_cast<std::uint32_t>(to_f16(high).bits) << 16;
}
SIMT_DEVICE float half_of_pair(std::uint32_t pair, int half) {
  return to_f32(F16{static_cast<std::uint16_t>(pair >> 16 * half)});
}
SIMT_DEVICE std::uint32_t mul_f16x2(std::uint32_t a, std::uint32_t b) {
  return pack_f16(half_of_pair(a, 0) * half_of_pair(b, 0), half_of_pair(a, 1) * half_of_pair(b, 1));
}
SIMT_DEVICE std::uint32_t sub_f16x2(std::uint32_t a, std::uint32_t b) {
  return pack_f16(half_of_pair(a, 0) - half_of_pair(b, 0), half_of_pair(a, 1) - half_of_pair(b, 1));
}
SIMT_DEVICE std::uint32_t f16x2_of_e4m3x2(std::uint32_t pair) {
  return pack_f16(to_f32(Fp8E4m3{static_cast<std::uint8_t>(pair)}),
                  to_f32(Fp8E4m3{static_cast<std::uint8_t>(pair >> 8)}));
}
SIMT_DEVICE std::uint32_t bf16x2_of_e4m3x2(std::uint32_t pair) {
  return pack_bf16(to_f32(Fp8E4m3{static_cast<std::uint8_t>(pair)}),
                   to_f32(Fp8E4m3{static_cast<std::uint8_t>(pair >> 8)}));
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...),
            Dim3 grid,
            Dim3 block,
            std::size_t shared_bytes,
            Stream /*stream*/,
            Arguments&&... arguments) {
  emulator::launch(grid, block, shared_bytes, [&] { kernel(Parameters(arguments)...); });
}

}  // namespace kvfathom::kernels::simt
