#include "kernels/moe_ffn/moe_ffn.h"

#include <cmath>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "model/ops/moe_ffn.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

struct MoeShape {
  int n_tokens = 3;
  int hidden_size = 64;
  int intermediate_size = 40;
  int n_experts = 5;
  int n_chosen = 2;
};

/// One layer: its data, and what it should answer.
class MoeCase {
 public:
  MoeCase(WeightFormat format,
          const MoeShape& s,
          std::uint64_t seed,
          RouterScore score = RouterScore::softmax,
          Activation activation = Activation::silu)
      : gate_up_(random_weights(
            format, s.n_experts * 2 * s.intermediate_size, s.hidden_size, 0.1F, seed)),
        down_(random_weights(
            format, s.n_experts * s.hidden_size, s.intermediate_size, 0.1F, seed + 1)) {
    RandomData random(seed + 2);
    for (int i = 0; i < s.n_tokens * s.hidden_size; ++i) {
      x_.push_back(activation_of_f32(format, random.normal()));
    }
    for (int i = 0; i < s.n_experts * s.hidden_size; ++i) {
      router_.push_back(activation_of_f32(format, random.normal(0.2F)));
    }
    for (int i = 0; i < s.n_experts; ++i) {
      bias_.push_back(random.normal(0.1F));
    }
    params_ = {.n_tokens = s.n_tokens,
               .hidden_size = s.hidden_size,
               .intermediate_size = s.intermediate_size,
               .n_experts = s.n_experts,
               .n_chosen = s.n_chosen,
               .score = score,
               .normalise = score == RouterScore::softmax,
               .routed_scaling = score == RouterScore::softmax ? 1.0F : 2.5F,
               .activation = activation,
               .format = format,
               .x = x_.data(),
               .router = router_.data(),
               .choice_bias = score == RouterScore::sigmoid ? bias_.data() : nullptr,
               .gate_up = gate_up_.data(),
               .down = down_.data()};
    define();
  }

  [[nodiscard]] const MoeFfnParams& params() const { return params_; }
  [[nodiscard]] int n_active() const {
    return static_cast<int>(std::set<std::int32_t>(experts_.begin(), experts_.end()).size());
  }

  [[nodiscard]] Comparison on_cpu() const {
    std::vector<std::uint16_t> out(x_.size(), 0xffffU);
    MoeFfnParams with = params_;
    with.out = out.data();
    moe_ffn_cpu(with, 2);
    return held_to(out);
  }

  template <typename Mutate>
  [[nodiscard]] Comparison on_device(MoeKernel kernel, const Mutate& mutate) const {
    const DeviceArray<std::uint16_t> x(x_), router(router_);
    const DeviceArray<std::byte> gate_up(gate_up_), down(down_);
    const DeviceArray<float> bias(bias_);
    const DeviceArray<std::uint16_t> out(std::vector<std::uint16_t>(x_.size(), 0xffffU));
    MoeFfnParams with = params_;
    with.x = x.data();
    with.router = router.data();
    with.choice_bias = params_.choice_bias != nullptr ? bias.data() : nullptr;
    with.gate_up = gate_up.data();
    with.down = down.data();
    with.out = out.data();
    mutate(with);
    const DeviceArray<std::byte> scratch(std::vector<std::byte>(
        static_cast<std::size_t>(moe_ffn_scratch_bytes(with)), std::byte{0xff}));
    moe_ffn_launch(with, scratch.data(), nullptr, kernel);
    synchronize();
    return held_to(out.to_host());
  }
  [[nodiscard]] Comparison on_device(MoeKernel kernel) const {
    return on_device(kernel, [](MoeFfnParams&) {});
  }

