#include "kernels/state_update/state_update.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "model/ops/state_update.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

enum class Where { cpu, device };

/// Random numbers of an element type, on the host and, when asked for, on the device.
class Input {
 public:
  Input(Element element, std::size_t n, RandomData& random, float deviation = 1.0F) {
    for (std::size_t i = 0; i < n; ++i) {
      const float x = random.normal(deviation);
      const std::uint16_t half = element == Element::f16 ? to_f16(x).bits : to_bf16(x).bits;
      const std::size_t at = bytes_.size();
      bytes_.resize(at + static_cast<std::size_t>(element_bytes(element)));
      element == Element::f32 ? std::memcpy(bytes_.data() + at, &x, 4)
                              : std::memcpy(bytes_.data() + at, &half, 2);
    }
  }
  const void* at(Where where) {
    if (where == Where::cpu) {
      return bytes_.data();
    }
    device_ = DeviceArray<std::byte>(bytes_);
    return device_.data();
  }

 private:
  std::vector<std::byte> bytes_;
  DeviceArray<std::byte> device_;
};

/// Floats of which the device may hold a copy.
class Floats {
 public:
  explicit Floats(std::vector<float> values) : values_(std::move(values)) {}
  float* at(Where where) {
    if (where == Where::cpu) {
      return values_.data();
    }
    device_ = DeviceArray<float>(values_);
    return device_.data();
  }
  std::vector<float> after(Where where) {
    return where == Where::cpu ? values_ : device_.to_host();
  }
  [[nodiscard]] std::size_t size() const { return values_.size(); }

 private:
  std::vector<float> values_;
  DeviceArray<float> device_;
};

std::vector<float> between(RandomData& random, std::size_t n, float low, float high) {
  std::vector<float> values(n);
  for (float& x : values) {
    x = low + (high - low) / (1.0F + std::exp(-random.normal(2.0F)));
  }
  return values;
}
std::vector<float> poison(std::size_t n) {
  return std::vector<float>(n, std::numeric_limits<float>::quiet_NaN());
}

struct Reference {
  std::vector<double> state, state_magnitude, out, out_magnitude;
  Reference(std::size_t n_state, std::size_t n_out)
      : state(n_state), state_magnitude(n_state), out(n_out), out_magnitude(n_out) {}
  StateReference pointers() {
    return {state.data(), state_magnitude.data(), out.data(), out_magnitude.data()};
  }
};

Comparison compare_sums(const std::vector<float>& got,
                        const std::vector<double>& want,
                        const std::vector<double>& magnitude,
                        int n_products) {
  std::vector<double> bound;
  for (std::size_t i = 0; i < want.size(); ++i) {
    bound.push_back(dot_bound(want[i], magnitude[i], n_products));
  }
  return compare<float>(got, want, bound);
}

// ---- gated delta net, KDA ----

struct DeltaCase {
  int n_sequences = 2;
  int n_key_heads = 2;
  int ratio = 2;
  int key_dim = 64;
  int value_dim = 96;
  bool decay_per_channel = false;
  Element element = Element::bf16;
};

class DeltaProblem {
 public:
  explicit DeltaProblem(const DeltaCase& of)
      : case_(of),
        random_(31),
        q_(of.element, keys(), random_),
        k_(of.element, keys(), random_, 1.0F / std::sqrt(static_cast<float>(of.key_dim))),
        v_(of.element, value_heads() * of.value_dim, random_),
        decay_(between(random_, value_heads() * (of.decay_per_channel ? of.key_dim : 1), 0, 1)),
        beta_(between(random_, value_heads(), 0.0F, 1.0F)),
        state_(random_.normals(value_heads() * of.key_dim * of.value_dim)),
        out_(poison(value_heads() * of.value_dim)) {}

  using Mutate = std::function<void(DeltaNetParams&)>;
  bool right(Where where, const Mutate& mutate = {}) {
    Reference want(state_.size(), out_.size());
    delta_net_reference(params(Where::cpu), want.pointers());
    DeltaNetParams p = params(where);
    if (mutate) {
      mutate(p);
    }
    if (where == Where::cpu) {
      delta_net_cpu(p, 2);
    } else {
      delta_net_launch(p);
      synchronize();
    }
    const int n = case_.key_dim;
    const auto state = compare_sums(state_.after(where), want.state, want.state_magnitude, n);
    const auto out = compare_sums(out_.after(where), want.out, want.out_magnitude, 2 * n);
    return state.holds() && out.holds();
  }

