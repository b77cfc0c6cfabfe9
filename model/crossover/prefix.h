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
  [[nodiscard]] Estimate recompute_many(std::int64_t n_tokens, std::int64_t n_prefixes);
  /// The first for the last `n_tokens` behind `n_cached_tokens` that are there.
  [[nodiscard]] Estimate recompute_behind(std::int64_t n_tokens, std::int64_t n_cached_tokens);

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
  /// As `Prefix`. The tier holds what the engine `ideal` counts as the scheme's cache.
  StoredPrefix(const ModelSpec& model,
               const Stored& stored,
               const LatencySettings& settings,
               const LawSource& laws);

  [[nodiscard]] Bytes bytes(std::int64_t n_tokens) const;
  /// Projections (and earlier layers, where they must run again); 0 for K and V as stored.
  [[nodiscard]] Estimate rebuild(std::int64_t n_tokens);
  /// Bytes of device memory that the rebuilding reads and writes.
  [[nodiscard]] Bytes rebuild_traffic(std::int64_t n_tokens);

 private:
  [[nodiscard]] std::vector<Op> rebuild_ops(std::int64_t n_tokens) const;

  std::unique_ptr<MemoryPlan> memory_;
  std::unique_ptr<StepOps> steps_;
  StepPricer pricer_;
  bool rebuilds_ = false;
};

}  // namespace kvfathom
