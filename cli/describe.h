// One line on a layer's mixer or feed-forward.
#pragma once

#include <string>

#include "model/architecture/model_spec.h"

namespace kvfathom::cli {

[[nodiscard]] std::string describe(const Mixer& mixer);
[[nodiscard]] std::string describe(const FeedForward& feed_forward);

}  // namespace kvfathom::cli
