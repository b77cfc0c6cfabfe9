#include "model/engine/llama_cpp/graph/pass_program.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <unordered_map>

#include "model/engine/llama_cpp/graph/free_list.h"

namespace kvfathom::llama_cpp {

namespace {

/// To a multiple of `alignment`, a power of two: no division, of which a question makes dozens.
std::int64_t align(std::int64_t bytes, std::int64_t alignment) {
  return (bytes + alignment - 1) & -alignment;
}

}  // namespace

std::int64_t replay(std::span<const Event> events,
                    BackendId backend,
                    std::int64_t alignment,
                    const CacheCells& cells) {
  struct Allocation {
    std::int64_t offset = 0;
    std::int64_t bytes = 0;
  };
  std::unordered_map<std::int32_t, Allocation> allocations;
  FreeList free_list;
  for (const Event& e : events) {
    if (e.backend != backend) {
      continue;
    }
    Allocation& a = allocations[e.allocation];
    const std::int64_t bytes = align(e.bytes.at(cells), alignment);
    switch (e.kind) {
      case EventKind::allocate:
        a = {free_list.allocate(bytes), bytes};
        break;
      case EventKind::shrink:
        if (a.bytes > bytes) {
          free_list.release(a.offset + bytes, a.bytes - bytes);
          a.bytes = bytes;
        }
        break;
      case EventKind::release:
        free_list.release(a.offset, a.bytes);
        break;
    }
  }
  return free_list.max_bytes();
}

/// Cuts the events of one backend into layers and names their allocations by position, so that
/// equal layers become equal blocks.
class PassCompiler {
 public:
  PassCompiler(PassProgram& program, PassProgram::Boundaries layers)
      : program_(program), boundary_layers_(layers) {}

  void run(std::span<const Event> events, BackendId backend) {
    bool started = false;
    std::int16_t layer = 0;
    for (const Event& e : events) {
      if (e.backend != backend) {
        continue;
      }
      if (started && e.layer != layer) {
        finish_block(layer);
      }
      started = true;
      layer = e.layer;
      add(e);
    }
    finish_block(layer);
  }

 private:
  struct Live {
    std::uint16_t slot = 0;
    std::uint16_t size = 0;
  };

  void add(const Event& e) {
    if (e.kind == EventKind::allocate) {
      const Live live{free_slot(), size_id(e.bytes)};
      live_[e.allocation] = live;
      block_.instructions.push_back({e.kind, live.slot, live.size, 0});
      return;
    }
    Live& live = live_.at(e.allocation);
    if (e.kind == EventKind::shrink) {
      const std::uint16_t size = size_id(e.bytes);
      block_.instructions.push_back({e.kind, live.slot, size, live.size});
      live.size = size;
    } else {
      block_.instructions.push_back({e.kind, live.slot, live.size, 0});
      freed_slots_.push_back(live.slot);
      live_.erase(e.allocation);
    }
  }

  /// The name freed last, else a new one.
  std::uint16_t free_slot() {
    if (!freed_slots_.empty()) {
      const std::uint16_t slot = freed_slots_.back();
      freed_slots_.pop_back();
      return slot;
    }
    if (next_slot_ == PassProgram::kMaxSlots) {
      throw std::logic_error("more allocations alive in a layer than PassProgram names");
    }
    return next_slot_++;
  }

  void finish_block(std::int64_t layer) {
    auto& before = program_.blocks_before_;
    before.earlier += layer < static_cast<std::int64_t>(boundary_layers_.earlier) ? 1 : 0;
    before.later += layer < static_cast<std::int64_t>(boundary_layers_.later) ? 1 : 0;
    for (const auto& [allocation, live] : live_) {
      block_.survivors.push_back(live.slot);
    }
    std::sort(block_.survivors.begin(), block_.survivors.end());
    for (auto& [allocation, live] : live_) {
      const auto at = std::lower_bound(block_.survivors.begin(), block_.survivors.end(), live.slot);
      live.slot = static_cast<std::uint16_t>(at - block_.survivors.begin());
    }
    next_slot_ = static_cast<std::uint16_t>(live_.size());
    freed_slots_.clear();
    auto& blocks = program_.blocks_;
    auto found = std::find(blocks.begin(), blocks.end(), block_);
    if (found == blocks.end()) {
      found = blocks.insert(blocks.end(), block_);
    }
    const auto id = static_cast<std::uint16_t>(found - blocks.begin());
    auto& runs = program_.runs_;
    if (!runs.empty() && runs.back().block == id) {
      ++runs.back().count;
    } else {
      runs.push_back({id, 1});
    }
    block_ = {};
  }

  std::uint16_t size_id(const Affine& bytes) {
    auto& sizes = program_.sizes_;
    const auto at = std::find(sizes.begin(), sizes.end(), bytes);
    if (at != sizes.end()) {
      return static_cast<std::uint16_t>(at - sizes.begin());
    }
    if (sizes.size() == PassProgram::kMaxSizes) {
      throw std::logic_error("more sizes in a pass than PassProgram names");
    }
    sizes.push_back(bytes);
    return static_cast<std::uint16_t>(sizes.size() - 1);
  }

