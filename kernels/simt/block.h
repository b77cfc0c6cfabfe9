// One thread block in flight: its threads as fibers, its shared memory, and who waits for what.
// Internal to the emulator.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/simt/emulator.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels::simt::emulator {

class Block;
struct Warp;

enum class State : std::uint8_t { ready, at_barrier, at_warp_operation, exited };

/// What one lane gives to, or gets from, a warp operation.
struct alignas(16) Slot {
  std::array<unsigned char, kSlotBytes> bytes;
};
/// Computes a warp operation for all lanes at once, from `in` to `out`.
using WarpOperation = void (*)(Warp&);

struct Warp {
  std::array<Slot, kWarpSize> in{};
  std::array<Slot, kWarpSize> out{};
  Traffic* traffic = nullptr;
  char sync_point = 0;  ///< its address stands for the warp's barriers
};

struct AsyncCopy {
  void* shared;
  const void* global;
  bool valid;
  int group;
};

struct Thread {
  Block* block = nullptr;
  Index3 index{};
  int lane = 0;
  int warp = 0;
  State state = State::exited;
  const char* doing = "";  ///< the operation it waits in, for messages
  Location at{"", 0};
  WarpOperation operation = nullptr;
  std::vector<AsyncCopy> copies;  ///< issued and not landed
  int open_group = 0;             ///< copies issued now belong to this group
  FiberStack stack;
  FiberContext context;
};

/// Runs blocks, one after another, on the calling operating-system thread.
class Block {
 public:
  Block(Dim3 grid,
        Dim3 block,
        std::size_t shared_bytes,
        const Schedule& schedule,
        std::uint64_t worker);

  /// Runs every thread of one block to its end. Throws EmulationError or what the kernel threw.
  void run(Index3 block_index, const std::function<void()>& kernel);

  [[nodiscard]] unsigned char* shared_memory() { return shared_.get(); }
  [[nodiscard]] bool in_shared_memory(const void* address, std::size_t bytes) const;
  [[nodiscard]] Warp& warp(int index) { return warps_[index]; }
  /// Parks the calling thread until its barrier or warp operation completes.
  void wait(Thread& thread, State state, const char* doing, Location at);
  /// The same for a barrier, which also orders memory accesses among those that meet.
  void wait_and_order(Thread& thread, State state, const char* doing, Location at);
  /// Notes the site; true where a test wants it left out.
  [[nodiscard]] bool skips(Location at);
  /// Ends the launch, naming the rule that was broken and where the block's threads stand.
  [[noreturn]] void fail(const std::string& rule, const Thread& thread) const;

  const Index3 grid_dim;
  const Index3 block_dim;
  const bool eager_copies;
  Index3 block_index{};
  Traffic traffic;
  std::unordered_map<const void*, std::size_t> cached_accesses;  ///< bytes by address
  std::vector<Location> sync_sites;

 private:
  static void fiber_main();
  void start_threads();
  void run_to_the_end();
  void run_warp(int warp);
  [[nodiscard]] bool complete_warp_operation(int warp);
  [[nodiscard]] bool release_barrier();
  void finish();
  void resume(Thread& thread);

  Order order_;
  std::mt19937_64 random_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<int> warp_order_;
  std::array<int, kWarpSize> lane_order_{};
  std::size_t shared_bytes_;
  struct Free {
    void operator()(unsigned char* memory) const;
  };
  std::unique_ptr<unsigned char, Free> shared_;
  FiberContext scheduler_;
  const std::function<void()>* kernel_ = nullptr;
  std::exception_ptr error_;
  bool progress_ = false;
  // For ThreadSanitizer: their addresses stand for what is ordered. One each, or a thread that
  // starts late would seem to wait for those that have already ended.
  char start_sync_point_ = 0;
  char barrier_sync_point_ = 0;
  char end_sync_point_ = 0;
  char failure_sync_point_ = 0;
};

/// The thread whose code runs now. Null between launches.
extern thread_local Thread* current_thread;

}  // namespace kvfathom::kernels::simt::emulator
