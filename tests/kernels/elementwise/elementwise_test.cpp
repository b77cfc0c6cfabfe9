#include "kernels/elementwise/elementwise.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "model/ops/elementwise.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

constexpr Element kElements[] = {Element::f32, Element::f16, Element::bf16};

/// An array of any element type.
struct Values {
  Values(Element of, const std::vector<float>& values) : element(of) {
    for (const float value : values) {
      const std::uint32_t bits = of == Element::f32   ? bits_of_f32(value)
                                 : of == Element::f16 ? to_f16(value).bits
                                                      : to_bf16(value).bits;
      for (int byte = 0; byte < element_bytes(of); ++byte) {
        bytes.push_back(static_cast<std::byte>(bits >> 8 * byte & 0xffU));
      }
    }
  }
  [[nodiscard]] static Values random(Element of, std::size_t n, std::uint64_t seed) {
    return {of, RandomData(seed).normals(n)};
  }
  [[nodiscard]] static Values poison(Element of, std::size_t n) {
    return {of, std::vector<float>(n, NAN)};
  }
  [[nodiscard]] std::vector<float> floats() const {
    std::vector<float> values;
    for (std::size_t i = 0; i < bytes.size() / element_bytes(element); ++i) {
      values.push_back(element_at(element, bytes.data(), static_cast<std::int64_t>(i)));
    }
    return values;
  }
  Element element;
  std::vector<std::byte> bytes;
};

double roundoff(Element element) {
  return element == Element::f32   ? kUnitRoundoffF32
         : element == Element::f16 ? kUnitRoundoffF16
                                   : kUnitRoundoffBf16;
}
double half_step(Element element) {
  return element == Element::f16 ? kHalfSmallestStepF16 : 0.0;
}

// ---- RMSNorm ----
struct NormCase {
  NormCase(Element of, std::int64_t rows, int columns, bool with_residual, std::uint64_t seed)
      : element(of),
        x(Values::random(of, static_cast<std::size_t>(rows * columns), seed)),
        residual(Values::random(of, static_cast<std::size_t>(rows * columns), seed + 1)),
        weight(Values::random(of, static_cast<std::size_t>(columns), seed + 2)) {
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
      bound.push_back(dot_bound(value,
                                std::fabs(value),
                                params.n_columns,
                                {.output = roundoff(element), .output_step = half_step(element)}));
    }
    return compare<float>(got, want, bound);
  }
  [[nodiscard]] Comparison sum_of(const std::vector<float>& got) const {
    std::vector<double> bound;
    for (const double value : want_residual) {
      bound.push_back(dot_bound(value,
                                std::fabs(value),
                                1,
                                {.output = roundoff(element), .output_step = half_step(element)}));
    }
    return compare<float>(got, want_residual, bound);
  }
  void check_cpu() const {
    Values out = Values::poison(element, want.size());
    Values sum = residual;
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
    Values out = Values::poison(element, want.size());
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
    Values got_sum = residual;
    got_sum.bytes = sum.to_host();
    return norm_of(out.floats()).holds() &&
           (params.residual == nullptr || sum_of(got_sum.floats()).holds());
  }
  [[nodiscard]] bool on_device() const {
    return on_device([](RmsNormParams&) {});
  }

  Element element;
  Values x, residual, weight;
  RmsNormParams params;
  std::vector<double> want, want_residual;
};

TEST(RmsNormReference, AConstantRowBecomesItsWeights) {
  const Values x(Element::f32, std::vector<float>(8, -3.0F));
  const Values weight(Element::f32, {1, 2, 3, 4, 5, 6, 7, 8});
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
  for (const Element element : kElements) {
    for (const int columns : {8, 24, 136, 4096}) {
      NormCase(element, 3, columns, false, 1).check_cpu();
      NormCase(element, 3, columns, true, 2).check_cpu();
    }
  }
}

