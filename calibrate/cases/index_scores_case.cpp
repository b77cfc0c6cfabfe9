// DeepSeek Sparse Attention's indexer over every cached token.
#include <cmath>

#include "calibrate/cases/case.h"
#include "kernels/common/tolerance.h"
#include "kernels/index_scores/index_scores.h"
#include "model/ops/index_scores.h"

namespace kvfathom::bench {
namespace {

using kernels::Fp8E4m3;
using kernels::IndexScoresParams;

constexpr int kHeadDim = 128;

std::vector<Fp8E4m3> random_e4m3(std::size_t n, std::uint64_t seed) {
  std::vector<Fp8E4m3> values;
  values.reserve(n);
  for (const float x : random_floats(n, seed, 4.0F)) {
    values.push_back(kernels::to_fp8_e4m3(x));
  }
  return values;
}

/// One set's arrays. The keys are contiguous.
struct IndexSet {
  static constexpr auto* kCpu = kernels::index_scores_cpu;
  static constexpr auto kLaunch = [](const IndexScoresParams& params, Stream stream) {
    kernels::index_scores_launch(params, stream);
  };

  Shape shape;
  Array<Fp8E4m3> q, keys;
  Array<float> weights, scales, scores;
  Array<std::int32_t> lengths;

  IndexSet(Place place, const Request& request, std::uint64_t /*set*/)
      : shape(request.shape),
        q(place, random_e4m3(shape["sequences"] * shape["n_heads"] * kHeadDim, 1)),
        keys(place, random_e4m3(shape["sequences"] * shape["tokens"] * kHeadDim, 2)),
        weights(place, random_floats(shape["sequences"] * shape["n_heads"], 3)),
        scales(place, random_floats(shape["sequences"] * shape["tokens"], 4)),
        scores(place, std::vector<float>(shape["sequences"] * shape["tokens"])),
        lengths(place, std::vector<std::int32_t>(shape["sequences"], shape.as_int("tokens"))) {}

  [[nodiscard]] IndexScoresParams params() const {
    IndexScoresParams p;
    p.n_heads = shape.as_int("n_heads");
    p.head_dim = kHeadDim;
    p.keys.n_sequences = shape.as_int("sequences");
    p.keys.n_kv_heads = 1;
    p.keys.k.data = reinterpret_cast<const std::byte*>(keys.data());
    p.keys.k.token_stride_bytes = kHeadDim;
    p.keys.k.page_stride_bytes = shape["tokens"] * kHeadDim;
    p.keys.k.scales = reinterpret_cast<const std::byte*>(scales.data());
    p.keys.k.scale_token_stride_bytes = 4;
    p.keys.k.scale_page_stride_bytes = shape["tokens"] * 4;
    p.keys.lengths = lengths.data();
    p.q = q.data();
    p.weights = weights.data();
    p.max_tokens = shape.as_int("tokens");
    p.scores = scores.data();
    return p;
  }

  [[nodiscard]] double worst_error(const IndexSet& ran) const {
    std::vector<double> want(shape["sequences"] * shape["tokens"]);
    std::vector<double> bound(want.size());
    kernels::index_scores_reference(params(), {want.data(), bound.data()});
    for (std::size_t i = 0; i < want.size(); ++i) {
      bound[i] =
          kernels::dot_bound(want[i], std::fabs(bound[i]), kHeadDim + shape.as_int("n_heads"));
    }
    return worst_ratio(ran.scores.to_host(), want, bound);
  }
};

Case make_case(const Request& request) {
  const OpCost cost = index_scores_cost({.n_sequences = request.shape["sequences"],
                                         .n_tokens = request.shape["tokens"],
                                         .n_heads = request.shape["n_heads"],
                                         .head_dim = kHeadDim});
  return Case{.cost = cost,
              .bytes_per_set = (cost.read + cost.written).value(),
              .prepare = prepare_with<SetsRun<IndexSet>>(request)};
}

const Registration kIndexScores({.name = "index_scores",
                                 .formats = {"fp8_e4m3"},
                                 .tiny = {{"sequences", 2}, {"tokens", 200}, {"n_heads", 64}},
                                 .shapes = {{{"sequences", 1}, {"tokens", 65536}, {"n_heads", 64}},
                                            {{"sequences", 32}, {"tokens", 8192}, {"n_heads", 64}}},
                                 .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
