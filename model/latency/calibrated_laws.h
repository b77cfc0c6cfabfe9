// Laws of kernels that were measured: on this device, on another of its name, or published.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "model/latency/calibration.h"
#include "model/latency/step_time.h"

namespace kvfathom {

/// The calibration's name of an operation's class: "decode_attention/bf16/d128/g8/window".
[[nodiscard]] KernelClass kernel_class_of(const OpClass& op_class);

/// Fitted classes where the calibration has them, or one like them (the same operation and format
/// at the nearest head width; without its variant); all else by the laws behind.
class CalibratedLaws final : public LawSource {
 public:
  /// `provenance`: how close the measured device is to the one at hand; a class is never surer
  /// than it was where it was measured. Gaps are those of `behind` unless they are given.
  CalibratedLaws(Calibration calibration,
                 Provenance provenance,
                 std::unique_ptr<LawSource> behind,
                 std::optional<EngineGaps> gaps = std::nullopt);

  [[nodiscard]] PricedClass law(const OpClass& op_class, bool on_host) const override;
  [[nodiscard]] EngineGaps gaps() const override;
  [[nodiscard]] std::int64_t n_units() const override;
  [[nodiscard]] double pipeline_share() const override { return behind_->pipeline_share(); }

 private:
  [[nodiscard]] const FittedClass* fitted(const KernelClass& id) const;

  Calibration calibration_;
  Provenance provenance_;
  std::unique_ptr<LawSource> behind_;
  std::optional<EngineGaps> gaps_;
  std::string origin_;
  std::string similar_;
};

}  // namespace kvfathom
