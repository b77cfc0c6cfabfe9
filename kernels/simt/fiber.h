// A stack and a place in a program: what a CUDA thread is to the emulator.
#pragma once

#include <cstddef>
#include <memory>

namespace kvfathom::kernels::simt {

/// Memory for one fiber's stack, kept for the next block. 64 KiB: kernels hold small arrays.
class FiberStack {
 public:
  static constexpr std::size_t kBytes = std::size_t{64} * 1024;

  FiberStack();
  [[nodiscard]] char* base() const { return memory_.get(); }
  /// Under AddressSanitizer a reused stack still carries the marks of its last user.
  void forget_last_user() const;

 private:
  struct Unmap {
    void operator()(char* memory) const;
  };
  std::unique_ptr<char, Unmap> memory_;
};

/// One side of a switch: the scheduler's own stack, or a fiber's.
class FiberContext {
 public:
  FiberContext();
  ~FiberContext();
  FiberContext(const FiberContext&) = delete;
  FiberContext& operator=(const FiberContext&) = delete;

  /// This context is the stack that calls: the scheduler's.
  void adopt_current_thread();
  /// Starts `entry` on `stack` at the first switch. `entry` must not return. `stagger` moves the
  /// top, so that the hot frames of many fibers do not share one set of the first-level cache.
  void prepare(const FiberStack& stack, std::size_t stagger, void (*entry)());
  /// Leaves this context and continues `to`; returns when something switches back. `for_good`:
  /// this fiber will not run again.
  void switch_to(FiberContext& to, bool for_good = false);
  /// To be called first thing by `entry`, with the context that switched to it.
  void entered(FiberContext& from);

 private:
  struct Machine;
  std::unique_ptr<Machine> machine_;
  const void* stack_base_ = nullptr;
  std::size_t stack_bytes_ = 0;
  [[maybe_unused]] void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;
  bool owns_tsan_fiber_ = false;
};

}  // namespace kvfathom::kernels::simt
