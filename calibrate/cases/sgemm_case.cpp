// OpenBLAS's own product of floats, as one call: what `gemm` on the CPU is held to, whose weights
// are stored in 16 bits or less and widened first.
#include <cmath>

#include "calibrate/cases/case.h"
#include "kernels/common/blas.h"
#include "kernels/common/tolerance.h"
#include "model/ops/gemm.h"

namespace kvfathom::bench {
namespace {

class SgemmRun : public PreparedRun {
 public:
  SgemmRun(const Request& request, int n_sets)
      : n_threads_(request.n_threads),
        m_(request.shape.as_int("m")),
        n_(request.shape.as_int("n")),
        k_(request.shape.as_int("k")),
        x_(random_floats(static_cast<std::size_t>(m_) * k_, 1)),
        weights_(random_floats(static_cast<std::size_t>(n_) * k_, 2, 0.02F)),
        out_(Place::cpu, std::vector<float>(static_cast<std::size_t>(m_) * n_, NAN)) {
    for (int set = 0; set < n_sets; ++set) {
      weights_there_.emplace_back(Place::cpu, weights_);
    }
  }

  void run(int set, Stream /*stream*/) override {
    kernels::sgemm({.m = m_, .n = n_, .k = k_, .b_transposed = kernels::Transposed::yes},
                   {x_.data(), k_},
                   {weights_there_[set].data(), k_},
                   {out_.data(), n_},
                   n_threads_);
  }

  double worst_error() override {
    std::vector<double> want;
    std::vector<double> bound;
    for (std::int64_t i = 0; i < m_; ++i) {
      for (std::int64_t j = 0; j < n_; ++j) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (std::int64_t l = 0; l < k_; ++l) {
          const double product = static_cast<double>(x_[i * k_ + l]) * weights_[j * k_ + l];
          sum += product;
          magnitude += std::abs(product);
        }
        want.push_back(sum);
        bound.push_back(kernels::dot_bound(sum, magnitude, k_, {}));
      }
    }
    return worst_ratio(out_.to_host(), want, bound);
  }

 private:
  int n_threads_;
  int m_, n_, k_;
  std::vector<float> x_, weights_;
  Array<float> out_;
  std::vector<Array<float>> weights_there_;
};

Case make_case(const Request& request) {
  const Shape& shape = request.shape;
  const double weight_bytes = 4.0 * static_cast<double>(shape["n"] * shape["k"]);
  return Case{.cost = gemm_cost({.m = shape["m"],
                                 .n = shape["n"],
                                 .k = shape["k"],
                                 .weights = DType::f32,
                                 .activation_bytes = 4}),
              .bytes_per_set = weight_bytes,
              .prepare = prepare_with<SgemmRun>(request)};
}

const Registration kSgemm({.name = "sgemm",
                           .formats = {"f32"},
                           .tiny = {{"m", 3}, {"n", 50}, {"k", 512}},
                           .shapes = {{{"m", 16}, {"n", 4096}, {"k", 4096}},
                                      {{"m", 512}, {"n", 4096}, {"k", 4096}}},
                           .make_case = make_case,
                           .places = {Place::cpu}});

}  // namespace
}  // namespace kvfathom::bench
