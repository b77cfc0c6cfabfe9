// Values from keys: absorbed decode over a K-only cache, and the rows of K W.
#include <cmath>
#include <list>

#include "calibrate/cases/case.h"
#include "calibrate/cases/random_cache.h"
#include "kernels/common/tolerance.h"
#include "kernels/value_reconstruction/value_reconstruction.h"
#include "model/ops/value_reconstruction.h"

namespace kvfathom::bench {
namespace {

using kernels::ValueReconstructionParams;

enum class Part : std::uint8_t { decode, rows };

template <Part kPart>
class ValueRun : public PreparedRun {
 public:
  ValueRun(const Request& request, int n_sets)
      : request_(request),
        tokens_(request.shape.as_int("tokens")),
        head_dim_(request.shape.as_int("head_dim")),
        width_(request.shape.as_int("n_kv_heads") * head_dim_),
        q_(random_16(static_cast<std::size_t>(n_queries()), 1, 1.0F)),
        projector_(random_16(static_cast<std::size_t>(width_) * width_,
                             2,
                             1.0F / std::sqrt(static_cast<float>(width_)))),
        cos_sin_(kernels::rotation_cos_sin(head_dim_, 10000.0, tokens_)),
        there_{Array<std::uint16_t>(request.place, q_),
               Array<std::uint16_t>(request.place, projector_),
               Array<float>(request.place, cos_sin_),
               Array<float>(request.place, std::vector<float>(q_.size(), NAN)),
               Array<std::uint16_t>(request.place, std::vector<std::uint16_t>(n_values()))} {
    for (int set = 0; set < n_sets; ++set) {
      caches_.emplace_back(request.place, cache_shape(), 10 + static_cast<std::uint64_t>(set));
    }
    if (request.place == Place::cuda && kPart == Part::decode) {
      splits_ = kernels::value_decode_splits(params(0), tokens_, kernels::device());
      scratch_ = kernels::DeviceArray<std::byte>(static_cast<std::size_t>(
          kernels::value_decode_scratch_bytes(params(0), tokens_, splits_)));
    }
  }

  void run(int set, Stream stream) override {
    const bool on_cpu = request_.place == Place::cpu;
    if constexpr (kPart == Part::decode) {
      on_cpu ? kernels::value_decode_cpu(params(set), request_.n_threads)
             : kernels::value_decode_launch(params(set), tokens_, splits_, scratch_.data(), stream);
    } else {
      on_cpu ? kernels::value_rows_cpu(params(set), request_.n_threads)
             : kernels::value_rows_launch(params(set), tokens_, stream);
    }
  }

  double worst_error() override {
    const RandomCache cache(Place::cpu, cache_shape(), 10);
    ValueReconstructionParams p = params(0);
    p.cache = cache.view();
    p.q = q_.data();
    p.projector = projector_.data();
    p.cos_sin = cos_sin_.data();
    const double u =
        request_.format == "bf16" ? kernels::kUnitRoundoffBf16 : kernels::kUnitRoundoffF16;
    const double converted = request_.place == Place::cuda ? u : 0.0;
    const std::size_t n = kPart == Part::decode ? q_.size() : n_values();
    std::vector<double> want(n);
    std::vector<double> magnitude(n);
    std::vector<double> bound(n);
    std::vector<double> score(q_.size());
    std::vector<float> got(n);
    if constexpr (kPart == Part::decode) {
      value_decode_reference(p, {want.data(), magnitude.data(), score.data()});
      got = there_.out.to_host();
      for (std::size_t i = 0; i < n; ++i) {
        bound[i] = kernels::attention_bound(want[i],
                                            {magnitude[i], score[i / head_dim_]},
                                            tokens_,
                                            width_,
                                            {.probabilities = 2.0 * converted});
      }
    } else {
      value_rows_reference(p, {want.data(), magnitude.data()});
      const std::vector<std::uint16_t> bits = there_.values.to_host();
      for (std::size_t i = 0; i < n; ++i) {
        got[i] = request_.format == "bf16" ? to_f32(kernels::Bf16{bits[i]})
                                           : to_f32(kernels::F16{bits[i]});
        bound[i] =
            (1.0 + u) *
            kernels::dot_bound(want[i], magnitude[i], width_, {.output = u, .operands = converted});
      }
    }
    return worst_ratio(got, want, bound);
  }

