#include "kernels/elementwise/elementwise.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/tolerance.h"
#include "model/ops/elementwise.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/elements.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

/// What writing an element adds to the roundings of float arithmetic.
Roundings written_as(Element element) {
  switch (element) {
    case Element::f16:
      return {.output = kUnitRoundoffF16, .output_step = kHalfSmallestStepF16};
    case Element::bf16:
      return {.output = kUnitRoundoffBf16};
    case Element::f32:
      break;
  }
  return {};
}

// ---- RMSNorm ----
struct NormCase {
  NormCase(Element of, std::int64_t rows, int columns, bool with_residual, std::uint64_t seed)
      : element(of),
        x(ElementArray::random(of, static_cast<std::size_t>(rows * columns), seed)),
        residual(ElementArray::random(of, static_cast<std::size_t>(rows * columns), seed + 1)),
        weight(ElementArray::random(of, static_cast<std::size_t>(columns), seed + 2)) {
    params = {.n_rows = rows,
              .n_columns = columns,
              .element = of,
              .weight_offset = 1.0F,
              .x = x.bytes.data(),
              .residual = with_residual ? residual.bytes.data() : nullptr,
              .weight = weight.bytes.data()};
    want.resize(static_cast<std::size_t>(rows * columns));
    want_residual.resize(want.size());
    rms_norm_reference(params, want.data(), want_residual.data());
  }
  /// The norm's sum has n terms, all of one sign: its relative error halves in the root.
  [[nodiscard]] Comparison norm_of(const std::vector<float>& got) const {
    std::vector<double> bound;
    for (const double value : want) {
      bound.push_back(dot_bound(value, std::fabs(value), params.n_columns, written_as(element)));
    }
    return compare<float>(got, want, bound);
  }
  [[nodiscard]] Comparison sum_of(const std::vector<float>& got) const {
    std::vector<double> bound;
    for (const double value : want_residual) {
      bound.push_back(dot_bound(value, std::fabs(value), 1, written_as(element)));
    }
    return compare<float>(got, want_residual, bound);
  }
  void check_cpu() const {
    ElementArray out = ElementArray::poison(element, want.size());
    ElementArray sum = residual;
    RmsNormParams with = params;
    with.out = out.bytes.data();
    with.residual = params.residual != nullptr ? sum.bytes.data() : nullptr;
    rms_norm_cpu(with, 2);
    EXPECT_TRUE(within(norm_of(out.floats())));
    if (params.residual != nullptr) {
      EXPECT_TRUE(within(sum_of(sum.floats())));
    }
  }
  /// Whether the device gets it right, with the parameters changed by `mutate`.
  template <typename Mutate>
  [[nodiscard]] bool on_device(const Mutate& mutate) const {
    const DeviceArray<std::byte> device_x(x.bytes);
    const DeviceArray<std::byte> sum(residual.bytes);
    const DeviceArray<std::byte> device_weight(weight.bytes);
    ElementArray out = ElementArray::poison(element, want.size());
    const DeviceArray<std::byte> device_out(out.bytes);
    RmsNormParams with = params;
    with.x = device_x.data();
    with.residual = params.residual != nullptr ? sum.data() : nullptr;
    with.weight = device_weight.data();
    with.out = device_out.data();
    mutate(with);
    rms_norm_launch(with);
    synchronize();
    out.bytes = device_out.to_host();
    ElementArray got_sum = residual;
    got_sum.bytes = sum.to_host();
    return norm_of(out.floats()).holds() &&
           (params.residual == nullptr || sum_of(got_sum.floats()).holds());
  }
  [[nodiscard]] bool on_device() const {
    return on_device([](RmsNormParams&) {});
  }

  Element element;
  ElementArray x, residual, weight;
  RmsNormParams params;
  std::vector<double> want, want_residual;
};

