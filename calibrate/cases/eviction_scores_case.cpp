// The scores by which eviction schemes rank cached tokens: a decode step of H2O and of TOVA, and
// SnapKV's window at the end of a prompt.
#include <cmath>

#include "calibrate/cases/case.h"
#include "calibrate/cases/random_cache.h"
#include "kernels/common/tolerance.h"
#include "kernels/eviction_scores/eviction_scores.h"
#include "model/ops/eviction_scores.h"

namespace kvfathom::bench {
namespace {

using kernels::EvictionScoresParams;
using kernels::KvCacheView;
using kernels::KvFormat;

enum class Rule : std::uint8_t { h2o, tova, snapkv };

EvictionShape cost_shape(const Request& request, Rule rule) {
  return {.n_sequences = request.shape["n_sequences"],
          .n_heads = request.shape["n_heads"],
          .n_kv_heads = request.shape["n_kv_heads"],
          .head_dim = request.shape["head_dim"],
          .n_tokens = request.shape["tokens"],
          .n_queries = request.shape["queries"],
          .per_layer = rule == Rule::tova,
          .accumulate = rule == Rule::h2o,
          .stored_row_bytes = stored_row_bytes(request)};
}

/// Weights of the sum over heads and queries: TOVA's is a mean over the layer, SnapKV's over a
/// group of heads.
float weight(const EvictionShape& shape, Rule rule) {
  const auto heads = static_cast<float>(shape.n_heads);
  return rule == Rule::h2o    ? 1.0F
         : rule == Rule::tova ? 1.0F / heads
                              : static_cast<float>(shape.n_kv_heads) / heads;
}

class EvictionScoresRun : public PreparedRun {
 public:
  EvictionScoresRun(const Request& request, Rule rule, int n_sets)
      : request_(request),
        shape_(cost_shape(request, rule)),
        weight_(weight(shape_, rule)),
        queries_(random_queries()),
        queries_there_(request.place, queries_) {
    const std::int64_t rows = shape_.n_sequences * (shape_.per_layer ? 1 : shape_.n_kv_heads);
    // As if every token had scored the mean before: not nothing, so that adding to it shows.
    before_.assign(rows * shape_.n_tokens, 1.0F / static_cast<float>(shape_.n_tokens));
    RandomCacheShape keys = cache_shape_of(request);
    keys.v_dim = 0;
    for (int set = 0; set < n_sets; ++set) {
      caches_.emplace_back(request.place, keys, static_cast<std::uint64_t>(set));
      scores_.emplace_back(request.place, before_);
    }
    if (request.place == Place::cuda) {
      scratch_ = kernels::DeviceArray<std::byte>(
          kernels::eviction_scores_scratch_bytes(params(caches_[0].view(), nullptr)));
    }
  }

  void run(int set, Stream stream) override {
    EvictionScoresParams p = params(caches_[set].view(), queries_there_.data());
    p.scores = scores_[set].data();
    request_.place == Place::cpu ? kernels::eviction_scores_cpu(p, request_.n_threads)
                                 : kernels::eviction_scores_launch(p, scratch_.data(), stream);
  }

  double worst_error() override {
    const RandomCache cache = caches_[0].on_host();
    std::vector<double> want(before_.begin(), before_.end());
    kernels::EvictionScoresReference result{want.data(), 0.0};
    eviction_scores_reference(params(cache.view(), queries_.data()), result);
    const std::int64_t n_terms =
        shape_.n_queries * shape_.n_heads / (shape_.per_layer ? 1 : shape_.n_kv_heads);
    std::vector<double> bound;
    bound.reserve(want.size());
    for (const double score : want) {
      bound.push_back(kernels::weight_sum_bound(score,
                                                result.largest_abs_score,
                                                n_terms,
                                                shape_.n_tokens,
                                                static_cast<int>(shape_.head_dim)));
    }
    return worst_ratio(scores_[0].to_host(), want, bound);
  }

 private:
  [[nodiscard]] std::vector<std::uint16_t> random_queries() const {
    const auto n = static_cast<std::size_t>(shape_.n_sequences * shape_.n_queries * shape_.n_heads *
                                            shape_.head_dim);
    return kv_format_named(request_.format) == KvFormat::bf16 ? random_bf16(n, 1)
                                                              : random_f16(n, 1);
  }
  [[nodiscard]] EvictionScoresParams params(const KvCacheView& cache,
                                            const std::uint16_t* q) const {
    EvictionScoresParams p;
    p.n_heads = static_cast<int>(shape_.n_heads);
    p.head_dim = static_cast<int>(shape_.head_dim);
    p.cache = cache;
    p.n_queries = static_cast<int>(shape_.n_queries);
    p.q = q;
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(p.head_dim));
    p.per_layer = shape_.per_layer;
    p.weight = weight_;
    p.accumulate = shape_.accumulate;
    p.max_tokens = static_cast<int>(shape_.n_tokens);
    return p;
  }

  Request request_;
  EvictionShape shape_;
  float weight_;
  std::vector<std::uint16_t> queries_;
  Array<std::uint16_t> queries_there_;
  std::vector<float> before_;
  std::vector<RandomCache> caches_;
  std::vector<Array<float>> scores_;
  kernels::DeviceArray<std::byte> scratch_;
};

template <Rule kRule>
Case make_case(const Request& request) {
  const EvictionShape shape = cost_shape(request, kRule);
  const std::int64_t keys =
      shape.n_sequences * shape.n_kv_heads * shape.n_tokens * shape.stored_row_bytes;
  return Case{.cost = eviction_scores_cost(shape),
              .bytes_per_set = static_cast<double>(keys),
              .prepare = [request](int n_sets) -> std::unique_ptr<PreparedRun> {
                return std::make_unique<EvictionScoresRun>(request, kRule, n_sets);
              }};
}

Shape shape_of(int tokens, int n_heads, int n_kv_heads, int head_dim, int queries) {
  return {{"n_sequences", 1},
          {"tokens", tokens},
          {"n_heads", n_heads},
          {"n_kv_heads", n_kv_heads},
          {"head_dim", head_dim},
          {"queries", queries}};
}

const Registration kH2o({.name = "eviction_h2o",
                         .formats = kv_format_names(),
                         .tiny = shape_of(70, 6, 2, 64, 1),
                         .shapes = {shape_of(16384, 32, 8, 128, 1)},
                         .make_case = make_case<Rule::h2o>});
const Registration kTova({.name = "eviction_tova",
                          .formats = kv_format_names(),
                          .tiny = shape_of(70, 6, 2, 64, 1),
                          .shapes = {shape_of(16384, 32, 8, 128, 1)},
                          .make_case = make_case<Rule::tova>});
const Registration kSnapKv({.name = "eviction_snapkv",
                            .formats = kv_format_names(),
                            .tiny = shape_of(70, 6, 2, 64, 6),
                            .shapes = {shape_of(8192, 32, 8, 128, 32)},
                            .make_case = make_case<Rule::snapkv>});

}  // namespace
}  // namespace kvfathom::bench
