// The cache of one rank in blocks of equal size, as the serving engines allocate it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/cache/groups.h"
#include "model/engine/engine.h"

namespace kvfathom::serving {

/// Bytes of a token's K row in one layer of the group: whole blocks of the type; indexer keys in 8
/// bits with a scale, whatever the type; latents in 8 bits beside them in a layout of their own.
[[nodiscard]] std::int64_t k_row_bytes(const cache::LayerGroup& group,
                                       DType cache_type_k,
                                       bool beside_indexer);

/// A pool that windows have to themselves, with a fixed share of the tokens of the other layers'.
struct WindowPool {
  double share = 0.0;                 ///< its tokens per token of the full pool
  std::int64_t beyond_window = 0;     ///< tokens that a sequence holds beside its window
  std::int64_t in_flight_tokens = 0;  ///< of prompts that run, all sequences together
  std::int64_t least_tokens = 0;      ///< the engine starts with no smaller pool

  /// Blocks of the full pool beside which this one has `blocks`.
  [[nodiscard]] std::int64_t full_blocks(std::int64_t blocks) const;
  /// Blocks of this pool beside a full one of `full_blocks`: whole pages of its share of tokens.
  [[nodiscard]] std::int64_t blocks_beside(std::int64_t full_blocks,
                                           std::int64_t block_tokens) const;
};

/// A pool that recurrent states have to themselves, in slots of one state of every layer.
struct StatePool {
  std::int64_t slots_per_sequence = 1;
  std::int64_t spare_slots = 0;      ///< allocated, but never a sequence's
  std::int64_t verified_tokens = 0;  ///< drafts and one more, of which each has a state of its own
  std::int64_t conv_window = 0;      ///< columns of a convolution's history
};

/// What an engine's allocator does with the layers it is given.
struct PagingRules {
  std::int64_t block_tokens = 16;
  std::int64_t latent_block_tokens = 16;
  std::int64_t max_batched_tokens = 2048;  ///< a window holds these beside its own tokens
  bool groups = true;  ///< windows and states have groups of their own; false: windows are full
  double near_equal = 1.5;  ///< layer counts closer than this make groups of the larger's size
  std::int64_t spare_blocks = 0;                         ///< allocated, but never a sequence's
  std::int64_t states = 1;                               ///< of each layer that a sequence holds
  std::int64_t draft_tokens = 0;                         ///< a state is there once more for each
  std::int64_t ahead_tokens = 0;                         ///< of drafts, that a sequence holds too
  std::optional<WindowPool> window_pool = std::nullopt;  ///< none: one pool for all groups
  std::optional<StatePool> state_pool = std::nullopt;    ///< none: states are pages like others
  std::string_view engine;                               ///< for refusals
};

/// Layers of one kind that share block tables.
struct PagedGroup {
  std::string_view scheme;
  std::int64_t n_layers = 0;
  std::int64_t n_tables = 1;       ///< block tables: layers over the size of a group, rounded up
  std::int64_t block_tokens = 16;  ///< tokens in one block; 0: a state
  std::int64_t most_tokens = 0;    ///< a window and a step; 0: all
  std::int64_t ahead_tokens = 0;   ///< held for drafts, behind a sequence's own
  std::int64_t extra_blocks = 0;   ///< a window's first may be partly out of it; a state's copies
  std::int64_t k_bytes = 0;        ///< of one layer's page, as used
  std::int64_t v_bytes = 0;
  std::int64_t page_bytes = 0;    ///< as allocated: equal in all groups
  std::int64_t verify_bytes = 0;  ///< beside a pool of states: of the tokens verified at once

  /// Blocks that one table needs for a sequence of `tokens`.
  [[nodiscard]] std::int64_t blocks(std::int64_t tokens) const;
};

struct PagedCache {
  std::vector<PagedGroup> groups;
  std::int64_t block_bytes = 0;   ///< of one block over all the layers that share a table
  std::int64_t spare_blocks = 0;  ///< of each pool: allocated, but never a sequence's
  std::int64_t step_tokens = 1;   ///< between multiples of it every context costs the same
  std::optional<WindowPool> window_pool = std::nullopt;  ///< of the last group, without a table
  std::int64_t window_block_bytes = 0;                   ///< of one block over that pool's layers
  std::optional<StatePool> state_pool = std::nullopt;    ///< of the last groups, without a table
  std::int64_t state_slot_bytes = 0;                     ///< of one slot over that pool's layers
  std::int64_t state_verify_bytes = 0;                   ///< of one request's drafts, likewise

  /// Blocks that a sequence of `tokens` needs from the one pool.
  [[nodiscard]] std::int64_t blocks(std::int64_t tokens) const;
  /// Blocks that `sequences` of `tokens` need together.
  [[nodiscard]] std::int64_t blocks(std::int64_t tokens, std::int64_t sequences) const;
  /// Sequences of `tokens` that so many blocks hold.
  [[nodiscard]] double sequences(std::int64_t tokens, std::int64_t blocks) const;
  [[nodiscard]] std::int64_t n_tables() const;
  /// Blocks of the windows' pool beside so many of the full one.
  [[nodiscard]] std::int64_t window_blocks(std::int64_t blocks) const;
  /// Blocks that `available_bytes` hold beside the spare ones.
  [[nodiscard]] std::int64_t blocks_in(std::int64_t available_bytes) const;
  /// Slots of the pool of states.
  [[nodiscard]] std::int64_t state_slots(std::int64_t sequences) const;
  /// What the states of `sequences` take: of their own pool, or of the pages.
  [[nodiscard]] std::int64_t state_bytes(std::int64_t sequences) const;
  /// What `sequences` of `tokens` take of the pools, states included, with the spare blocks.
  [[nodiscard]] std::int64_t bytes(std::int64_t tokens, std::int64_t sequences) const;
};

/// The groups of a rank's layers. One group where every layer grows with the context (pages of
/// different widths may share a block); two pools where the rules say so; else groups of equally
/// many layers whose pages are made equal by more tokens per block or by padding. Unsupported where
/// neither can be, and beside a pool of states where nothing grows with the context.
[[nodiscard]] PagedCache paged_cache(const ModelSpec& rank,
                                     const EngineSettings& settings,
                                     const PagingRules& rules);

/// Unsupported where a layer's cache is not among `schemes`: those that grow with every token and
/// that the engine has a rule for.
void require_schemes(const ModelSpec& model,
                     std::string_view engine,
                     std::initializer_list<std::string_view> schemes);

/// Element bytes are those of f16, bf16, fp8 (e4m3, e5m2) or nvfp4; K and V alike. InputError
/// otherwise.
void require_serving_cache_type(const EngineSettings& settings, bool nvfp4);

}  // namespace kvfathom::serving