 private:
  void define() {
    const std::size_t n = x_.size();
    const auto pairs = static_cast<std::size_t>(params_.n_tokens * params_.n_chosen);
    want_.resize(n);
    experts_.resize(pairs);
    std::vector<double> weights(pairs), magnitude(n), inner(n);
    std::vector<double> router(static_cast<std::size_t>(params_.n_tokens));
    moe_ffn_reference(params_,
                      {experts_.data(),
                       weights.data(),
                       want_.data(),
                       magnitude.data(),
                       inner.data(),
                       router.data()});
    const WeightFormat format = params_.format;
    const double decoded = is_quantised(format) ? kUnitRoundoffF16 : 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      // The last sum, whose operand h was rounded to 16 bits; the sums of gate and up behind it;
      // and the router's weights, whose relative error is twice that of a logit.
      const double last = dot_bound(want_[i],
                                    magnitude[i],
                                    params_.intermediate_size,
                                    {.output = activation_roundoff(format),
                                     .output_step = activation_half_step(format),
                                     .operands = activation_roundoff(format) + decoded});
      const double sums = dot_bound(0.0, inner[i], params_.hidden_size, {.operands = decoded});
      const double routing =
          dot_bound(0.0, 2.0 * router[i / params_.hidden_size] * magnitude[i], params_.hidden_size);
      bound_.push_back(last + sums + routing);
    }
  }
  [[nodiscard]] Comparison held_to(const std::vector<std::uint16_t>& out) const {
    std::vector<float> values;
    for (const std::uint16_t bits : out) {
      values.push_back(activation_to_f32(params_.format, bits));
    }
    return compare<float>(values, want_, bound_);
  }

  std::vector<std::byte> gate_up_, down_;
  std::vector<std::uint16_t> x_, router_;
  std::vector<float> bias_;
  MoeFfnParams params_;
  std::vector<std::int32_t> experts_;
  std::vector<double> want_, bound_;
};

TEST(MoeFfnReference, EqualExpertsAnswerAsOne) {
  // All experts alike and weights that add up to one: the choice does not matter.
  const MoeShape s{.n_tokens = 2, .hidden_size = 8, .intermediate_size = 8, .n_experts = 3};
  const auto one_gate_up = random_weights(WeightFormat::bf16, 16, 8, 0.5F, 1);
  const auto one_down = random_weights(WeightFormat::bf16, 8, 8, 0.5F, 2);
  std::vector<std::byte> gate_up, down;
  for (int expert = 0; expert < 3; ++expert) {
    gate_up.insert(gate_up.end(), one_gate_up.begin(), one_gate_up.end());
    down.insert(down.end(), one_down.begin(), one_down.end());
  }
  RandomData random(3);
  std::vector<std::uint16_t> x, router;
  for (int i = 0; i < 24; ++i) {
    x.push_back(to_bf16(random.normal()).bits);
    router.push_back(to_bf16(random.normal()).bits);
  }
  std::vector<std::vector<double>> answers;
  for (const int n_chosen : {1, 3}) {
    std::vector<double> out(16), magnitude(16), inner(16), router_magnitude(2), weights(6);
    std::vector<std::int32_t> experts(6);
    moe_ffn_reference({.n_tokens = s.n_tokens,
                       .hidden_size = 8,
                       .intermediate_size = 8,
                       .n_experts = 3,
                       .n_chosen = n_chosen,
                       .x = x.data(),
                       .router = router.data(),
                       .gate_up = gate_up.data(),
                       .down = down.data()},
                      {experts.data(),
                       weights.data(),
                       out.data(),
                       magnitude.data(),
                       inner.data(),
                       router_magnitude.data()});
    answers.push_back(out);
  }
  for (int i = 0; i < 16; ++i) {
    EXPECT_NEAR(answers[0][i], answers[1][i], 1e-12);
  }
}

TEST(MoeFfn, EqualsTheReferenceOnTheCpu) {
  std::uint64_t seed = 10;
  for (const WeightFormat format : kAllWeightFormats) {
    const int size = is_quantised(format) ? 256 : 72;
    for (const int n_tokens : {1, 12}) {
      SCOPED_TRACE(name(format));
      const MoeShape s{n_tokens, size, size, 6, 2};
      EXPECT_TRUE(within(MoeCase(format, s, ++seed).on_cpu()));
      EXPECT_TRUE(within(MoeCase(format, s, ++seed, RouterScore::sigmoid).on_cpu()));
    }
  }
}

TEST(MoeFfn, EqualsTheReferenceOnTheDevice) {
  SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 50;
  for (const WeightFormat format : kAllWeightFormats) {
    const int size = is_quantised(format) ? 256 : 72;
    for (const int n_tokens : {1, 20}) {
      SCOPED_TRACE(std::string(name(format)) + " tokens " + std::to_string(n_tokens));
      const MoeCase c(format, {n_tokens, size, size, 3, 2}, ++seed);
      EXPECT_TRUE(within(c.on_device(MoeKernel::gemv)));
      EXPECT_TRUE(within(c.on_device(MoeKernel::tiles)));
      EXPECT_TRUE(within(c.on_device(MoeKernel::automatic)));
    }
  }
}

TEST(MoeFfn, EveryRouterAndActivation) {
  SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 80;
  for (const RouterScore score : {RouterScore::softmax, RouterScore::sigmoid}) {
    for (const Activation activation : {Activation::gelu_tanh, Activation::relu_squared}) {
      const MoeCase c(WeightFormat::f16, {4, 64, 40, 37, 5}, ++seed, score, activation);
      EXPECT_TRUE(within(c.on_cpu()));
      EXPECT_TRUE(within(c.on_device(MoeKernel::automatic)));
    }
  }
}

