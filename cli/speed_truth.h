// Measured speeds: settings of a run and the rate or time that somebody published of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/dtype.h"

namespace kvfathom::cli {

/// What `SpeedRow::value` is. Rates are tokens/s of all sequences together.
enum class SpeedMetric : std::uint8_t {
  prefill,  ///< prompt tokens/s
  decode,   ///< new tokens/s
  whole,    ///< new tokens/s of a batch that starts and ends together, its prompt's time included
  first_token_s,
  per_token_s,  ///< of a served batch: a step, and its share of other requests' prompts
};

struct SpeedRow {
  std::string id;
  std::string engine;
  std::string backend;
  std::string gpu;  ///< catalog id
  std::int64_t n_gpus = 1;
  std::int64_t tensor_parallel = 1;
  std::int64_t expert_parallel = 1;
  std::string model;    ///< catalog id
  std::string weights;  ///< recipe
  DType cache_type = DType::f16;
  DType state_type = DType::f32;  ///< of recurrent states
  std::int64_t batch = 1;
  std::int64_t prompt_tokens = 0;  ///< of each sequence, that enter
  std::int64_t new_tokens = 0;     ///< that come out
  std::int64_t depth_tokens = 0;   ///< cached before
  std::int64_t chunk_tokens = 0;   ///< of a prompt that one step takes
  bool flash_attention = true;
  SpeedMetric metric = SpeedMetric::decode;
  double value = 0.0;

  [[nodiscard]] bool is_time() const {
    return metric == SpeedMetric::first_token_s || metric == SpeedMetric::per_token_s;
  }
  /// Whether prompts make most of it.
  [[nodiscard]] bool is_prefill() const {
    return metric == SpeedMetric::prefill || metric == SpeedMetric::first_token_s;
  }
};

/// Rows of a published collection that are not compared.
struct RefusedSpeeds {
  std::int64_t n = 0;
  std::string first;  ///< id
  std::string reason;
};

/// speed.tsv and speed_refused.tsv in `folder`. InputError naming file, line and column.
[[nodiscard]] std::vector<SpeedRow> read_speed_truth(const std::string& folder);
[[nodiscard]] std::vector<RefusedSpeeds> read_refused_speeds(const std::string& folder);

}  // namespace kvfathom::cli