TEST(RmsNorm, EqualsTheReferenceOnTheDevice) {
  SKIP_WITHOUT_DEVICE();
  for (const Element element : kElements) {
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
    if (const auto traffic = simt::take_traffic()) {
      const OpCost cost =
          rms_norm_cost({.n_rows = 3, .n_columns = 2056, .adds_residual = residual});
      EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
      EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
    }
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
  for (const Element element : kElements) {
    const Values a = Values::random(element, 2056, 10);
    const Values b = Values::random(element, 2056, 11);
    AddParams params{.n = 2056, .element = element, .a = a.bytes.data(), .b = b.bytes.data()};
    std::vector<double> want(2056), bound;
    add_reference(params, want.data());
    for (const double value : want) {
      bound.push_back(dot_bound(value,
                                std::fabs(value),
                                1,
                                {.output = roundoff(element), .output_step = half_step(element)}));
    }
    Values out = Values::poison(element, 2056);
    params.out = out.bytes.data();
    add_cpu(params, 2);
    EXPECT_TRUE(close_to<float>(out.floats(), want, bound));
    if (device_missing().empty()) {
      const DeviceArray<std::byte> device_a(a.bytes), device_b(b.bytes);
      const DeviceArray<std::byte> device_out(Values::poison(element, 2056).bytes);
      static_cast<void>(simt::take_traffic());
      add_launch({2056, element, device_a.data(), device_b.data(), device_out.data()});
      synchronize();
      out.bytes = device_out.to_host();
      EXPECT_TRUE(close_to<float>(out.floats(), want, bound));
      if (const auto traffic = simt::take_traffic()) {
        const OpCost cost = add_cost(2056, Bytes(element_bytes(element)));
        EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
        EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
      }
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
      bound.push_back(dot_bound(want[i],
                                magnitude[i],
                                10,
                                {.output = roundoff(element), .output_step = half_step(element)}));
    }
  }
  [[nodiscard]] Comparison on_cpu() const {
    Values out = Values::poison(element, want.size());
    GatedActivationParams with = params;
    with.out = out.bytes.data();
    gated_activation_cpu(with, 2);
    return compare<float>(out.floats(), want, bound);
  }
  [[nodiscard]] Comparison on_device(Activation activation) const {
    const DeviceArray<std::byte> device_input(input.bytes);
    Values out = Values::poison(element, want.size());
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
  Values input;
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
  for (const Element element : kElements) {
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
  if (const auto traffic = simt::take_traffic()) {
    const OpCost cost = gated_activation_cost({.n_rows = 3, .n_columns = 136});
    EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
    EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
  }
}

// ---- sampling ----
struct SampleCase {
  SampleCase(Element of,
             int rows,
             int vocab,
             float temperature,
             int top_k,
             float top_p,
             std::uint64_t seed)
      : logits(of, RandomData(seed).normals(static_cast<std::size_t>(rows * vocab), 2.0F)) {
    RandomData random(seed + 1);
    for (int row = 0; row < rows; ++row) {
      uniform.push_back(static_cast<float>(random.integer(0, 999)) / 1000.0F);
    }
    params = {.n_rows = rows,
              .vocab_size = vocab,
              .element = of,
              .logits = logits.bytes.data(),
              .temperature = temperature,
              .top_k = top_k,
              .top_p = top_p,
              .uniform = uniform.data()};
    define();
  }
  void define() {
    want.resize(static_cast<std::size_t>(params.n_rows));
    shares.resize(logits.bytes.size() / element_bytes(params.element));
    sample_reference(params, {want.data(), shares.data()});
  }
  /// Whether each token is the reference's, or a neighbour within the roundings of the masses: the
  /// uniform number times 2^-24 each for a product and an exponential of arguments up to 64.
  [[nodiscard]] bool accepts(const std::vector<std::int32_t>& tokens) const {
    constexpr double kSlack = 64 * kUnitRoundoffF32;
    for (int row = 0; row < params.n_rows; ++row) {
      if (tokens[row] == want[row]) {
        continue;
      }
      if (params.temperature == 0.0F || tokens[row] < 0 || tokens[row] >= params.vocab_size) {
        return false;
      }
      const double* share = shares.data() + static_cast<std::int64_t>(row) * params.vocab_size;
      double before = 0.0;
      for (int i = 0; i < tokens[row]; ++i) {
        before += share[i];
      }
      const double after = before + share[tokens[row]];
      if (share[tokens[row]] == 0.0 || params.uniform[row] < before - kSlack ||
          params.uniform[row] > after + kSlack) {
        return false;
      }
    }
    return true;
  }
  [[nodiscard]] std::vector<std::int32_t> on_cpu() const {
    std::vector<std::int32_t> tokens(want.size(), -7);
    SampleParams with = params;
    with.tokens = tokens.data();
    sample_cpu(with, 2);
    return tokens;
  }
  template <typename Mutate>
  [[nodiscard]] std::vector<std::int32_t> on_device(const Mutate& mutate) const {
    const DeviceArray<std::byte> device_logits(logits.bytes);
    const DeviceArray<float> device_uniform(uniform);
    const DeviceArray<std::int32_t> tokens(std::vector<std::int32_t>(want.size(), -7));
    SampleParams with = params;
    with.logits = device_logits.data();
    with.uniform = device_uniform.data();
    with.tokens = tokens.data();
    mutate(with);
    sample_launch(with);
    synchronize();
    return tokens.to_host();
  }
  [[nodiscard]] std::vector<std::int32_t> on_device() const {
    return on_device([](SampleParams&) {});
  }
  Values logits;
  std::vector<float> uniform;
  SampleParams params;
  std::vector<std::int32_t> want;
  std::vector<double> shares;
};

TEST(SampleReference, DrawsByShare) {
  // Shares 1/2, 1/4, 1/8, 1/8 at temperature 1, in the order 1, 3, 0, 2 of their size.
  const Values logits(Element::f32,
                      {std::log(1.0F), std::log(4.0F), std::log(1.0F), std::log(2.0F)});
  std::vector<double> shares(4);
  const auto draw = [&](float uniform, int top_k, float top_p) {
    std::int32_t token = -1;
    sample_reference({.n_rows = 1,
                      .vocab_size = 4,
                      .logits = logits.bytes.data(),
                      .top_k = top_k,
                      .top_p = top_p,
                      .uniform = &uniform},
                     {&token, shares.data()});
    return token;
  };
  EXPECT_EQ(draw(0.10F, 0, 1.0F), 0);
  EXPECT_EQ(draw(0.13F, 0, 1.0F), 1);
  EXPECT_EQ(draw(0.70F, 0, 1.0F), 2);
  EXPECT_EQ(draw(0.80F, 0, 1.0F), 3);
  EXPECT_EQ(draw(0.10F, 2, 1.0F), 1);  // of 1 and 3, shares 2/3 and 1/3
  EXPECT_EQ(draw(0.70F, 2, 1.0F), 3);
  EXPECT_EQ(draw(0.99F, 0, 0.4F), 1);   // token 1 alone reaches 0.4
  EXPECT_EQ(draw(0.10F, 3, 1.0F), 0);   // 0 and 2 tie for the third place: both are kept
  EXPECT_NEAR(shares[2], 0.125, 1e-8);  // the logits are logarithms rounded to float
}

std::vector<SampleCase> sample_cases() {
  std::vector<SampleCase> cases;
  std::uint64_t seed = 100;
  for (const int vocab : {1, 33, 600}) {
    for (const Element element : kElements) {
      cases.emplace_back(element, 3, vocab, 0.0F, 0, 1.0F, ++seed);
      cases.emplace_back(element, 3, vocab, 0.8F, 0, 1.0F, ++seed);
      cases.emplace_back(element, 3, vocab, 1.0F, 20, 1.0F, ++seed);
      cases.emplace_back(element, 3, vocab, 1.0F, 0, 0.9F, ++seed);
      cases.emplace_back(element, 3, vocab, 0.7F, 40, 0.8F, ++seed);
    }
  }
  return cases;
}

TEST(Sample, EqualsTheReferenceOnTheCpu) {
  for (const SampleCase& c : sample_cases()) {
    EXPECT_TRUE(c.accepts(c.on_cpu()));
  }
}

TEST(Sample, EqualsTheReferenceOnTheDevice) {
  SKIP_WITHOUT_DEVICE();
  for (const SampleCase& c : sample_cases()) {
    EXPECT_TRUE(c.accepts(c.on_device())) << c.params.vocab_size << " " << c.params.top_k << " "
                                          << c.params.top_p << " " << c.params.temperature;
  }
}

TEST(Sample, ForbiddenTokensAndTiesAtTheTop) {
  std::vector<float> logits(64, -std::numeric_limits<float>::infinity());
  logits[17] = logits[40] = 5.0F;
  SampleCase c(Element::f32, 1, 64, 0.0F, 0, 1.0F, 1);
  c.logits = Values(Element::f32, logits);
  c.params.logits = c.logits.bytes.data();
  c.define();
  EXPECT_EQ(c.want[0], 17);
  EXPECT_EQ(c.on_cpu()[0], 17);
  c.params.temperature = 1.0F;
  c.uniform[0] = 0.75F;
  c.define();
  EXPECT_EQ(c.want[0], 40);
  EXPECT_EQ(c.on_cpu()[0], 40);
  if (device_missing().empty()) {
    EXPECT_EQ(c.on_device()[0], 40);
    EXPECT_EQ(c.on_device([](SampleParams& p) { p.temperature = 0.0F; })[0], 17);
  }
}

TEST(Sample, MistakesShow) {
  SKIP_WITHOUT_DEVICE();
  const SampleCase c(Element::f32, 20, 300, 1.0F, 20, 0.9F, 200);
  EXPECT_TRUE(c.accepts(c.on_device()));
  EXPECT_FALSE(c.accepts(c.on_device([](SampleParams& p) { p.temperature = 1.1F; })));
  EXPECT_FALSE(c.accepts(c.on_device([](SampleParams& p) { p.top_k = 19; })));
  EXPECT_FALSE(c.accepts(c.on_device([](SampleParams& p) { p.top_p = 0.8F; })));
  EXPECT_FALSE(c.accepts(c.on_device([](SampleParams& p) { p.vocab_size = 299; })));
}

TEST(Sample, MovesTheBytesOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  const SampleCase c(Element::f32, 3, 1000, 0.7F, 40, 0.8F, 210);
  static_cast<void>(simt::take_traffic());
  static_cast<void>(c.on_device());
  if (const auto traffic = simt::take_traffic()) {
    const OpCost cost = sample_cost(3, 1000);
    EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
    EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
  }
}

TEST(ElementwiseSmall, SamplingUnderEveryScheduleIsTheSame) {
  SKIP_WITHOUT_DEVICE();
  const SampleCase c(Element::f32, 2, 700, 1.0F, 60, 0.7F, 220);
  const std::vector<std::int32_t> first = c.on_device();
  EXPECT_TRUE(c.accepts(first));
  under_every_schedule([&] { EXPECT_EQ(c.on_device(), first); });
}

TEST(ElementwiseSmall, EverySynchronisationOfSamplingMatters) {
  SKIP_WITHOUT_DEVICE();
  const SampleCase narrowed(Element::f32, 8, 700, 1.0F, 60, 0.7F, 221);
  const SampleCase plain(Element::f32, 2, 700, 1.0F, 0, 1.0F, 222);
  const std::vector<std::int32_t> of_narrowed = narrowed.on_device();
  const std::vector<std::int32_t> of_plain = plain.on_device();
  expect_every_sync_matters(
      [&] { return narrowed.on_device() == of_narrowed && plain.on_device() == of_plain; });
}

}  // namespace
}  // namespace kvfathom::kernels
