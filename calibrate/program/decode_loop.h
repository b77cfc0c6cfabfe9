// A small transformer with random weights, decoding on our CPU kernels: what predictions of a whole
// step are held to, in bytes and FLOPs (tests) and in time (`--check`).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "calibrate/cases/random_cache.h"
#include "kernels/common/kv_format.h"
#include "model/architecture/model_spec.h"
#include "model/latency/op.h"

namespace kvfathom::calibrate {

/// Grouped-query attention and a dense or routed feed-forward, in bf16.
struct LoopShape {
  int hidden_size = 1024;
  int n_layers = 8;
  int n_heads = 8;
  int n_kv_heads = 2;
  int head_dim = 128;
  int intermediate_size = 2816;  ///< of the feed-forward, or of one expert
  int n_experts = 0;             ///< 0: dense
  int n_chosen = 0;
  int vocab_size = 8192;
};

[[nodiscard]] ModelSpec spec_of(const LoopShape& shape);

/// A kernel's call: its class and, from the sizes it was called with, its cost.
struct LoopOp {
  OpKind kind = OpKind::gemm;
  OpCost cost;
};

class DecodeLoop {
 public:
  /// Room for `max_tokens` cached tokens, of random bits until they are written.
  DecodeLoop(const LoopShape& shape, kernels::KvFormat cache, int max_tokens, int n_threads);

  /// One token behind `n_cached` others; the token that follows it. Where `ops` is not null, every
  /// call is entered there.
  std::int32_t step(std::int32_t token, int n_cached, std::vector<LoopOp>* ops = nullptr);

 private:
  struct Matrix {
    std::int64_t n = 0;
    std::int64_t k = 0;
    std::vector<std::byte> data;
  };
  struct Layer {
    Matrix qkv, output, gate_up, down;
    std::vector<std::uint16_t> router;
    std::unique_ptr<bench::RandomCache> cache;
  };
  using Row = std::vector<std::uint16_t>;

  void multiply(const Matrix& weights, const Row& x, Row& out);
  void norm(const Row& x, bool adds, Row& out);
  void attend(const Layer& layer, int n_cached);
  void write_cache(const Layer& layer, int n_cached);
  void feed_forward(const Layer& layer);
  void turn_queries(int position);
  void enter(OpKind kind, const OpCost& cost);

  LoopShape shape_;
  kernels::KvFormat format_;
  int n_threads_;
  std::vector<Layer> layers_;
  Matrix embedding_, head_;
  Row norm_weight_, residual_, x_, qkv_, queries_, mixed_, hidden_, inner_, activated_, logits_;
  std::vector<float> attention_;
  std::vector<std::uint64_t> turns_;
  std::vector<LoopOp>* ops_ = nullptr;
};

}  // namespace kvfathom::calibrate
