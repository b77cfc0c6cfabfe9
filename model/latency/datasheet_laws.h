// Laws of a device that nothing was measured on: its data sheet and shares of it that most kernels
// reach.
#pragma once

#include <optional>

#include "model/hardware/hardware_spec.h"
#include "model/latency/step_time.h"

namespace kvfathom {

/// The peak rate at which products of this weight format run: its own where the device has one,
/// else what it is widened to (bf16, fp16, then fp32). Nothing: the data sheet names none.
[[nodiscard]] std::optional<FlopsPerSecond> peak_rate(const HardwareSpec& device, DType format);

/// Every class gets a share of peak bandwidth and of the peak rate of its format, a cost per launch
/// and a wide interval.
class DatasheetLaws final : public LawSource {
 public:
  /// `host`: the CPU and memory beside the device, for work that is left there; may be empty.
  /// InputError where the device's bandwidth is not known.
  explicit DatasheetLaws(HardwareSpec device, std::optional<HardwareSpec> host = {});

  [[nodiscard]] PricedClass law(const OpClass& op_class, bool on_host) const override;
  [[nodiscard]] EngineGaps gaps() const override;
  [[nodiscard]] std::int64_t n_units() const override;

 private:
  HardwareSpec device_;
  std::optional<HardwareSpec> host_;
};

}  // namespace kvfathom
