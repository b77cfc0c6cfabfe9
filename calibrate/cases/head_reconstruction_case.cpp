// Decode where half of the KV heads are predicted from the other half, keys and values alike.
#include <cmath>
#include <list>

#include "calibrate/cases/case.h"
#include "calibrate/cases/random_cache.h"
#include "kernels/common/tolerance.h"
#include "kernels/head_reconstruction/head_reconstruction.h"
#include "model/ops/head_reconstruction.h"

namespace kvfathom::bench {
namespace {

using kernels::HeadReconstructionParams;
using kernels::HeadSources;
using kernels::HeadTables;

constexpr int kFirstExact = 30;  // as the published code
constexpr int kLastExact = 5;

int n_stored(const Shape& s) {
  return s.as_int("n_kv_heads") / 2;
}

/// The first half of the heads is stored; those of the second read the same `references`.
HeadTables tables_of(const Shape& s) {
  std::vector<std::vector<int>> stored;
  std::vector<bool> predicted;
  for (int head = 0; head < s.as_int("n_kv_heads"); ++head) {
    predicted.push_back(head >= n_stored(s));
    stored.emplace_back();
    for (int i = 0; i < (predicted.back() ? s.as_int("references") : 1); ++i) {
      stored.back().push_back(predicted.back() ? i : head);
    }
  }
  return kernels::group_heads(s.as_int("n_heads"), stored, predicted);
}

class HeadRun : public PreparedRun {
 public:
  HeadRun(const Request& request, int n_sets)
      : request_(request),
        tokens_(request.shape.as_int("tokens")),
        head_dim_(request.shape.as_int("head_dim")),
        tables_(tables_of(request.shape)),
        q_(random_16(static_cast<std::size_t>(request.shape["n_heads"]) * head_dim_, 1, 1.0F)),
        maps_(random_16(static_cast<std::size_t>(tables_.n_maps) * tables_.max_references *
                            head_dim_ * head_dim_,
                        2,
                        1.0F / std::sqrt(static_cast<float>(head_dim_)))),
        exact_(random_16(
            static_cast<std::size_t>(kFirstExact + kLastExact) * tables_.n_maps * head_dim_,
            3,
            1.0F)),
        bias_(random_floats(static_cast<std::size_t>(tables_.n_maps) * head_dim_, 4)),
        q_there_(request.place, q_),
        maps_there_(request.place, maps_),
        exact_there_(request.place, exact_),
        bias_there_(request.place, bias_),
        out_(request.place, std::vector<float>(q_.size(), NAN)) {
    for (const std::vector<std::int32_t>* table : {&tables_.map_of_head,
                                                   &tables_.stored,
                                                   &tables_.n_stored,
                                                   &tables_.bounds,
                                                   &tables_.rows,
                                                   &tables_.slices}) {
      tables_there_.emplace_back(request.place, *table);
    }
    for (int set = 0; set < n_sets; ++set) {
      caches_.emplace_back(request.place, cache_shape(), 10 + static_cast<std::uint64_t>(set));
    }
    if (request.place == Place::cuda) {
      splits_ = kernels::head_decode_splits(params(0), tokens_, kernels::device());
      scratch_ = kernels::DeviceArray<std::byte>(static_cast<std::size_t>(
          kernels::head_decode_scratch_bytes(params(0), tokens_, splits_)));
    }
  }

  void run(int set, Stream stream) override {
    request_.place == Place::cpu
        ? kernels::head_decode_cpu(params(set), request_.n_threads)
        : kernels::head_decode_launch(params(set), tokens_, splits_, scratch_.data(), stream);
  }

  double worst_error() override {
    const RandomCache cache(Place::cpu, cache_shape(), 10);
    HeadReconstructionParams p = params(0);
    p.cache = cache.view();
    p.q = q_.data();
    p.k = p.v = host_side();
    std::vector<double> want(q_.size());
    std::vector<double> magnitude(q_.size());
    std::vector<double> score(q_.size());
    std::vector<double> bound(q_.size());
    head_decode_reference(p, {want.data(), magnitude.data(), score.data()});
    const double u = request_.place == Place::cpu ? 0.0
                     : request_.format == "bf16"  ? kernels::kUnitRoundoffBf16
                                                  : kernels::kUnitRoundoffF16;
    for (std::size_t i = 0; i < want.size(); ++i) {
      bound[i] = kernels::attention_bound(want[i],
                                          {magnitude[i], score[i / head_dim_]},
                                          tokens_,
                                          2 * head_dim_ * (1 + tables_.max_references),
                                          {.operands = u, .probabilities = u});
    }
    return worst_ratio(out_.to_host(), want, bound);
  }

