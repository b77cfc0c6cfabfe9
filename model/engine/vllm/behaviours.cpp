#include "model/engine/vllm/behaviours.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "model/error.h"

namespace kvfathom::vllm {
namespace {

using Switch = std::pair<std::string_view, bool Behaviours::*>;

constexpr std::array<Switch, 12> kSwitches{{
    {"latent-cache", &Behaviours::latent_cache},
    {"window-groups", &Behaviours::window_groups},
    {"state-pages", &Behaviours::state_pages},
    {"near-equal-groups", &Behaviours::near_equal_groups},
    {"wider-near-equal", &Behaviours::wider_near_equal},
    {"sparse-index", &Behaviours::sparse_index},
    {"graphs-in-budget", &Behaviours::graphs_in_budget},
    {"nvfp4-cache", &Behaviours::nvfp4_cache},
    {"draft-model", &Behaviours::draft_model},
    {"shared-head", &Behaviours::shared_head},
    {"cached-states", &Behaviours::cached_states},
    {"larger-steps", &Behaviours::larger_steps},
}};

}  // namespace

Behaviours behaviours_without(const std::vector<std::string>& missing) {
  Behaviours behaviours;
  for (const std::string& id : missing) {
    const auto known = std::ranges::find(kSwitches, id, &Switch::first);
    if (known == kSwitches.end()) {
      throw Unsupported(
          "data/engines/vllm.json", "behaviour \"" + id + "\" has no rule in this program", "");
    }
    behaviours.*(known->second) = false;
  }
  return behaviours;
}

}  // namespace kvfathom::vllm
