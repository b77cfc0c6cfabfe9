#include "model/latency/step_time.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace kvfathom {
namespace {

constexpr std::size_t kBounds = 7;

Work work_of(const Op& op, std::int64_t n_units) {
  const std::int64_t waves = n_units > 0 ? (op.n_blocks + n_units - 1) / n_units : 1;
  return {.bytes = op.cost.read + op.cost.written,
          .flops = op.cost.flops,
          .launches = static_cast<double>(op.cost.launches),
          .waves = static_cast<double>(waves)};
}

bool is_link(OpKind kind) {
  return kind == OpKind::host_transfer || kind == OpKind::file_read ||
         kind == OpKind::network_transfer || kind == OpKind::peer_transfer ||
         kind == OpKind::all_reduce || kind == OpKind::all_to_all;
}

BoundBy bound_by(const Op& op, const Law& law, const Work& work) {
  if (op.on_host) {
    return BoundBy::host;
  }
  if (is_link(op.op_class.kind)) {
    return BoundBy::link;
  }
  switch (bound_of(law, work)) {
    case Bound::compute:
      return BoundBy::compute;
    case Bound::memory:
      return op.weights.value() >= 0.5 * work.bytes.value() ? BoundBy::weights
             : op.cache.value() >= 0.5 * work.bytes.value() ? BoundBy::cache
                                                            : BoundBy::activations;
    case Bound::launch:
      break;
  }
  return BoundBy::launch;
}

}  // namespace

std::string_view name(BoundBy bound) {
  constexpr std::array<std::string_view, kBounds> kNames{
      "weights", "cache", "compute", "launch", "link", "host", "activations"};
  return kNames.at(static_cast<std::size_t>(bound));
}

std::size_t StepPricer::class_of(const Op& op) {
  const auto known = std::ranges::find_if(classes_, [&](const PricedClass& c) {
    return c.op_class == op.op_class && c.on_host == op.on_host;
  });
  if (known != classes_.end()) {
    return static_cast<std::size_t>(known - classes_.begin());
  }
  classes_.push_back(source_->law(op.op_class, op.on_host));
  classes_.back().op_class = op.op_class;
  classes_.back().on_host = op.on_host;
  return classes_.size() - 1;
}

StepTime StepPricer::price(std::span<const Op> ops, std::int64_t n_layers, bool details) {
  StepTime step;
  std::array<double, kBounds> by_bound{};
  class_s_.assign(classes_.size(), 0.0);
  const std::int64_t n_units = source_->n_units();
  Provenance worst = Provenance::exact;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    const Op& op = ops[i];
    const std::size_t index = class_of(op);
    class_s_.resize(classes_.size(), 0.0);
    const PricedClass& priced = classes_[index];
    const Work work = work_of(op, n_units);
    const Seconds time = static_cast<double>(op.n_times) * time_of(priced.law, work);
    const BoundBy bound = bound_by(op, priced.law, work);
    class_s_[index] += time.value();
    by_bound[static_cast<std::size_t>(bound)] += time.value();
    worst = std::max(worst, priced.provenance);
    if (details) {
      step.ops.push_back({i, time, bound});
    }
  }
  const EngineGaps gaps = source_->gaps();
  const Seconds gap = gaps.per_step + static_cast<double>(n_layers) * gaps.per_layer;
  by_bound[static_cast<std::size_t>(BoundBy::launch)] += gap.value();
  double sum = gap.value();
  double variance = 0.0;
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    sum += class_s_[i];
    const double error_s = class_s_[i] * classes_[i].log_error;
    variance += error_s * error_s;
  }
  const double of_classes = sum > 0.0 ? std::sqrt(variance) / sum : 0.0;
  const double log_error = std::hypot(of_classes, gaps.log_error);
  step.time_s = {sum, sum * std::exp(-log_error), sum * std::exp(log_error), worst};
  step.bound = static_cast<BoundBy>(std::ranges::max_element(by_bound) - by_bound.begin());
  return step;
}

}  // namespace kvfathom
