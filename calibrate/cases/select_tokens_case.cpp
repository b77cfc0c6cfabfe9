// What follows an eviction's scores: SnapKV's pooling, the choice of the tokens to keep, and
// the copy of their rows to a smaller cache.
#include <algorithm>
#include <limits>
#include <utility>

#include "calibrate/cases/case.h"
#include "calibrate/cases/random_cache.h"
#include "kernels/common/tolerance.h"
#include "kernels/eviction_scores/eviction_scores.h"
#include "kernels/eviction_scores/select_tokens.h"
#include "model/ops/eviction_scores.h"

namespace kvfathom::bench {
namespace {

using kernels::GatherCacheParams;
using kernels::KvCacheView;
using kernels::PoolScoresParams;
using kernels::SelectTokensParams;

/// Kept whatever their scores: StreamingLLM's sinks, and SnapKV's window.
constexpr int kSinks = 4;
constexpr int kWindow = 32;

std::int64_t n_rows(const Shape& shape) {
  return shape["n_sequences"] * shape["n_kv_heads"];
}
std::int64_t n_kept(const Shape& shape) {
  return std::min(shape["budget"], shape["tokens"]);
}

/// One set's scores, one row a KV head.
struct Scores {
  Request request;
  Array<float> scores;
  Array<std::int32_t> lengths;

  Scores(Place place, const Request& of, std::uint64_t set)
      : request(of),
        scores(place, random_fractions(n_rows(of.shape) * of.shape["tokens"], set)),
        lengths(place,
                std::vector<std::int32_t>(of.shape["n_sequences"], of.shape.as_int("tokens"))) {}

  /// What poolings and selections call alike.
  template <typename Params>
  [[nodiscard]] Params of_rows() const {
    Params p;
    p.n_sequences = request.shape.as_int("n_sequences");
    p.n_heads = request.shape.as_int("n_kv_heads");
    p.max_tokens = request.shape.as_int("tokens");
    p.lengths = lengths.data();
    p.scores = scores.data();
    return p;
  }
};

struct PooledScores : Scores {
  static constexpr auto* kCpu = kernels::pool_scores_cpu;
  static constexpr auto* kLaunch = kernels::pool_scores_launch;

  Array<float> pooled;

  PooledScores(Place place, const Request& of, std::uint64_t set)
      : Scores(place, of, set),
        pooled(place, std::vector<float>(n_rows(of.shape) * of.shape["tokens"])) {}

  [[nodiscard]] PoolScoresParams params() const {
    auto p = of_rows<PoolScoresParams>();
    p.n_window = kWindow;
    p.pooling = request.format == "average" ? kernels::Pooling::average : kernels::Pooling::maximum;
    p.width = request.shape.as_int("width");
    p.pooled = pooled.data();
    return p;
  }
  [[nodiscard]] double worst_error(const PooledScores& ran) const {
    std::vector<double> want(n_rows(request.shape) * request.shape["tokens"]);
    pool_scores_reference(params(), want.data());
    std::vector<double> bound;
    bound.reserve(want.size());
    for (const double mean : want) {  // of numbers above 0: its own magnitude
      bound.push_back(kernels::dot_bound(mean, mean, request.shape["width"]));
    }
    return worst_ratio(ran.pooled.to_host(), want, bound);
  }
};

struct SelectedTokens : Scores {
  static constexpr auto* kCpu = kernels::select_tokens_cpu;
  static constexpr auto* kLaunch = kernels::select_tokens_launch;

  Array<std::int32_t> kept, n_kept;

  SelectedTokens(Place place, const Request& of, std::uint64_t set)
      : Scores(place, of, set),
        kept(place, std::vector<std::int32_t>(n_rows(of.shape) * of.shape["budget"], -1)),
        n_kept(place, std::vector<std::int32_t>(n_rows(of.shape), -1)) {}

  [[nodiscard]] SelectTokensParams params() const {
    auto p = of_rows<SelectTokensParams>();
    p.n_sinks = kSinks;
    p.n_recent = kWindow;
    p.budget = request.shape.as_int("budget");
    p.kept = kept.data();
    p.n_kept = n_kept.data();
    return p;
  }
  /// Another token is a wrong one: any difference counts as infinite.
  [[nodiscard]] double worst_error(const SelectedTokens& ran) const {
    select_tokens_reference(params());
    const bool right =
        ran.kept.to_host() == kept.to_host() && ran.n_kept.to_host() == n_kept.to_host();
    return right ? 0.0 : std::numeric_limits<double>::infinity();
  }
};

/// Positions of each head, spread over the whole cache: [n_rows, n_kept].
std::vector<std::int32_t> spread_positions(const Shape& shape) {
  std::vector<std::int32_t> positions;
  for (std::int64_t row = 0; row < n_rows(shape); ++row) {
    for (std::int64_t slot = 0; slot < n_kept(shape); ++slot) {
      const std::int64_t shift = row * 7919 % shape["tokens"];
      positions.push_back(
          static_cast<std::int32_t>((slot * shape["tokens"] + shift) / n_kept(shape)));
    }
  }
  return positions;
}

class GatherCacheRun : public PreparedRun {
 public:
  GatherCacheRun(const Request& request, int n_sets)
      : request_(request),
        positions_(spread_positions(request.shape)),
        kept_(request.place, positions_),
        n_kept_(request.place,
                std::vector<std::int32_t>(n_rows(request.shape),
                                          static_cast<std::int32_t>(n_kept(request.shape)))) {
    for (int set = 0; set < n_sets; ++set) {
      const auto seed = 2 * static_cast<std::uint64_t>(set);
      RandomCacheShape shape = cache_shape_of(request);
      from_.emplace_back(request.place, shape, seed);
      shape.tokens = static_cast<int>(n_kept(request.shape));
      to_.emplace_back(request.place, shape, seed + 1);
      lengths_.emplace_back(request.place, std::vector<std::int32_t>(n_rows(request.shape), -1));
    }
  }

