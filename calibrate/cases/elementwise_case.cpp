// What stands between the products of a layer: RMSNorm, the residual's addition, gated activations.
#include <algorithm>
#include <cmath>

#include "calibrate/cases/case.h"
#include "kernels/common/tolerance.h"
#include "kernels/elementwise/elementwise.h"
#include "model/ops/elementwise.h"

namespace kvfathom::bench {
namespace {

using kernels::Element;

/// One set: rows of 16-bit elements, where they run.
struct Rows {
  std::int64_t n_rows = 0;
  int n_columns = 0;
  Element element = Element::bf16;
  const std::uint16_t* in = nullptr;  ///< input_size() of the operation
  std::uint16_t* out = nullptr;       ///< [n_rows, n_columns]

  [[nodiscard]] std::int64_t size() const { return n_rows * n_columns; }
};

/// The rows, and after them the weights.
struct RmsNorm {
  static constexpr auto* kCpu = kernels::rms_norm_cpu;
  static constexpr auto* kLaunch = kernels::rms_norm_launch;

  static std::int64_t input_size(const Rows& rows) { return rows.size() + rows.n_columns; }
  static kernels::RmsNormParams params(const Rows& rows) {
    return {.n_rows = rows.n_rows,
            .n_columns = rows.n_columns,
            .element = rows.element,
            .x = rows.in,
            .weight = rows.in + rows.size(),
            .out = rows.out};
  }
  static void reference(const Rows& rows, double* out, double* magnitude) {
    rms_norm_reference(params(rows), out, nullptr);
    std::copy_n(out, rows.size(), magnitude);
  }
  static std::int64_t n_roundings(const Rows& rows) { return rows.n_columns; }
  static OpCost cost(const Rows& rows) {
    return rms_norm_cost({.n_rows = rows.n_rows, .n_columns = rows.n_columns});
  }
};

/// One summand after the other.
struct Add {
  static constexpr auto* kCpu = kernels::add_cpu;
  static constexpr auto* kLaunch = kernels::add_launch;

  static std::int64_t input_size(const Rows& rows) { return 2 * rows.size(); }
  static kernels::AddParams params(const Rows& rows) {
    return {.n = rows.size(),
            .element = rows.element,
            .a = rows.in,
            .b = rows.in + rows.size(),
            .out = rows.out};
  }
  static void reference(const Rows& rows, double* out, double* magnitude) {
    add_reference(params(rows), out);
    std::copy_n(out, rows.size(), magnitude);
  }
  static std::int64_t n_roundings(const Rows& /*rows*/) { return 1; }
  static OpCost cost(const Rows& rows) { return add_cost(rows.size()); }
};

/// Gate and up side by side, as one product leaves them.
struct GatedActivation {
  static constexpr auto* kCpu = kernels::gated_activation_cpu;
  static constexpr auto* kLaunch = kernels::gated_activation_launch;

  static std::int64_t input_size(const Rows& rows) { return 2 * rows.size(); }
  static kernels::GatedActivationParams params(const Rows& rows) {
    return {.n_rows = rows.n_rows,
            .n_columns = rows.n_columns,
            .element = rows.element,
            .gate = rows.in,
            .up = rows.in + rows.n_columns,
            .input_stride = std::int64_t{2} * rows.n_columns,
            .out = rows.out};
  }
  static void reference(const Rows& rows, double* out, double* magnitude) {
    gated_activation_reference(params(rows), {out, magnitude});
  }
  /// A polynomial, an exponential, a quotient and a product.
  static std::int64_t n_roundings(const Rows& /*rows*/) { return 10; }
  static OpCost cost(const Rows& rows) {
    return gated_activation_cost({.n_rows = rows.n_rows, .n_columns = rows.n_columns});
  }
};

Rows rows_of(const Request& request) {
  return {.n_rows = request.shape["rows"],
          .n_columns = request.shape.as_int("columns"),
          .element = request.format == "bf16" ? Element::bf16 : Element::f16};
}

template <typename Operation>
class ElementwiseRun : public PreparedRun {
 public:
  ElementwiseRun(const Request& request, int n_sets) : request_(request), rows_(rows_of(request)) {
    for (int set = 0; set < n_sets; ++set) {
      in_.emplace_back(request.place, input(set));
      out_.emplace_back(request.place, std::vector<std::uint16_t>(rows_.size(), 0xffffU));
    }
  }

  void run(int set, Stream stream) override {
    Rows rows = rows_;
    rows.in = in_[set].data();
    rows.out = out_[set].data();
    request_.place == Place::cpu ? Operation::kCpu(Operation::params(rows), request_.n_threads)
                                 : Operation::kLaunch(Operation::params(rows), stream);
  }

  double worst_error() override {
    const std::vector<std::uint16_t> in = input(0);
    Rows rows = rows_;
    rows.in = in.data();
    std::vector<double> want(rows.size());
    std::vector<double> bound(rows.size());
    Operation::reference(rows, want.data(), bound.data());
    const bool bf16 = rows.element == Element::bf16;
    const kernels::Roundings roundings{
        .output = bf16 ? kernels::kUnitRoundoffBf16 : kernels::kUnitRoundoffF16,
        .output_step = bf16 ? 0.0 : kernels::kHalfSmallestStepF16};
    std::vector<float> got;
    for (const std::uint16_t& bits : out_[0].to_host()) {
      const std::size_t i = got.size();
      got.push_back(element_at(rows.element, &bits, 0));
      bound[i] =
          kernels::dot_bound(want[i], std::fabs(bound[i]), Operation::n_roundings(rows), roundings);
    }
    return worst_ratio(got, want, bound);
  }

 private:
  [[nodiscard]] std::vector<std::uint16_t> input(int set) const {
    const auto n = static_cast<std::size_t>(Operation::input_size(rows_));
    const auto seed = 10 + static_cast<std::uint64_t>(set);
    return rows_.element == Element::bf16 ? random_bf16(n, seed) : random_f16(n, seed);
  }

  Request request_;
  Rows rows_;
  std::vector<Array<std::uint16_t>> in_, out_;
};

template <typename Operation>
Case make_case(const Request& request) {
  const OpCost cost = Operation::cost(rows_of(request));
  return Case{.cost = cost,
              .bytes_per_set = (cost.read + cost.written).value(),
              .prepare = prepare_with<ElementwiseRun<Operation>>(request)};
}

template <typename Operation>
KernelBench bench_of(const char* name, std::int64_t columns) {
  return {.name = name,
          .formats = {"bf16", "f16"},
          .tiny = {{"rows", 3}, {"columns", 136}},
          .shapes = {{{"rows", 1024}, {"columns", columns}}},
          .make_case = make_case<Operation>};
}

const Registration kAdd(bench_of<Add>("add", 4096));
const Registration kGatedActivation(bench_of<GatedActivation>("gated_activation", 14336));
const Registration kRmsNorm(bench_of<RmsNorm>("rms_norm", 4096));

}  // namespace
}  // namespace kvfathom::bench
