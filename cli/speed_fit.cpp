#include "cli/speed_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "calibrate/ridge_fit.h"
#include "model/quantile.h"

namespace kvfathom::cli {
namespace {

struct Quantity {
  const char* name;
  double value;      ///< before any row is seen
  double deviation;  ///< of its logarithm
};
/// Shares as the published kernel tables have them at the median; times as one launch, one call and
/// the host's work between steps take.
constexpr std::array<Quantity, 11> kQuantities{{{"read", 0.75, 0.3},
                                                {"rate", 0.5, 0.5},
                                                {"cache", 0.6, 0.5},
                                                {"attention", 0.4, 0.7},
                                                {"launch", 4e-6, 0.7},
                                                {"overlap", 1.0, 0.5},
                                                {"layer gap", 5e-6, 1.0},
                                                {"step gap", 5e-4, 1.0},
                                                {"link", 0.8, 0.3},
                                                {"link call", 1e-5, 0.7},
                                                {"pipeline", 0.5, 0.5}}};
constexpr double kEffectDeviation = 0.35;
constexpr double kPathDeviation = 1.0;  ///< of what runs other kernels altogether

constexpr std::array<std::string_view, 7> kFormats{
    "16-bit", "8-bit", "4-bit k", "4-bit", "below 4-bit", "fp8", "fp4"};

bool takes_format(std::string_view quantity) {
  return quantity == "read" || quantity == "rate" || quantity == "cache";
}

bool takes_device(std::string_view quantity) {
  return quantity != "overlap" && quantity != "link" && quantity != "link call" &&
         quantity != "layer gap" && quantity != "pipeline";
}

std::string_view tail_of(std::string_view name) {
  const std::size_t at = name.find('/');
  return at == std::string_view::npos ? std::string_view() : name.substr(at + 1);
}

/// The formats and kinds of operations that a replay prices.
std::set<std::string> work_features(const Replay& replay) {
  std::set<std::string> features;
  for (const ReplayStep& step : replay.steps) {
    for (const Op& op : step.ops) {
      const OpKind kind = op.op_class.kind;
      if (kind == OpKind::gemm || kind == OpKind::moe_ffn || op.cache.value() > 0.0) {
        const std::string format(format_class(op.op_class));
        features.insert(format);
        features.insert(replay.row->backend + " " + format);
      }
      if (kind == OpKind::moe_ffn) {
        features.emplace("experts");
      }
      if (kind == OpKind::mla_decode) {
        features.emplace("latent");
      }
    }
  }
  return features;
}

class Fitter {
 public:
  Fitter(const std::string& engine, const std::vector<SpeedRow>& rows)
      : speed_(initial_speed(engine)),
        replays_(rows, [this](const std::string&) { return &speed_; }) {
    for (Replay& replay : replays_.all()) {
      if (replay.refused.empty()) {
        rows_.push_back(&replay);
        features_.push_back(work_features(replay));
      }
    }
    add_effects();
    group_rows();
  }

  SpeedFit run();

 private:
  void add_effects();
  void group_rows();
  [[nodiscard]] RidgeProblem problem();
  [[nodiscard]] std::string group_of(std::size_t row) const {
    return rows_[row]->row->gpu + "|" + rows_[row]->row->model;
  }
  void hold_out(RidgeProblem base,
                const RidgeFit& fit,
                const std::vector<std::size_t>& fold_of,
                bool device_known,
                std::vector<HeldOut>& all);
  void add_intervals(const RidgeProblem& problem, const RidgeFit& fit);

