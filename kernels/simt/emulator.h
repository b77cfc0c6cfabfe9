// Runs kernels on the CPU: one fiber per CUDA thread, one block at a time per worker thread.
//
// What it notices, always: divergent barriers, threads that exit before a barrier, lanes that miss
// a warp operation or meet in different ones, deadlock, misaligned or out-of-range shared
// addresses, asynchronous copies that nobody waits for. What makes mistakes visible in the
// results: copies land only at the wait, shared memory is NaN before every block, threads run in
// any order. With AddressSanitizer: accesses outside a buffer. With ThreadSanitizer: data races.
//
// What it cannot show: the memory model's weakness, time, occupancy, registers.
//
// This is the interface for emulated_primitives.h; tests use emulator_control.h.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

#include "kernels/simt/emulator_control.h"
#include "kernels/simt/types.h"

namespace kvfathom::kernels::simt {

/// A kernel broke a rule of the machine. The text names the rule, the block and the source lines.
class EmulationError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace emulator {

/// Where in a kernel's source an operation stands. (clang 14 has no std::source_location.)
struct Location {
  const char* file;
  int line;
};
constexpr Location here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return Location{file, line};
}

struct Index3 {
  unsigned x, y, z;
};
inline constexpr std::size_t kSlotBytes = 32;

[[nodiscard]] Index3 thread_idx();
[[nodiscard]] Index3 block_idx();
[[nodiscard]] Index3 block_dim();
[[nodiscard]] Index3 grid_dim();
[[nodiscard]] int lane();
[[nodiscard]] unsigned char* shared_memory();

void sync_block(Location at);
void sync_warp(Location at);
/// Replaces *value by that of lane `source` (taken modulo 32).
void exchange(void* value, std::size_t bytes, int source, Location at);
[[nodiscard]] std::uint32_t ballot(bool predicate, Location at);

void count_streamed(const void* address, std::size_t bytes);
void count_cached(const void* address, std::size_t bytes);
void count_stored(const void* address, std::size_t bytes);

void copy_async16(void* shared, const void* global, bool valid, Location at);
void copy_async_commit();
void copy_async_wait(int newest_in_flight, Location at);

void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, bool transposed, Location at);
enum class Operand : std::uint8_t { f16, bf16 };
void mma_16x8x16(Operand operand,
                 float (&d)[4],
                 const std::uint32_t (&a)[4],
                 const std::uint32_t (&b)[2],
                 Location at);

/// Runs `kernel` once per thread of the grid. Throws EmulationError, or what the kernel throws.
void launch(Dim3 grid, Dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace emulator
}  // namespace kvfathom::kernels::simt
