// One decode step of the layers whose cache is a state of fixed size: the state read and written
// whole.
#include <algorithm>
#include <cmath>

#include "calibrate/cases/case.h"
#include "kernels/common/tolerance.h"
#include "kernels/state_update/state_update.h"
#include "model/ops/state_update.h"

namespace kvfathom::bench {
namespace {

double worst_sum(const std::vector<float>& got,
                 const std::vector<double>& want,
                 const std::vector<double>& magnitude,
                 std::int64_t n_products) {
  std::vector<double> bound;
  for (std::size_t i = 0; i < want.size(); ++i) {
    bound.push_back(kernels::dot_bound(want[i], magnitude[i], n_products));
  }
  return worst_ratio(got, want, bound);
}

/// The state of `ran` has moved once: its run was the first step.
template <typename Set>
double worst_step(const Set& before, const Set& ran) {
  const std::vector<float> got_state = ran.state.to_host();
  const std::vector<float> got_out = ran.out.to_host();
  std::vector<double> state(got_state.size());
  std::vector<double> state_magnitude(got_state.size());
  std::vector<double> out(got_out.size());
  std::vector<double> out_magnitude(got_out.size());
  Set::kReference(before.params(),
                  {state.data(), state_magnitude.data(), out.data(), out_magnitude.data()});
  return std::max(worst_sum(got_state, state, state_magnitude, before.state_products()),
                  worst_sum(got_out, out, out_magnitude, before.out_products()));
}

/// Gated delta net and KDA: one set's arrays. Decays and betas lie in (0, 1): under them a state
/// neither grows nor dies out, however often it steps.
struct DeltaNetSet {
  static constexpr auto* kCpu = kernels::delta_net_cpu;
  static constexpr auto* kLaunch = kernels::delta_net_launch;
  static constexpr auto* kReference = kernels::delta_net_reference;

  DeltaNetShape shape;
  Array<std::uint16_t> q, k, v;
  Array<float> decay, beta, state, out;

  DeltaNetSet(Place place, const Request& request, std::uint64_t /*set*/)
      : shape(shape_of(request)),
        q(place, random_bf16(keys(), 1)),
        k(place, random_bf16(keys(), 2, 1.0F / std::sqrt(static_cast<float>(shape.key_dim)))),
        v(place, random_bf16(heads() * shape.value_dim, 3)),
        decay(place, random_fractions(heads() * (shape.decay_per_channel ? shape.key_dim : 1), 4)),
        beta(place, random_fractions(heads(), 5)),
        state(place, random_floats(heads() * shape.key_dim * shape.value_dim, 6)),
        out(place, std::vector<float>(heads() * shape.value_dim)) {}

  static DeltaNetShape shape_of(const Request& request) {
    return {.n_sequences = request.shape["sequences"],
            .n_key_heads = request.shape["n_key_heads"],
            .n_value_heads = request.shape["n_value_heads"],
            .key_dim = request.shape["key_dim"],
            .value_dim = request.shape["value_dim"],
            .decay_per_channel = request.format == "kda"};
  }
  static OpCost cost(const Request& request) { return delta_net_cost(shape_of(request)); }

  [[nodiscard]] std::size_t keys() const {
    return shape.n_sequences * shape.n_key_heads * shape.key_dim;
  }
  [[nodiscard]] std::size_t heads() const { return shape.n_sequences * shape.n_value_heads; }
  [[nodiscard]] std::int64_t state_products() const { return shape.key_dim; }
  [[nodiscard]] std::int64_t out_products() const { return 2 * shape.key_dim; }

  [[nodiscard]] double worst_error(const DeltaNetSet& ran) const { return worst_step(*this, ran); }
  [[nodiscard]] kernels::DeltaNetParams params() const {
    kernels::DeltaNetParams p;
    p.n_sequences = static_cast<int>(shape.n_sequences);
    p.n_key_heads = static_cast<int>(shape.n_key_heads);
    p.n_value_heads = static_cast<int>(shape.n_value_heads);
    p.key_dim = static_cast<int>(shape.key_dim);
    p.value_dim = static_cast<int>(shape.value_dim);
    p.q = q.data();
    p.k = k.data();
    p.v = v.data();
    p.decay_per_channel = shape.decay_per_channel;
    p.decay = decay.data();
    p.beta = beta.data();
    p.state = state.data();
    p.out = out.data();
    return p;
  }
};

/// Mamba2: one set's arrays. With a in (-1, 0) states stay bounded.
struct Mamba2Set {
  static constexpr auto* kCpu = kernels::mamba2_cpu;
  static constexpr auto* kLaunch = kernels::mamba2_launch;
  static constexpr auto* kReference = kernels::mamba2_reference;

  Mamba2Shape shape;
  Array<std::uint16_t> x, dt, b, c;
  Array<float> a, dt_bias, d, state, out;

  Mamba2Set(Place place, const Request& request, std::uint64_t /*set*/)
      : shape(shape_of(request)),
        x(place, random_bf16(heads() * shape.head_dim, 1)),
        dt(place, random_bf16(heads(), 2)),
        b(place, random_bf16(shape.n_sequences * shape.n_groups * shape.state_dim, 3)),
        c(place, random_bf16(shape.n_sequences * shape.n_groups * shape.state_dim, 4)),
        a(place, negative(random_fractions(shape.n_heads, 5))),
        dt_bias(place, random_floats(shape.n_heads, 6)),
        d(place, random_floats(shape.n_heads, 7)),
        state(place, random_floats(heads() * shape.head_dim * shape.state_dim, 8)),
        out(place, std::vector<float>(heads() * shape.head_dim)) {}