  void run(int set, Stream stream) override {
    GatherCacheParams params{.head_dim = request_.shape.as_int("head_dim"),
                             .from = from_[set].view(),
                             .to = to_[set].view(),
                             .budget = static_cast<int>(n_kept(request_.shape)),
                             .kept = kept_.data(),
                             .n_kept = n_kept_.data()};
    params.to.lengths = lengths_[set].data();
    params.to.lengths_per_head = true;
    request_.place == Place::cpu ? kernels::gather_cache_cpu(params, request_.n_threads)
                                 : kernels::gather_cache_launch(params, stream);
  }

  /// Every row must stand for what it did: any error counts as infinite.
  double worst_error() override {
    const RandomCache from = from_[0].on_host();
    const RandomCache to = to_[0].on_host();
    bool right = lengths_[0].to_host() == n_kept_.to_host();
    for (std::int64_t i = 0; i < std::ssize(positions_); ++i) {
      const auto slot = static_cast<int>(i % n_kept(request_.shape));
      right = right && row_of(from.view(), i, positions_[i]) == row_of(to.view(), i, slot);
    }
    return right ? 0.0 : std::numeric_limits<double>::infinity();
  }

 private:
  /// K and V of one token of the head that kept position i.
  [[nodiscard]] std::pair<std::vector<double>, std::vector<double>> row_of(const KvCacheView& cache,
                                                                           std::int64_t i,
                                                                           int token) const {
    const auto row = static_cast<int>(i / n_kept(request_.shape));
    const int sequence = row / cache.n_kv_heads;
    const int head = row % cache.n_kv_heads;
    const int dim = request_.shape.as_int("head_dim");
    return {stored_row(cache, cache.k, sequence, head, token, dim),
            stored_row(cache, cache.v, sequence, head, token, dim)};
  }

  Request request_;
  std::vector<std::int32_t> positions_;
  Array<std::int32_t> kept_, n_kept_;
  std::vector<RandomCache> from_, to_;
  std::vector<Array<std::int32_t>> lengths_;
};

EvictionShape cost_shape(const Shape& shape) {
  return {.n_sequences = shape["n_sequences"],
          .n_kv_heads = shape["n_kv_heads"],
          .n_tokens = shape["tokens"]};
}

Case pool_case(const Request& request) {
  const OpCost cost = pool_scores_cost(cost_shape(request.shape), kWindow, request.shape["width"]);
  return Case{.cost = cost,
              .bytes_per_set = (cost.read + cost.written).value(),
              .prepare = prepare_with<SetsRun<PooledScores>>(request)};
}
Case select_case(const Request& request) {
  const OpCost cost =
      select_tokens_cost(cost_shape(request.shape), n_kept(request.shape), kSinks + kWindow);
  return Case{.cost = cost,
              .bytes_per_set = cost.read.value(),
              .prepare = prepare_with<SetsRun<SelectedTokens>>(request)};
}
Case gather_case(const Request& request) {
  EvictionShape shape = cost_shape(request.shape);
  shape.stored_row_bytes = stored_row_bytes(request);
  const OpCost cost = gather_cache_cost(shape, n_kept(request.shape));
  return Case{.cost = cost,
              .bytes_per_set = (cost.read + cost.written).value(),
              .prepare = prepare_with<GatherCacheRun>(request)};
}

Shape rows_of(int n_kv_heads, int tokens, const char* dim, int value) {
  return {{"n_sequences", 1}, {"n_kv_heads", n_kv_heads}, {"tokens", tokens}, {dim, value}};
}

const Registration kPool({.name = "eviction_pool",
                          .formats = {"average", "maximum"},
                          .tiny = rows_of(2, 200, "width", 5),
                          .shapes = {rows_of(8, 32768, "width", 5)},
                          .make_case = pool_case});
const Registration kSelect({.name = "eviction_select",
                            .formats = {"f32"},
                            .tiny = rows_of(2, 200, "budget", 60),
                            .shapes = {rows_of(8, 32768, "budget", 2048)},
                            .make_case = select_case});
const Registration kGather({.name = "eviction_gather",
                            .formats = kv_format_names(),
                            .tiny = {{"n_sequences", 2},
                                     {"n_kv_heads", 2},
                                     {"tokens", 70},
                                     {"budget", 20},
                                     {"head_dim", 64}},
                            .shapes = {{{"n_sequences", 1},
                                        {"n_kv_heads", 8},
                                        {"tokens", 8192},
                                        {"budget", 2048},
                                        {"head_dim", 128}}},
                            .make_case = gather_case});

}  // namespace
}  // namespace kvfathom::bench