TEST(RmsNormReference, AConstantRowBecomesItsWeights) {
  const ElementArray x(Element::f32, std::vector<float>(8, -3.0F));
  const ElementArray weight(Element::f32, {1, 2, 3, 4, 5, 6, 7, 8});
  std::vector<double> out(8);
  rms_norm_reference({.n_rows = 1,
                      .n_columns = 8,
                      .element = Element::f32,
                      .epsilon = 0.0F,
                      .x = x.bytes.data(),
                      .weight = weight.bytes.data()},
                     out.data(),
                     nullptr);
  for (int i = 0; i < 8; ++i) {
    EXPECT_DOUBLE_EQ(out[i], -(i + 1.0));
  }
}

TEST(RmsNorm, EqualsTheReferenceOnTheCpu) {
  for (const Element element : kAllElements) {
    for (const int columns : {8, 24, 136, 4096}) {
      NormCase(element, 3, columns, false, 1).check_cpu();
      NormCase(element, 3, columns, true, 2).check_cpu();
    }
  }
}

TEST(RmsNorm, EqualsTheReferenceOnTheDevice) {
  SKIP_WITHOUT_DEVICE();
  for (const Element element : kAllElements) {
    for (const int columns : {8, 136, 2056}) {
      EXPECT_TRUE(NormCase(element, 3, columns, false, 3).on_device());
      EXPECT_TRUE(NormCase(element, 2, columns, true, 4).on_device());
    }
  }
}

TEST(RmsNorm, MistakesShow) {
  SKIP_WITHOUT_DEVICE();
  const NormCase c(Element::f16, 2, 512, true, 5);
  EXPECT_FALSE(c.on_device([](RmsNormParams& p) { p.weight_offset = 0.0F; }));
  EXPECT_FALSE(c.on_device([](RmsNormParams& p) { p.epsilon = 0.02F; }));
  EXPECT_FALSE(c.on_device([](RmsNormParams& p) { p.residual = nullptr; }));
}

TEST(RmsNorm, MovesTheBytesOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const bool residual : {false, true}) {
    const NormCase c(Element::bf16, 3, 2056, residual, 6);
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(c.on_device());
    EXPECT_TRUE(
        moved_bytes_of(rms_norm_cost({.n_rows = 3, .n_columns = 2056, .adds_residual = residual})));
  }
}

TEST(ElementwiseSmall, RmsNormUnderEveryScheduleNeedsItsBarrier) {
  SKIP_WITHOUT_DEVICE();
  const NormCase c(Element::bf16, 2, 1024, true, 7);
  under_every_schedule([&] { EXPECT_TRUE(c.on_device()); });
  expect_every_sync_matters([&] { return c.on_device(); });
}

// ---- addition and gated activations ----
TEST(Add, EqualsTheReference) {
  for (const Element element : kAllElements) {
    const ElementArray a = ElementArray::random(element, 2056, 10);
    const ElementArray b = ElementArray::random(element, 2056, 11);
    AddParams params{.n = 2056, .element = element, .a = a.bytes.data(), .b = b.bytes.data()};
    std::vector<double> want(2056), bound;
    add_reference(params, want.data());
    for (const double value : want) {
      bound.push_back(dot_bound(value, std::fabs(value), 1, written_as(element)));
    }
    ElementArray out = ElementArray::poison(element, 2056);
    params.out = out.bytes.data();
    add_cpu(params, 2);
    EXPECT_TRUE(close_to<float>(out.floats(), want, bound));
    if (device_missing().empty()) {
      const DeviceArray<std::byte> device_a(a.bytes), device_b(b.bytes);
      const DeviceArray<std::byte> device_out(ElementArray::poison(element, 2056).bytes);
      static_cast<void>(simt::take_traffic());
      add_launch({2056, element, device_a.data(), device_b.data(), device_out.data()});
      synchronize();
      out.bytes = device_out.to_host();
      EXPECT_TRUE(close_to<float>(out.floats(), want, bound));
      EXPECT_TRUE(moved_bytes_of(add_cost(2056, Bytes(element_bytes(element)))));
    }
  }
}