  DeltaNetParams params(Where where) {
    DeltaNetParams p;
    p.n_sequences = case_.n_sequences;
    p.n_key_heads = case_.n_key_heads;
    p.n_value_heads = case_.n_key_heads * case_.ratio;
    p.key_dim = case_.key_dim;
    p.value_dim = case_.value_dim;
    p.element = case_.element;
    p.q = q_.at(where);
    p.k = k_.at(where);
    p.v = v_.at(where);
    p.decay_per_channel = case_.decay_per_channel;
    p.decay = decay_.at(where);
    p.beta = beta_.at(where);
    p.q_scale = 0.125F;
    p.state = state_.at(where);
    p.out = out_.at(where);
    return p;
  }

 private:
  [[nodiscard]] std::size_t keys() const {
    return static_cast<std::size_t>(case_.n_sequences) * case_.n_key_heads * case_.key_dim;
  }
  [[nodiscard]] std::size_t value_heads() const {
    return static_cast<std::size_t>(case_.n_sequences) * case_.n_key_heads * case_.ratio;
  }
  DeltaCase case_;
  RandomData random_;
  Input q_, k_, v_;
  Floats decay_, beta_, state_, out_;
};

void expect_delta_net_right(Where where) {
  for (const int key_dim : {32, 64, 128, 256}) {
    for (const bool per_channel : {false, true}) {
      DeltaCase of;
      of.key_dim = key_dim;
      of.value_dim = key_dim == 64 ? 96 : 32;
      of.ratio = key_dim == 128 ? 1 : 2;
      of.decay_per_channel = per_channel;
      of.element = key_dim == 32 ? Element::f32 : key_dim == 256 ? Element::f16 : Element::bf16;
      EXPECT_TRUE(DeltaProblem(of).right(where)) << key_dim << per_channel;
    }
  }
}

TEST(DeltaNetCpu, IsRight) {
  expect_delta_net_right(Where::cpu);
}
TEST(DeltaNet, IsRight) {
  SKIP_WITHOUT_DEVICE();
  expect_delta_net_right(Where::device);
}

// With a = 1, beta = 1 and |k| = 1, the state afterwards answers v to k, whatever it held; with
// q = k, so does the output.
TEST(DeltaNetReference, ReplacesWhatAKeyRecalls) {
  std::vector<float> key(32, 0.0F);
  key[3] = 1.0F;
  const std::vector<float> v = RandomData(2).normals(32);
  std::vector<float> state = RandomData(3).normals(std::size_t{32} * 32);
  const float one = 1.0F;
  DeltaNetParams p;
  p.n_sequences = p.n_key_heads = p.n_value_heads = 1;
  p.key_dim = p.value_dim = 32;
  p.element = Element::f32;
  p.q = p.k = key.data();
  p.v = v.data();
  p.decay = p.beta = &one;
  p.state = state.data();
  Reference result(state.size(), 32);
  delta_net_reference(p, result.pointers());
  for (std::size_t j = 0; j < 32; ++j) {
    EXPECT_NEAR(result.out[j], v[j], 1e-12);
    EXPECT_NEAR(result.state[3 * 32 + j], v[j], 1e-12);
    EXPECT_EQ(result.state[4 * 32 + j], state[4 * 32 + j]);  // other channels keep theirs
  }
}

TEST(DeltaNet, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  for (const auto& mutate :
       std::vector<DeltaProblem::Mutate>{[](DeltaNetParams& p) { p.q_scale *= 1.01F; },
                                         [](DeltaNetParams& p) { p.decay_per_channel = false; },
                                         [](DeltaNetParams& p) { std::swap(p.q, p.k); },
                                         [](DeltaNetParams& p) { p.n_key_heads = 1; },
                                         [](DeltaNetParams& p) { p.beta = p.decay; },
                                         [](DeltaNetParams& p) { p.n_sequences = 1; }}) {
    DeltaCase of;
    of.decay_per_channel = true;
    EXPECT_FALSE(DeltaProblem(of).right(Where::device, mutate));
  }
}

TEST(DeltaNetSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    EXPECT_TRUE(DeltaProblem({.n_sequences = 1, .n_key_heads = 1, .key_dim = 32, .value_dim = 32})
                    .right(Where::device));
  });
}
TEST(DeltaNetSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  expect_every_sync_matters([] {
    return DeltaProblem({.n_sequences = 1, .n_key_heads = 1, .key_dim = 32, .value_dim = 32})
        .right(Where::device);
  });
}

TEST(DeltaNet, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const bool per_channel : {false, true}) {
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(DeltaProblem({.decay_per_channel = per_channel}).right(Where::device));
    if (const auto traffic = simt::take_traffic()) {
      const OpCost cost = delta_net_cost({2, 2, 4, 64, 96, per_channel});
      EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
      EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
    }
  }
}

