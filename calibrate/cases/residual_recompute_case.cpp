// Rebuilding K and V from X, stored as bf16 or in 8, 4, 3 or 2 bits.
#include <numeric>

#include "calibrate/cases/case.h"
#include "calibrate/cases/random_cache.h"
#include "kernels/common/tolerance.h"
#include "kernels/residual_recompute/residual_recompute.h"
#include "model/ops/residual_recompute.h"

namespace kvfathom::bench {
namespace {

using kernels::Bf16;
using kernels::F16;
using kernels::ResidualRecomputeParams;
using kernels::StoredRows;

StoredRows stored_rows(const Request& request) {
  StoredRows rows{.n_columns = request.shape.as_int("hidden_size")};
  if (request.format != "bf16") {
    rows.format = kernels::RowFormat::uniform;
    rows.bits = std::stoi(request.format);
  }
  return rows;
}

kernels::KvFormat cache_format() {
  return kernels::KvFormat::f16;
}

class ResidualRecomputeRun : public PreparedRun {
 public:
  ResidualRecomputeRun(const Request& request, int n_sets)
      : request_(request),
        n_tokens_(request.shape.as_int("tokens")),
        head_dim_(request.shape.as_int("head_dim")),
        width_(request.shape.as_int("n_kv_heads") * head_dim_),
        rows_(stored_rows(request)),
        weights_(random_bf16(2UL * width_ * rows_.n_columns, 5, 0.05F)),
        norm_weight_(random_bf16(rows_.n_columns, 6)),
        slots_(n_tokens_),
        weights_there_(request.place, weights_),
        norm_weight_there_(request.place, norm_weight_),
        turns_there_(request.place, kernels::rope_turns_per_position(head_dim_, 10000.0)),
        sequences_there_(request.place, std::vector<std::int32_t>(n_tokens_, 0)),
        slots_there_(request.place, ascending()),
        cache_(request.place,
               {.format = cache_format(),
                .n_kv_heads = request.shape.as_int("n_kv_heads"),
                .k_dim = head_dim_,
                .v_dim = head_dim_,
                .tokens = n_tokens_},
               7) {
    const double row_bytes = kernels::stored_row_bytes(rows_);
    const auto code_words =
        static_cast<std::size_t>(n_tokens_ * (rows_.format == kernels::RowFormat::bf16
                                                  ? row_bytes / 4.0
                                                  : rows_.n_columns / 32.0 * rows_.bits));
    const std::size_t n_groups = static_cast<std::size_t>(n_tokens_) * rows_.n_columns / 128;
    steps_ = random_f16(n_groups, 8, 0.1F);
    minima_ = random_f16(n_groups, 9);
    steps_there_.emplace_back(request.place, steps_);
    minima_there_.emplace_back(request.place, minima_);
    for (int set = 0; set < n_sets; ++set) {
      codes_ = codes(code_words, set);
      codes_there_.emplace_back(request.place, codes_);
    }
    codes_ = codes(code_words, 0);
    if (request.place == Place::cuda) {
      scratch_ =
          kernels::DeviceArray<std::byte>(kernels::residual_recompute_scratch_bytes(params(0)));
    }
  }

  void run(int set, Stream stream) override {
    request_.place == Place::cpu
        ? kernels::residual_recompute_cpu(params(set), request_.n_threads)
        : kernels::residual_recompute_launch(params(set), scratch_.data(), stream);
  }

  /// V's rows; K's pass through RoPE besides, which the tests hold to its own bound.
  double worst_error() override {
    const std::size_t n = static_cast<std::size_t>(n_tokens_) * width_;
    std::vector<double> k(n);
    std::vector<double> v(n);
    std::vector<double> k_magnitude(n);
    std::vector<double> v_magnitude(n);
    std::vector<double> bound(n);
    residual_recompute_reference(host_params(),
                                 {k.data(), v.data(), k_magnitude.data(), v_magnitude.data()});
    const double bf16 = request_.place == Place::cuda ? kernels::kUnitRoundoffBf16 : 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      bound[i] =
          kernels::dot_bound(v[i], v_magnitude[i], 2L * rows_.n_columns, {.operands = 2.0 * bf16}) +
          kernels::storage_bound(cache_format(), {.value = std::fabs(v[i])});
    }
    return worst_ratio(stored_v(), v, bound);
  }

