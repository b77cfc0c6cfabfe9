#include "model/engine/llama_cpp/graph/schedule.h"

#include <vector>

#include "model/engine/llama_cpp/graph/fusion.h"

namespace kvfathom::llama_cpp {

namespace {

constexpr BackendId kUnassigned = -1;
constexpr std::size_t kMaxSplitInputs = 30;  // GGML_SCHED_MAX_SPLIT_INPUTS

/// A run of nodes on one backend and the tensors it needs from others.
struct Split {
  BackendId backend = 0;
  std::size_t first = 0;
  std::size_t end = 0;
  std::vector<TensorId> inputs;
};

/// The scheduler's passes over a graph with GPUs (backends 0..) and the host (the last).
class Splitter {
 public:
  Splitter(TensorGraph& graph, const Machine& machine)
      : graph_(graph),
        machine_(machine),
        host_(machine.host()),
        backend_(graph.size(), kUnassigned),
        copies_(graph.size() * machine.n_backends(), kNoTensor) {}

  Schedule run() {
    assign_known();
    spread(true, true);
    spread(false, true);
    spread(true, false);
    spread(false, false);
    assign_rest();
    split();
    return order();
  }

 private:
  [[nodiscard]] BackendId& backend(TensorId t) { return backend_[static_cast<std::size_t>(t)]; }

  [[nodiscard]] bool supports(BackendId b, TensorId t) const {
    return b == host_ || cuda_supports(graph_, t);
  }

  /// Where a tensor that exists before the pass (or a view of one) keeps `t`'s operation.
  [[nodiscard]] BackendId of_buffer(const TensorNode& owner, TensorId t) const {
    if (owner.placed == Placement::device) {
      return supports(owner.place, t) ? owner.place : kUnassigned;
    }
    return owner.placed == Placement::host ? host_ : kUnassigned;
  }

  [[nodiscard]] BackendId known_backend(TensorId id) const {
    const TensorNode& t = graph_[id];
    const TensorNode& owner = t.is_view() ? graph_[t.view_of] : t;
    if (const BackendId b = of_buffer(owner, id); b != kUnassigned) {
      return b;
    }
    if (t.input) {
      return host_;
    }
    if (t.op == Op::rope || t.op == Op::flash_attention) {
      return kUnassigned;  // their weights are too small to decide
    }
    for (const TensorId s : t.sources) {
      if (s != kNoTensor && graph_[s].weight && !graph_[s].is_view()) {
        const bool moves = graph_[s].placed == Placement::host && cuda_supports(graph_, id) &&
                           cuda_offloads(graph_, id);
        return moves ? kFirstGpu : of_buffer(graph_[s], id);
      }
    }
    return kUnassigned;
  }

  void assign_known() {
    for (const TensorId t : graph_.leafs()) {
      backend(t) = known_backend(t);
    }
    for (const TensorId t : graph_.nodes()) {
      const BackendId place = graph_[t].place;
      const bool pinned = machine_.pins_norms && graph_[t].pinned_to_device && place != kHostPlace;
      backend(t) = pinned && supports(place, t) ? place : known_backend(t);
    }
  }

  /// Gives unassigned nodes the backend of the last assigned one, front to back or back to front;
  /// with `gpus_only` the host does not spread.
  void spread(bool forward, bool gpus_only) {
    const std::vector<TensorId>& nodes = graph_.nodes();
    BackendId current = kUnassigned;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const TensorId t = nodes[forward ? i : nodes.size() - 1 - i];
      if (is_view_op(graph_[t].op)) {
        continue;
      }
      if (backend(t) != kUnassigned) {
        current = gpus_only && backend(t) == host_ ? kUnassigned : backend(t);
      } else if (current != kUnassigned && supports(current, t)) {
        backend(t) = current;
      }
    }
  }

  /// What no neighbour could take goes where most of its sources are; views and leafs follow.
  void assign_rest() {
    for (const TensorId t : graph_.nodes()) {
      if (!is_view_op(graph_[t].op) && backend(t) == kUnassigned) {
        backend(t) = most_sources(t);
      }
    }
    for (const TensorId t : graph_.nodes()) {
      if (graph_[t].is_view() && backend(t) == kUnassigned) {
        backend(t) = backend(graph_[t].view_of);
      }
      for (const TensorId s : graph_[t].sources) {
        if (s != kNoTensor && backend(s) == kUnassigned) {
          backend(s) = graph_[s].is_view() ? backend(graph_[s].view_of) : backend(t);
        }
      }
      if (backend(t) == kUnassigned) {
        backend(t) = supports(kFirstGpu, t) ? kFirstGpu : host_;
      }
    }
  }

  BackendId most_sources(TensorId t) {
    int best = -1;
    BackendId result = host_;
    for (BackendId b = 0; b <= host_; ++b) {
      if (!supports(b, t)) {
        continue;
      }
      int n = 0;
      for (const TensorId s : graph_[t].sources) {
        n += s != kNoTensor && buffer_backend(s) == b ? 1 : 0;
      }
      if (n > best) {
        best = n;
        result = b;
      }
    }
    return result;
  }

  /// The backend in whose memory `t` lies, as far as it is known.
  [[nodiscard]] BackendId buffer_backend(TensorId t) {
    const TensorId owner = graph_[t].is_view() ? graph_[t].view_of : t;
    switch (graph_[owner].placed) {
      case Placement::device:
        return graph_[owner].place;
      case Placement::host:
        return host_;
      case Placement::none:
        return backend(t) != kUnassigned ? backend(t) : backend(owner);
    }
    return kUnassigned;
  }

