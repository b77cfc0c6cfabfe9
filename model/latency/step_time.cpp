#include "model/latency/step_time.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace kvfathom {
namespace {

constexpr std::size_t kBounds = 7;

/// What the law is asked about: rounds of blocks that are not full count whole where they last as
/// long (kernel_work.h).
Work work_of(const Op& op, std::int64_t n_units) {
  Work work = work_of(op.cost, n_units > 0 ? waves(op.n_blocks, n_units) : 0.0);
  if (op.block_share > 0.0 && n_units > 0) {
    const double padding = work.waves * static_cast<double>(n_units) /
                           static_cast<double>(op.n_blocks) / op.block_share;
    work.flops = padding * work.flops;
  }
  return work;
}

BoundBy bound_by(const Op& op, const PricedClass& priced, const Work& work) {
  if (op.on_host) {
    return BoundBy::host;
  }
  if (is_link(op.op_class.kind)) {
    return BoundBy::link;
  }
  const Law& law = priced.law;
  const double memory_s = law.bandwidth ? (work.bytes / *law.bandwidth).value() : 0.0;
  const double compute_s = law.flops ? (work.flops / *law.flops).value() : 0.0;
  const double fixed_s = law.fixed.value() + work.launches * priced.launch.value() +
                         (law.wave ? work.waves * law.wave->value() : 0.0);
  if (fixed_s >= memory_s && fixed_s >= compute_s) {
    return BoundBy::launch;
  }
  if (compute_s > memory_s) {
    return BoundBy::compute;
  }
  return op.weights.value() >= 0.5 * work.bytes.value() ? BoundBy::weights
         : op.cache.value() >= 0.5 * work.bytes.value() ? BoundBy::cache
                                                        : BoundBy::activations;
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
  class_error_s_.assign(classes_.size(), 0.0);
  const std::int64_t n_units = source_->n_units();
  Provenance provenance = Provenance::exact;
  double sum_s = 0.0;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    const Op& op = ops[i];
    const std::size_t index = class_of(op);
    class_error_s_.resize(classes_.size(), 0.0);
    const PricedClass& priced = classes_[index];
    const Work work = work_of(op, n_units);
    const Seconds once = time(priced.law, work) + work.launches * priced.launch;
    const Seconds all = static_cast<double>(op.n_times) * once;
    const BoundBy bound = bound_by(op, priced, work);
    const double wider = priced.range ? widening(*priced.range, work) : 1.0;
    class_error_s_[index] += all.value() * priced.log_error * wider;
    by_bound[static_cast<std::size_t>(bound)] += all.value();
    sum_s += all.value();
    provenance = worst(provenance, priced.provenance);
    provenance = wider > 1.0 ? worst(provenance, Provenance::modelled) : provenance;
    if (details) {
      step.ops.push_back({i, all, bound});
    }
  }
  const EngineGaps gaps = source_->gaps();
  const Seconds gap = gaps.per_step + static_cast<double>(n_layers) * gaps.per_layer;
  by_bound[static_cast<std::size_t>(BoundBy::launch)] += gap.value();
  sum_s += gap.value();
  double variance = 0.0;
  for (const double error_s : class_error_s_) {
    variance += error_s * error_s;
  }
  const double of_classes = sum_s > 0.0 ? std::sqrt(variance) / sum_s : 0.0;
  const double log_error = std::hypot(of_classes, gaps.log_error);
  step.time_s = {sum_s, sum_s * std::exp(-log_error), sum_s * std::exp(log_error), provenance};
  step.bound = static_cast<BoundBy>(std::ranges::max_element(by_bound) - by_bound.begin());
  return step;
}

}  // namespace kvfathom