 private:
  [[nodiscard]] std::vector<std::uint32_t> codes(std::size_t n_words, int set) const {
    std::vector<std::uint32_t> words(n_words);
    if (rows_.format == kernels::RowFormat::uniform) {
      fill_random(words, 10 + static_cast<std::uint64_t>(set));
    } else {
      const auto values = random_bf16(2 * n_words, 10 + static_cast<std::uint64_t>(set));
      std::memcpy(words.data(), values.data(), 4 * n_words);
    }
    return words;
  }
  [[nodiscard]] std::vector<std::int32_t> ascending() {
    std::iota(slots_.begin(), slots_.end(), 0);
    return slots_;
  }

  [[nodiscard]] ResidualRecomputeParams params(int set) const {
    ResidualRecomputeParams p;
    p.x = rows_;
    p.x.data = codes_there_[set].data();
    p.x.steps = reinterpret_cast<const F16*>(steps_there_[0].data());
    p.x.minima = reinterpret_cast<const F16*>(minima_there_[0].data());
    p.norm_weight = reinterpret_cast<const Bf16*>(norm_weight_there_.data());
    p.weights = reinterpret_cast<const Bf16*>(weights_there_.data());
    p.to = {.n_tokens = n_tokens_,
            .head_dim = head_dim_,
            .cache = cache_.view(),
            .rope = {head_dim_, kernels::RopeStyle::halves, turns_there_.data()},
            .sequences = sequences_there_.data(),
            .slots = slots_there_.data(),
            .positions = slots_there_.data()};
    return p;
  }
  [[nodiscard]] ResidualRecomputeParams host_params() const {
    ResidualRecomputeParams p = params(0);
    p.x.data = codes_.data();
    p.x.steps = reinterpret_cast<const F16*>(steps_.data());
    p.x.minima = reinterpret_cast<const F16*>(minima_.data());
    p.norm_weight = reinterpret_cast<const Bf16*>(norm_weight_.data());
    p.weights = reinterpret_cast<const Bf16*>(weights_.data());
    return p;
  }
  /// [n_tokens, width] of the cache, whose rows of one head lie side by side.
  [[nodiscard]] std::vector<float> stored_v() const {
    const kernels::KvPlane& plane = cache_.view().v;
    const auto row_bytes = 2 * static_cast<std::size_t>(head_dim_);
    std::vector<float> values;
    std::vector<F16> row(head_dim_);
    for (int token = 0; token < n_tokens_; ++token) {
      for (int head = 0; head < width_ / head_dim_; ++head) {
        const std::byte* from = kernels::row_data(plane, {0, token}, head);
        request_.place == Place::cpu ? static_cast<void>(std::memcpy(row.data(), from, row_bytes))
                                     : kernels::copy_from_device(row.data(), from, row_bytes);
        for (const F16 x : row) {
          values.push_back(kernels::to_f32(x));
        }
      }
    }
    return values;
  }

  Request request_;
  int n_tokens_, head_dim_, width_;
  StoredRows rows_;
  std::vector<std::uint16_t> weights_, norm_weight_, steps_, minima_;
  std::vector<std::int32_t> slots_;
  std::vector<std::uint32_t> codes_;
  Array<std::uint16_t> weights_there_, norm_weight_there_;
  Array<std::uint64_t> turns_there_;
  Array<std::int32_t> sequences_there_, slots_there_;
  std::vector<Array<std::uint16_t>> steps_there_, minima_there_;
  std::vector<Array<std::uint32_t>> codes_there_;
  RandomCache cache_;
  kernels::DeviceArray<std::byte> scratch_;
};

Case make_case(const Request& request) {
  const Shape& shape = request.shape;
  const double row_bytes = kernels::stored_row_bytes(stored_rows(request));
  const std::int64_t head_dim = shape["head_dim"];
  return Case{.cost = residual_recompute_cost({.n_tokens = shape["tokens"],
                                               .n_columns = shape["hidden_size"],
                                               .stored_row_bytes = row_bytes,
                                               .n_kv_heads = shape["n_kv_heads"],
                                               .head_dim = head_dim,
                                               .rotary_dim = head_dim,
                                               .cache_row_bytes = kernels::row_data_bytes(
                                                   cache_format(), static_cast<int>(head_dim))}),
              .bytes_per_set = static_cast<double>(shape["tokens"]) * row_bytes,
              .prepare = prepare_with<ResidualRecomputeRun>(request)};
}

const Registration kResidualRecompute(
    {.name = "residual_recompute",
     .formats = {"bf16", "8bit", "4bit", "3bit", "2bit"},
     .tiny = {{"tokens", 20}, {"hidden_size", 256}, {"n_kv_heads", 2}, {"head_dim", 64}},
     .shapes = {{{"tokens", 1024}, {"hidden_size", 4096}, {"n_kv_heads", 8}, {"head_dim", 128}}},
     .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
