// When each tensor of a pass takes and gives back memory: the bookkeeping of ggml's graph
// allocator (ggml-alloc.c, 2026-08/09), without addresses.
#pragma once

#include <cstdint>
#include <vector>

#include "model/engine/llama_cpp/graph/schedule.h"

namespace kvfathom::llama_cpp {

enum class EventKind : std::uint8_t {
  allocate,
  shrink,  ///< an operation in place needs less than what it took over
  release,
};

struct Event {
  EventKind kind = EventKind::allocate;
  BackendId backend = 0;
  std::int16_t layer = -1;      ///< -1: before the first layer
  std::int32_t allocation = 0;  ///< numbered by order of allocation
  Affine bytes;                 ///< unaligned, of allocate and shrink
};

/// The events of a pass, in order.
[[nodiscard]] std::vector<Event> lifetimes(const TensorGraph& graph,
                                           const Schedule& schedule,
                                           const Machine& machine);

}  // namespace kvfathom::llama_cpp
