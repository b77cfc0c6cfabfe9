// What one step asks of the machine, operation by operation.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "model/dtype.h"
#include "model/ops/op_cost.h"

namespace kvfathom {

/// The one name that ties a model's work, the kernels and the calibration: a folder of kernels/
/// each, but for the collectives, of which only published figures are known.
enum class OpKind : std::uint8_t {
  gemm,
  moe_ffn,
  decode_attention,
  prefill_attention,
  mla_decode,
  index_scores,
  state_update,
  value_reconstruction,
  head_reconstruction,
  residual_recompute,
  eviction_scores,
  ridge_refine,
  cache_write,
  elementwise,
  host_transfer,
  file_read,
  network_transfer,
  peer_transfer,
  all_reduce,
  all_to_all,
};

inline constexpr std::array<std::string_view, 20> kOpKindNames{"gemm",
                                                               "moe_ffn",
                                                               "decode_attention",
                                                               "prefill_attention",
                                                               "mla_decode",
                                                               "index_scores",
                                                               "state_update",
                                                               "value_reconstruction",
                                                               "head_reconstruction",
                                                               "residual_recompute",
                                                               "eviction_scores",
                                                               "ridge_refine",
                                                               "cache_write",
                                                               "elementwise",
                                                               "host_transfer",
                                                               "file_read",
                                                               "network_transfer",
                                                               "peer_transfer",
                                                               "all_reduce",
                                                               "all_to_all"};

[[nodiscard]] constexpr std::string_view name(OpKind kind) {
  return kOpKindNames.at(static_cast<std::size_t>(kind));
}

/// Whether an operation moves bytes between memories and computes nothing.
[[nodiscard]] constexpr bool is_link(OpKind kind) {
  return kind >= OpKind::host_transfer;
}

/// Whether queries meet keys in it.
[[nodiscard]] constexpr bool is_attention(OpKind kind) {
  return kind == OpKind::prefill_attention || kind == OpKind::decode_attention ||
         kind == OpKind::mla_decode;
}

/// Up to this many rows of activations a product reads its weights as they are stored, row by row;
/// above, by tiles or widened first. Of the reference kernels (kernels/gemm), and about where
/// others change too.
inline constexpr std::int64_t kFewRows = 8;

/// What an operation's efficiency depends on, besides its size: one law is fitted for each.
struct OpClass {
  OpKind kind = OpKind::gemm;
  DType format = DType::bf16;     ///< of the weights or the cache that it reads
  std::int64_t head_dim = 0;      ///< attention: of one query; 0 elsewhere
  std::int64_t heads_per_kv = 0;  ///< attention: queries that share a KV head; collectives: ranks
  bool window = false;            ///< attention over a window only
  bool latent = false;            ///< prefill attention of a latent layer
  bool block_scales = false;      ///< 8-bit floats with a scale for each block of a matrix
  bool few_rows = false;          ///< products: of so few rows that kernels of their own run
  bool pageable = false;          ///< from the host: of memory that is not pinned, as mapped files
  friend bool operator==(const OpClass&, const OpClass&) = default;
};

/// Parts of an operation that a step brings from the host before it runs on the device.
inline constexpr std::string_view kBringWeights = "bring weights";
inline constexpr std::string_view kBringCache = "bring cache";

/// One operation of a layer, and how many equal layers have it.
struct Op {
  OpClass op_class;
  std::string_view part;      ///< "q k v", "attention", "experts", "output head", ...
  OpCost cost;                ///< of one of them
  std::int64_t n_blocks = 1;  ///< independent pieces of work: KV heads x sequences, tiles
  std::int64_t n_times = 1;   ///< equal layers
  /// How full the blocks are where the last one's time counts whole (prompts' tiles); 0: it does
  /// not.
  double block_share = 0.0;
  Bytes weights = {};    ///< of what it reads, the model's own weights
  Bytes cache = {};      ///< of what it reads, cached K and V, latents, X or states
  bool on_host = false;  ///< runs on the CPU: what it reads is kept there
};

}  // namespace kvfathom