// ---- Mamba2 ----

struct MambaCase {
  int n_sequences = 2;
  int n_heads = 4;
  int n_groups = 2;
  int head_dim = 32;
  int state_dim = 64;
  Element element = Element::bf16;
};

class MambaProblem {
 public:
  explicit MambaProblem(const MambaCase& of)
      : case_(of),
        random_(17),
        x_(of.element, heads() * of.head_dim, random_),
        dt_(of.element, heads(), random_, 3.0F),
        b_(of.element, groups() * of.state_dim, random_),
        c_(of.element, groups() * of.state_dim, random_),
        a_(between(random_, of.n_heads, -4.0F, -0.1F)),
        dt_bias_(random_.normals(of.n_heads)),
        d_(random_.normals(of.n_heads)),
        state_(random_.normals(heads() * of.head_dim * of.state_dim)),
        out_(poison(heads() * of.head_dim)) {}

  using Mutate = std::function<void(Mamba2Params&)>;
  bool right(Where where, const Mutate& mutate = {}) {
    Reference want(state_.size(), out_.size());
    mamba2_reference(params(Where::cpu), want.pointers());
    Mamba2Params p = params(where);
    if (mutate) {
      mutate(p);
    }
    if (where == Where::cpu) {
      mamba2_cpu(p, 2);
    } else {
      mamba2_launch(p);
      synchronize();
    }
    const int n = case_.state_dim;
    const auto state = compare_sums(state_.after(where), want.state, want.state_magnitude, n);
    const auto out = compare_sums(out_.after(where), want.out, want.out_magnitude, n);
    return state.holds() && out.holds();
  }

 private:
  Mamba2Params params(Where where) {
    Mamba2Params p;
    p.n_sequences = case_.n_sequences;
    p.n_heads = case_.n_heads;
    p.n_groups = case_.n_groups;
    p.head_dim = case_.head_dim;
    p.state_dim = case_.state_dim;
    p.element = case_.element;
    p.x = x_.at(where);
    p.dt = dt_.at(where);
    p.b = b_.at(where);
    p.c = c_.at(where);
    p.a = a_.at(where);
    p.dt_bias = dt_bias_.at(where);
    p.d = d_.at(where);
    p.state = state_.at(where);
    p.out = out_.at(where);
    return p;
  }
  [[nodiscard]] std::size_t heads() const {
    return static_cast<std::size_t>(case_.n_sequences) * case_.n_heads;
  }
  [[nodiscard]] std::size_t groups() const {
    return static_cast<std::size_t>(case_.n_sequences) * case_.n_groups;
  }
  MambaCase case_;
  RandomData random_;
  Input x_, dt_, b_, c_;
  Floats a_, dt_bias_, d_, state_, out_;
};

void expect_mamba2_right(Where where) {
  for (const int state_dim : {32, 64, 128, 256}) {
    MambaCase of;
    of.state_dim = state_dim;
    of.head_dim = state_dim == 128 ? 64 : 16;
    of.n_groups = state_dim == 64 ? 1 : 2;
    of.element = state_dim == 32 ? Element::f32 : Element::bf16;
    EXPECT_TRUE(MambaProblem(of).right(where)) << state_dim;
  }
}

TEST(Mamba2Cpu, IsRight) {
  expect_mamba2_right(Where::cpu);
}
TEST(Mamba2, IsRight) {
  SKIP_WITHOUT_DEVICE();
  expect_mamba2_right(Where::device);
}
TEST(Mamba2, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  for (const auto& mutate :
       std::vector<MambaProblem::Mutate>{[](Mamba2Params& p) { std::swap(p.b, p.c); },
                                         [](Mamba2Params& p) { std::swap(p.d, p.dt_bias); },
                                         [](Mamba2Params& p) { p.n_groups = 1; },
                                         [](Mamba2Params& p) { p.a = p.d; },
                                         [](Mamba2Params& p) { p.n_sequences = 1; }}) {
    EXPECT_FALSE(MambaProblem({}).right(Where::device, mutate));
  }
}
TEST(Mamba2Small, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    EXPECT_TRUE(MambaProblem({.n_sequences = 1, .n_heads = 2, .head_dim = 16, .state_dim = 32})
                    .right(Where::device));
  });
}
TEST(Mamba2, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  static_cast<void>(simt::take_traffic());
  EXPECT_TRUE(MambaProblem({}).right(Where::device));
  if (const auto traffic = simt::take_traffic()) {
    const OpCost cost = mamba2_cost({2, 4, 2, 32, 64});
    EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
    EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
  }
}

