// Laws of kernels that were measured: on this device, on another of its name, or published.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/latency/calibration.h"
#include "model/latency/step_time.h"

namespace kvfathom {

/// The calibration's name of an operation's class: "decode_attention/bf16/d128/g8/window".
[[nodiscard]] KernelClass kernel_class_of(const OpClass& op_class);

/// Fitted classes where a calibration has them, the first that does; or one like them (the same
/// operation and format at the nearest head width; without its variant); all else by the laws
/// behind. Of these, kernels that read the cache in a form that was not measured cost no less to
/// call than the measured one that reads 16 bits: else every such form were quicker where there is
/// little to read.
class CalibratedLaws final : public LawSource {
 public:
  /// `calibrations`, at least one: of one device, the preferred first. `provenance`: how close that
  /// device is to the one at hand; a class is never surer than it was where it was measured. Gaps
  /// are those of `behind` unless they are given.
  CalibratedLaws(std::vector<Calibration> calibrations,
                 Provenance provenance,
                 std::unique_ptr<LawSource> behind,
                 std::optional<EngineGaps> gaps = std::nullopt);

  [[nodiscard]] PricedClass law(const OpClass& op_class, bool on_host) const override;
  [[nodiscard]] EngineGaps gaps() const override;
  [[nodiscard]] std::int64_t n_units() const override;
  [[nodiscard]] double pipeline_share() const override { return behind_->pipeline_share(); }

 private:
  struct Source {
    Calibration calibration;
    std::string origin;
    std::string similar;  ///< the same, of a class like the one asked for
  };
  struct Found {
    const Source* source = nullptr;
    const FittedClass* fitted = nullptr;
  };
  [[nodiscard]] Found find(const KernelClass& id) const;
  [[nodiscard]] PricedClass unmeasured(const OpClass& op_class) const;

  std::vector<Source> sources_;
  Provenance provenance_;
  std::unique_ptr<LawSource> behind_;
  std::optional<EngineGaps> gaps_;
};

}  // namespace kvfathom
