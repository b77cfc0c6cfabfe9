// Ridge refinement of an evicted cache: all heads of a layer, or of a model, in one call.
#include <algorithm>
#include <cmath>

#include "calibrate/cases/case.h"
#include "kernels/ridge_refine/ridge_refine.h"
#include "model/ops/ridge_refine.h"

namespace kvfathom::bench {
namespace {

using kernels::Bf16;
using kernels::RidgeRefineOutcome;
using kernels::RidgeRefineParams;

/// The bits of a Bf16 array as the kernels' type.
std::vector<Bf16> bf16(std::size_t n, std::uint64_t seed) {
  std::vector<Bf16> values;
  for (const std::uint16_t bits : random_bf16(n, seed, 2.0F)) {
    values.push_back(Bf16{bits});
  }
  return values;
}

class RidgeRefineRun : public PreparedRun {
 public:
  RidgeRefineRun(const Request& request, int n_sets)
      : request_(request),
        kept_(std::vector<std::int32_t>(request.shape["problems"], request.shape.as_int("kept"))),
        weights_(std::vector<float>(request.shape["rows"], 6.0F / 32.0F)),
        queries_(bf16(n_elements("rows"), 1)),
        n_kept_there_(request.place, kept_),
        weights_there_(request.place, weights_),
        queries_there_(request.place, queries_),
        outcome_(request.place, std::vector<RidgeRefineOutcome>(kept_.size())) {
    for (int set = 0; set < n_sets; ++set) {
      for (std::uint64_t i = 0; i < 2; ++i) {
        full_.push_back(bf16(n_elements("tokens"), 10 + 2 * static_cast<std::uint64_t>(set) + i));
        full_there_.emplace_back(request.place, full_.back());
        kept_rows_.push_back(every_nth(full_.back()));
        kept_there_.emplace_back(request.place, kept_rows_.back());
      }
      if (set > 0) {  // the reference asks for the first set alone
        full_.resize(2);
        kept_rows_.resize(2);
      }
    }
    for (int i = 0; i < 4; ++i) {
      results_.emplace_back(request.place, std::vector<Bf16>(kept_rows_[0].size()));
    }
    if (request.place == Place::cuda) {
      splits_ = kernels::ridge_refine_splits(params(0), kernels::device());
      scratch_ = kernels::DeviceArray<std::byte>(
          static_cast<std::size_t>(kernels::ridge_refine_scratch_bytes(params(0), splits_)));
    }
  }

  void run(int set, Stream stream) override {
    request_.place == Place::cpu
        ? kernels::ridge_refine_cpu(params(set), request_.n_threads)
        : kernels::ridge_refine_launch(params(set), splits_, scratch_.data(), stream);
  }

  /// The losses of the first problem, and the V step's values before they are rounded to bf16.
  double worst_error() override {
    const std::vector<Bf16> v = results_[0].to_host();
    const std::vector<Bf16> k = results_[1].to_host();
    RidgeRefineParams p = params(0);
    p.queries = queries_.data();
    p.row_weights = weights_.data();
    p.k_full = full_[0].data();
    p.v_full = full_[1].data();
    p.k_kept = kept_rows_[0].data();
    p.v_kept = kept_rows_[1].data();
    p.n_kept = kept_.data();
    p.v_stepped = const_cast<Bf16*>(v.data());  // read, not written, by the reference
    p.k_stepped = const_cast<Bf16*>(k.data());
    const kernels::RidgeRefineReference want = kernels::ridge_refine_reference(p, 0);
    const RidgeRefineOutcome outcome = outcome_.to_host()[0];
    std::vector<float> got = {outcome.loss_kept, outcome.loss_values, outcome.loss_both};
    std::vector<double> values = {want.loss_kept, want.loss_values, want.loss_both};
    std::vector<double> bounds = {
        want.loss_kept_error, want.loss_values_error, want.loss_both_error};
    for (std::size_t i = 0; i < want.values.size(); ++i) {
      got.push_back(to_f32(v[i]));
      values.push_back(want.values[i]);
      bounds.push_back(want.values_error + kernels::kUnitRoundoffBf16 *
                                               (std::fabs(want.values[i]) + want.values_error));
    }
    return worst_ratio(got, values, bounds);
  }

