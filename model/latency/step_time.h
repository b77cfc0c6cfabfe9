// Operations into seconds: each priced by the law of its class, and what an engine adds.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "model/latency/calibration.h"
#include "model/latency/estimate.h"
#include "model/latency/law.h"
#include "model/latency/op.h"

namespace kvfathom {

/// A class's law on one device under one engine, and how far it may be off.
struct PricedClass {
  OpClass op_class;
  bool on_host = false;
  Law law;
  Seconds launch = {};     ///< of each kernel, beside the law's cost of a call
  double log_error = 0.0;  ///< 90 % of the measured times lie within a factor exp(+-this)
  std::optional<WorkRange> range = std::nullopt;  ///< that was measured; outside of it, wider
  Provenance provenance = Provenance::assumed;
  std::string_view origin;  ///< "measured", "fitted on similar GPUs", "data sheet", ...
};

/// What a step costs besides its operations.
struct EngineGaps {
  Seconds per_step;   ///< scheduling, sampling on the host, launching a graph
  Seconds per_layer;  ///< what no operation accounts for
  /// 90 % of steps as a whole lie within a factor exp(+-this), besides the classes' own errors.
  double log_error = 0.0;
};

/// Finds the law of a class. Asked once for each class of a model, not for each step.
class LawSource {
 public:
  LawSource() = default;
  LawSource(const LawSource&) = delete;
  LawSource& operator=(const LawSource&) = delete;
  virtual ~LawSource() = default;
  /// Never fails: a class that nothing is known of gets a law from the data sheet, and says so.
  [[nodiscard]] virtual PricedClass law(const OpClass& op_class, bool on_host) const = 0;
  [[nodiscard]] virtual EngineGaps gaps() const = 0;
  /// Units (SMs) that blocks are spread over; 0: not known.
  [[nodiscard]] virtual std::int64_t n_units() const = 0;
  /// What layers spread over GPUs gain of the speed-up that chunks in flight could give; 1: all.
  [[nodiscard]] virtual double pipeline_share() const { return 0.0; }
};

/// What a step waits for most.
enum class BoundBy : std::uint8_t { weights, cache, compute, launch, link, host, activations };
[[nodiscard]] std::string_view name(BoundBy bound);

/// One operation's share of a step, all its layers together.
struct OpTime {
  std::size_t op = 0;  ///< index into the operations priced
  Seconds time;
  BoundBy bound = BoundBy::launch;
};

struct StepTime {
  Estimate time_s;
  BoundBy bound = BoundBy::launch;
  std::vector<OpTime> ops;  ///< empty unless asked for
};

/// Prices the steps of one model on one machine: laws are looked up as classes appear.
class StepPricer {
 public:
  explicit StepPricer(const LawSource& source) : source_(&source) {}

  /// The sum over the operations and the engine's gaps. Errors of different classes are taken as
  /// independent, those of one class as shared by all its operations.
  [[nodiscard]] StepTime price(std::span<const Op> ops, std::int64_t n_layers, bool details);

  [[nodiscard]] std::span<const PricedClass> classes() const { return classes_; }

 private:
  [[nodiscard]] std::size_t class_of(const Op& op);

  const LawSource* source_;
  std::vector<PricedClass> classes_;
  std::vector<double> class_error_s_;  ///< scratch: of each class in the step at hand
};

}  // namespace kvfathom
