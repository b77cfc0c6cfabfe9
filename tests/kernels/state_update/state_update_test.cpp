// Mamba2, the convolution before it, and what no state update is built for.
#include "kernels/state_update/state_update.h"

#include <cmath>
#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "model/ops/state_update.h"
#include "tests/kernels/state_update/state_case.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

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
        out_(not_a_number(heads() * of.head_dim)) {}

  using Mutate = std::function<void(Mamba2Params&)>;
  bool right(Where where, const Mutate& mutate = {}) {
    StateSums want(state_.size(), out_.size());
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
  StateInput x_, dt_, b_, c_;
  StateFloats a_, dt_bias_, d_, state_, out_;
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
  EXPECT_TRUE(moved_bytes_of(mamba2_cost({2, 4, 2, 32, 64})));
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
  StateSums result(state.size(), 16);
  mamba2_reference(p, result.pointers());
  EXPECT_NEAR(result.state[7], 2.0 + 2.0 * std::log(2.0), 1e-12);
  EXPECT_NEAR(result.out[3], 32.0 * (2.0 + 2.0 * std::log(2.0)), 1e-10);
}

// ---- convolution ----

struct ConvProblem {
  RandomData random{23};
  int width;
  std::size_t n = 3 * std::size_t{70};
  StateInput x;
  StateFloats weight, bias, state, out;

  explicit ConvProblem(int taps, Element element = Element::bf16)
      : width(taps),
        x(element, n, random),
        weight(random.normals(std::size_t{70} * taps)),
        bias(random.normals(70)),
        state(random.normals(n * (taps - 1))),
        out(not_a_number(n)) {
    params.element = element;
  }
  ConvStateParams params;
  using Mutate = std::function<void(ConvStateParams&)>;
  bool right(Where where, const Mutate& mutate = {}) {
    StateSums want(state.size(), out.size());
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
      for (const Where where : places()) {
        EXPECT_TRUE(ConvProblem(width, element).right(where));
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
  EXPECT_TRUE(moved_bytes_of(conv_state_cost({3, 70, 4})));
}

TEST(StateUpdate, RefusesWhatIsNotBuilt) {
  DeltaNetParams delta;
  delta.n_key_heads = 2;
  delta.n_value_heads = 4;
  delta.key_dim = 64;
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
