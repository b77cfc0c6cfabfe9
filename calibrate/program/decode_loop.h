// A transformer with random weights on our CPU kernels, decoding or taking in a prompt: what
// predictions of a whole step are held to, in bytes and FLOPs (tests) and in time (`--check`,
// `crossover --measure`).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "calibrate/cases/random_cache.h"
#include "calibrate/loop_shape.h"
#include "kernels/common/kv_format.h"
#include "model/latency/op.h"

namespace kvfathom::calibrate {

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

  /// A chunk of a prompt, behind `n_cached` tokens, through `n_layers` layers from `first_layer` on
  /// (counted round): what comes in is random, no token is chosen. 16-bit caches only.
  void prompt(int n_tokens,
              int n_cached,
              int first_layer,
              int n_layers,
              std::vector<LoopOp>* ops = nullptr);

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

  void set_rows(int n_rows);
  void multiply(const Matrix& weights, const Row& x, Row& out);
  void norm(const Row& x, bool adds, Row& out);
  void run_layer(const Layer& layer, int n_cached, bool is_prompt);
  void attend(const Layer& layer, int n_cached);
  void attend_prompt(const Layer& layer, int n_cached);
  void write_cache(const Layer& layer, int n_cached);
  void feed_forward(const Layer& layer);
  void turn_queries(int n_cached);
  void enter(OpKind kind, const OpCost& cost);

  LoopShape shape_;
  kernels::KvFormat format_;
  int n_threads_;
  int n_rows_ = 0;  ///< tokens of the pass at hand: rows of all that follows the cache
  std::vector<Layer> layers_;
  Matrix embedding_, head_;
  Row norm_weight_, residual_, x_, qkv_, queries_, keys_, values_, mixed_, hidden_, inner_,
      activated_, attended_, logits_, incoming_;
  std::vector<float> attention_;
  std::vector<std::int32_t> sequences_, positions_;
  std::vector<std::uint64_t> turns_;
  std::vector<LoopOp>* ops_ = nullptr;
};

}  // namespace kvfathom::calibrate
