#include "model/engine/llama_cpp/graph/lifetime.h"

#include <algorithm>

namespace kvfathom::llama_cpp {

namespace {

/// Operations that may write over a source they are the last to read (ggml_op_can_inplace).
bool can_run_in_place(Op op) {
  switch (op) {
    case Op::clamp:
    case Op::fill:
    case Op::scale:
    case Op::add:
    case Op::add_id:
    case Op::sub:
    case Op::mul:
    case Op::div:
    case Op::sqr:
    case Op::sqrt:
    case Op::unary:
    case Op::rope:
    case Op::rms_norm:
    case Op::soft_max:
      return true;
    default:
      return false;
  }
}

class Bookkeeper {
 public:
  Bookkeeper(const TensorGraph& graph, const Machine& machine)
      : graph_(graph), machine_(machine), state_(graph.size()) {}

  std::vector<Event> run(const Schedule& schedule) {
    events_.reserve(schedule.steps.size());
    for (const Leaf& leaf : schedule.leafs) {
      allocate(leaf.tensor, leaf.backend);
    }
    for (const Step& step : schedule.steps) {
      count(step);
    }
    for (const Step& step : schedule.steps) {
      execute(step);
    }
    return std::move(events_);
  }

 private:
  struct State {
    std::int32_t children = 0;  ///< sources that still name this tensor
    std::int32_t views = 0;
    std::int32_t allocation = -1;
    BackendId backend = 0;
    bool allocated = false;
  };

  State& state(TensorId t) { return state_[static_cast<std::size_t>(t)]; }

  void count(const Step& step) {
    if (step.tensor == kNoTensor) {
      state(step.keeps).children += 1;
      return;
    }
    const TensorNode& t = graph_[step.tensor];
    if (t.is_view()) {
      state(t.view_of).views += 1;
    }
    for (const TensorId s : t.sources) {
      if (s != kNoTensor) {
        state(s).children += 1;
      }
    }
  }

  void execute(const Step& step) {
    if (step.tensor == kNoTensor) {
      drop_child(step.keeps);
      return;
    }
    const TensorNode& t = graph_[step.tensor];
    if (t.op != Op::none) {  // a copy may be made layers ahead of its use
      layer_ = std::max(layer_, t.layer);
    }
    for (const TensorId s : t.sources) {
      if (s != kNoTensor) {
        allocate(s, step.backend);
      }
    }
    allocate(step.tensor, step.backend);
    for (const TensorId s : t.sources) {
      if (s != kNoTensor) {
        drop_child(s);
      }
    }
  }

  void allocate(TensorId id, BackendId backend) {
    const TensorNode& t = graph_[id];
    State& s = state(id);
    if (s.allocated || t.placed != Placement::none || t.is_view()) {
      return;
    }
    s.allocated = true;
    if (can_run_in_place(t.op) && take_over_source(id)) {
      return;
    }
    s.backend = backend;
    s.allocation = n_allocations_++;
    emit(EventKind::allocate, id);
  }

  /// In place of the first source that nothing else reads, if its layout is the same.
  bool take_over_source(TensorId id) {
    const TensorNode& t = graph_[id];
    for (const TensorId parent : t.sources) {
      if (parent == kNoTensor) {
        continue;
      }
      State& p = state(parent);
      if (!p.allocated || graph_[parent].output || !same_layout(t, graph_[parent]) ||
          p.children != 1 || p.views != 0) {
        continue;
      }
      State& s = state(id);
      s.backend = p.backend;
      s.allocation = p.allocation;
      p.allocated = false;
      if (bytes(id) != bytes(parent)) {
        emit(EventKind::shrink, id);
      }
      return true;
    }
    return false;
  }

  void drop_child(TensorId id) {
    State& s = state(id);
    s.children -= 1;
    if (s.children != 0 || s.views != 0) {
      return;
    }
    if (graph_[id].is_view()) {
      const TensorId owner = graph_[id].view_of;
      State& o = state(owner);
      o.views -= 1;
      if (o.views == 0 && o.children == 0 && o.allocated) {
        release(owner);
      }
    } else if (s.allocated) {
      release(id);
    }
  }

  void release(TensorId id) {
    if (graph_[id].output) {
      return;
    }
    emit(EventKind::release, id);
    state(id).allocated = false;
  }

  [[nodiscard]] Affine bytes(TensorId id) {
    const bool on_device = machine_.is_gpu(state(id).backend);
    return on_device ? cuda_alloc_bytes(graph_, id) : extent_bytes(graph_[id]);
  }

  void emit(EventKind kind, TensorId id) {
    const State& s = state(id);
    events_.push_back(
        {kind, s.backend, layer_, s.allocation, kind == EventKind::release ? Affine{} : bytes(id)});
  }

  const TensorGraph& graph_;
  const Machine machine_;
  std::vector<State> state_;
  std::vector<Event> events_;
  std::int32_t n_allocations_ = 0;
  std::int16_t layer_ = -1;
};

}  // namespace

std::vector<Event> lifetimes(const TensorGraph& graph,
                             const Schedule& schedule,
                             const Machine& machine) {
  return Bookkeeper(graph, machine).run(schedule);
}

}  // namespace kvfathom::llama_cpp
