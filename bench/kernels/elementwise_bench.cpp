// RMSNorm: what stands between the products of a layer.
#include <cmath>

#include "bench/kernels/bench_support.h"
#include "kernels/common/tolerance.h"
#include "kernels/elementwise/elementwise.h"
#include "model/ops/elementwise.h"

namespace kvfathom::bench {
namespace {

using kernels::Element;
using kernels::RmsNormParams;

class RmsNormRun : public PreparedRun {
 public:
  RmsNormRun(const Request& request, int n_sets)
      : request_(request),
        rows_(request.shape["rows"]),
        columns_(request.shape.as_int("columns")),
        element_(request.format == "bf16" ? Element::bf16 : Element::f16),
        weight_(random(columns_, 1)),
        weight_there_(request.place, weight_) {
    x_ = random(rows_ * columns_, 10);
    for (int set = 0; set < n_sets; ++set) {
      x_there_.emplace_back(request.place,
                            random(rows_ * columns_, 10 + static_cast<std::uint64_t>(set)));
      out_.emplace_back(request.place, std::vector<std::uint16_t>(x_.size(), 0xffffU));
    }
  }

  void run(int set, Stream stream) override {
    const RmsNormParams params = with(x_there_[set].data(), weight_there_.data(), out_[set].data());
    request_.place == Place::cpu ? kernels::rms_norm_cpu(params, request_.n_threads)
                                 : kernels::rms_norm_launch(params, stream);
  }

  double worst_error() override {
    std::vector<double> want(x_.size()), bound;
    rms_norm_reference(with(x_.data(), weight_.data(), nullptr), want.data(), nullptr);
    const bool bf16 = element_ == Element::bf16;
    const std::vector<std::uint16_t> stored = out_[0].to_host();
    std::vector<float> got;
    for (const std::uint16_t bits : stored) {
      got.push_back(bf16 ? kernels::to_f32(kernels::Bf16{bits})
                         : kernels::to_f32(kernels::F16{bits}));
    }
    for (const double value : want) {
      bound.push_back(kernels::dot_bound(
          value,
          std::fabs(value),
          columns_,
          {.output = bf16 ? kernels::kUnitRoundoffBf16 : kernels::kUnitRoundoffF16,
           .output_step = bf16 ? 0.0 : kernels::kHalfSmallestStepF16}));
    }
    return worst_ratio(got, want, bound);
  }

 private:
  [[nodiscard]] std::vector<std::uint16_t> random(std::int64_t n, std::uint64_t seed) const {
    const auto size = static_cast<std::size_t>(n);
    return element_ == Element::bf16 ? random_bf16(size, seed) : random_f16(size, seed);
  }
  [[nodiscard]] RmsNormParams with(const void* x, const void* weight, void* out) const {
    return {.n_rows = rows_,
            .n_columns = columns_,
            .element = element_,
            .x = x,
            .weight = weight,
            .out = out};
  }

  Request request_;
  std::int64_t rows_;
  int columns_;
  Element element_;
  std::vector<std::uint16_t> weight_, x_;
  Array<std::uint16_t> weight_there_;
  std::vector<Array<std::uint16_t>> x_there_, out_;
};

Case make_case(const Request& request) {
  const OpCost cost =
      rms_norm_cost({.n_rows = request.shape["rows"], .n_columns = request.shape["columns"]});
  return Case{.cost = cost,
              .bytes_per_set = (cost.read + cost.written).value(),
              .prepare = prepare_with<RmsNormRun>(request)};
}

const Registration kRmsNorm({.name = "rms_norm",
                             .formats = {"bf16", "f16"},
                             .tiny = {{"rows", 3}, {"columns", 136}},
                             .shapes = {{{"rows", 1024}, {"columns", 4096}}},
                             .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
