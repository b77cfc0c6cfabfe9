// The choice of one token a row from its logits.
#include <algorithm>
#include <limits>
#include <numeric>

#include "calibrate/cases/case.h"
#include "kernels/elementwise/elementwise.h"
#include "model/ops/elementwise.h"

namespace kvfathom::bench {
namespace {

using kernels::SampleParams;

/// One set's arrays.
struct SampleSet {
  static constexpr auto* kCpu = kernels::sample_cpu;
  static constexpr auto* kLaunch = kernels::sample_launch;

  Request request;
  Array<float> logits, uniform;
  Array<std::int32_t> tokens;

  SampleSet(Place place, const Request& of, std::uint64_t set)
      : request(of),
        logits(place, random_floats(of.shape["rows"] * of.shape["vocab"], 2 * set, 8.0F)),
        uniform(place, random_fractions(of.shape["rows"], 2 * set + 1)),
        tokens(place, std::vector<std::int32_t>(of.shape["rows"], -1)) {}

  [[nodiscard]] SampleParams params() const {
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

  /// Another token than the reference's is right where the uniform number is next to its share's
  /// edge: within the masses' roundings, 2^-24 each for exponentials of arguments up to 64.
  [[nodiscard]] double worst_error(const SampleSet& ran) const {
    constexpr double kSlack = 64 * kernels::kUnitRoundoffF32;
    const std::int64_t vocab = request.shape["vocab"];
    std::vector<double> shares(request.shape["rows"] * vocab);
    std::vector<std::int32_t> want(request.shape["rows"]);
    sample_reference(params(), {want.data(), shares.data()});
    double worst = 0.0;
    const std::vector<std::int32_t> got = ran.tokens.to_host();
    for (std::size_t row = 0; row < got.size(); ++row) {
      if (got[row] == want[row]) {
        continue;
      }
      const double* share = shares.data() + static_cast<std::int64_t>(row) * vocab;
      if (got[row] < 0 || got[row] >= vocab || share[got[row]] == 0.0) {
        return std::numeric_limits<double>::infinity();
      }
      const double before = std::accumulate(share, share + got[row], 0.0);
      const double drawn = uniform.data()[row];
      const double outside = std::max(before - drawn, drawn - before - share[got[row]]);
      worst = std::max(worst, outside / kSlack);
    }
    return worst;
  }
};

Case make_case(const Request& request) {
  const OpCost cost =
      sample_cost(request.shape["rows"], request.shape["vocab"], request.format != "greedy");
  return Case{.cost = cost,
              .bytes_per_set = cost.read.value(),
              .prepare = prepare_with<SetsRun<SampleSet>>(request)};
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
