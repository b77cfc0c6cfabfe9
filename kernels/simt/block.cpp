#include "kernels/simt/block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <sstream>
#include <utility>

#include "kernels/simt/sanitizer.h"

namespace kvfathom::kernels::simt::emulator {

thread_local Thread* current_thread = nullptr;

namespace {

constexpr std::size_t kSharedAlignment = 128;
// Reserved by the scheduler: memory that a fiber allocates and another frees looks like a race.
constexpr std::size_t kExpectedCopies = 1024;
constexpr std::size_t kExpectedSyncSites = 256;

Index3 index_of(Dim3 size) {
  return Index3{size.x, size.y, size.z};
}

}  // namespace

Block::Block(
    Dim3 grid, Dim3 block, std::size_t shared_bytes, const Schedule& schedule, std::uint64_t worker)
    : grid_dim(index_of(grid)),
      block_dim(index_of(block)),
      eager_copies(schedule.eager_copies),
      order_(schedule.order),
      random_(schedule.seed * 977 + worker),
      threads_(block.x),
      warps_(block.x / kWarpSize),
      warp_order_(warps_.size()),
      shared_bytes_(shared_bytes) {
  std::iota(warp_order_.begin(), warp_order_.end(), 0);
  std::iota(lane_order_.begin(), lane_order_.end(), 0);
  sync_sites.reserve(kExpectedSyncSites);
  const std::size_t rounded =
      (shared_bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
  if (rounded > 0) {
    shared_.reset(static_cast<unsigned char*>(std::aligned_alloc(kSharedAlignment, rounded)));
    sanitizer::poison(shared_.get() + shared_bytes, rounded - shared_bytes);
  }
}

void Block::Free::operator()(unsigned char* memory) const {
  std::free(memory);
}

bool Block::in_shared_memory(const void* address, std::size_t bytes) const {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  const auto first = reinterpret_cast<std::uintptr_t>(shared_.get());
  return at >= first && at + bytes <= first + shared_bytes_;
}

void Block::fail(const std::string& rule, const Thread& thread) const {
  std::ostringstream text;
  text << rule << ": block (" << block_index.x << ", " << block_index.y << ", " << block_index.z
       << ")";
  const auto where = [&](const Thread& t) {
    text << "; thread " << t.index.x << " ";
    if (t.state == State::exited) {
      text << "has exited";
    } else {
      text << "in " << t.doing << " at " << t.at.file << ":" << t.at.line;
    }
  };
  where(thread);
  // One witness that stands elsewhere: the other party.
  const auto other = std::find_if(threads_.begin(), threads_.end(), [&](const Thread& t) {
    return t.state != thread.state || t.at.line != thread.at.line;
  });
  if (other != threads_.end()) {
    where(*other);
  }
  throw EmulationError(text.str());
}

void Block::wait(Thread& thread, State state, const char* doing, Location at) {
  thread.state = state;
  thread.doing = doing;
  thread.at = at;
  sanitizer::release(&failure_sync_point_);
  thread.context.switch_to(scheduler_);
}

void Block::wait_and_order(Thread& thread, State state, const char* doing, Location at) {
  char* meeting =
      state == State::at_barrier ? &barrier_sync_point_ : &warps_[thread.warp].sync_point;
  sanitizer::release(meeting);
  wait(thread, state, doing, at);
  sanitizer::acquire(meeting);
}

void Block::fiber_main() {
  Thread& thread = *current_thread;
  Block& block = *thread.block;
  thread.context.entered(block.scheduler_);
  sanitizer::acquire(&block.start_sync_point_);
  try {
    (*block.kernel_)();
  } catch (...) {
    block.error_ = std::current_exception();
  }
  thread.state = State::exited;
  sanitizer::release(&block.end_sync_point_);
  thread.context.switch_to(block.scheduler_, /*for_good=*/true);
  std::abort();  // an exited thread is never resumed
}

void Block::resume(Thread& thread) {
  progress_ = true;
  current_thread = &thread;
  scheduler_.switch_to(thread.context);
  current_thread = nullptr;
  if (error_) {
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

void Block::start_threads() {
  scheduler_.adopt_current_thread();
  if (shared_) {
    std::memset(shared_.get(), 0xff, shared_bytes_);  // NaN in every float format
  }
  for (Warp& warp : warps_) {
    warp.traffic = &traffic;
  }
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
    thread.block = this;
    thread.index = Index3{static_cast<unsigned>(i), 0, 0};
    thread.lane = static_cast<int>(i % kWarpSize);
    thread.warp = static_cast<int>(i / kWarpSize);
    thread.state = State::ready;
    thread.doing = "its first instructions";
    thread.copies.clear();
    thread.copies.reserve(sanitizer::thread_sanitizer() ? kExpectedCopies : 0);
    thread.open_group = 0;
    constexpr std::size_t kStagger = 192;
    thread.context.prepare(thread.stack, i % 60 * kStagger, &Block::fiber_main);
  }
  sanitizer::release(&start_sync_point_);
}

void Block::run(Index3 index, const std::function<void()>& kernel) {
  block_index = index;
  kernel_ = &kernel;
  start_threads();
  try {
    run_to_the_end();
  } catch (...) {  // whatever parked threads have touched may be freed from here on
    sanitizer::acquire(&failure_sync_point_);
    sanitizer::acquire(&end_sync_point_);
    throw;
  }
}

void Block::run_to_the_end() {
  do {
    progress_ = false;
    if (order_ == Order::reverse) {
      std::sort(warp_order_.rbegin(), warp_order_.rend());
    } else if (order_ == Order::shuffled) {
      std::shuffle(warp_order_.begin(), warp_order_.end(), random_);
    }
    for (const int warp : warp_order_) {
      run_warp(warp);
    }
    if (release_barrier()) {
      progress_ = true;
    }
    const auto stuck = std::find_if(
        threads_.begin(), threads_.end(), [](const Thread& t) { return t.state != State::exited; });
    if (stuck == threads_.end()) {
      break;
    }
    if (!progress_) {
      fail("deadlock", *stuck);
    }
  } while (true);
  finish();
}

/// Runs a warp until its lanes wait for the rest of the block, or for each other in vain.
void Block::run_warp(int warp) {
  Thread* lanes = &threads_[static_cast<std::size_t>(warp) * kWarpSize];
  do {
    if (order_ == Order::reverse) {
      std::sort(lane_order_.rbegin(), lane_order_.rend());
    } else if (order_ == Order::shuffled) {
      std::shuffle(lane_order_.begin(), lane_order_.end(), random_);
    }
    for (const int lane : lane_order_) {
      if (lanes[lane].state == State::ready) {
        resume(lanes[lane]);
      }
    }
  } while (complete_warp_operation(warp));
}

bool Block::complete_warp_operation(int warp) {
  Thread* lanes = &threads_[static_cast<std::size_t>(warp) * kWarpSize];
  const auto waits = [](const Thread& t) { return t.state == State::at_warp_operation; };
  const Thread* first = std::find_if(lanes, lanes + kWarpSize, waits);
  if (first == lanes + kWarpSize) {
    return false;
  }
  for (const Thread* lane = lanes; lane != lanes + kWarpSize; ++lane) {
    if (lane->state == State::exited) {
      fail("a warp operation waits for a lane that has exited", *first);
    }
    if (!waits(*lane)) {
      return false;  // at the block's barrier: run() reports the deadlock if it lasts
    }
    if (lane->doing != first->doing || lane->at.line != first->at.line) {
      fail("lanes of one warp meet in different operations", *lane);
    }
  }
  if (first->operation != nullptr) {
    first->operation(warps_[warp]);
  }
  for (Thread* lane = lanes; lane != lanes + kWarpSize; ++lane) {
    lane->state = State::ready;
  }
  return true;
}

bool Block::release_barrier() {
  const Thread* first = nullptr;
  std::size_t n_waiting = 0;
  std::size_t n_exited = 0;
  for (const Thread& thread : threads_) {
    n_exited += thread.state == State::exited ? 1 : 0;
    if (thread.state != State::at_barrier) {
      continue;
    }
    ++n_waiting;
    first = first != nullptr ? first : &thread;
    if (thread.at.line != first->at.line) {
      fail("divergent barrier", thread);
    }
  }
  if (n_waiting == 0 || n_waiting + n_exited != threads_.size()) {
    return false;
  }
  if (n_exited > 0) {
    fail("a barrier waits for threads that have exited", *first);
  }
  for (Thread& thread : threads_) {
    thread.state = State::ready;
  }
  return true;
}

void Block::finish() {
  sanitizer::acquire(&end_sync_point_);
  for (const Thread& thread : threads_) {
    if (!thread.copies.empty()) {
      fail("a thread exits with asynchronous copies in flight", thread);
    }
  }
}

}  // namespace kvfathom::kernels::simt::emulator
