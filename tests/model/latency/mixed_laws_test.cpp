// Laws of layers on devices of different kinds against sums done by hand.
#include "model/latency/mixed_laws.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace kvfathom {
namespace {

/// A device that does everything at one rate.
class Device final : public LawSource {
 public:
  Device(double bandwidth, double launch_s, std::string origin)
      : bandwidth_(bandwidth), launch_s_(launch_s), origin_(std::move(origin)) {}

  [[nodiscard]] PricedClass law(const OpClass& op_class, bool on_host) const override {
    return {.op_class = op_class,
            .on_host = on_host,
            .law = {.bandwidth = BytesPerSecond(bandwidth_), .flops = FlopsPerSecond(1e14)},
            .launch = Seconds(launch_s_),
            .log_error = launch_s_ * 1e5,
            .provenance = Provenance::published,
            .origin = origin_};
  }
  [[nodiscard]] EngineGaps gaps() const override {
    return {.per_step = Seconds(launch_s_), .per_layer = {}};
  }
  [[nodiscard]] std::int64_t n_units() const override { return 0; }

 private:
  double bandwidth_;
  double launch_s_;
  std::string origin_;
};

MixedLaws three_quarters_of_a_fast_one() {
  std::vector<LawShare> shares;
  shares.push_back({std::make_unique<Device>(1000e9, 2e-6, "fast"), 0.75});
  shares.push_back({std::make_unique<Device>(250e9, 6e-6, "slow"), 0.25});
  return MixedLaws(std::move(shares));
}

// 40 layers of 1 GB: 30 take 1 ms each, 10 take 4 ms, and as many launches of 2 and of 6 us.
TEST(MixedLaws, EachDeviceCostsItsShareOfTheLayers) {
  const MixedLaws laws = three_quarters_of_a_fast_one();
  StepPricer pricer(laws);
  const Op layer{.op_class = {.kind = OpKind::gemm},
                 .part = "a",
                 .cost = {.read = Bytes(1e9)},
                 .n_times = 40,
                 .weights = Bytes(1e9)};
  const StepTime step = pricer.price(std::vector<Op>{layer}, 40, false);
  const double by_hand = 30.0 * (1e-3 + 2e-6) + 10.0 * (4e-3 + 6e-6) + 0.75 * 2e-6 + 0.25 * 6e-6;
  EXPECT_NEAR(step.time_s.value, by_hand, 1e-12);
  EXPECT_EQ(step.bound, BoundBy::weights);
  const PricedClass mixed = laws.law({.kind = OpKind::gemm}, false);
  EXPECT_EQ(mixed.origin, "fast, slow");
  EXPECT_DOUBLE_EQ(mixed.log_error, 0.6);  // as unsure as the one that is less sure
  EXPECT_DOUBLE_EQ(mixed.law.flops->value(), 1e14);
}

TEST(MixedLaws, ALinkIsAsSlowAsItsSlowerEnd) {
  const MixedLaws laws = three_quarters_of_a_fast_one();
  const PricedClass link = laws.law({.kind = OpKind::peer_transfer}, false);
  EXPECT_DOUBLE_EQ(link.law.bandwidth->value(), 250e9);
  EXPECT_EQ(laws.law({.kind = OpKind::moe_ffn}, true).origin, "fast");
}

}  // namespace
}  // namespace kvfathom