 private:
  [[nodiscard]] std::int64_t n_queries() const {
    return request_.shape["sequences"] * request_.shape["n_heads"] * head_dim_;
  }
  [[nodiscard]] std::size_t n_values() const {
    return kPart == Part::rows ? static_cast<std::size_t>(request_.shape["sequences"]) * tokens_ *
                                     static_cast<std::size_t>(width_)
                               : 1;
  }
  [[nodiscard]] std::vector<std::uint16_t> random_16(std::size_t n,
                                                     std::uint64_t seed,
                                                     float scale) const {
    return request_.format == "bf16" ? random_bf16(n, seed, scale) : random_f16(n, seed, scale);
  }
  [[nodiscard]] RandomCacheShape cache_shape() const {
    return RandomCacheShape{.format = kv_format_named(request_.format),
                            .n_sequences = request_.shape.as_int("sequences"),
                            .n_kv_heads = width_ / head_dim_,
                            .k_dim = head_dim_,
                            .v_dim = 0,
                            .tokens = tokens_};
  }
  [[nodiscard]] ValueReconstructionParams params(int set) const {
    ValueReconstructionParams p;
    p.n_heads = request_.shape.as_int("n_heads");
    p.head_dim = head_dim_;
    p.cache = std::next(caches_.begin(), set)->view();
    p.cos_sin = there_.cos_sin.data();
    p.projector = there_.projector.data();
    p.q = there_.q.data();
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(head_dim_));
    p.out = there_.out.data();
    p.values = there_.values.data();
    p.token_capacity = tokens_;
    return p;
  }

  struct Arrays {
    Array<std::uint16_t> q, projector;
    Array<float> cos_sin, out;
    Array<std::uint16_t> values;
  };
  Request request_;
  int tokens_, head_dim_, width_;
  std::vector<std::uint16_t> q_, projector_;
  std::vector<float> cos_sin_;
  Arrays there_;
  std::list<RandomCache> caches_;
  int splits_ = 1;
  kernels::DeviceArray<std::byte> scratch_;
};

template <Part kPart>
Case make_case(const Request& request) {
  const Shape& s = request.shape;
  ValueReconstructionShape shape{
      s["sequences"], s["tokens"], s["n_heads"], s["n_kv_heads"], s["head_dim"], true};
  const double keys = static_cast<double>(shape.n_sequences * shape.n_tokens) *
                      static_cast<double>(shape.n_kv_heads * shape.head_dim * 2);
  return Case{.cost = kPart == Part::decode ? value_decode_cost(shape) : value_rows_cost(shape),
              .bytes_per_set = keys,
              .prepare = prepare_with<ValueRun<kPart>>(request)};
}

Shape shape(std::int64_t sequences,
            std::int64_t tokens,
            std::int64_t n_heads,
            std::int64_t n_kv_heads,
            std::int64_t head_dim) {
  return Shape{{"sequences", sequences},
               {"tokens", tokens},
               {"n_heads", n_heads},
               {"n_kv_heads", n_kv_heads},
               {"head_dim", head_dim}};
}

const Registration kDecode({.name = "value_decode",
                            .formats = {"bf16", "f16"},
                            .tiny = shape(2, 70, 4, 2, 32),
                            .shapes = {shape(1, 4096, 32, 32, 96), shape(1, 16384, 32, 8, 128)},
                            .make_case = make_case<Part::decode>});
const Registration kRows({.name = "value_rows",
                          .formats = {"bf16", "f16"},
                          .tiny = shape(2, 70, 4, 2, 32),
                          .shapes = {shape(1, 1024, 32, 32, 96), shape(1, 4096, 32, 8, 128)},
                          .make_case = make_case<Part::rows>});

}  // namespace
}  // namespace kvfathom::bench
