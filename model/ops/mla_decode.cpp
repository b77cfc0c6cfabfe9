#include "model/ops/mla_decode.h"

namespace kvfathom {
namespace {

constexpr double kBf16Bytes = 2.0;
constexpr double kF32Bytes = 4.0;
constexpr double kFp8ScaleBlock = 128.0;

}  // namespace

Bytes mla_token_bytes(const MlaDecodeShape& shape) {
  const double latent_bytes = shape.fp8_latent
                                  ? shape.kv_lora_rank * (1.0 + kF32Bytes / kFp8ScaleBlock)
                                  : shape.kv_lora_rank * kBf16Bytes;
  const double v_bytes = shape.separate_v ? shape.kv_lora_rank * kBf16Bytes : 0.0;
  return Bytes(latent_bytes + shape.qk_rope_head_dim * kBf16Bytes + v_bytes);
}

OpCost mla_decode_cost(const MlaDecodeShape& shape) {
  const auto n_tokens = static_cast<double>(shape.n_cached_tokens);
  const double n_rows = static_cast<double>(shape.n_sequences) * shape.n_heads;
  const int k_dim = shape.kv_lora_rank + shape.qk_rope_head_dim;
  const Bytes queries(n_rows * k_dim * kBf16Bytes);
  const Bytes states(n_rows * shape.n_splits * (shape.kv_lora_rank + 2) * kF32Bytes);
  const Bytes out(n_rows * shape.kv_lora_rank * kF32Bytes);
  return OpCost{
      .read = shape.n_passes * n_tokens * mla_token_bytes(shape) + queries + states,
      .written = states + out,
      .flops = Flops(2.0 * n_tokens * shape.n_heads * (k_dim + shape.kv_lora_rank)),
      .launches = 2,
  };
}

}  // namespace kvfathom