TEST(MoeFfn, ManyTokensOnFewExpertsAndOddSizes) {
  SKIP_WITHOUT_DEVICE();
  const MoeCase many(WeightFormat::bf16, {70, 40, 24, 2, 1}, 90);
  EXPECT_TRUE(within(many.on_device(MoeKernel::tiles)));
  EXPECT_TRUE(within(many.on_device(MoeKernel::gemv)));
  const MoeCase odd(WeightFormat::q8_0, {3, 96, 160, 4, 4}, 91);
  EXPECT_EQ(moe_kernel(odd.params(), device()), MoeKernel::tiles);
  EXPECT_TRUE(within(odd.on_device(MoeKernel::automatic)));
  EXPECT_THROW(static_cast<void>(odd.on_device(MoeKernel::gemv)), UnsupportedShape);
}

TEST(MoeFfn, BeforeAmpere) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "only the emulator can be an sm_75";
  }
  DeviceInfo turing = device();
  turing.compute_capability = 75;
  simt::set_emulated_device(turing);
  const MoeCase c(WeightFormat::bf16, {3, 64, 40, 4, 2}, 95);
  EXPECT_EQ(moe_kernel(c.params(), device()), MoeKernel::tiles);
  EXPECT_TRUE(within(c.on_device(MoeKernel::automatic)));
  simt::set_emulated_device({});
}

TEST(MoeFfn, MistakesShow) {
  SKIP_WITHOUT_DEVICE();
  const MoeCase c(WeightFormat::f16, {4, 64, 64, 5, 2}, 100);
  for (const MoeKernel kernel : {MoeKernel::gemv, MoeKernel::tiles}) {
    const auto shows = [&](auto mutate) { EXPECT_FALSE(c.on_device(kernel, mutate).holds()); };
    EXPECT_TRUE(within(c.on_device(kernel)));
    shows([](MoeFfnParams& p) { p.routed_scaling = 1.01F; });
    shows([](MoeFfnParams& p) { p.normalise = false; });
    shows([](MoeFfnParams& p) { p.score = RouterScore::sigmoid; });
    shows([](MoeFfnParams& p) { p.n_chosen = 1; });
    shows([](MoeFfnParams& p) { p.n_experts = 3; });
    shows([](MoeFfnParams& p) { p.activation = Activation::gelu_tanh; });
  }
}

TEST(MoeFfn, MovesTheBytesOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  const std::pair<WeightFormat, DType> formats[] = {{WeightFormat::bf16, DType::bf16},
                                                    {WeightFormat::q4_0, DType::q4_0}};
  for (const auto& [format, dtype] : formats) {
    const MoeCase c(format, {3, 256, 256, 6, 2}, 110);
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(within(c.on_device(MoeKernel::gemv)));
    EXPECT_TRUE(moved_bytes_of(moe_ffn_cost({.n_tokens = 3,
                                             .hidden_size = 256,
                                             .intermediate_size = 256,
                                             .n_experts = 6,
                                             .n_chosen = 2,
                                             .n_active_experts = static_cast<double>(c.n_active()),
                                             .weights = dtype})));
  }
}

TEST(MoeFfnCost, ExpectedActiveExperts) {
  EXPECT_DOUBLE_EQ(expected_active_experts(1, 128, 8), 8.0);
  EXPECT_DOUBLE_EQ(expected_active_experts(7, 4, 4), 4.0);
  EXPECT_DOUBLE_EQ(expected_active_experts(2, 4, 2), 3.0);
}

TEST(MoeFfnSmall, UnderEverySchedule) {
  SKIP_WITHOUT_DEVICE();
  const MoeCase c(WeightFormat::bf16, {3, 32, 16, 4, 2}, 120);
  under_every_schedule([&] {
    EXPECT_TRUE(within(c.on_device(MoeKernel::gemv)));
    EXPECT_TRUE(within(c.on_device(MoeKernel::tiles)));
  });
}

TEST(MoeFfnSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  const MoeCase gemv(WeightFormat::bf16, {12, 1536, 16, 2, 2}, 130);
  expect_every_sync_matters([&] { return gemv.on_device(MoeKernel::gemv).holds(); });
  const MoeCase tiles(WeightFormat::f16, {34, 136, 136, 2, 2}, 131);
  expect_every_sync_matters([&] { return tiles.on_device(MoeKernel::tiles).holds(); });
}

}  // namespace
}  // namespace kvfathom::kernels