// A step of dt = softplus(0) = ln 2 with a = -1 halves the state.
TEST(Mamba2Reference, DecayAndInputAreExact) {
  const std::vector<float> x(16, 1.0F);
  const std::vector<float> b(32, 2.0F);
  const std::vector<float> c(32, 1.0F);
  std::vector<float> state(std::size_t{16} * 32, 4.0F);
  const float zero = 0.0F;
  const float minus_one = -1.0F;
  Mamba2Params p;
  p.n_sequences = p.n_heads = 1;
  p.head_dim = 16;
  p.state_dim = 32;
  p.element = Element::f32;
  p.x = x.data();
  p.dt = &zero;
  p.b = b.data();
  p.c = c.data();
  p.a = &minus_one;
  p.dt_bias = p.d = &zero;
  p.state = state.data();
  Reference result(state.size(), 16);
  mamba2_reference(p, result.pointers());
  EXPECT_NEAR(result.state[7], 2.0 + 2.0 * std::log(2.0), 1e-12);
  EXPECT_NEAR(result.out[3], 32.0 * (2.0 + 2.0 * std::log(2.0)), 1e-10);
}

// ---- convolution ----

struct ConvProblem {
  RandomData random{23};
  int width;
  std::size_t n = 3 * std::size_t{70};
  Input x;
  Floats weight, bias, state, out;

  explicit ConvProblem(int taps, Element element = Element::bf16)
      : width(taps),
        x(element, n, random),
        weight(random.normals(std::size_t{70} * taps)),
        bias(random.normals(70)),
        state(random.normals(n * (taps - 1))),
        out(poison(n)) {
    params.element = element;
  }
  ConvStateParams params;
  using Mutate = std::function<void(ConvStateParams&)>;
  bool right(Where where, const Mutate& mutate = {}) {
    Reference want(state.size(), out.size());
    conv_state_reference(at(Where::cpu), want.pointers());
    ConvStateParams p = at(where);
    if (mutate) {
      mutate(p);
    }
    if (where == Where::cpu) {
      conv_state_cpu(p, 2);
    } else {
      conv_state_launch(p);
      synchronize();
    }
    const std::vector<float> shifted(want.state.begin(), want.state.end());
    return state.after(where) == shifted &&
           compare_sums(out.after(where), want.out, want.out_magnitude, width).holds();
  }
  ConvStateParams at(Where where) {
    ConvStateParams p = params;
    p.n_sequences = 3;
    p.n_channels = 70;
    p.width = width;
    p.x = x.at(where);
    p.weight = weight.at(where);
    p.bias = bias.at(where);
    p.state = state.at(where);
    p.out = out.at(where);
    return p;
  }
};

TEST(ConvState, IsRight) {
  for (const int width : {2, 4, 8}) {
    for (const Element element : {Element::f32, Element::bf16}) {
      EXPECT_TRUE(ConvProblem(width, element).right(Where::cpu));
      if (device_missing().empty()) {
        EXPECT_TRUE(ConvProblem(width, element).right(Where::device));
      }
    }
  }
}
TEST(ConvState, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  EXPECT_FALSE(ConvProblem(4).right(Where::device, [](ConvStateParams& p) { p.bias = nullptr; }));
  EXPECT_FALSE(ConvProblem(4).right(Where::device, [](ConvStateParams& p) { p.width = 3; }));
  EXPECT_FALSE(ConvProblem(4).right(Where::device, [](ConvStateParams& p) { p.n_sequences = 2; }));
}
TEST(ConvState, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  static_cast<void>(simt::take_traffic());
  EXPECT_TRUE(ConvProblem(4).right(Where::device));
  if (const auto traffic = simt::take_traffic()) {
    const OpCost cost = conv_state_cost({3, 70, 4});
    EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
    EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
  }
}

TEST(StateUpdate, RefusesWhatIsNotBuilt) {
  DeltaNetParams delta = DeltaProblem({}).params(Where::cpu);
  delta.value_dim = 80;
  EXPECT_THROW(delta_net_cpu(delta), UnsupportedShape);
  delta.value_dim = 96;
  delta.n_key_heads = 3;
  EXPECT_THROW(delta_net_cpu(delta), UnsupportedShape);
  Mamba2Params mamba;
  mamba.n_heads = 3;
  mamba.n_groups = 2;
  EXPECT_THROW(mamba2_cpu(mamba), UnsupportedShape);
  ConvStateParams conv;
  conv.width = 9;
  EXPECT_THROW(conv_state_cpu(conv), UnsupportedShape);
}

}  // namespace
}  // namespace kvfathom::kernels
