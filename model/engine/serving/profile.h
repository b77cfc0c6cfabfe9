// What a serving engine needs beside weights and cache: measured by its own profiling run at the
// start, so modelled here, each with an interval from published start-up logs.
#pragma once

#include <cstdint>

#include "model/engine/serving/ranks.h"
#include "model/memory/ledger.h"

namespace kvfathom::serving {

/// Bytes with a 90 % interval.
struct Modelled {
  std::int64_t bytes = 0;
  std::int64_t low_bytes = 0;
  std::int64_t high_bytes = 0;
};

[[nodiscard]] inline LedgerLine modelled_line(Device device, LedgerKind kind, const Modelled& m) {
  return {device, kind, m.bytes, Provenance::modelled, m.low_bytes, m.high_bytes};
}

/// Tokens and sequences of the largest step that the engine profiles.
struct Step {
  std::int64_t tokens = 2048;
  std::int64_t sequences = 256;
  bool drafts = false;  ///< tokens that a prediction block drafted are among them
};

/// The peak of one step on a rank: residual stream and the widest feed-forward's inputs, gate, up
/// and product, in 16 bits; or, on the last stage, the sampler's f32 logits with their sorted
/// copy, indices, probabilities and sums. The three logged
/// peaks lie between 0.2 and 1.8 times this. Where tokens are drafted, the block's own inputs
/// (embeddings and features of every token of a step) stay beside it, and the sampler has two rows
/// of logits a sequence more (vLLM 00c4f22d v1/spec_decode/llm_base_proposer.py,
/// v1/worker/gpu_model_runner.py: _dummy_sampler_run checks one drafted token a sequence).
[[nodiscard]] Modelled activation_peak(const StageRank& rank,
                                       const Parallel& parallel,
                                       const Step& step);

/// CUDA graphs of one rank: at most 1.3 GiB in 16 of 18 published start-ups, 4.1 in one.
[[nodiscard]] Modelled cuda_graphs();

/// CUDA context and libraries; communication buffers where ranks talk. Logged 0 to 1.8 GiB on one
/// device, 3.6 on two in one old log.
[[nodiscard]] Modelled runtime_memory(const Parallel& parallel);

}  // namespace kvfathom::serving
