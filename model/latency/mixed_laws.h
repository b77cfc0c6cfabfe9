// Laws of layers that are spread over devices of different kinds.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "model/latency/step_time.h"

namespace kvfathom {

/// One kind of device: its laws, and the share of the layers that it runs.
struct LawShare {
  std::unique_ptr<LawSource> laws;
  double share = 0.0;
};

/// A step passes the devices one after another, so that each costs its share of what it would take
/// for all layers: 1 / rate is the mean of 1 / rate, fixed costs the mean of fixed costs. That is
/// exact where the same term of the law counts on every device. Devices that wait for each other
/// (ranks of one layer) go by the slowest: give that one alone. Links run at the slowest one's
/// rate, work on the host as beside the first device.
class MixedLaws final : public LawSource {
 public:
  /// `shares`: at least one, their sum 1.
  explicit MixedLaws(std::vector<LawShare> shares) : shares_(std::move(shares)) {}

  [[nodiscard]] PricedClass law(const OpClass& op_class, bool on_host) const override;
  [[nodiscard]] EngineGaps gaps() const override;
  [[nodiscard]] std::int64_t n_units() const override;
  [[nodiscard]] double pipeline_share() const override;

 private:
  [[nodiscard]] std::string_view origin_of(const std::vector<PricedClass>& parts) const;

  std::vector<LawShare> shares_;
  mutable std::deque<std::string> origins_;  ///< what PricedClass::origin points to
};

}  // namespace kvfathom
