// What a test may ask of the emulator. On a real device these do nothing and report nothing, so
// that one test source serves both.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/common/device.h"

namespace kvfathom::kernels::simt {

/// The order in which the threads of a block get their turn. A correct kernel cannot tell.
enum class Order : std::uint8_t { forward, reverse, shuffled };

struct Schedule {
  Order order = Order::shuffled;
  std::uint64_t seed = 1;
  int n_workers = 1;          ///< operating-system threads that run blocks side by side
  bool eager_copies = false;  ///< asynchronous copies land at once instead of at the wait
};
void set_schedule(const Schedule& schedule);

/// What launches moved since the last call. Bytes are requests of the kernel, not cache lines.
struct Traffic {
  std::uint64_t streamed_bytes = 0;   ///< ld_stream and cp_async: every request counts
  std::uint64_t cached_bytes = 0;     ///< ld: distinct addresses per launch; repeats hit a cache
  std::uint64_t stored_bytes = 0;     ///< st and atomics
  std::uint64_t ldmatrix_phases = 0;  ///< 8-row phases of ldmatrix ...
  std::uint64_t ldmatrix_cycles = 0;  ///< ... and the cycles that bank conflicts make of them

  [[nodiscard]] std::uint64_t read_bytes() const { return streamed_bytes + cached_bytes; }
};
/// Nothing on a real device, nor under ThreadSanitizer, where it is not counted.
[[nodiscard]] std::optional<Traffic> take_traffic();

/// The device that launch rules see; empty resets to the default (an H200's figures).
void set_emulated_device(std::optional<DeviceInfo> info);

/// One place in a kernel's source that synchronises: a block or warp barrier, or the wait for
/// asynchronous copies.
struct SyncSite {
  std::string file;
  int line = 0;
  friend bool operator==(const SyncSite&, const SyncSite&) = default;
};
/// The sites reached since the last call. Empty on a real device, and under ThreadSanitizer, which
/// would report the races that leaving one out makes.
[[nodiscard]] std::vector<SyncSite> take_sync_sites();
/// Launches skip this site until told otherwise: a planted bug, which a test must notice.
void skip_sync(std::optional<SyncSite> site);

}  // namespace kvfathom::kernels::simt
