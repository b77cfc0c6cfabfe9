// The gated delta net, and KDA: its decay by channel.
#include <cmath>
#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/state_update/state_update.h"
#include "model/ops/state_update.h"
#include "tests/kernels/state_update/state_case.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

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
        out_(not_a_number(value_heads() * of.value_dim)) {}

  using Mutate = std::function<void(DeltaNetParams&)>;
  bool right(Where where, const Mutate& mutate = {}) {
    StateSums want(state_.size(), out_.size());
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
  StateInput q_, k_, v_;
  StateFloats decay_, beta_, state_, out_;
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
  StateSums result(state.size(), 32);
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
    EXPECT_TRUE(moved_bytes_of(delta_net_cost({2, 2, 4, 64, 96, per_channel})));
  }
}

}  // namespace
}  // namespace kvfathom::kernels