struct ActivationCase {
  ActivationCase(Element of, Activation activation, bool gated, float deviation, std::uint64_t seed)
      : element(of), input(of, RandomData(seed).normals(3 * 2 * 136, deviation)) {
    params = {.n_rows = 3,
              .n_columns = 136,
              .element = of,
              .activation = activation,
              .gate = input.bytes.data(),
              .up = gated ? input.bytes.data() + 136 * element_bytes(of) : nullptr,
              .input_stride = 2 * 136};
    want.resize(3 * 136);
    std::vector<double> magnitude(want.size());
    gated_activation_reference(params, {want.data(), magnitude.data()});
    for (std::size_t i = 0; i < want.size(); ++i) {
      // About ten roundings: a polynomial of x, the exponential of it, a quotient, a product. An
      // exponent of up to 88 in size makes a rounding of it count 88 times; but then the sigmoid
      // is next to 0 or 1: |x| sigmoid'(x) stays below 0.3, so they count like the others.
      bound.push_back(dot_bound(want[i], magnitude[i], 10, written_as(element)));
    }
  }
  [[nodiscard]] Comparison on_cpu() const {
    ElementArray out = ElementArray::poison(element, want.size());
    GatedActivationParams with = params;
    with.out = out.bytes.data();
    gated_activation_cpu(with, 2);
    return compare<float>(out.floats(), want, bound);
  }
  [[nodiscard]] Comparison on_device(Activation activation) const {
    const DeviceArray<std::byte> device_input(input.bytes);
    ElementArray out = ElementArray::poison(element, want.size());
    const DeviceArray<std::byte> device_out(out.bytes);
    GatedActivationParams with = params;
    with.activation = activation;
    with.gate = device_input.data();
    with.up = params.up != nullptr ? device_input.data() + 136 * element_bytes(element) : nullptr;
    with.out = device_out.data();
    gated_activation_launch(with);
    synchronize();
    out.bytes = device_out.to_host();
    return compare<float>(out.floats(), want, bound);
  }
  Element element;
  ElementArray input;
  GatedActivationParams params;
  std::vector<double> want, bound;
};

TEST(GatedActivationReference, KnownValues) {
  EXPECT_DOUBLE_EQ(activation_reference(Activation::silu, 0.0), 0.0);
  EXPECT_NEAR(activation_reference(Activation::silu, 1.0), 0.7310585786300049, 1e-15);
  EXPECT_NEAR(activation_reference(Activation::gelu_tanh, 1.0), 0.8411919906082768, 1e-12);
  EXPECT_DOUBLE_EQ(activation_reference(Activation::relu_squared, -2.0), 0.0);
  EXPECT_DOUBLE_EQ(activation_reference(Activation::relu_squared, 3.0), 9.0);
}

TEST(GatedActivation, EqualsTheReference) {
  std::uint64_t seed = 20;
  for (const Element element : kAllElements) {
    for (const Activation activation :
         {Activation::silu, Activation::gelu_tanh, Activation::relu_squared}) {
      for (const bool gated : {false, true}) {
        for (const float deviation : {1.0F, 8.0F}) {
          const ActivationCase c(element, activation, gated, deviation, ++seed);
          EXPECT_TRUE(within(c.on_cpu()));
          if (device_missing().empty()) {
            EXPECT_TRUE(within(c.on_device(activation)));
            EXPECT_FALSE(c.on_device(activation == Activation::silu ? Activation::gelu_tanh
                                                                    : Activation::silu)
                             .holds());
          }
        }
      }
    }
  }
}

TEST(GatedActivation, MovesTheBytesOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  const ActivationCase c(Element::bf16, Activation::silu, true, 1.0F, 50);
  static_cast<void>(simt::take_traffic());
  EXPECT_TRUE(within(c.on_device(Activation::silu)));
  EXPECT_TRUE(moved_bytes_of(gated_activation_cost({.n_rows = 3, .n_columns = 136})));
}

}  // namespace
}  // namespace kvfathom::kernels
