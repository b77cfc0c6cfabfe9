#include "model/latency/mixed_laws.h"

#include <algorithm>

namespace kvfathom {
namespace {

/// The rate at which shares of the work at these rates are done; nothing where one is not known.
template <class Rate>
std::optional<Rate> mean_rate(const std::vector<PricedClass>& parts,
                              const std::vector<LawShare>& shares,
                              std::optional<Rate> Law::*rate) {
  double per_unit_s = 0.0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::optional<Rate>& one = parts[i].law.*rate;
    if (!one) {
      return std::nullopt;
    }
    per_unit_s += shares[i].share / Rate(*one).value();
  }
  return Rate(1.0 / per_unit_s);
}

}  // namespace

PricedClass MixedLaws::law(const OpClass& op_class, bool on_host) const {
  std::vector<PricedClass> parts;
  for (const LawShare& one : shares_) {
    parts.push_back(one.laws->law(op_class, on_host));
  }
  if (on_host) {
    return parts.front();
  }
  if (is_link(op_class.kind)) {
    return *std::ranges::min_element(parts, {}, [](const PricedClass& part) {
      return part.law.bandwidth ? part.law.bandwidth->value() : 0.0;
    });
  }
  PricedClass mixed = parts.front();
  mixed.launch = {};
  mixed.law.fixed = {};
  double wave_s = 0.0;
  double p = 0.0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const double share = shares_[i].share;
    mixed.launch += share * parts[i].launch;
    mixed.law.fixed += share * parts[i].law.fixed;
    wave_s += parts[i].law.wave ? share * parts[i].law.wave->value() : 0.0;
    p += share * parts[i].law.p;
    mixed.log_error = std::max(mixed.log_error, parts[i].log_error);
    mixed.provenance = worst(mixed.provenance, parts[i].provenance);
  }
  mixed.law.wave = wave_s > 0.0 ? std::optional(Seconds(wave_s)) : std::nullopt;
  mixed.law.p = p;
  mixed.law.bandwidth = mean_rate(parts, shares_, &Law::bandwidth);
  mixed.law.flops = mean_rate(parts, shares_, &Law::flops);
  mixed.origin = origin_of(parts);
  return mixed;
}

std::string_view MixedLaws::origin_of(const std::vector<PricedClass>& parts) const {
  std::string all;
  for (const PricedClass& part : parts) {
    if (all.find(part.origin) == std::string::npos) {
      all.append(all.empty() ? "" : ", ").append(part.origin);
    }
  }
  const auto known = std::ranges::find(origins_, all);
  return known != origins_.end() ? *known : origins_.emplace_back(std::move(all));
}

EngineGaps MixedLaws::gaps() const {
  EngineGaps mixed;
  for (const LawShare& one : shares_) {
    const EngineGaps gaps = one.laws->gaps();
    mixed.per_step += one.share * gaps.per_step;
    mixed.per_layer += one.share * gaps.per_layer;
    mixed.log_error = std::max(mixed.log_error, gaps.log_error);
  }
  return mixed;
}

std::int64_t MixedLaws::n_units() const {
  return shares_.front().laws->n_units();
}

double MixedLaws::pipeline_share() const {
  return shares_.front().laws->pipeline_share();
}

}  // namespace kvfathom
