// Launches, counters and the device that the emulator pretends to be.
#include "kernels/simt/emulator.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/common/error.h"
#include "kernels/simt/block.h"
#include "kernels/simt/sanitizer.h"

namespace kvfathom::kernels {
namespace {

// An H200's figures, so that launch rules are tested as they will act there.
const DeviceInfo& default_device() {
  static const DeviceInfo info{
      .name = "emulator",
      .emulated = true,
      .compute_capability = 90,
      .n_multiprocessors = 132,
      .shared_bytes_per_block = 232448,
      .l2_bytes = 60LL << 20,
      .memory_bytes = 4LL << 30,
  };
  return info;
}

DeviceInfo current_device = default_device();

constexpr std::size_t kDeviceAlignment = 256;

}  // namespace

std::string device_missing() {
  return {};
}
const DeviceInfo& device() {
  return current_device;
}

void* device_allocate(std::size_t bytes) {
  const std::size_t rounded = std::max(
      kDeviceAlignment, (bytes + kDeviceAlignment - 1) / kDeviceAlignment * kDeviceAlignment);
  void* memory = std::aligned_alloc(kDeviceAlignment, rounded);
  if (memory == nullptr) {
    throw DeviceError("out of memory: " + std::to_string(bytes) + " bytes");
  }
  std::memset(memory, 0xff, rounded);
  simt::sanitizer::poison(static_cast<unsigned char*>(memory) + bytes, rounded - bytes);
  return memory;
}
void device_free(void* memory) noexcept {
  std::free(memory);
}
void copy_to_device(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}
void copy_from_device(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}
void synchronize(Stream /*stream*/) {}

// Pinned memory is like the device's, and streams take turns: whatever is enqueued runs at once.
void* pinned_allocate(std::size_t bytes) {
  return device_allocate(bytes);
}
void pinned_free(void* memory) noexcept {
  device_free(memory);
}
void copy_async(void* to, const void* from, std::size_t bytes, Stream /*stream*/) {
  copy_to_device(to, from, bytes);
}
Stream create_stream() {
  return nullptr;
}
void destroy_stream(Stream /*stream*/) noexcept {}
void wait_for(Stream /*waiting*/, Stream /*earlier*/) {}

namespace simt {
namespace {

struct Control {
  std::mutex mutex;
  Schedule schedule;
  Traffic traffic;
  std::vector<SyncSite> sync_sites;
  std::optional<SyncSite> skipped;
};
Control control;

}  // namespace

void set_schedule(const Schedule& schedule) {
  control.schedule = schedule;
}
std::optional<Traffic> take_traffic() {
  if (sanitizer::thread_sanitizer()) {
    return std::nullopt;
  }
  return std::exchange(control.traffic, {});
}
void set_emulated_device(std::optional<DeviceInfo> info) {
  current_device = info.value_or(default_device());
  current_device.emulated = true;
}
std::vector<SyncSite> take_sync_sites() {
  if (sanitizer::thread_sanitizer()) {
    return {};
  }
  return std::exchange(control.sync_sites, {});
}
void skip_sync(std::optional<SyncSite> site) {
  control.skipped = std::move(site);
}

namespace emulator {

Index3 thread_idx() {
  return current_thread->index;
}
Index3 block_idx() {
  return current_thread->block->block_index;
}
Index3 block_dim() {
  return current_thread->block->block_dim;
}
Index3 grid_dim() {
  return current_thread->block->grid_dim;
}
int lane() {
  return current_thread->lane;
}
unsigned char* shared_memory() {
  return current_thread->block->shared_memory();
}

bool Block::skips(Location at) {
  const bool seen = std::any_of(sync_sites.begin(), sync_sites.end(), [&](const Location& site) {
    return site.line == at.line && site.file == at.file;
  });
  if (!seen) {
    sync_sites.push_back(at);
  }
  return control.skipped && control.skipped->line == at.line && control.skipped->file == at.file;
}

void sync_block(Location at) {
  Thread& thread = *current_thread;
  if (thread.block->skips(at)) {
    return;
  }
  thread.block->wait_and_order(thread, State::at_barrier, "syncblock", at);
}
void sync_warp(Location at) {
  Thread& thread = *current_thread;
  if (thread.block->skips(at)) {
    return;
  }
  thread.operation = nullptr;
  thread.block->wait_and_order(thread, State::at_warp_operation, "syncwarp", at);
}

void count_streamed(const void* /*address*/, std::size_t bytes) {
  current_thread->block->traffic.streamed_bytes += bytes;
}
void count_cached(const void* address, std::size_t bytes) {
  // Under ThreadSanitizer a map that grows inside one fiber and is read in another looks racy.
  if (!sanitizer::thread_sanitizer()) {
    current_thread->block->cached_accesses.emplace(address, bytes);
  }
}
void count_stored(const void* /*address*/, std::size_t bytes) {
  current_thread->block->traffic.stored_bytes += bytes;
}

namespace {

void land(const AsyncCopy& copy) {
  sanitizer::write(copy.shared, 16);
  if (copy.valid) {
    sanitizer::read(copy.global, 16);
    std::memcpy(copy.shared, copy.global, 16);
  } else {
    std::memset(copy.shared, 0, 16);
  }
}

}  // namespace

void copy_async16(void* shared, const void* global, bool valid, Location at) {
  Thread& thread = *current_thread;
  Block& block = *thread.block;
  thread.at = at;
  thread.doing = "cp_async16";
  const bool aligned = reinterpret_cast<std::uintptr_t>(shared) % 16 == 0 &&
                       reinterpret_cast<std::uintptr_t>(global) % 16 == 0;
  if (!aligned || !block.in_shared_memory(shared, 16)) {
    block.fail("cp_async16 wants 16-byte aligned addresses, the first in shared memory", thread);
  }
  block.traffic.streamed_bytes += valid ? 16 : 0;
  const AsyncCopy copy{shared, global, valid, thread.open_group};
  if (block.eager_copies) {
    land(copy);
  }
  // An eager copy stays listed, so that nobody forgets the wait.
  thread.copies.push_back(copy);
}

void copy_async_commit() {
  ++current_thread->open_group;
}

void copy_async_wait(int newest_in_flight, Location at) {
  Thread& thread = *current_thread;
  Block& block = *thread.block;
  if (block.skips(at)) {
    return;
  }
  const int first_in_flight = thread.open_group - newest_in_flight;
  const auto landed =
      std::partition_point(thread.copies.begin(), thread.copies.end(), [&](const AsyncCopy& copy) {
        return copy.group < first_in_flight;
      });
  if (!block.eager_copies) {
    std::for_each(thread.copies.begin(), landed, land);
  }
  thread.copies.erase(thread.copies.begin(), landed);
}

namespace {

/// What the workers of one launch share.
struct Launch {
  Dim3 grid;
  Dim3 block;
  std::size_t shared_bytes;
  const std::function<void()>& kernel;
  std::size_t n_blocks;
  std::atomic<std::size_t> next{0};
  std::mutex mutex{};
  std::exception_ptr error{};
  Traffic traffic{};
  std::unordered_map<const void*, std::size_t> cached_accesses{};
};

void add_sync_sites(const std::vector<Location>& sites) {
  for (const Location& at : sites) {
    const SyncSite site{at.file, at.line};
    auto& known = control.sync_sites;
    if (std::find(known.begin(), known.end(), site) == known.end()) {
      known.push_back(site);
    }
  }
}

void add_traffic(Launch& launch, const Block& block) {
  launch.traffic.streamed_bytes += block.traffic.streamed_bytes;
  launch.traffic.stored_bytes += block.traffic.stored_bytes;
  launch.traffic.ldmatrix_phases += block.traffic.ldmatrix_phases;
  launch.traffic.ldmatrix_cycles += block.traffic.ldmatrix_cycles;
  for (const auto& access : block.cached_accesses) {
    if (launch.cached_accesses.insert(access).second) {
      launch.traffic.cached_bytes += access.second;
    }
  }
}

void work(Launch& launch, std::uint64_t worker) {
  try {
    Block block(launch.grid, launch.block, launch.shared_bytes, control.schedule, worker);
    std::size_t n = 0;
    while ((n = launch.next.fetch_add(1)) < launch.n_blocks) {
      const std::size_t i = control.schedule.order == Order::reverse ? launch.n_blocks - 1 - n : n;
      const auto x = static_cast<unsigned>(i % launch.grid.x);
      const auto y = static_cast<unsigned>(i / launch.grid.x % launch.grid.y);
      const auto z = static_cast<unsigned>(i / launch.grid.x / launch.grid.y);
      block.run(Index3{x, y, z}, launch.kernel);
    }
    const std::scoped_lock lock(launch.mutex);
    add_traffic(launch, block);
    add_sync_sites(block.sync_sites);
  } catch (...) {
    launch.next = launch.n_blocks;  // the others stop after their present block
    const std::scoped_lock lock(launch.mutex);
    launch.error = std::current_exception();
  }
}

void check(Dim3 grid, Dim3 block, std::size_t shared_bytes) {
  const auto refuse = [](const std::string& what) { throw DeviceError("launch: " + what); };
  if (block.x == 0 || block.x > 1024 || block.x % kWarpSize != 0 || block.y != 1 || block.z != 1) {
    refuse("a block has 32 to 1024 threads in x, whole warps; found " + std::to_string(block.x) +
           " x " + std::to_string(block.y) + " x " + std::to_string(block.z));
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    refuse("a grid has 1 to 65535 blocks in y and z; found " + std::to_string(grid.x) + " x " +
           std::to_string(grid.y) + " x " + std::to_string(grid.z));
  }
  if (static_cast<std::int64_t>(shared_bytes) > device().shared_bytes_per_block) {
    refuse(std::to_string(shared_bytes) + " bytes of shared memory; this device has " +
           std::to_string(device().shared_bytes_per_block) + " a block");
  }
}

}  // namespace

void launch(Dim3 grid, Dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  check(grid, block, shared_bytes);
  Launch launch{
      grid, block, shared_bytes, kernel, static_cast<std::size_t>(grid.x) * grid.y * grid.z};
  if (control.schedule.n_workers <= 1) {
    work(launch, 0);
  } else {
    std::vector<std::thread> workers;
    for (int i = 0; i < control.schedule.n_workers; ++i) {
      workers.emplace_back([&launch, i] { work(launch, static_cast<std::uint64_t>(i)); });
    }
    for (std::thread& worker : workers) {
      worker.join();
    }
  }
  control.traffic.streamed_bytes += launch.traffic.streamed_bytes;
  control.traffic.cached_bytes += launch.traffic.cached_bytes;
  control.traffic.stored_bytes += launch.traffic.stored_bytes;
  control.traffic.ldmatrix_phases += launch.traffic.ldmatrix_phases;
  control.traffic.ldmatrix_cycles += launch.traffic.ldmatrix_cycles;
  if (launch.error) {
    std::rethrow_exception(launch.error);
  }
}

}  // namespace emulator
}  // namespace simt
}  // namespace kvfathom::kernels
