#include "model/engine/llama_cpp/behaviours.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "model/error.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr std::string_view kOneMorePrediction = "glm4moe-prediction";

constexpr std::array<std::pair<std::string_view, bool Behaviours::*>, 12> kSwitches{{
    {"mla", &Behaviours::mla},
    {"window-cells", &Behaviours::window_cells},
    {"window-cells-by-ubatch", &Behaviours::window_cells_by_ubatch},
    {"streams", &Behaviours::streams},
    {"flash-attention-auto", &Behaviours::flash_attention_auto},
    {"cells-unpadded", &Behaviours::cells_unpadded},
    {"cells-256", &Behaviours::cells_256},
    {"v-less-mla", &Behaviours::v_less_mla},
    {"rotated-cache", &Behaviours::rotated_cache},
    {"outputs-per-sequence", &Behaviours::outputs_per_sequence},
    {"checked-compute", &Behaviours::checked_compute},
    {kOneMorePrediction, &Behaviours::glm4moe_prediction},
}};

}  // namespace

Behaviours behaviours_without(const std::vector<std::string>& missing) {
  Behaviours behaviours;
  for (const std::string& id : missing) {
    const auto known =
        std::ranges::find(kSwitches, id, &std::pair<std::string_view, bool Behaviours::*>::first);
    if (known == kSwitches.end()) {
      throw Unsupported("data/engines/llama.cpp.json",
                        "behaviour \"" + id + "\" has no rule in this program",
                        "");
    }
    behaviours.*(known->second) = false;
  }
  return behaviours;
}

bool allocates_as_today(const std::vector<std::string>& missing) {
  return std::ranges::all_of(missing, [](const auto& id) { return id == kOneMorePrediction; });
}

}  // namespace kvfathom::llama_cpp
