// A mixture-of-experts layer: router, experts, combination.

#include "calibrate/cases/case.h"
#include "kernels/common/tolerance.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "model/ops/moe_ffn.h"

namespace kvfathom::bench {
namespace {

using kernels::MoeFfnParams;
using kernels::WeightFormat;

WeightFormat format_of(const Request& request) {
  for (const WeightFormat format : kernels::kAllWeightFormats) {
    if (kernels::name(format) == request.format) {
      return format;
    }
  }
  return WeightFormat::bf16;
}

class MoeFfnRun : public PreparedRun {
 public:
  MoeFfnRun(const Request& request, int n_sets)
      : request_(request),
        format_(format_of(request)),
        shape_({.n_tokens = request.shape.as_int("tokens"),
                .hidden_size = request.shape.as_int("hidden_size"),
                .intermediate_size = request.shape.as_int("intermediate_size"),
                .n_experts = request.shape.as_int("n_experts"),
                .n_chosen = request.shape.as_int("n_chosen"),
                .format = format_}),
        x_(activations(static_cast<std::size_t>(shape_.n_tokens) * shape_.hidden_size, 1)),
        router_(activations(static_cast<std::size_t>(shape_.n_experts) * shape_.hidden_size, 2)),
        gate_up_(random_weights(format_,
                                std::int64_t{2} * shape_.n_experts * shape_.intermediate_size,
                                shape_.hidden_size,
                                0.05F,
                                3)),
        down_(random_weights(format_,
                             std::int64_t{1} * shape_.n_experts * shape_.hidden_size,
                             shape_.intermediate_size,
                             0.05F,
                             4)),
        x_there_(request.place, x_),
        router_there_(request.place, router_),
        out_(request.place, std::vector<std::uint16_t>(x_.size(), 0xffffU)) {
    for (int set = 0; set < n_sets; ++set) {  // the same random weights at other addresses
      gate_up_there_.emplace_back(request.place, gate_up_);
      down_there_.emplace_back(request.place, down_);
    }
    if (request.place == Place::cuda) {
      scratch_ = kernels::DeviceArray<std::byte>(
          static_cast<std::size_t>(kernels::moe_ffn_scratch_bytes(shape_)));
    }
  }

  void run(int set, Stream stream) override {
    MoeFfnParams params = shape_;
    params.x = x_there_.data();
    params.router = router_there_.data();
    params.gate_up = gate_up_there_[set].data();
    params.down = down_there_[set].data();
    params.out = out_.data();
    request_.place == Place::cpu ? kernels::moe_ffn_cpu(params, request_.n_threads)
                                 : kernels::moe_ffn_launch(params, scratch_.data(), stream);
  }

  double worst_error() override {
    MoeFfnParams params = shape_;
    params.x = x_.data();
    params.router = router_.data();
    params.gate_up = gate_up_.data();
    params.down = down_.data();
    const std::size_t n = x_.size();
    std::vector<double> want(n);
    std::vector<double> outer(n);
    std::vector<double> inner(n);
    std::vector<double> router(shape_.n_tokens);
    std::vector<double> bound(n);
    std::vector<double> weights(static_cast<std::size_t>(shape_.n_tokens) * shape_.n_chosen);
    std::vector<std::int32_t> experts(weights.size());
    moe_ffn_reference(
        params,
        {experts.data(), weights.data(), want.data(), outer.data(), inner.data(), router.data()});
    const double u = kernels::activation_roundoff(format_);
    const double decoded = kernels::is_quantised(format_) ? kernels::kUnitRoundoffF16 : 0.0;
    std::vector<float> got;
    for (std::size_t i = 0; const std::uint16_t bits : out_.to_host()) {
      got.push_back(kernels::activation_to_f32(format_, bits));
      const double logit = 2.0 * router[i / shape_.hidden_size];
      bound[i] = kernels::dot_bound(want[i],
                                    outer[i],
                                    shape_.intermediate_size,
                                    {.output = u,
                                     .output_step = kernels::activation_half_step(format_),
                                     .operands = u + decoded}) +
                 kernels::dot_bound(0.0, inner[i], shape_.hidden_size, {.operands = decoded}) +
                 kernels::dot_bound(0.0, logit * outer[i], shape_.hidden_size);
      ++i;
    }
    return worst_ratio(got, want, bound);
  }

 private:
  [[nodiscard]] std::vector<std::uint16_t> activations(std::size_t n, std::uint64_t seed) const {
    return format_ == WeightFormat::bf16 ? random_bf16(n, seed) : random_f16(n, seed);
  }

  Request request_;
  WeightFormat format_;
  MoeFfnParams shape_;
  std::vector<std::uint16_t> x_, router_;
  std::vector<std::byte> gate_up_, down_;
  Array<std::uint16_t> x_there_, router_there_, out_;
  std::vector<Array<std::byte>> gate_up_there_, down_there_;
  kernels::DeviceArray<std::byte> scratch_;
};

/// Random tokens choose about as many experts as equal chances would.
Case make_case(const Request& request) {
  const Shape& shape = request.shape;
  const std::int64_t experts = shape["n_experts"];
  const MoeFfnShape of{
      .n_tokens = shape["tokens"],
      .hidden_size = shape["hidden_size"],
      .intermediate_size = shape["intermediate_size"],
      .n_experts = experts,
      .n_chosen = shape["n_chosen"],
      .n_active_experts = expected_active_experts(shape["tokens"], experts, shape["n_chosen"]),
      .weights = dtype_named(request.format).value()};
  const auto weights =
      static_cast<double>(3 * experts * shape["intermediate_size"] *
                          kernels::weight_row_bytes(format_of(request), shape["hidden_size"]));
  return Case{.cost = moe_ffn_cost(of),
              .bytes_per_set = weights,
              .prepare = prepare_with<MoeFfnRun>(request)};
}

const Registration kMoeFfn({.name = "moe_ffn",
                            .formats = {"bf16", "f16", "q8_0", "q4_0", "q4_K"},
                            .tiny = {{"tokens", 3},
                                     {"hidden_size", 256},
                                     {"intermediate_size", 256},
                                     {"n_experts", 4},
                                     {"n_chosen", 2}},
                            .shapes = {{{"tokens", 4},
                                        {"hidden_size", 2048},
                                        {"intermediate_size", 768},
                                        {"n_experts", 32},
                                        {"n_chosen", 8}}},
                            .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
