// The operations of one step of a model: a prompt's chunk, or one new token of every sequence.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/cache/offload.h"
#include "model/cache/scheme.h"
#include "model/dtype.h"
#include "model/latency/layer_work.h"
#include "model/latency/op.h"

namespace kvfathom {

enum class Phase : std::uint8_t { prefill, decode };

/// One forward pass. Every sequence has the same number of new tokens.
struct StepShape {
  Phase phase = Phase::decode;
  std::int64_t n_sequences = 1;
  std::int64_t n_new_tokens = 1;     ///< of each; decode: 1, or a draft and the token before it
  std::int64_t n_cached_tokens = 0;  ///< of each, before the step
  /// Prefill: the prompt ends with this chunk, so that what is done to whole prompts follows.
  bool ends_prompt = true;
  /// Decode with sequences of different length: cached tokens of each, in place of the number
  /// above.
  std::span<const std::int64_t> ragged = {};
};

struct LatencySettings {
  cache::SchemeRequest scheme;
  std::optional<cache::Offload> offload;
  DType cache_type_k = DType::bf16;
  DType cache_type_v = DType::bf16;
  DType state_type = DType::f32;  ///< of recurrent states
  std::int64_t tensor_parallel = 1;
  std::int64_t pipeline_parallel = 1;
  std::int64_t expert_parallel = 1;
  std::int64_t data_parallel = 1;  ///< replicas: they share experts where expert_parallel says so
  IsOnHost is_on_host = {};        ///< tensors that are kept on the host
  /// From so many tokens on a step brings what is on the host to the GPU, below it multiplies it
  /// where it is; 0: it always does.
  std::int64_t brought_from_tokens = 0;
  /// Prompts of latent layers run in the absorbed form too (llama.cpp), not with expanded K and V.
  bool absorbed_prefill = false;
};

/// A model under settings, prepared once so that many steps can be priced fast. The operations are
/// those of one rank, all stages of a pipeline together: what one token waits for.
class StepOps {
 public:
  /// InputError for a scheme that does not apply, or heads that the ranks do not divide.
  StepOps(const ModelSpec& model, const LatencySettings& settings);

  /// Replaces `ops` by those of the step, equal layers as one entry.
  void emit(const StepShape& step, std::vector<Op>& ops) const;

  [[nodiscard]] const ModelWork& work() const { return work_; }
  [[nodiscard]] const LatencySettings& settings() const { return settings_; }
  [[nodiscard]] std::int64_t n_layers() const { return n_layers_; }

 private:
  std::int64_t hidden_size_ = 0;
  std::int64_t vocab_size_ = 0;
  std::int64_t n_layers_ = 0;
  LatencySettings settings_;
  ModelWork work_;
};

}  // namespace kvfathom
