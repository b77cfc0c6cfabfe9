// How the serving engines cut a model over devices: what one rank of each pipeline stage holds.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/engine/settings.h"
#include "model/memory/ledger.h"

namespace kvfathom::serving {

/// Ways a model is cut. Every device holds one tensor-parallel rank of one stage of one replica.
struct Parallel {
  std::int64_t tensor = 1;     ///< ranks that share a stage's dense matrices
  std::int64_t attention = 1;  ///< ranks that share its heads: fewer under data-parallel attention
  std::int64_t experts = 1;    ///< ranks that share its experts
  std::int64_t stages = 1;
  std::int64_t replicas = 1;
  /// First layer of each stage, and one past the last. Empty: as vLLM divides them.
  std::vector<std::int64_t> stage_bounds = {};

  [[nodiscard]] std::int64_t devices() const { return tensor * stages * replicas; }
};

/// Replicas are whole engines, except that they share experts (vLLM flattens both dimensions).
/// InputError where the counts contradict the devices at hand or each other.
[[nodiscard]] Parallel parallel_of(const EngineSettings& settings);

/// One tensor-parallel rank of one stage; the others of the stage equal it.
struct StageRank {
  ModelSpec model;  ///< the stage's layers with the rank's share of heads; no tensors
  std::int64_t weights_bytes = 0;
  std::int64_t vision_bytes = 0;  ///< towers beside the decoder, whole on every rank, in 16 bits
  /// Of a prediction block or a draft model, whose layers are behind the others.
  std::optional<LedgerLine> draft = std::nullopt;
  bool first = true;  ///< holds the token embedding
  bool last = true;   ///< holds the output head
};

/// What an engine holds of a prediction block beside what it holds of every layer.
struct PredictionRule {
  std::int64_t vocabulary_copies = 0;  ///< embeddings and heads of the block's own, in 16 bits
  bool longer_convolutions = true;     ///< their history has the drafts' inputs, in every state
};

/// What an engine makes of matrices when it loads them.
struct LoadRules {
  /// mxfp4 experts are padded for the Marlin kernels: hidden to 256, each rank's share of the
  /// expert's width to 128 (vLLM mxfp4.py; logged
  /// gpt-oss-20b weights are within 0.5 %).
  bool marlin_mxfp4 = false;
  /// Tensors stay as the file holds them: block types of GGUF too, no vocabulary row is added,
  /// and layers behind the decoder's (multi-token prediction) are with the last stage.
  bool as_stored = false;
  std::optional<PredictionRule> prediction = std::nullopt;  ///< none: no rule is known
  bool draft_model = false;                                 ///< a rule for a draft model is known
};

/// What a checkpoint's tensors become on each stage. Attention heads must divide evenly, as the
/// engines demand (InputError); KV heads are replicated where there are fewer than ranks;
/// vocabulary rows are padded to 64. Unsupported: GGUF block types, and mixers that no rule splits.
[[nodiscard]] std::vector<StageRank> stage_ranks(const ModelSpec& model,
                                                 const EngineSettings& settings,
                                                 const Parallel& parallel,
                                                 const LoadRules& rules = {});

}  // namespace kvfathom::serving
