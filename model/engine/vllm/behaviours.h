// Which of vLLM's memory behaviours a version has; ids and dates in data/engines/vllm.json.
#pragma once

#include <string>
#include <vector>

namespace kvfathom::vllm {

/// All true: today's rules.
struct Behaviours {
  bool latent_cache = true;       ///< MLA layers cache their latent
  bool window_groups = true;      ///< sliding windows have block tables of their own
  bool state_pages = true;        ///< recurrent states live in pages of the same pool
  bool near_equal_groups = true;  ///< layers of nearly equal counts share the larger group size
  bool wider_near_equal = true;   ///< and are nearly equal up to 1.5, not 1.25
  bool sparse_index = true;       ///< DeepSeek sparse attention
  bool graphs_in_budget = true;   ///< CUDA graphs are estimated before the pool is sized
  bool nvfp4_cache = true;
  bool draft_model = true;
  bool shared_head = true;    ///< prediction blocks use the model's head
  bool cached_states = true;  ///< prefixes of recurrent models are cached, with a state more
  bool larger_steps = true;   ///< 16,384 tokens a step on large devices, not 8,192
};

/// Every behaviour but the `missing` ones. Unsupported for an id that has no rule.
[[nodiscard]] Behaviours behaviours_without(const std::vector<std::string>& missing);

}  // namespace kvfathom::vllm