 private:
  [[nodiscard]] std::vector<std::uint16_t> random_16(std::size_t n,
                                                     std::uint64_t seed,
                                                     float scale) const {
    return request_.format == "bf16" ? random_bf16(n, seed, scale) : random_f16(n, seed, scale);
  }
  [[nodiscard]] RandomCacheShape cache_shape() const {
    return RandomCacheShape{.format = kv_format_named(request_.format),
                            .n_kv_heads = n_stored(request_.shape),
                            .k_dim = head_dim_,
                            .v_dim = head_dim_,
                            .tokens = tokens_};
  }
  [[nodiscard]] HeadSources sizes() const {
    HeadSources s;
    s.n_maps = tables_.n_maps;
    s.max_references = tables_.max_references;
    s.groups.n_groups = static_cast<int>(tables_.bounds.size()) / 4;
    s.groups.rows_per_group = tables_.rows_per_group;
    s.groups.slices_per_group = tables_.slices_per_group;
    return s;
  }
  [[nodiscard]] HeadSources host_side() const {
    HeadSources s = sizes();
    s.map_of_head = tables_.map_of_head.data();
    s.stored = tables_.stored.data();
    s.n_stored = tables_.n_stored.data();
    s.groups.bounds = tables_.bounds.data();
    s.groups.rows = tables_.rows.data();
    s.groups.slices = tables_.slices.data();
    s.maps = maps_.data();
    s.bias = bias_.data();
    s.exact = exact_.data();
    return s;
  }
  [[nodiscard]] HeadSources side_there() const {
    HeadSources s = sizes();
    s.map_of_head = tables_there_[0].data();
    s.stored = tables_there_[1].data();
    s.n_stored = tables_there_[2].data();
    s.groups.bounds = tables_there_[3].data();
    s.groups.rows = tables_there_[4].data();
    s.groups.slices = tables_there_[5].data();
    s.maps = maps_there_.data();
    s.bias = bias_there_.data();
    s.exact = exact_there_.data();
    return s;
  }
  [[nodiscard]] HeadReconstructionParams params(int set) const {
    HeadReconstructionParams p;
    p.n_heads = request_.shape.as_int("n_heads");
    p.n_kv_heads = request_.shape.as_int("n_kv_heads");
    p.head_dim = head_dim_;
    p.cache = std::next(caches_.begin(), set)->view();
    p.k = p.v = side_there();
    p.n_first = kFirstExact;
    p.n_last = kLastExact;
    p.q = q_there_.data();
    p.softmax_scale = 1.0F / std::sqrt(static_cast<float>(head_dim_));
    p.out = out_.data();
    return p;
  }

  Request request_;
  int tokens_, head_dim_;
  HeadTables tables_;
  std::vector<std::uint16_t> q_, maps_, exact_;
  std::vector<float> bias_;
  Array<std::uint16_t> q_there_, maps_there_, exact_there_;
  Array<float> bias_there_, out_;
  std::vector<Array<std::int32_t>> tables_there_;
  std::list<RandomCache> caches_;
  int splits_ = 1;
  kernels::DeviceArray<std::byte> scratch_;
};

Case make_case(const Request& request) {
  const Shape& s = request.shape;
  const std::int64_t per_head = s["n_heads"] / s["n_kv_heads"];
  std::vector<HeadGroupShape> groups(static_cast<std::size_t>(n_stored(s)),
                                     HeadGroupShape{per_head, 1, false});
  groups.push_back({per_head * (s["n_kv_heads"] - n_stored(s)), s["references"], true});
  const HeadReconstructionShape shape{1,
                                      s["tokens"],
                                      s["n_heads"],
                                      s["n_kv_heads"],
                                      s["head_dim"],
                                      kFirstExact + kLastExact,
                                      1,
                                      groups,
                                      groups};
  return Case{.cost = head_decode_cost(shape),
              .bytes_per_set = 4.0 * static_cast<double>(s["tokens"] * n_stored(s)) *
                               static_cast<double>(s["head_dim"]),
              .prepare = prepare_with<HeadRun>(request)};
}

const Registration kHeadDecode({.name = "head_decode",
                                .formats = {"bf16", "f16"},
                                .tiny = {{"tokens", 80},
                                         {"n_heads", 8},
                                         {"n_kv_heads", 4},
                                         {"head_dim", 32},
                                         {"references", 2}},
                                .shapes = {{{"tokens", 8192},
                                            {"n_heads", 32},
                                            {"n_kv_heads", 8},
                                            {"head_dim", 128},
                                            {"references", 4}}},
                                .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
