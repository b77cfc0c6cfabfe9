// Prefill attention: chunks of a prompt against all tokens so far.
#include "calibrate/cases/case.h"
#include "calibrate/cases/random_cache.h"
#include "kernels/common/tolerance.h"
#include "kernels/prefill_attention/prefill_attention.h"
#include "model/latency/kernel_work.h"
#include "model/ops/prefill_attention.h"

namespace kvfathom::bench {
namespace {

using kernels::PrefillAttentionParams;

bool is_bf16(const Request& request) {
  return request.format == "bf16";
}
PrefillAttentionShape shape_of(const Shape& shape) {
  return {.n_query_tokens = shape["n_queries"],
          .n_cached_tokens = shape["tokens"],
          .n_heads = shape.as_int("n_heads"),
          .n_kv_heads = shape.as_int("n_kv_heads"),
          .head_dim = shape.as_int("head_dim")};
}

class PrefillAttentionRun : public PreparedRun {
 public:
  PrefillAttentionRun(const Request& request, int n_sets)
      : request_(request),
        shape_(shape_of(request.shape)),
        n_outputs_(shape_.n_query_tokens * shape_.n_heads * shape_.head_dim),
        host_q_(is_bf16(request) ? random_bf16(n_outputs_, 3) : random_f16(n_outputs_, 3)),
        host_offsets_({0, static_cast<std::int32_t>(shape_.n_query_tokens)}),
        q_(request.place, host_q_),
        offsets_(request.place, host_offsets_),
        out_(request.place, std::vector<std::uint16_t>(n_outputs_)) {
    for (int set = 0; set < n_sets; ++set) {
      caches_.push_back(make_cache(request.place, set));
    }
  }

  void run(int set, Stream stream) override {
    const PrefillAttentionParams p =
        params(caches_[set]->view(), q_.data(), offsets_.data(), out_.data());
    if (request_.place == Place::cpu) {
      kernels::prefill_attention_cpu(p, request_.n_threads);
    } else {
      kernels::prefill_attention_launch(
          p, kernels::prefill_attention_plan(p, kernels::device()), stream);
    }
  }

  double worst_error() override {
    const auto cache = make_cache(Place::cpu, 0);
    const PrefillAttentionParams p =
        params(cache->view(), host_q_.data(), host_offsets_.data(), nullptr);
    std::vector<double> want(n_outputs_);
    std::vector<double> magnitude(n_outputs_);
    std::vector<double> bound(n_outputs_);
    std::vector<double> score(n_outputs_ / shape_.head_dim);
    prefill_attention_reference(p, {want.data(), magnitude.data(), score.data()});
    const double rounding =
        is_bf16(request_) ? kernels::kUnitRoundoffBf16 : kernels::kUnitRoundoffF16;
    const bool rounds_weights = request_.place == Place::cuda;
    std::vector<float> got;
    for (const std::uint16_t bits : out_.to_host()) {
      got.push_back(is_bf16(request_) ? kernels::to_f32(kernels::Bf16{bits})
                                      : kernels::to_f32(kernels::F16{bits}));
    }
    for (std::size_t i = 0; i < bound.size(); ++i) {
      bound[i] = kernels::attention_bound(
          want[i],
          {.weighted_v = magnitude[i], .score = score[i / shape_.head_dim]},
          shape_.n_cached_tokens,
          shape_.head_dim,
          {.output = rounding, .probabilities = rounds_weights ? rounding : 0.0});
    }
    return worst_ratio(got, want, bound);
  }

 private:
  [[nodiscard]] std::unique_ptr<RandomCache> make_cache(Place place, int set) const {
    return std::make_unique<RandomCache>(
        place,
        RandomCacheShape{.format = kv_format_named(request_.format),
                         .n_kv_heads = shape_.n_kv_heads,
                         .k_dim = shape_.head_dim,
                         .v_dim = shape_.head_dim,
                         .tokens = static_cast<int>(shape_.n_cached_tokens)},
        50 + static_cast<std::uint64_t>(set));
  }
  [[nodiscard]] PrefillAttentionParams params(const kernels::KvCacheView& cache,
                                              const std::uint16_t* q,
                                              const std::int32_t* offsets,
                                              std::uint16_t* out) const {
    PrefillAttentionParams p;
    p.n_heads = shape_.n_heads;
    p.head_dim = shape_.head_dim;
    p.cache = cache;
    p.q = q;
    p.query_offsets = offsets;
    p.longest_query_tokens = static_cast<int>(shape_.n_query_tokens);
    p.softmax_scale = 0.1F;
    p.out = out;
    return p;
  }

  Request request_;
  PrefillAttentionShape shape_;
  std::size_t n_outputs_;
  std::vector<std::uint16_t> host_q_;
  std::vector<std::int32_t> host_offsets_;
  Array<std::uint16_t> q_;
  Array<std::int32_t> offsets_;
  Array<std::uint16_t> out_;
  std::vector<std::unique_ptr<RandomCache>> caches_;
};

Case make_case(const Request& request) {
  const OpCost cost = prefill_attention_cost(shape_of(request.shape));
  return Case{.cost = cost,
              .bytes_per_set = cost.read.value(),
              .prepare = prepare_with<PrefillAttentionRun>(request),
              .work = [](const Shape& shape, std::int64_t n_units) {
                return prefill_attention_work(shape_of(shape), 1, n_units);
              }};
}

Shape llama(std::int64_t n_queries, std::int64_t tokens) {
  return {{"n_queries", n_queries},
          {"tokens", tokens},
          {"n_heads", 32},
          {"n_kv_heads", 8},
          {"head_dim", 128}};
}

const Registration kPrefillAttention(
    {.name = "prefill_attention",
     .formats = {"bf16", "f16"},
     .tiny =
         {{"n_queries", 33}, {"tokens", 70}, {"n_heads", 4}, {"n_kv_heads", 2}, {"head_dim", 64}},
     .shapes = {llama(512, 512), llama(2048, 2048), llama(512, 8192)},
     .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
