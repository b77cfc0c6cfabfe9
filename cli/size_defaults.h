// Engines that take larger steps on larger devices, and so may fit less on them.
#pragma once

#include <optional>
#include <string>

#include "cli/query.h"

namespace kvfathom::cli {

/// The query with the steps that its engine takes on a smaller device.
struct SmallerSteps {
  Query query;
  std::string options;  ///< "--max-batched-tokens 2048 --max-sequences 256"
  std::string rule;     ///< "from 70.00 GiB on a step of vllm has 8,192 tokens, below 2,048"
};

/// Empty where the device's steps are as small as any, or were asked for.
[[nodiscard]] std::optional<SmallerSteps> smaller_steps(const Query& query);

}  // namespace kvfathom::cli