  EngineSpeed speed_;
  Replays replays_;
  std::vector<Replay*> rows_;
  std::vector<std::set<std::string>> features_;
  std::vector<double> weights_;
  std::vector<double> deviations_;
};

void Fitter::add_effects() {
  deviations_.clear();
  std::set<std::string> devices;
  std::set<std::string> work;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    work.insert(features_[i].begin(), features_[i].end());
    for (const std::string& feature :
         {rows_[i]->device_class, rows_[i]->row->backend, std::string("no flash attention")}) {
      if (!feature.empty() && rows_[i]->laws->has_feature(feature)) {
        devices.insert(feature);
      }
    }
  }
  std::vector<EngineParameter> all;
  for (const Quantity& quantity : kQuantities) {
    const std::string base = quantity.name;
    all.push_back({.name = base, .value = quantity.value});
    deviations_.push_back(quantity.deviation);
    const auto add = [&](const std::string& feature) {
      all.push_back({.name = base});
      all.back().name.append("/").append(feature);
      const bool is_path = feature == "no flash attention" || feature == "latent";
      deviations_.push_back(is_path ? kPathDeviation : kEffectDeviation);
    };
    for (const std::string& feature : devices) {
      const bool of_attention = base == "attention" || base == "cache";
      if (feature == "no flash attention" ? of_attention : takes_device(base)) {
        add(feature);
      }
    }
    for (const std::string& feature : work) {
      const bool is_format = std::ranges::any_of(kFormats, [&](std::string_view format) {
        return feature == format ||
               (feature.ends_with(" " + std::string(format)) && (base == "read" || base == "rate"));
      });
      const bool of_experts = feature == "experts" && (base == "read" || base == "rate");
      const bool of_latents = feature == "latent" && (base == "cache" || base == "attention");
      if ((is_format && takes_format(base)) || of_experts || of_latents) {
        add(feature);
      }
    }
  }
  speed_.parameters = std::move(all);
}

void Fitter::group_rows() {
  std::map<std::string, int> sizes;
  const auto key = [&](std::size_t i) {
    return group_of(i) + rows_[i]->row->weights + rows_[i]->row->backend +
           (rows_[i]->row->is_prefill() ? "p" : "d");
  };
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    ++sizes[key(i)];
  }
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    weights_.push_back(1.0 / std::sqrt(static_cast<double>(sizes[key(i)])));
  }
}

RidgeProblem Fitter::problem() {
  RidgeProblem problem;
  problem.n_rows = rows_.size();
  problem.weights = weights_;
  problem.deviation = deviations_;
  for (const EngineParameter& parameter : speed_.parameters) {
    problem.mean.push_back(std::log(parameter.value));
  }
  problem.set = [this](std::span<const double> x) {
    for (std::size_t p = 0; p < x.size(); ++p) {
      speed_.parameters[p].value = std::exp(x[p]);
    }
  };
  problem.residual = [this](std::size_t row) {
    return std::log(predicted_time(*rows_[row], *rows_[row]->laws).value / rows_[row]->measured_s);
  };
  problem.depends = [this](std::size_t row, std::size_t p) {
    const std::string tail(tail_of(speed_.parameters[p].name));
    return tail.empty() || rows_[row]->laws->has_feature(tail) || features_[row].contains(tail);
  };
  return problem;
}

void Fitter::hold_out(RidgeProblem base,
                      const RidgeFit& fit,
                      const std::vector<std::size_t>& fold_of,
                      bool device_known,
                      std::vector<HeldOut>& all) {
  const std::size_t n_folds = *std::ranges::max_element(fold_of) + 1;
  for (std::size_t fold = 0; fold < n_folds; ++fold) {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      base.weights[i] = fold_of[i] == fold ? 0.0 : weights_[i];
    }
    // Nearly linear in the parameters: one step of the whole fit, then one of its own.
    base.set(fit_ridge(base, refit_linear(base, fit, base.weights), 1).x);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (fold_of[i] == fold) {
        all.push_back({rows_[i]->row, rows_[i]->device_class, device_known, base.residual(i)});
      }
    }
  }
  base.set(fit.x);
}

void Fitter::add_intervals(const RidgeProblem& problem, const RidgeFit& fit) {
  constexpr int kResamples = 200;
  constexpr double kTail = 0.05;
  std::map<std::string, std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    groups[group_of(i)].push_back(i);
  }
  std::vector<std::vector<double>> samples(fit.x.size());
  std::mt19937 random(1);
  for (int r = 0; r < kResamples; ++r) {
    std::vector<double> weights(rows_.size(), 0.0);
    for (std::size_t drawn = 0; drawn < groups.size(); ++drawn) {
      auto one = groups.begin();
      std::advance(one, static_cast<std::ptrdiff_t>(random() % groups.size()));
      for (const std::size_t i : one->second) {
        weights[i] += weights_[i];
      }
    }
    const std::vector<double> x = refit_linear(problem, fit, weights);
    for (std::size_t p = 0; p < x.size(); ++p) {
      samples[p].push_back(x[p]);
    }
  }
  for (std::size_t p = 0; p < fit.x.size(); ++p) {
    std::ranges::sort(samples[p]);
    const auto at = [&](double share) {
      return std::exp(samples[p][static_cast<std::size_t>(share * (kResamples - 1))]);
    };
    EngineParameter& parameter = speed_.parameters[p];
    parameter.low = std::min(parameter.value, at(kTail));
    parameter.high = std::max(parameter.value, at(1.0 - kTail));
  }
}

