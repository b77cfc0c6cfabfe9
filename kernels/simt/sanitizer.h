// What the emulator tells the sanitizers, if they are there.
//
// The emulator's own sources are built without ThreadSanitizer: its bookkeeping is not part of the
// program under test, and its fibers would look like threads that race for it. So the runtime is
// found by weak symbols instead of macros, and accesses that the emulator makes for a kernel are
// announced one by one.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define KVFATHOM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KVFATHOM_ASAN 1
#endif
#endif
#if defined(KVFATHOM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// The run-time library chose the names.
// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming)
extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* address);
[[gnu::weak]] void __tsan_release(void* address);
[[gnu::weak]] void __tsan_read_range(void* address, unsigned long bytes);
[[gnu::weak]] void __tsan_write_range(void* address, unsigned long bytes);
}
// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)

namespace kvfathom::kernels::simt::sanitizer {

[[nodiscard]] inline bool thread_sanitizer() {
  return __tsan_switch_to_fiber != nullptr;
}
/// What came before a release of `address` happens before what follows an acquire of it.
inline void acquire(void* address) {
  if (thread_sanitizer()) {
    __tsan_acquire(address);
  }
}
inline void release(void* address) {
  if (thread_sanitizer()) {
    __tsan_release(address);
  }
}
inline void read(const void* address, std::size_t bytes) {
  if (thread_sanitizer()) {
    __tsan_read_range(const_cast<void*>(address), bytes);
  }
}
inline void write(void* address, std::size_t bytes) {
  if (thread_sanitizer()) {
    __tsan_write_range(address, bytes);
  }
}

/// Under AddressSanitizer, any access to [address, address + bytes) is an error from here on.
inline void poison([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes) {
#if defined(KVFATHOM_ASAN)
  __asan_poison_memory_region(address, bytes);
#endif
}
inline void unpoison([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes) {
#if defined(KVFATHOM_ASAN)
  __asan_unpoison_memory_region(address, bytes);
#endif
}

}  // namespace kvfathom::kernels::simt::sanitizer
