// How the engine `ideal` cuts a model over devices.
#pragma once

#include "model/engine/serving/ranks.h"

namespace kvfathom {

/// Stages of whole layers over the devices, or over as many groups of tensor-parallel ranks; in
/// proportion to memory where devices differ. InputError where the counts do not divide.
[[nodiscard]] serving::Parallel ideal_parallel(const ModelSpec& model,
                                               const EngineSettings& settings);

}  // namespace kvfathom
