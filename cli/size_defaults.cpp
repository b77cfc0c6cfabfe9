#include "cli/size_defaults.h"

#include "cli/format.h"
#include "model/engine/sglang/policy.h"
#include "model/engine/vllm/policy.h"

namespace kvfathom::cli {

std::optional<SmallerSteps> smaller_steps(const Query& query) {
  std::optional<serving::SizeDefault> found;
  if (query.engine->name == "vllm") {
    found = vllm_size_default(query.settings);
  } else if (query.engine->name == "sglang") {
    found = sglang_size_default(query.settings);
  }
  if (!found) {
    return std::nullopt;
  }
  SmallerSteps smaller{.query = query, .options = {}, .rule = {}};
  smaller.query.settings.max_batched_tokens = found->tokens_below;
  smaller.options = "--max-batched-tokens " + std::to_string(found->tokens_below);
  if (found->sequences_below > 0) {
    smaller.query.settings.max_sequences = found->sequences_below;
    smaller.options += " --max-sequences " + std::to_string(found->sequences_below);
  }
  smaller.rule = "from " + gib(found->from_bytes) + " on a step of " +
                 std::string(query.engine->name) + " has " + thousands(found->tokens) +
                 " tokens, below " + thousands(found->tokens_below);
  return smaller;
}

}  // namespace kvfathom::cli
