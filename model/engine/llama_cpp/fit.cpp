#include "model/engine/llama_cpp/fit.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace kvfathom::llama_cpp {
namespace {

constexpr int kHost = -1;

/// A run of layers on one GPU: whole ones, then those of which a part is elsewhere. The output head
/// counts as the last GPU's last layer; as no tensor of a block, it is never in parts, whatever is
/// counted.
struct Slice {
  std::int64_t layers = 0;
  std::int64_t partial = 0;
  /// Of the first partial layer; the others leave their experts on the host.
  MovedMatrices first_moved = MovedMatrices::experts;
  int first_moved_to = kHost;
  [[nodiscard]] std::int64_t whole() const { return layers - partial; }
};

struct Measured {
  std::vector<Slice> slices;  ///< by GPU
  std::vector<GpuUse> use;
  std::size_t first_dense = 0;  ///< the first GPU that has layers without their experts
};

class Fit {
 public:
  Fit(const FitTask& task, const EngineSettings& settings)
      : task_(task),
        settings_(settings),
        context_(task.asked_context_tokens.value_or(task.trained_context_tokens)),
        n_gpus_(task.target_bytes.size()) {}

  Fitted run() {
    const std::vector<GpuUse> all = task_.use(settings_, context_);
    if (meets_targets(all)) {
      return {settings_, context_};
    }
    const bool settled = shrink_context(all);
    if (settled || !task_.moves_layers) {
      return {settings_, context_};
    }
    const bool experts_may_return = task_.has_experts && surplus_without_experts() > 0;
    Measured placed = measured({std::vector<Slice>(n_gpus_), {}, n_gpus_});
    fill_back_to_front(placed);
    if (experts_may_return) {
      return_experts(placed);
    }
    return {placed_by(placed.slices), context_};
  }

 private:
  [[nodiscard]] bool meets_targets(const std::vector<GpuUse>& use) const {
    for (std::size_t gpu = 0; gpu < n_gpus_; ++gpu) {
      if (use[gpu].bytes > task_.target_bytes[gpu]) {
        return false;
      }
    }
    return true;
  }

  [[nodiscard]] std::int64_t sum_of_targets() const {
    return std::accumulate(task_.target_bytes.begin(), task_.target_bytes.end(), std::int64_t{0});
  }

  [[nodiscard]] static std::int64_t sum(const std::vector<GpuUse>& use) {
    std::int64_t bytes = 0;
    for (const GpuUse& u : use) {
      bytes += u.bytes;
    }
    return bytes;
  }

  bool shrink_context(const std::vector<GpuUse>& all);
  [[nodiscard]] std::int64_t likely_waste(const std::vector<GpuUse>& all) const;
  [[nodiscard]] std::int64_t surplus_without_experts() const;

  void fill_back_to_front(Measured& placed) const;
  void return_experts(Measured& placed) const;
  void take_part_of_one_more(Measured& placed, std::size_t gpu) const;
  [[nodiscard]] static Measured with_all_whole(Measured placed, std::size_t gpu);
  [[nodiscard]] static Measured with_more_whole(Measured placed, std::size_t gpu, std::int64_t n);
  [[nodiscard]] bool leaves_room(const Measured& tried, std::size_t gpu) const;

  template <class Count, class Grow>
  void close_in(Measured& low, Measured high, std::size_t gpu, Count count, Grow grow) const;

  [[nodiscard]] EngineSettings placed_by(const std::vector<Slice>& slices) const;
  [[nodiscard]] Measured measured(Measured placed) const {
    placed.use = task_.use(placed_by(placed.slices), context_);
    return placed;
  }

