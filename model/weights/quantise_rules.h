// The choices of llama-quantize for one tensor, apart from the walk over a model's tensors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "model/weights/llama_quantize.h"

namespace kvfathom {

/// What the rules tell apart, from the name alone. attention_v covers the fused tensors that
/// contain V (attn_qkv, attn_kv_b).
enum class TensorRole : std::uint8_t {
  token_embedding,
  output,
  attention_q,
  attention_k,
  attention_v,
  attention_output,
  ffn_up,
  ffn_gate,
  ffn_down,
  other,
};

[[nodiscard]] TensorRole role_of(std::string_view name);

/// What the rules know of the model as a whole.
struct QuantiseFacts {
  FileType file_type = FileType::f16;
  bool imatrix = false;
  std::string architecture;
  std::int64_t n_blocks = 0;       ///< multi-token-prediction blocks included
  std::int64_t n_attention_v = 0;  ///< tensors of role attention_v
  std::int64_t n_experts = 0;
  std::int64_t n_gqa = 0;  ///< query heads per KV head of block 0; 0: it has no KV heads
  bool is_70b = false;
  bool tied_embeddings = true;  ///< there is no output.weight
};

/// How many tensors of a role the walk has seen: dense models go by it instead of the layer.
struct QuantiseCounters {
  std::int64_t attention_v = 0;
  std::int64_t ffn_up = 0;
  std::int64_t ffn_gate = 0;
  std::int64_t ffn_down = 0;
};

/// The type that the mixture gives `tensor`, before fallback(). Advances `counters`.
[[nodiscard]] DType chosen_dtype(const QuantiseFacts& facts,
                                 QuantiseCounters& counters,
                                 DType default_dtype,
                                 const Tensor& tensor,
                                 std::int64_t block);

/// `wanted` if a row of `tensor` holds whole blocks, else the type of 32-element blocks nearest
/// to it, else f16. Unsupported for types that have none.
[[nodiscard]] DType fallback(const Tensor& tensor, DType wanted);

}  // namespace kvfathom
