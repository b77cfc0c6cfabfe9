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

/// What a layer keeps of its tokens.
enum class LoopScheme : std::uint8_t {
  kv,        ///< K and V, or the latents of a model that has them
  k_only,    ///< K; V by a projector in the order of an absorbed decode
  residual,  ///< the layer's input, of which all K and V are rebuilt at every step
};
struct LoopCache {
  kernels::KvFormat format = kernels::KvFormat::bf16;  ///< 16 bits, but for K and V
  LoopScheme scheme = LoopScheme::kv;
};

/// A kernel's call: its class and, from the sizes it was called with, its cost.
struct LoopOp {
  OpKind kind = OpKind::gemm;
  OpCost cost;
};

class DecodeLoop {
 public:
  /// Room for `max_tokens` cached tokens, of random bits until they are written.
  DecodeLoop(const LoopShape& shape, LoopCache cache, int max_tokens, int n_threads);

  /// One token behind `n_cached` others; the token that follows it. Where `ops` is not null, every
  /// call is entered there.
  std::int32_t step(std::int32_t token, int n_cached, std::vector<LoopOp>* ops = nullptr);

  /// A chunk of a prompt, behind `n_cached` tokens, through the first `n_layers` layers: what comes
  /// in is random, no token is chosen. 16-bit caches of K and V only.
  void prompt(int n_tokens, int n_cached, int n_layers, std::vector<LoopOp>* ops = nullptr);

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
    std::vector<std::uint16_t> projector = {}, inputs = {};
    Matrix latents = {}, absorb_k = {}, absorb_v = {};  ///< of the last two one a head, stacked
  };
  using Row = std::vector<std::uint16_t>;

  [[nodiscard]] std::int64_t q_width() const;
  [[nodiscard]] std::int64_t attended_width() const;
  [[nodiscard]] std::int64_t n_planes() const;  ///< of K and V, those that are projected
  void set_rows(int n_rows);
  void multiply(const Matrix& weights, const Row& x, Row& out);
  /// Each head's matrix times its part of x; heads lie `x_stride` elements apart.
  void multiply_heads(const Matrix& weights, const Row& x, std::int64_t x_stride, Row& out);
  void norm(const Row& x, bool adds, Row& out);
  void run_layer(Layer& layer, int n_cached, bool is_prompt);
  void feed_forward(const Layer& layer);
  // decode_loop_attention.cpp: from hidden_ to attended_
  void attend(Layer& layer, int n_cached);
  void attend_prompt(const Layer& layer, int n_cached);
  void project_and_write(const Layer& layer, int n_cached);
  void find_angles(int n_cached);
  void turn_queries();
  void rebuild(Layer& layer, int n_cached);
  void attend_rows(const Layer& layer, int n_cached);
  void attend_keys(const Layer& layer, int n_cached);
  void write_latents(const Layer& layer, int n_cached);
  void attend_latents(const Layer& layer, int n_cached);
  void enter(OpKind kind, const OpCost& cost);

  LoopShape shape_;
  LoopCache cache_;
  int n_threads_;
  int n_rows_ = 0;  ///< tokens of the pass at hand: rows of all that follows the cache
  std::vector<Layer> layers_;
  Matrix embedding_, head_;
  Row norm_weight_, residual_, x_, qkv_, queries_, keys_, values_, mixed_, hidden_, inner_,
      activated_, attended_, logits_, incoming_, latents_, absorbed_;
  std::vector<float> attention_, cos_sin_, angles_;
  std::vector<std::int32_t> sequences_, positions_;
  std::vector<std::uint64_t> turns_;
  std::vector<LoopOp>* ops_ = nullptr;
};

}  // namespace kvfathom::calibrate
