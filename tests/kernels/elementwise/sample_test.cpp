#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/tolerance.h"
#include "kernels/elementwise/elementwise.h"
#include "model/ops/elementwise.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/elements.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

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
  ElementArray logits;
  std::vector<float> uniform;
  SampleParams params;
  std::vector<std::int32_t> want;
  std::vector<double> shares;
};

TEST(SampleReference, DrawsByShare) {
  // Shares 1/2, 1/4, 1/8, 1/8 at temperature 1, in the order 1, 3, 0, 2 of their size.
  const ElementArray logits(Element::f32,
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
    for (const Element element : kAllElements) {
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
  c.logits = ElementArray(Element::f32, logits);
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
  EXPECT_TRUE(moved_bytes_of(sample_cost(3, 1000)));
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
