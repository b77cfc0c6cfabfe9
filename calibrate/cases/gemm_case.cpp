// Weights times activations, from one token to thousands.
#include "calibrate/cases/case.h"
#include "kernels/common/tolerance.h"
#include "kernels/gemm/gemm.h"
#include "model/ops/gemm.h"

namespace kvfathom::bench {
namespace {

using kernels::GemmParams;
using kernels::WeightFormat;

WeightFormat format_of(const Request& request) {
  for (const WeightFormat format : kernels::kAllWeightFormats) {
    if (kernels::name(format) == request.format) {
      return format;
    }
  }
  return WeightFormat::bf16;
}

class GemmRun : public PreparedRun {
 public:
  GemmRun(const Request& request, int n_sets)
      : request_(request),
        format_(format_of(request)),
        m_(request.shape.as_int("m")),
        n_(request.shape["n"]),
        k_(request.shape["k"]),
        x_(format_ == WeightFormat::bf16 ? random_bf16(m_ * k_, 1) : random_f16(m_ * k_, 1)),
        weights_(kernels::random_weights(format_, n_, k_, 0.02F, 2)),
        x_there_(request.place, x_),
        out_(request.place, std::vector<std::uint16_t>(m_ * n_, 0xffffU)) {
    for (int set = 0; set < n_sets; ++set) {  // the same random weights at other addresses
      weights_there_.emplace_back(request.place, weights_);
    }
  }

  void run(int set, Stream stream) override {
    const GemmParams params{.m = m_,
                            .weights = {format_, n_, k_, weights_there_[set].data()},
                            .x = x_there_.data(),
                            .out = out_.data()};
    request_.place == Place::cpu ? kernels::gemm_cpu(params, request_.n_threads)
                                 : kernels::gemm_launch(params, stream);
  }

  double worst_error() override {
    std::vector<double> want(m_ * n_);
    std::vector<double> bound(m_ * n_);
    const GemmParams params{.m = m_, .weights = {format_, n_, k_, weights_.data()}, .x = x_.data()};
    gemm_reference(params, {want.data(), bound.data()});
    // Our tiles round decoded weights to f16.
    const double decoded = kernels::is_quantised(format_) ? kernels::kUnitRoundoffF16 : 0.0;
    std::vector<float> got;
    for (std::size_t i = 0; const std::uint16_t bits : out_.to_host()) {
      got.push_back(kernels::activation_to_f32(format_, bits));
      bound[i] = kernels::dot_bound(want[i],
                                    bound[i],
                                    k_,
                                    {.output = kernels::activation_roundoff(format_),
                                     .output_step = kernels::activation_half_step(format_),
                                     .operands = decoded});
      ++i;
    }
    return worst_ratio(got, want, bound);
  }

 private:
  Request request_;
  WeightFormat format_;
  int m_;
  std::int64_t n_, k_;
  std::vector<std::uint16_t> x_;
  std::vector<std::byte> weights_;
  Array<std::uint16_t> x_there_, out_;
  std::vector<Array<std::byte>> weights_there_;
};

Case make_case(const Request& request) {
  const Shape& shape = request.shape;
  const OpCost cost = gemm_cost({.m = shape["m"],
                                 .n = shape["n"],
                                 .k = shape["k"],
                                 .weights = dtype_named(request.format).value()});
  return Case{.cost = cost,
              .bytes_per_set = static_cast<double>(
                  shape["n"] * kernels::weight_row_bytes(format_of(request), shape["k"])),
              .prepare = prepare_with<GemmRun>(request)};
}

const Registration kGemm({.name = "gemm",
                          .formats = {"bf16", "f16", "q8_0", "q4_0", "q4_K"},
                          .tiny = {{"m", 3}, {"n", 50}, {"k", 512}},
                          .shapes = {{{"m", 1}, {"n", 4096}, {"k", 4096}},
                                     {{"m", 8}, {"n", 4096}, {"k", 4096}},
                                     {{"m", 16}, {"n", 4096}, {"k", 4096}},
                                     {{"m", 512}, {"n", 4096}, {"k", 4096}}},
                          .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
