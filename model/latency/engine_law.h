// The laws of a device under an engine: shares of its data sheet that the engine was seen to reach.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/hardware/hardware_spec.h"
#include "model/latency/datasheet_laws.h"
#include "model/latency/step_ops.h"
#include "model/latency/step_time.h"

namespace kvfathom {

/// One factor of a law. `name` is a quantity ("read", "rate", "launch", ...), or a quantity and a
/// feature that changes it ("read/ada", "rate/4-bit k", "rate/cuda 4-bit k"); all that apply are
/// multiplied.
struct EngineParameter {
  std::string name;
  double value = 1.0;  ///< a share of the data sheet, seconds, or a factor on either
  double low = 1.0;    ///< 90 % interval
  double high = 1.0;
};

/// How far held-out measurements were off.
struct EngineError {
  Phase phase = Phase::decode;
  std::string device_class;  ///< "all" or one of device_class()
  bool device_known = true;  ///< others of the class were among the rows fitted to
  std::int64_t n = 0;
  double median_abs_error = 0.0;  ///< of the predicted time, as a share of the measured one
  double p90_abs_error = 0.0;
  double bias = 0.0;       ///< median of the signed error
  double log_error = 0.0;  ///< 90 % of the rows lie within a factor exp(+-this)
};

struct EngineSpeed {
  std::string engine;
  std::string source;  ///< of the rows fitted to
  std::int64_t n_rows = 0;
  Provenance provenance = Provenance::modelled;
  std::vector<EngineParameter> parameters;
  std::vector<EngineError> errors;
};

/// What of a run changes its laws, besides the device.
struct EngineRun {
  Phase phase = Phase::decode;  ///< decides the interval, and whether a peak rate is needed
  std::string backend;          ///< "cuda", "metal", "rocm", "vulkan"; empty: the vendor's own
  bool flash_attention = true;
};

/// "ampere", "ampere-datacentre", "ada", "m2", "rdna3", ...; empty: no class of its own.
[[nodiscard]] std::string device_class(const HardwareSpec& device);
/// "16-bit", "8-bit", "4-bit k", "4-bit", "below 4-bit", "fp8" or "fp4".
[[nodiscard]] std::string_view format_class(DType format);
/// That of what an operation reads: in a cache of keys and values 8 bits are 8 bits, be they floats
/// or integers.
[[nodiscard]] std::string_view format_class(const OpClass& op_class);

/// Fitted shares where the engine's file has them; a class of device that it has not seen falls
/// back on the engine's common share.
class EngineLaws final : public LawSource {
 public:
  /// InputError where the bandwidth is not known; Unsupported for a prompt on a device whose data
  /// sheet names no peak rate. `speed` must outlive this.
  EngineLaws(const EngineSpeed& speed, HardwareSpec device, EngineRun run);

  [[nodiscard]] PricedClass law(const OpClass& op_class, bool on_host) const override;
  [[nodiscard]] EngineGaps gaps() const override;
  [[nodiscard]] std::int64_t n_units() const override { return 0; }  // waves are not fitted

  [[nodiscard]] double pipeline_share() const override { return share("pipeline"); }

  /// Whether enough rows of the device's class were among those fitted to.
  [[nodiscard]] bool knows_device() const { return knows_device_; }

  /// Whether a parameter of this feature applies to any law here.
  [[nodiscard]] bool has_feature(std::string_view feature) const;

 private:
  /// The product of a quantity's parameters that apply.
  [[nodiscard]] double value(std::string_view quantity,
                             std::string_view format = {},
                             std::string_view kind = {}) const;
  [[nodiscard]] double share(std::string_view quantity,
                             std::string_view format = {},
                             std::string_view kind = {}) const;

  const EngineSpeed* speed_;
  HardwareSpec device_;
  DatasheetLaws datasheet_;  ///< of what the engine has no share of
  EngineRun run_;
  std::vector<std::string> features_;  ///< device class, vendor, backend, "no flash attention"
  double log_error_ = 0.0;
  bool knows_device_ = false;
};

}  // namespace kvfathom
