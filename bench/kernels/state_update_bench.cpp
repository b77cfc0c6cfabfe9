// One decode step of gated delta net and KDA: a state read and written whole.
#include <algorithm>
#include <cmath>

#include "bench/kernels/bench_support.h"
#include "kernels/common/tolerance.h"
#include "kernels/state_update/state_update.h"
#include "model/ops/state_update.h"

namespace kvfathom::bench {
namespace {

using kernels::DeltaNetParams;

DeltaNetShape shape_of(const Request& request) {
  return DeltaNetShape{.n_sequences = request.shape["sequences"],
                       .n_key_heads = request.shape["n_key_heads"],
                       .n_value_heads = request.shape["n_value_heads"],
                       .key_dim = request.shape["key_dim"],
                       .value_dim = request.shape["value_dim"],
                       .decay_per_channel = request.format == "kda"};
}

/// Numbers in (0, 1): under them a state neither grows nor dies out, however often it steps.
std::vector<float> fractions(std::size_t n, std::uint64_t seed) {
  std::vector<float> values = random_floats(n, seed, 0.5F);
  for (float& x : values) {
    x += 0.5F;
  }
  return values;
}

/// One set's arrays.
struct DeltaSet {
  Array<std::uint16_t> q, k, v;
  Array<float> decay, beta, state, out;

  DeltaSet(Place place, const DeltaNetShape& s)
      : q(place, random_bf16(keys(s), 1)),
        k(place, random_bf16(keys(s), 2, 1.0F / std::sqrt(static_cast<float>(s.key_dim)))),
        v(place, random_bf16(heads(s) * s.value_dim, 3)),
        decay(place, fractions(heads(s) * (s.decay_per_channel ? s.key_dim : 1), 4)),
        beta(place, fractions(heads(s), 5)),
        state(place, random_floats(heads(s) * s.key_dim * s.value_dim, 6)),
        out(place, std::vector<float>(heads(s) * s.value_dim)) {}

  static std::size_t keys(const DeltaNetShape& s) {
    return s.n_sequences * s.n_key_heads * s.key_dim;
  }
  static std::size_t heads(const DeltaNetShape& s) { return s.n_sequences * s.n_value_heads; }

  [[nodiscard]] DeltaNetParams params(const DeltaNetShape& s) const {
    DeltaNetParams p;
    p.n_sequences = static_cast<int>(s.n_sequences);
    p.n_key_heads = static_cast<int>(s.n_key_heads);
    p.n_value_heads = static_cast<int>(s.n_value_heads);
    p.key_dim = static_cast<int>(s.key_dim);
    p.value_dim = static_cast<int>(s.value_dim);
    p.q = q.data();
    p.k = k.data();
    p.v = v.data();
    p.decay_per_channel = s.decay_per_channel;
    p.decay = decay.data();
    p.beta = beta.data();
    p.state = state.data();
    p.out = out.data();
    return p;
  }
};

class DeltaNetRun : public PreparedRun {
 public:
  DeltaNetRun(const Request& request, int n_sets) : request_(request), shape_(shape_of(request)) {
    for (int set = 0; set < n_sets; ++set) {
      sets_.emplace_back(request.place, shape_);
    }
  }
  void run(int set, Stream stream) override {
    const DeltaNetParams params = sets_[set].params(shape_);
    if (request_.place == Place::cpu) {
      kernels::delta_net_cpu(params, request_.n_threads);
    } else {
      kernels::delta_net_launch(params, stream);
    }
  }
  /// The state has moved once: run(0) was its first step.
  double worst_error() override {
    const DeltaSet before(Place::cpu, shape_);
    const std::vector<float> state = sets_[0].state.to_host();
    const std::vector<float> out = sets_[0].out.to_host();
    std::vector<double> want_state(state.size()), state_bound(state.size());
    std::vector<double> want_out(out.size()), out_bound(out.size());
    kernels::delta_net_reference(
        before.params(shape_),
        {want_state.data(), state_bound.data(), want_out.data(), out_bound.data()});
    for (std::size_t i = 0; i < state.size(); ++i) {
      state_bound[i] = kernels::dot_bound(want_state[i], state_bound[i], shape_.key_dim);
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      out_bound[i] = kernels::dot_bound(want_out[i], out_bound[i], 2 * shape_.key_dim);
    }
    return std::max(worst_ratio(state, want_state, state_bound),
                    worst_ratio(out, want_out, out_bound));
  }

 private:
  Request request_;
  DeltaNetShape shape_;
  std::vector<DeltaSet> sets_;
};

Case make_case(const Request& request) {
  const OpCost cost = delta_net_cost(shape_of(request));
  return Case{.cost = cost,
              .bytes_per_set = cost.read.value(),
              .prepare = prepare_with<DeltaNetRun>(request)};
}

Shape heads_of_128(std::int64_t sequences, std::int64_t n_key_heads, std::int64_t n_value_heads) {
  return Shape{{"sequences", sequences},
               {"n_key_heads", n_key_heads},
               {"n_value_heads", n_value_heads},
               {"key_dim", 128},
               {"value_dim", 128}};
}

const Registration kDeltaNet({.name = "delta_net",
                              .formats = {"gated", "kda"},
                              .tiny = heads_of_128(2, 1, 2),
                              .shapes = {heads_of_128(1, 16, 32), heads_of_128(64, 16, 32)},
                              .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