 private:
  [[nodiscard]] std::size_t n_elements(const char* rows) const {
    return static_cast<std::size_t>(request_.shape["problems"] * request_.shape[rows] *
                                    request_.shape["head_dim"]);
  }
  /// The kept tokens: evenly spread over the sequence.
  [[nodiscard]] std::vector<Bf16> every_nth(const std::vector<Bf16>& full) const {
    const std::int64_t tokens = request_.shape["tokens"];
    const std::int64_t kept = request_.shape["kept"];
    const std::int64_t dim = request_.shape["head_dim"];
    std::vector<Bf16> rows;
    for (std::int64_t problem = 0; problem < request_.shape["problems"]; ++problem) {
      for (std::int64_t slot = 0; slot < kept; ++slot) {
        const auto row = full.begin() + (problem * tokens + slot * tokens / kept) * dim;
        rows.insert(rows.end(), row, row + dim);
      }
    }
    return rows;
  }
  [[nodiscard]] RidgeRefineParams params(int set) const {
    RidgeRefineParams p;
    p.n_problems = request_.shape.as_int("problems");
    p.n_tokens = request_.shape.as_int("tokens");
    p.kept_capacity = request_.shape.as_int("kept");
    p.n_rows = request_.shape.as_int("rows");
    p.head_dim = request_.shape.as_int("head_dim");
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(p.head_dim));
    p.settings.cg_tolerance = 0.0F;  // as many iterations as the cost counts
    p.queries = queries_there_.data();
    p.row_weights = weights_there_.data();
    const std::size_t k = 2 * static_cast<std::size_t>(set);
    p.k_full = full_there_[k].data();
    p.v_full = full_there_[k + 1].data();
    p.k_kept = kept_there_[k].data();
    p.v_kept = kept_there_[k + 1].data();
    p.n_kept = n_kept_there_.data();
    p.v_stepped = results_[0].data();
    p.k_stepped = results_[1].data();
    p.v_out = results_[2].data();
    p.k_out = results_[3].data();
    p.outcome = outcome_.data();
    return p;
  }

  Request request_;
  std::vector<std::int32_t> kept_;
  std::vector<float> weights_;
  std::vector<Bf16> queries_;
  std::vector<std::vector<Bf16>> full_, kept_rows_;
  Array<std::int32_t> n_kept_there_;
  Array<float> weights_there_;
  Array<Bf16> queries_there_;
  Array<RidgeRefineOutcome> outcome_;
  std::vector<Array<Bf16>> full_there_, kept_there_, results_;
  int splits_ = 1;
  kernels::DeviceArray<std::byte> scratch_;
};

Case make_case(const Request& request) {
  const Shape& s = request.shape;
  const RidgeRefineShape shape{s["problems"], s["tokens"], s["kept"], s["rows"], s["head_dim"]};
  return Case{.cost = ridge_refine_cost(shape),
              .bytes_per_set = 4.0 *
                               static_cast<double>(s["problems"] * (s["tokens"] + s["kept"])) *
                               static_cast<double>(s["head_dim"]),
              .prepare = prepare_with<RidgeRefineRun>(request)};
}

Shape shape(std::int64_t problems, std::int64_t tokens, std::int64_t kept, std::int64_t rows) {
  return Shape{{"problems", problems},
               {"tokens", tokens},
               {"kept", kept},
               {"rows", rows},
               {"head_dim", rows < 64 ? 32 : 128}};
}

const Registration kRidgeRefine({.name = "ridge_refine",
                                 .formats = {"bf16"},
                                 .tiny = shape(2, 96, 24, 16),
                                 .shapes = {shape(8, 4096, 410, 128), shape(8, 16384, 1638, 128)},
                                 .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
