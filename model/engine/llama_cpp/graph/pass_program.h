// The events of a pass on one backend, compiled so that a question costs about a microsecond.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/engine/llama_cpp/graph/affine.h"
#include "model/engine/llama_cpp/graph/lifetime.h"

namespace kvfathom::llama_cpp {

/// Bytes of the buffer: every event of `backend` through the allocator, one by one.
[[nodiscard]] std::int64_t replay(std::span<const Event> events,
                                  BackendId backend,
                                  std::int64_t alignment,
                                  const CacheCells& cells);

/// The same, layer by layer: equal layers are compiled once, and a layer that meets holes it has
/// met before is not run again, for it would leave the same holes as then.
class PassProgram {
 public:
  /// Two layer boundaries at which the allocator has to stand the same for a folded pass to speak
  /// for the whole one (fold.h); equal ones are always settled.
  struct Boundaries {
    std::size_t earlier = 0;
    std::size_t later = 0;
  };
  struct Result {
    std::int64_t bytes = 0;
    bool settled = true;
  };

  PassProgram() = default;
  PassProgram(std::span<const Event> events,
              BackendId backend,
              std::int64_t alignment,
              Boundaries boundaries);

  [[nodiscard]] Result run(const CacheCells& cells) const;

 private:
  friend class PassCompiler;

  static constexpr std::size_t kMaxSizes = 256;  ///< distinct sizes of one backend
  static constexpr std::size_t kMaxSlots = 256;  ///< allocations alive at once in one layer

  struct Instruction {
    EventKind kind = EventKind::allocate;
    std::uint16_t slot = 0;      ///< 0..: what lived when the layer began; freed ones are reused
    std::uint16_t size = 0;      ///< of allocate and release; the new size of shrink
    std::uint16_t old_size = 0;  ///< of shrink
    friend bool operator==(const Instruction&, const Instruction&) = default;
  };
  /// One layer's instructions and the slots that outlive it, which the next layer names 0, 1, ...
  struct Block {
    std::vector<Instruction> instructions;
    std::vector<std::uint16_t> survivors;
    friend bool operator==(const Block&, const Block&) = default;
  };
  struct Run {
    std::uint16_t block = 0;
    std::uint16_t count = 0;
  };
  struct State;
  class Replayer;

  static void execute(const Block& block, std::span<const std::int64_t> sizes, State& state);

  std::vector<Affine> sizes_;
  std::vector<Block> blocks_;
  std::vector<Run> runs_;
  std::int64_t alignment_ = 1;
  Boundaries blocks_before_;  ///< the boundaries, in blocks executed
};

}  // namespace kvfathom::llama_cpp
