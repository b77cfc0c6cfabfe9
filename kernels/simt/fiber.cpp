#include "kernels/simt/fiber.h"

#include <cstdint>
#include <new>

#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include "kernels/simt/sanitizer.h"

#if defined(__x86_64__)
// Saves what a call must preserve on the old stack, and continues on the new one. An order of
// magnitude faster than swapcontext, which asks the kernel for the signal mask each time.
asm(R"(
.text
.p2align 4
.type kvfathom_switch_stack,@function
kvfathom_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kvfathom_switch_stack,.-kvfathom_switch_stack
)");
extern "C" void kvfathom_switch_stack(void** save_pointer, void* load_pointer);
#endif

namespace kvfathom::kernels::simt {

FiberStack::FiberStack() {
  void* memory = mmap(
      nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::bad_alloc();
  }
  memory_.reset(static_cast<char*>(memory));
}

void FiberStack::forget_last_user() const {
  sanitizer::unpoison(memory_.get(), kBytes);
}

void FiberStack::Unmap::operator()(char* memory) const {
  sanitizer::unpoison(memory, kBytes);
  munmap(memory, kBytes);
}

#if defined(__x86_64__)
struct FiberContext::Machine {
  void* stack_pointer = nullptr;

  void start_at(char* base, std::size_t bytes, void (*entry)()) {
    const std::uintptr_t top =
        (reinterpret_cast<std::uintptr_t>(base) + bytes) & ~std::uintptr_t{15};
    auto* slot = reinterpret_cast<void**>(top);
    *--slot = nullptr;  // as after a call, the stack is 8 bytes off a multiple of 16 on entry
    *--slot = reinterpret_cast<void*>(entry);
    for (int saved_register = 0; saved_register < 6; ++saved_register) {
      *--slot = nullptr;
    }
    stack_pointer = slot;
  }
  void switch_to(Machine& to) { kvfathom_switch_stack(&stack_pointer, to.stack_pointer); }
};
#else
struct FiberContext::Machine {
  ucontext_t context{};

  void start_at(char* base, std::size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = base;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
  void switch_to(Machine& to) { swapcontext(&context, &to.context); }
};
#endif

FiberContext::FiberContext() : machine_(std::make_unique<Machine>()) {}

FiberContext::~FiberContext() {
  if (owns_tsan_fiber_) {
    __tsan_destroy_fiber(tsan_fiber_);
  }
}

void FiberContext::adopt_current_thread() {
  if (sanitizer::thread_sanitizer()) {
    tsan_fiber_ = __tsan_get_current_fiber();
  }
}

void FiberContext::prepare(const FiberStack& stack, std::size_t stagger, void (*entry)()) {
  stack.forget_last_user();
  stack_base_ = stack.base();
  stack_bytes_ = FiberStack::kBytes;
  machine_->start_at(stack.base(), FiberStack::kBytes - stagger, entry);
  if (owns_tsan_fiber_) {
    __tsan_destroy_fiber(tsan_fiber_);
  }
  if (sanitizer::thread_sanitizer()) {
    tsan_fiber_ = __tsan_create_fiber(0);
    owns_tsan_fiber_ = true;
  }
}

void FiberContext::switch_to(FiberContext& to, [[maybe_unused]] bool for_good) {
#if defined(KVFATHOM_ASAN)
  __sanitizer_start_switch_fiber(
      for_good ? nullptr : &fake_stack_, to.stack_base_, to.stack_bytes_);
#endif
  // The switch orders nothing: only barriers and collectives do, and they say so themselves.
  if (sanitizer::thread_sanitizer()) {
    constexpr unsigned kNoSync = 1;
    __tsan_switch_to_fiber(to.tsan_fiber_, kNoSync);
  }
  machine_->switch_to(*to.machine_);
#if defined(KVFATHOM_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
}

void FiberContext::entered([[maybe_unused]] FiberContext& from) {
#if defined(KVFATHOM_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &from.stack_base_, &from.stack_bytes_);
#endif
}

}  // namespace kvfathom::kernels::simt