  static Mamba2Shape shape_of(const Request& request) {
    return {.n_sequences = request.shape["sequences"],
            .n_heads = request.shape["n_heads"],
            .n_groups = request.shape["n_groups"],
            .head_dim = request.shape["head_dim"],
            .state_dim = request.shape["state_dim"]};
  }
  static OpCost cost(const Request& request) { return mamba2_cost(shape_of(request)); }
  static std::vector<float> negative(std::vector<float> values) {
    std::transform(values.begin(), values.end(), values.begin(), std::negate<>());
    return values;
  }

  [[nodiscard]] std::size_t heads() const { return shape.n_sequences * shape.n_heads; }
  [[nodiscard]] std::int64_t state_products() const { return shape.state_dim; }
  [[nodiscard]] std::int64_t out_products() const { return shape.state_dim; }

  [[nodiscard]] double worst_error(const Mamba2Set& ran) const { return worst_step(*this, ran); }
  [[nodiscard]] kernels::Mamba2Params params() const {
    kernels::Mamba2Params p;
    p.n_sequences = static_cast<int>(shape.n_sequences);
    p.n_heads = static_cast<int>(shape.n_heads);
    p.n_groups = static_cast<int>(shape.n_groups);
    p.head_dim = static_cast<int>(shape.head_dim);
    p.state_dim = static_cast<int>(shape.state_dim);
    p.x = x.data();
    p.dt = dt.data();
    p.b = b.data();
    p.c = c.data();
    p.a = a.data();
    p.dt_bias = dt_bias.data();
    p.d = d.data();
    p.state = state.data();
    p.out = out.data();
    return p;
  }
};

/// The short convolution in front of them: one set's arrays.
struct ConvStateSet {
  static constexpr auto* kCpu = kernels::conv_state_cpu;
  static constexpr auto* kLaunch = kernels::conv_state_launch;
  static constexpr auto* kReference = kernels::conv_state_reference;

  ConvStateShape shape;
  Array<std::uint16_t> x;
  Array<float> weight, bias, state, out;

  ConvStateSet(Place place, const Request& request, std::uint64_t /*set*/)
      : shape(shape_of(request)),
        x(place, random_bf16(rows(), 1)),
        weight(place, random_floats(shape.n_channels * shape.width, 2)),
        bias(place, random_floats(shape.n_channels, 3)),
        state(place, random_floats(rows() * (shape.width - 1), 4)),
        out(place, std::vector<float>(rows())) {}

  static ConvStateShape shape_of(const Request& request) {
    return {.n_sequences = request.shape["sequences"],
            .n_channels = request.shape["channels"],
            .width = request.shape["width"]};
  }
  static OpCost cost(const Request& request) { return conv_state_cost(shape_of(request)); }

  [[nodiscard]] std::size_t rows() const { return shape.n_sequences * shape.n_channels; }
  /// The state is exact, and its reference leaves no magnitudes.
  [[nodiscard]] static std::int64_t state_products() { return 0; }
  [[nodiscard]] std::int64_t out_products() const { return shape.width; }

  [[nodiscard]] double worst_error(const ConvStateSet& ran) const { return worst_step(*this, ran); }
  [[nodiscard]] kernels::ConvStateParams params() const {
    kernels::ConvStateParams p;
    p.n_sequences = static_cast<int>(shape.n_sequences);
    p.n_channels = static_cast<int>(shape.n_channels);
    p.width = static_cast<int>(shape.width);
    p.x = x.data();
    p.weight = weight.data();
    p.bias = bias.data();
    p.state = state.data();
    p.out = out.data();
    return p;
  }
};

template <typename Set>
Case make_case(const Request& request) {
  const OpCost cost = Set::cost(request);
  return Case{.cost = cost,
              .bytes_per_set = cost.read.value(),
              .prepare = prepare_with<SetsRun<Set>>(request)};
}

Shape delta_net(std::int64_t sequences, std::int64_t n_key_heads, std::int64_t n_value_heads) {
  return {{"sequences", sequences},
          {"n_key_heads", n_key_heads},
          {"n_value_heads", n_value_heads},
          {"key_dim", 128},
          {"value_dim", 128}};
}
Shape mamba2(std::int64_t sequences, std::int64_t n_heads, std::int64_t n_groups) {
  return {{"sequences", sequences},
          {"n_heads", n_heads},
          {"n_groups", n_groups},
          {"head_dim", 64},
          {"state_dim", 128}};
}
Shape conv_state(std::int64_t sequences, std::int64_t channels) {
  return {{"sequences", sequences}, {"channels", channels}, {"width", 4}};
}

const Registration kDeltaNet({.name = "delta_net",
                              .formats = {"gated", "kda"},
                              .tiny = delta_net(2, 1, 2),
                              .shapes = {delta_net(1, 16, 32), delta_net(64, 16, 32)},
                              .make_case = make_case<DeltaNetSet>});
const Registration kMamba2({.name = "mamba2",
                            .formats = {"bf16"},
                            .tiny = mamba2(2, 4, 2),
                            .shapes = {mamba2(1, 128, 8), mamba2(64, 128, 8)},
                            .make_case = make_case<Mamba2Set>});
/// The channels of x, B and C of those Mamba2 heads and groups.
const Registration kConvState({.name = "conv_state",
                               .formats = {"bf16"},
                               .tiny = conv_state(3, 70),
                               .shapes = {conv_state(1, 10240), conv_state(64, 10240)},
                               .make_case = make_case<ConvStateSet>});

}  // namespace
}  // namespace kvfathom::bench
