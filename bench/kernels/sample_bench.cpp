// The choice of one token a row from its logits.
#include <algorithm>
#include <limits>

#include "bench/kernels/bench_support.h"
#include "kernels/elementwise/elementwise.h"
#include "model/ops/elementwise.h"

namespace kvfathom::bench {
namespace {

using kernels::SampleParams;

/// One set's arrays.
struct SampleSet {
  Array<float> logits, uniform;
  Array<std::int32_t> tokens;

  SampleSet(Place place, const Shape& shape, std::uint64_t seed)
      : logits(place, random_floats(shape["rows"] * shape["vocab"], seed, 8.0F)),
        uniform(place, random_fractions(shape["rows"], seed + 1)),
        tokens(place, std::vector<std::int32_t>(shape["rows"], -1)) {}

  [[nodiscard]] SampleParams params(const Request& request) const {
    return {.n_rows = request.shape.as_int("rows"),
            .vocab_size = request.shape.as_int("vocab"),
            .element = kernels::Element::f32,
            .logits = logits.data(),
            .temperature = request.format == "greedy" ? 0.0F : 0.8F,
            .top_k = request.format == "top_k" ? 50 : 0,
            .top_p = request.format == "top_p" ? 0.9F : 1.0F,
            .uniform = uniform.data(),
            .tokens = tokens.data()};
  }
};

class SampleRun : public PreparedRun {
 public:
  SampleRun(const Request& request, int n_sets) : request_(request) {
    for (int set = 0; set < n_sets; ++set) {
      sets_.emplace_back(request.place, request.shape, 2 * static_cast<std::uint64_t>(set));
    }
  }
  void run(int set, Stream stream) override {
    const SampleParams params = sets_[set].params(request_);
    request_.place == Place::cpu ? kernels::sample_cpu(params, request_.n_threads)
                                 : kernels::sample_launch(params, stream);
  }
  /// Another token than the reference's is right where the uniform number is next to its share's
  /// edge: within the masses' roundings, 2^-24 each for exponentials of arguments up to 64.
  double worst_error() override {
    constexpr double kSlack = 64 * kernels::kUnitRoundoffF32;
    const SampleSet host(Place::cpu, request_.shape, 0);
    const std::int64_t vocab = request_.shape["vocab"];
    std::vector<double> shares(request_.shape["rows"] * vocab);
    std::vector<std::int32_t> want(request_.shape["rows"]);
    sample_reference(host.params(request_), {want.data(), shares.data()});
    double worst = 0.0;
    const std::vector<std::int32_t> got = sets_[0].tokens.to_host();
    for (std::size_t row = 0; row < got.size(); ++row) {
      if (got[row] == want[row]) {
        continue;
      }
      const double* share = shares.data() + static_cast<std::int64_t>(row) * vocab;
      if (got[row] < 0 || got[row] >= vocab || share[got[row]] == 0.0) {
        return std::numeric_limits<double>::infinity();
      }
      double before = 0.0;
      for (int token = 0; token < got[row]; ++token) {
        before += share[token];
      }
      const double uniform = host.uniform.data()[row];
      const double outside = std::max(before - uniform, uniform - before - share[got[row]]);
      worst = std::max(worst, outside / kSlack);
    }
    return worst;
  }

 private:
  Request request_;
  std::vector<SampleSet> sets_;
};

Case make_case(const Request& request) {
  const OpCost cost =
      sample_cost(request.shape["rows"], request.shape["vocab"], request.format != "greedy");
  return Case{.cost = cost,
              .bytes_per_set = cost.read.value(),
              .prepare = prepare_with<SampleRun>(request)};
}

/// The vocabulary of Llama 3.
const Registration kSample({.name = "sample",
                            .formats = {"greedy", "temperature", "top_k", "top_p"},
                            .tiny = {{"rows", 3}, {"vocab", 600}},
                            .shapes = {{{"rows", 1}, {"vocab", 128256}},
                                       {{"rows", 64}, {"vocab", 128256}}},
                            .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
