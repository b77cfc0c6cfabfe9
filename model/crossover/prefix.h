// A cached prefix: what it weighs as each scheme stores it, and what rebuilding it takes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/cache/scheme.h"
#include "model/dtype.h"
#include "model/engine/engine.h"
#include "model/latency/generation.h"

namespace kvfathom {

/// One way to keep the prefix in a slower tier.
struct Stored {
  cache::SchemeRequest scheme = {};  ///< native: K and V; residual, xquant: what they follow from
  DType cache_type_k = DType::bf16;
  DType cache_type_v = DType::bf16;
  bool unpacks = false;     ///< turned into 16 bits when it comes, where it is stored in fewer
  bool is_paged = false;    ///< rows as serving engines lay them out
  double rank_share = 1.0;  ///< of the bytes, what one rank has to do with
};

/// A model on a device whose laws are known. Prices prefixes of any length.
class Prefix {
 public:
  /// `laws` must outlive it. InputError where a scheme does not apply to the model.
  Prefix(const ModelSpec& model,
         const LatencySettings& settings,
         const LawSource& laws,
         std::int64_t chunk_tokens);

  /// The whole prompt from its token ids: attention included, which grows with the square.
  [[nodiscard]] Estimate recompute(std::int64_t n_tokens);
  /// Those of `n_prefixes`, none of which has a token in common with another.
  /// While others decode, every chunk shares its step with a token of each of them.
  [[nodiscard]] Estimate recompute_many(std::int64_t n_tokens,
                                        std::int64_t n_prefixes,
                                        const Running& running);
  [[nodiscard]] Estimate recompute_beside(std::int64_t n_tokens, const Running& running);
  /// The last such step of `n_tokens` behind `n_cached_tokens` that are there.
  [[nodiscard]] Estimate step_beside(std::int64_t n_tokens,
                                     std::int64_t n_cached_tokens,
                                     const Running& running);
  /// A step of those others by themselves.
  [[nodiscard]] Estimate step_of(const Running& running);

  [[nodiscard]] std::int64_t n_layers() const { return steps_->n_layers(); }
  [[nodiscard]] const ModelSpec& model() const { return model_; }

 private:
  ModelSpec model_;
  std::unique_ptr<StepOps> steps_;
  Generation generation_;
};

/// What a scheme keeps of a prefix, and the work that turns it back into K and V.
class StoredPrefix {
 public:
  /// As `Prefix`. The tier holds what the engine `ideal` counts as the scheme's cache, indexer keys
  /// and 8-bit latents of serving engines with their scales. K or heads that others follow from are
  /// turned back into K and V.
  StoredPrefix(const ModelSpec& model,
               const Stored& stored,
               const LatencySettings& settings,
               const LawSource& laws);

  [[nodiscard]] Bytes bytes(std::int64_t n_tokens) const;
  /// Whether it grows with the length at all: states alone do not.
  [[nodiscard]] bool has_kv() const;
  /// Projections (and earlier layers, where they must run again), unpacking; 0 for K and V as
  /// stored.
  [[nodiscard]] Estimate rebuild(std::int64_t n_tokens);
  /// Bytes of device memory that the rebuilding reads and writes.
  [[nodiscard]] Bytes rebuild_traffic(std::int64_t n_tokens);

 private:
  [[nodiscard]] std::vector<Op> rebuild_ops(std::int64_t n_tokens) const;

  std::unique_ptr<MemoryPlan> memory_;
  std::unique_ptr<MemoryPlan> unpacked_;  ///< K and V in 16 bits; null: nothing is unpacked
  std::int64_t paged_row_bytes_ = 0;      ///< of a token's rows, what serving engines add
  double rank_share_ = 1.0;
  std::unique_ptr<StepOps> steps_;
  StepPricer pricer_;
  bool rebuilds_ = false;
};

}  // namespace kvfathom
