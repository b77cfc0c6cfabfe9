// Decode attention over caches of every format.
#include <algorithm>
#include <cmath>

#include "calibrate/cases/case.h"
#include "calibrate/cases/random_cache.h"
#include "kernels/common/tolerance.h"
#include "kernels/decode_attention/decode_attention.h"
#include "model/ops/decode_attention.h"

namespace kvfathom::bench {
namespace {

using kernels::DecodeAttentionParams;
using kernels::KvFormat;

std::size_t out_size(const Shape& shape) {
  return static_cast<std::size_t>(shape["n_sequences"] * shape["n_heads"] * shape["head_dim"]);
}

/// Without buffers: what launch rules need.
DecodeAttentionParams dimensions(const Request& request) {
  DecodeAttentionParams params;
  params.n_heads = request.shape.as_int("n_heads");
  params.head_dim = request.shape.as_int("head_dim");
  params.softmax_scale = 1.0F / std::sqrt(static_cast<float>(params.head_dim));
  params.cache.format = kv_format_named(request.format);
  params.cache.n_sequences = request.shape.as_int("n_sequences");
  params.cache.n_kv_heads = request.shape.as_int("n_kv_heads");
  return params;
}

int splits(const Request& request) {
  return request.place == Place::cpu
             ? 1
             : kernels::decode_attention_splits(
                   dimensions(request), request.shape.as_int("tokens"), kernels::device());
}

class DecodeAttentionRun : public PreparedRun {
 public:
  DecodeAttentionRun(const Request& request, int n_sets)
      : request_(request),
        n_splits_(splits(request)),
        queries_(kv_format_named(request.format) == KvFormat::bf16
                     ? random_bf16(out_size(request.shape), 1)
                     : random_f16(out_size(request.shape), 1)),
        queries_there_(request.place, queries_),
        out_(request.place, std::vector<float>(out_size(request.shape), NAN)) {
    for (int set = 0; set < n_sets; ++set) {
      caches_.push_back(
          std::make_unique<RandomCache>(request.place, cache_shape_of(request), kFirstSeed + set));
    }
    if (request.place == Place::cuda) {
      scratch_ = kernels::DeviceArray<std::byte>(
          kernels::decode_attention_scratch_bytes(dimensions(request), n_splits_));
    }
  }

  void run(int set, Stream stream) override {
    DecodeAttentionParams params = dimensions(request_);
    params.cache = caches_[set]->view();
    params.q = queries_there_.data();
    params.out = out_.data();
    request_.place == Place::cpu
        ? kernels::decode_attention_cpu(params, request_.n_threads)
        : kernels::decode_attention_launch(params, n_splits_, scratch_.data(), stream);
  }

  double worst_error() override {
    const RandomCache cache(Place::cpu, cache_shape_of(request_), kFirstSeed);
    DecodeAttentionParams params = dimensions(request_);
    params.cache = cache.view();
    params.q = queries_.data();
    const std::size_t n = queries_.size();
    std::vector<double> out(n);
    std::vector<double> weighted_v(n);
    std::vector<double> total_v(n);
    std::vector<double> bound(n);
    std::vector<double> scores(n / params.head_dim);
    decode_attention_reference(params,
                               {out.data(), weighted_v.data(), scores.data(), total_v.data()});
    for (std::size_t i = 0; i < n; ++i) {
      bound[i] = kernels::attention_bound(out[i],
                                          {weighted_v[i], scores[i / params.head_dim], total_v[i]},
                                          request_.shape["tokens"],
                                          params.head_dim,
                                          roundings());
    }
    return worst_ratio(out_.to_host(), out, bound);
  }

 private:
  static constexpr std::uint64_t kFirstSeed = 2;

  /// Those of the tensor-core kernel, the coarsest, on the device.
  [[nodiscard]] kernels::Roundings roundings() const {
    kernels::Roundings u;
    if (request_.place == Place::cuda) {
      u.operands = kernels::kUnitRoundoffF16;
      u.probabilities = kv_format_named(request_.format) == KvFormat::bf16
                            ? kernels::kUnitRoundoffBf16
                            : kernels::kUnitRoundoffF16;
      u.smallest_weight = kernels::kSmallestWeightF16;
    }
    return u;
  }

  Request request_;
  int n_splits_;
  std::vector<std::uint16_t> queries_;
  Array<std::uint16_t> queries_there_;
  Array<float> out_;
  std::vector<std::unique_ptr<RandomCache>> caches_;
  kernels::DeviceArray<std::byte> scratch_;
};

Case make_case(const Request& request) {
  const Shape& shape = request.shape;
  const KvFormat format = kv_format_named(request.format);
  DecodeAttentionShape cost;
  cost.n_heads = shape["n_heads"];
  cost.n_kv_heads = shape["n_kv_heads"];
  cost.head_dim = shape["head_dim"];
  cost.n_sequences = shape["n_sequences"];
  cost.lengths.assign(cost.n_sequences, shape["tokens"]);
  cost.row_bytes = kernels::row_data_bytes(format, shape.as_int("head_dim"));
  cost.row_scale_bytes = kernels::row_scale_bytes(format, shape.as_int("head_dim"));
  cost.head_scale_bytes = format == KvFormat::fp8_e4m3 ? 4 : 0;
  cost.n_splits = splits(request);
  cost.heads_per_pass = cost.n_heads;  // the CPU's threads meet a row with all its heads
  if (request.place == Place::cuda) {
    cost.heads_per_pass = kernels::decode_attention_heads_per_pass(kernels::decode_attention_kernel(
        dimensions(request), kernels::DecodeKernel::automatic, kernels::device()));
  }
  const double cache_bytes =
      2.0 * static_cast<double>(cost.n_sequences * shape["tokens"] * cost.n_kv_heads *
                                (cost.row_bytes + cost.row_scale_bytes));
  return Case{.cost = decode_attention_cost(cost),
              .bytes_per_set = cache_bytes,
              .prepare = prepare_with<DecodeAttentionRun>(request)};
}

Shape shape_of(
    int n_sequences, int tokens, int n_heads, int n_kv_heads, int head_dim, int token_major = 0) {
  return {{"n_sequences", n_sequences},
          {"tokens", tokens},
          {"n_heads", n_heads},
          {"n_kv_heads", n_kv_heads},
          {"head_dim", head_dim},
          {"token_major", token_major}};
}

const Registration kDecodeAttention({.name = "decode_attention",
                                     .formats = kv_format_names(),
                                     .tiny = shape_of(2, 70, 10, 2, 64),
                                     .shapes = {shape_of(1, 4096, 8, 8, 128),
                                                shape_of(1, 4096, 8, 8, 128, 1),
                                                shape_of(1, 4096, 32, 8, 128),
                                                shape_of(8, 4096, 32, 4, 128)},
                                     .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