  const FitTask& task_;
  const EngineSettings& settings_;
  std::int64_t context_;
  std::size_t n_gpus_;
};

/// With several GPUs whole layers, or whole tensors of experts, have to fall on one of them: half
/// of such a piece is lost on each, and one piece more is allowed for.
std::int64_t Fit::likely_waste(const std::vector<GpuUse>& all) const {
  if (n_gpus_ == 1) {
    return 0;
  }
  std::int64_t weights_bytes = 0;
  for (const GpuUse& use : all) {
    weights_bytes += use.weights_bytes;
  }
  const std::int64_t per_layer = weights_bytes / std::max<std::int64_t>(1, task_.n_layers);
  return (static_cast<std::int64_t>(n_gpus_) + 1) * per_layer / (task_.has_experts ? 6 : 2);
}

/// Cells by linear interpolation between the trained and the least context, rounded down to 256 of
/// every stream. True if that is the end of it: several GPUs are filled anew in any case.
bool Fit::shrink_context(const std::vector<GpuUse>& all) {
  const std::int64_t most = task_.trained_context_tokens * task_.streams;
  const std::int64_t least = task_.least_context_tokens * task_.streams;
  const std::int64_t target = sum_of_targets() - likely_waste(all);
  const std::int64_t used_at_most = sum(all);
  if (task_.asked_context_tokens || used_at_most <= sum_of_targets() || most <= least) {
    return false;
  }
  context_ = task_.least_context_tokens;
  const std::int64_t used_at_least = sum(task_.use(settings_, context_));
  if (target <= used_at_least || used_at_most <= used_at_least) {
    return false;
  }
  std::int64_t cells =
      least + (most - least) * (target - used_at_least) / (used_at_most - used_at_least);
  cells -= cells % (256 * task_.streams);
  context_ = std::max(cells, least) / task_.streams;
  return n_gpus_ == 1;
}

/// What would be free of all targets with the experts of every layer on the host.
std::int64_t Fit::surplus_without_experts() const {
  EngineSettings settings = settings_;
  settings.cpu_moe_layers = task_.n_layers;
  return sum_of_targets() - sum(task_.use(settings, context_));
}

/// Regula falsi: guesses by interpolation what fills `gpu`, until `low`, which is within the
/// target or has nothing there, and `high`, which is beyond it, are one apart.
template <class Count, class Grow>
void Fit::close_in(Measured& low, Measured high, std::size_t gpu, Count count, Grow grow) const {
  const std::int64_t target = task_.target_bytes[gpu];
  for (std::int64_t delta = count(high) - count(low); delta > 1; delta = count(high) - count(low)) {
    const std::int64_t span = high.use[gpu].bytes - low.use[gpu].bytes;
    const std::int64_t room = target - low.use[gpu].bytes;
    // the engine counts without a sign: a negative guess is its largest
    const std::int64_t guess = span > 0 && room >= 0 ? delta * room / span : delta - 1;
    Measured tried = measured(grow(low, std::clamp<std::int64_t>(guess, 1, delta - 1)));
    (tried.use[gpu].bytes <= target ? low : high) = std::move(tried);
  }
}

/// As many layers as it holds for each GPU, from the last one and the last layer on; of a mixture
/// without their experts.
void Fit::fill_back_to_front(Measured& placed) const {
  std::int64_t unassigned = task_.n_layers + 1;
  for (std::size_t gpu = n_gpus_; gpu-- > 0 && unassigned > 0;) {
    const bool has_head = gpu == n_gpus_ - 1;
    const auto grow = [&](Measured to, std::int64_t n) {
      Slice& slice = to.slices[gpu];
      slice.layers += n;
      if (task_.has_experts) {  // one layer less for the head, and again while none is partial
        slice.partial += has_head && slice.partial == 0 ? n - 1 : n;
      }
      return to;
    };
    Measured high = measured(grow(placed, unassigned));
    if (high.use[gpu].bytes <= task_.target_bytes[gpu]) {
      placed = std::move(high);
    } else {
      const auto count = [&](const Measured& m) { return m.slices[gpu].layers; };
      close_in(placed, std::move(high), gpu, count, grow);
    }
    unassigned -= placed.slices[gpu].layers;
  }
}

/// All layers that still miss their experts, moved to `gpu` as whole ones; the head stays.
Measured Fit::with_all_whole(Measured placed, std::size_t gpu) {
  const std::size_t last = placed.slices.size() - 1;
  for (std::size_t from = placed.first_dense; from <= last; ++from) {
    const std::int64_t moved = placed.slices[from].layers - (from == last ? 1 : 0);
    placed.slices[gpu].layers += moved;
    placed.slices[from].layers -= moved;
    placed.slices[from].partial = 0;
  }
  placed.first_dense = last;
  return placed;
}

/// `n` of them only, from the front.
Measured Fit::with_more_whole(Measured placed, std::size_t gpu, std::int64_t n) {
  for (; placed.first_dense < placed.slices.size(); ++placed.first_dense) {
    Slice& from = placed.slices[placed.first_dense];
    const std::int64_t moved = std::min(n, from.partial);
    from.layers -= moved;
    from.partial -= moved;
    placed.slices[gpu].layers += moved;
    n -= moved;
    if (placed.slices[placed.first_dense].partial > 0) {
      break;
    }
  }
  return placed;
}

bool Fit::leaves_room(const Measured& tried, std::size_t gpu) const {
  const auto has_room = [&](std::size_t g) {
    return tried.use[g].bytes < task_.target_bytes[g];  // strictly, unlike whole layers
  };
  return has_room(gpu) && (gpu + 1 == n_gpus_ || has_room(gpu + 1));
}

/// One more layer of which up, or up and gate, or attention alone fits; the rest of it goes to the
/// next GPU, from the last one to the host.
void Fit::take_part_of_one_more(Measured& placed, std::size_t gpu) const {
  // With no such layer left the engine's count of partial layers wraps round: not followed.
  if (placed.first_dense == n_gpus_ || placed.slices[placed.first_dense].partial <= 0) {
    return;
  }
  Measured more = placed;
  --more.slices[more.first_dense].layers;
  --more.slices[more.first_dense].partial;
  Slice& slice = more.slices[gpu];
  ++slice.layers;
  ++slice.partial;
  more.first_dense += more.slices[more.first_dense].partial == 0 ? 1 : 0;
  slice.first_moved_to = gpu + 1 == n_gpus_ ? kHost : static_cast<int>(gpu) + 1;
  const auto take = [&](MovedMatrices moved) {
    more.slices[gpu].first_moved = moved;
    Measured tried = measured(more);
    const bool taken = leaves_room(tried, gpu);
    if (taken) {
      placed = std::move(tried);
    }
    return taken;
  };
  if (take(MovedMatrices::all_but_up)) {
    take(MovedMatrices::down);
  } else {
    take(MovedMatrices::all);
  }
}

/// Whole layers from the first GPU and the first layer on, for as long as the targets are met.
void Fit::return_experts(Measured& placed) const {
  placed.first_dense = n_gpus_;
  while (placed.first_dense > 0 && placed.slices[placed.first_dense - 1].layers > 0) {
    --placed.first_dense;
  }
  for (std::size_t gpu = 0; gpu <= placed.first_dense && placed.first_dense < n_gpus_; ++gpu) {
    Measured high = measured(with_all_whole(placed, gpu));
    if (high.use[gpu].bytes <= task_.target_bytes[gpu]) {
      placed = std::move(high);
    } else {
      const auto count = [&](const Measured& m) { return m.slices[gpu].whole(); };
      const auto grow = [&](const Measured& from, std::int64_t n) {
        return with_more_whole(from, gpu, n);
      };
      close_in(placed, std::move(high), gpu, count, grow);
    }
    take_part_of_one_more(placed, gpu);
  }
}

EngineSettings Fit::placed_by(const std::vector<Slice>& slices) const {
  EngineSettings settings = settings_;
  std::int64_t on_gpus = 0;
  for (const Slice& slice : slices) {
    on_gpus += slice.layers;
    if (slices.size() > 1) {
      settings.layers_per_gpu.push_back(slice.layers);
    }
  }
  settings.gpu_layers = on_gpus;
  std::int64_t layer = task_.n_layers + 1 - on_gpus;
  for (const Slice& slice : slices) {
    layer += slice.whole();
    for (std::int64_t i = 0; i < slice.partial; ++i, ++layer) {
      const bool is_first = i == 0;
      if (layer < task_.n_layers) {  // the rest is the head
        settings.moved_layers.push_back({layer,
                                         is_first ? slice.first_moved : MovedMatrices::experts,
                                         is_first ? slice.first_moved_to : kHost});
      }
    }
  }
  return settings;
}

}  // namespace

Fitted fit_to_gpus(const FitTask& task, const EngineSettings& settings) {
  return Fit(task, settings).run();
}

}  // namespace kvfathom::llama_cpp