  PassProgram& program_;
  PassProgram::Boundaries boundary_layers_;
  PassProgram::Block block_;
  std::unordered_map<std::int32_t, Live> live_;
  std::uint16_t next_slot_ = 0;
  std::vector<std::uint16_t> freed_slots_;  ///< below next_slot_, in order of release
};

PassProgram::PassProgram(std::span<const Event> events,
                         BackendId backend,
                         std::int64_t alignment,
                         Boundaries boundaries)
    : alignment_(alignment) {
  PassCompiler(*this, boundaries).run(events, backend);
}

/// The allocator between two layers: its holes, and where what lives on lies.
struct PassProgram::State {  // NOLINT(cppcoreguidelines-pro-type-member-init): hot, see offsets
  FreeList holes;
  std::array<std::int64_t, kMaxSlots> offsets;  // the first n_live count

  [[nodiscard]] bool same(const State& other, std::size_t n_live) const {
    return holes.same_holes(other.holes) &&
           std::equal(offsets.begin(),
                      offsets.begin() + static_cast<std::ptrdiff_t>(n_live),
                      other.offsets.begin());
  }
  void assign(const State& other, std::size_t n_live) {
    holes.assign_holes(other.holes);
    std::copy_n(other.offsets.begin(), n_live, offsets.begin());
  }
};

void PassProgram::execute(const Block& block, std::span<const std::int64_t> sizes, State& state) {
  for (const Instruction& i : block.instructions) {
    std::int64_t& offset = state.offsets[i.slot];
    const std::int64_t bytes = sizes[i.size];
    switch (i.kind) {
      case EventKind::allocate:
        offset = state.holes.allocate(bytes);
        break;
      case EventKind::shrink:
        if (sizes[i.old_size] > bytes) {
          state.holes.release(offset + bytes, sizes[i.old_size] - bytes);
        }
        break;
      case EventKind::release:
        state.holes.release(offset, bytes);
        break;
    }
  }
  for (std::size_t s = 0; s < block.survivors.size(); ++s) {
    state.offsets[s] = state.offsets[block.survivors[s]];  // ascending: never overwrites ahead
  }
}

/// Remembers the states met at layer boundaries and which block led from which to which.
class PassProgram::Replayer {
 public:
  // n_live_ and the states are written before they are read; clearing them would cost more than the
  // replay of a small pass.
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init)
  Replayer(const PassProgram& program, std::span<const std::int64_t> sizes)
      : program_(program), sizes_(sizes) {}

  Result run() {
    for (const Run& run : program_.runs_) {
      for (std::size_t n = 1; n <= run.count; ++n) {
        const int before = known_;
        step(run.block);
        if (known_ != kUnknown && known_ == before) {
          advance(run.count - n + 1);  // a fixed point: the rest of the run changes nothing
          break;
        }
        advance(1);
      }
    }
    const Boundaries& marks = program_.blocks_before_;
    const bool settled =
        marks.earlier == marks.later || (at_earlier_ != kUnknown && at_earlier_ == at_later_);
    return {state_.holes.max_bytes(), settled};
  }

 private:
  static constexpr int kUnknown = -1;
  static constexpr std::size_t kMaxStates = 20;
  struct Transition {
    int from = kUnknown;
    int to = kUnknown;
    std::uint16_t block = 0;
  };

  /// Counts blocks, noting the state in which a boundary is passed.
  void advance(std::size_t n_blocks) {
    const auto passed = [&](std::size_t mark) {
      return executed_ < mark && mark <= executed_ + n_blocks;
    };
    at_earlier_ = passed(program_.blocks_before_.earlier) ? known_ : at_earlier_;
    at_later_ = passed(program_.blocks_before_.later) ? known_ : at_later_;
    executed_ += n_blocks;
  }

  void step(std::uint16_t block_id) {
    for (std::size_t t = 0; t < n_transitions_; ++t) {
      if (transitions_[t].from == known_ && transitions_[t].block == block_id) {
        known_ = transitions_[t].to;
        loaded_ = false;
        return;
      }
    }
    if (!loaded_) {
      const auto k = static_cast<std::size_t>(known_);
      state_.assign(states_[k], n_live_[k]);
      loaded_ = true;
    }
    const Block& block = program_.blocks_[block_id];
    execute(block, sizes_, state_);
    const int from = known_;
    known_ = remember(block.survivors.size());
    if (from != kUnknown && known_ != kUnknown && n_transitions_ < transitions_.size()) {
      transitions_[n_transitions_++] = {from, known_, block_id};
    }
  }

  /// The number of the current state, kUnknown if there is no room for another.
  int remember(std::size_t n_live) {
    for (std::size_t s = 0; s < n_states_; ++s) {
      if (n_live_[s] == n_live && states_[s].same(state_, n_live)) {
        return static_cast<int>(s);
      }
    }
    if (n_states_ == kMaxStates) {
      return kUnknown;
    }
    states_[n_states_].assign(state_, n_live);
    n_live_[n_states_] = n_live;
    return static_cast<int>(n_states_++);
  }

  const PassProgram& program_;
  std::span<const std::int64_t> sizes_;
  State state_;
  bool loaded_ = true;
  int known_ = kUnknown;
  int at_earlier_ = kUnknown;
  int at_later_ = kUnknown;
  std::size_t executed_ = 0;
  std::array<State, kMaxStates> states_;
  std::array<std::size_t, kMaxStates> n_live_;
  std::size_t n_states_ = 0;
  std::array<Transition, 32> transitions_;
  std::size_t n_transitions_ = 0;
};

PassProgram::Result PassProgram::run(const CacheCells& cells) const {
  // Only what is written below is read: clearing the rest would cost as much as the answer.
  std::array<std::int64_t, kMaxSizes> sizes;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    sizes[i] = align(sizes_[i].at(cells), alignment_);
  }
  return Replayer(*this, std::span(sizes).first(sizes_.size())).run();
}

}  // namespace kvfathom::llama_cpp
