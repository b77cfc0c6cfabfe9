// What a warp does together: exchange of registers, matrix loads and matrix products, in the
// fragment layouts of the PTX manual (mma.m16n8k16, ldmatrix).
#include <algorithm>
#include <type_traits>

#include "kernels/simt/block.h"
#include "kernels/simt/sanitizer.h"

namespace kvfathom::kernels::simt::emulator {
namespace {

template <typename T>
void put(Slot& slot, const T& value, std::size_t offset = 0) {
  static_assert(std::is_trivially_copyable_v<T>);
  __builtin_memcpy(slot.bytes.data() + offset, &value, sizeof(T));
}
template <typename T>
T get(const Slot& slot, std::size_t offset = 0) {
  T value{};
  __builtin_memcpy(&value, slot.bytes.data() + offset, sizeof(T));
  return value;
}

Warp& warp_of(const Thread& thread) {
  return thread.block->warp(thread.warp);
}

void join(Thread& thread, WarpOperation operation, const char* name, Location at) {
  thread.operation = operation;
  thread.block->wait(thread, State::at_warp_operation, name, at);
}

void copy_slots(Warp& warp) {
  warp.out = warp.in;
}

void gather_votes(Warp& warp) {
  std::uint32_t votes = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    votes |= get<std::uint32_t>(warp.in[lane]) << lane;
  }
  for (Slot& slot : warp.out) {
    put(slot, votes);
  }
}

// An 8-row phase takes one cycle if its rows fall into eight different 16-byte columns of the 128
// bytes that the banks deliver.
void count_bank_conflicts(Warp& warp) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    std::array<int, 8> uses{};
    for (int row = 0; row < 8; ++row) {
      const auto address = get<std::uintptr_t>(warp.in[matrix * 8 + row]);
      ++uses[address / 16 % 8];
    }
    ++warp.traffic->ldmatrix_phases;
    warp.traffic->ldmatrix_cycles += *std::max_element(uses.begin(), uses.end());
  }
}

std::uint16_t element(const Warp& warp, int matrix, int row, int column) {
  const auto* address = get<const unsigned char*>(warp.in[matrix * 8 + row]);
  std::uint16_t value = 0;
  __builtin_memcpy(&value, address + std::ptrdiff_t{2} * column, sizeof value);
  return value;
}

template <bool Transposed>
void load_matrices(Warp& warp) {
  count_bank_conflicts(warp);
  for (int matrix = 0; matrix < 4; ++matrix) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int major = lane / 4;
      const int minor = lane % 4 * 2;
      const std::uint32_t low =
          Transposed ? element(warp, matrix, minor, major) : element(warp, matrix, major, minor);
      const std::uint32_t high = Transposed ? element(warp, matrix, minor + 1, major)
                                            : element(warp, matrix, major, minor + 1);
      put(warp.out[lane], low | high << 16, static_cast<std::size_t>(4) * matrix);
    }
  }
}

template <typename Element>
float half_of(std::uint32_t pair, int half) {
  return to_f32(Element{static_cast<std::uint16_t>(pair >> 16 * half)});
}

// D = A B for the whole warp; each lane adds its part of D to its accumulators.
template <typename Element>
void multiply(Warp& warp) {
  std::array<std::array<float, 16>, 16> a{};
  std::array<std::array<float, 8>, 16> b{};
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto registers = get<std::array<std::uint32_t, 6>>(warp.in[lane]);
    const int group = lane / 4;
    const int pair = lane % 4 * 2;
    for (int half = 0; half < 2; ++half) {
      a[group][pair + half] = half_of<Element>(registers[0], half);
      a[group + 8][pair + half] = half_of<Element>(registers[1], half);
      a[group][pair + 8 + half] = half_of<Element>(registers[2], half);
      a[group + 8][pair + 8 + half] = half_of<Element>(registers[3], half);
      b[pair + half][group] = half_of<Element>(registers[4], half);
      b[pair + 8 + half][group] = half_of<Element>(registers[5], half);
    }
  }
  std::array<std::array<float, 8>, 16> d{};
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) {
        d[row][column] += a[row][k] * b[k][column];
      }
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int group = lane / 4;
    const int pair = lane % 4 * 2;
    put(warp.out[lane],
        std::array<float, 4>{
            d[group][pair], d[group][pair + 1], d[group + 8][pair], d[group + 8][pair + 1]});
  }
}

}  // namespace

void exchange(void* value, std::size_t bytes, int source, Location at) {
  Thread& thread = *current_thread;
  Warp& warp = warp_of(thread);
  auto* to = static_cast<unsigned char*>(value);
  for (std::size_t i = 0; i < bytes; ++i) {  // a call of memcpy would look like a shared access
    warp.in[thread.lane].bytes[i] = to[i];
  }
  join(thread, copy_slots, "a warp shuffle", at);
  const Slot& from = warp.out[static_cast<unsigned>(source) % kWarpSize];
  for (std::size_t i = 0; i < bytes; ++i) {
    to[i] = from.bytes[i];
  }
}

std::uint32_t ballot(bool predicate, Location at) {
  Thread& thread = *current_thread;
  Warp& warp = warp_of(thread);
  put(warp.in[thread.lane], static_cast<std::uint32_t>(predicate ? 1 : 0));
  join(thread, gather_votes, "a warp vote", at);
  return get<std::uint32_t>(warp.out[thread.lane]);
}

void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, bool transposed, Location at) {
  Thread& thread = *current_thread;
  Warp& warp = warp_of(thread);
  thread.at = at;
  thread.doing = "ldmatrix";
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0 || !thread.block->in_shared_memory(row, 16)) {
    thread.block->fail("ldmatrix wants 16-byte rows of shared memory", thread);
  }
  sanitizer::read(row, 16);
  put(warp.in[thread.lane], row);
  join(thread, transposed ? load_matrices<true> : load_matrices<false>, "ldmatrix", at);
  for (std::size_t i = 0; i < 4; ++i) {
    r[i] = get<std::uint32_t>(warp.out[thread.lane], 4 * i);
  }
}

void mma_16x8x16(Operand operand,
                 float (&d)[4],
                 const std::uint32_t (&a)[4],
                 const std::uint32_t (&b)[2],
                 Location at) {
  Thread& thread = *current_thread;
  Warp& warp = warp_of(thread);
  put(warp.in[thread.lane], std::array<std::uint32_t, 6>{a[0], a[1], a[2], a[3], b[0], b[1]});
  const bool is_bf16 = operand == Operand::bf16;
  join(thread, is_bf16 ? multiply<Bf16> : multiply<F16>, is_bf16 ? "mma bf16" : "mma f16", at);
  for (std::size_t i = 0; i < 4; ++i) {
    d[i] += get<float>(warp.out[thread.lane], sizeof(float) * i);
  }
}

}  // namespace kvfathom::kernels::simt::emulator