/// Errors of the held-out rows of one phase and class; "all" takes every class.
void add_error(const std::vector<HeldOut>& held_out, EngineError error, EngineSpeed& speed) {
  std::vector<double> sizes;
  std::vector<double> logs;
  std::vector<double> errors;
  for (const HeldOut& one : held_out) {
    const bool is_prefill = one.row->is_prefill();
    if (one.device_known == error.device_known && is_prefill == (error.phase == Phase::prefill) &&
        (error.device_class == "all" || one.device_class == error.device_class)) {
      errors.push_back(std::exp(one.log_ratio) - 1.0);
      sizes.push_back(std::fabs(errors.back()));
      logs.push_back(std::fabs(one.log_ratio));
    }
  }
  if (errors.empty()) {
    return;
  }
  error.n = static_cast<std::int64_t>(errors.size());
  error.median_abs_error = quantile(sizes, 0.5);
  error.p90_abs_error = quantile(sizes, 0.9);
  error.bias = quantile(errors, 0.5);
  error.log_error = quantile(logs, 0.9);
  speed.errors.push_back(error);
}

SpeedFit Fitter::run() {
  constexpr std::size_t kFolds = 10;
  RidgeProblem whole = problem();
  const RidgeFit fit = fit_ridge(whole, whole.mean);
  std::map<std::string, std::size_t> by_group;
  std::map<std::string, std::size_t> by_class;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    by_group.emplace(group_of(i), by_group.size() % kFolds);
    by_class.emplace(rows_[i]->device_class, by_class.size());
  }
  std::vector<std::size_t> group_fold;
  std::vector<std::size_t> class_fold;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    group_fold.push_back(by_group.at(group_of(i)));
    class_fold.push_back(by_class.at(rows_[i]->device_class));
  }
  SpeedFit result;
  hold_out(whole, fit, group_fold, true, result.held_out);
  if (by_class.size() > 1) {
    hold_out(whole, fit, class_fold, false, result.held_out);
  }
  add_intervals(whole, fit);
  speed_.n_rows = static_cast<std::int64_t>(rows_.size());
  for (const bool known : {true, false}) {
    for (const Phase phase : {Phase::prefill, Phase::decode}) {
      add_error(
          result.held_out, {.phase = phase, .device_class = "all", .device_known = known}, speed_);
      for (const auto& [device, fold] : by_class) {
        add_error(result.held_out,
                  {.phase = phase, .device_class = device, .device_known = known},
                  speed_);
      }
    }
  }
  result.speed = speed_;
  return result;
}

}  // namespace

EngineSpeed initial_speed(const std::string& engine) {
  EngineSpeed speed{
      .engine = engine, .source = "data/truth/speed.tsv", .parameters = {}, .errors = {}};
  for (const Quantity& quantity : kQuantities) {
    speed.parameters.push_back({.name = quantity.name,
                                .value = quantity.value,
                                .low = quantity.value * std::exp(-1.645 * quantity.deviation),
                                .high = quantity.value * std::exp(1.645 * quantity.deviation)});
  }
  return speed;
}

SpeedFit fit_speed(const std::string& engine, const std::vector<SpeedRow>& rows) {
  std::vector<SpeedRow> own;
  std::ranges::copy_if(
      rows, std::back_inserter(own), [&](const SpeedRow& row) { return row.engine == engine; });
  SpeedFit fit = Fitter(engine, own).run();
  for (HeldOut& one : fit.held_out) {  // point into the caller's rows
    one.row = &*std::ranges::find(rows, one.row->id, &SpeedRow::id);
  }
  return fit;
}

}  // namespace kvfathom::cli
