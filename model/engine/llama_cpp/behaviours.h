// Which of llama.cpp's memory behaviours a build has; ids and dates in data/engines/llama.cpp.json.
#pragma once

#include <string>
#include <vector>

namespace kvfathom::llama_cpp {

/// All true: today's rules.
struct Behaviours {
  bool mla = true;
  bool window_cells = true;
  bool window_cells_by_ubatch = true;
  bool streams = true;
  bool flash_attention_auto = true;
  bool cells_unpadded = true;
  bool cells_256 = true;
  bool v_less_mla = true;
  bool rotated_cache = true;
  bool outputs_per_sequence = true;
  bool checked_compute = true;
  bool glm4moe_prediction = true;  ///< contexts of that architecture's prediction block
};

/// Every behaviour but the `missing` ones. Unsupported if an id is none of the above: a history
/// that knows more than the rules must not be answered with the wrong rules.
[[nodiscard]] Behaviours behaviours_without(const std::vector<std::string>& missing);

/// Whether a build that lacks `missing` allocates a second context and a projector as today's does.
[[nodiscard]] bool allocates_as_today(const std::vector<std::string>& missing);

}  // namespace kvfathom::llama_cpp