  void split() {
    const std::vector<TensorId>& nodes = graph_.nodes();
    std::size_t i = 0;
    while (i < nodes.size() && is_view_op(graph_[nodes[i]].op)) {
      ++i;
    }
    splits_.push_back({i < nodes.size() ? backend(nodes[i]) : kFirstGpu, 0, 0, {}});
    for (; i < nodes.size(); ++i) {
      const TensorId t = nodes[i];
      if (is_view_op(graph_[t].op)) {
        continue;
      }
      if (backend(t) != splits_.back().backend || needs_new_split(t)) {
        splits_.back().end = i;
        splits_.push_back({backend(t), i, 0, {}});
      }
      take_inputs(t, splits_.back());
    }
    splits_.back().end = nodes.size();
  }

  /// A weight from the other backend starts a split, so that the last one's copy can be reused.
  bool needs_new_split(TensorId t) {
    if (splits_.back().inputs.empty()) {
      return false;
    }
    const Split& split = splits_.back();
    for (const TensorId s : graph_[t].sources) {
      if (s == kNoTensor || buffer_backend(s) == split.backend) {
        continue;
      }
      if (graph_[s].weight ||
          (split.inputs.size() >= kMaxSplitInputs && copy_of(s, split) == kNoTensor)) {
        return true;
      }
    }
    return false;
  }

  TensorId& copy_of(TensorId t, const Split& split) {
    return copies_.at(static_cast<std::size_t>(t) * machine_.n_backends() +
                      static_cast<std::size_t>(split.backend));
  }

  void take_inputs(TensorId t, Split& split) {
    for (std::size_t j = 0; j < TensorNode::kMaxSources; ++j) {
      const TensorId s = graph_[t].sources.at(j);
      if (s != kNoTensor && graph_[s].input && machine_.n_copies > 1) {
        keep_for_every_micro_batch(s);
      }
      if (s == kNoTensor || backend(s) == split.backend || buffer_backend(s) == split.backend) {
        continue;
      }
      if (copy_of(s, split) == kNoTensor) {
        const TensorId made = duplicate(s, split.backend);
        copy_of(s, split) = made;
        split.inputs.push_back(s);
        keep_copies(made, s, split_copies_);
      }
      graph_[t].sources.at(j) = copy_of(s, split);
    }
  }

  TensorId duplicate(TensorId t, BackendId b) {
    const TensorId made = graph_.duplicate_layout(t);
    backend_.push_back(b);
    copies_.resize(copies_.size() + machine_.n_backends(), kNoTensor);
    return made;
  }

  /// With several micro-batches on the way, `first` and its further copies are there from the
  /// start and never given back.
  void keep_copies(TensorId first, TensorId layout, std::vector<Leaf>& leafs) {
    if (machine_.n_copies == 1) {
      return;
    }
    const BackendId b = backend(first);
    for (int c = 0; c < machine_.n_copies; ++c) {
      const TensorId t = c == 0 ? first : duplicate(layout, b);
      graph_.set_output(t);
      leafs.push_back({t, b});
    }
  }

  /// An input of the pass: the one set by the user is the first of its copies.
  void keep_for_every_micro_batch(TensorId input) {
    if (!graph_[input].output) {
      keep_copies(input, input, input_copies_);
    }
  }

  Schedule order() {
    Schedule result;
    result.leafs = input_copies_;
    result.leafs.insert(result.leafs.end(), split_copies_.begin(), split_copies_.end());
    result.steps.reserve(graph_.nodes().size() * 3 / 2);
    const std::vector<int> uses = uses_of(graph_);
    for (const Split& split : splits_) {
      for (const TensorId input : split.inputs) {
        result.steps.push_back({kNoTensor, input, backend(input)});
        result.steps.push_back({copy_of(input, split), kNoTensor, split.backend});
      }
      std::vector<AllocationDependency> kept;
      if (machine_.is_gpu(split.backend)) {
        kept = fusion_dependencies(graph_, uses, split.first, split.end);
      }
      auto next = kept.begin();
      for (std::size_t i = split.first; i < split.end; ++i) {
        const TensorId t = graph_.nodes()[i];
        result.steps.push_back({t, kNoTensor, backend(t)});
        for (; next != kept.end() && next->until == t; ++next) {
          result.steps.push_back({kNoTensor, next->tensor, backend(next->tensor)});
        }
      }
    }
    for (const TensorId t : graph_.leafs()) {
      result.leafs.push_back({t, backend(t)});
    }
    return result;
  }

  static constexpr BackendId kFirstGpu = 0;

  TensorGraph& graph_;
  const Machine machine_;
  const BackendId host_;
  std::vector<BackendId> backend_;
  std::vector<TensorId> copies_;  ///< by tensor and backend
  std::vector<Leaf> input_copies_;
  std::vector<Leaf> split_copies_;
  std::vector<Split> splits_;
};

}  // namespace

Schedule schedule(TensorGraph& graph, const Machine& machine) {
  if (machine.n_gpus > 0) {
    return Splitter(graph, machine).run();
  }
  Schedule result;
  for (const TensorId t : graph.leafs()) {
    result.leafs.push_back({t, 0});
  }
  result.steps.reserve(graph.nodes().size());
  for (const TensorId t : graph.nodes()) {
    result.steps.push_back({t, kNoTensor, 0});
  }
  return result;
}

}  // namespace kvfathom::llama_cpp
