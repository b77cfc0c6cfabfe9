// The parameters of every scheme that takes some, as settings carry them.
#pragma once

#include <variant>

#include "model/cache/eviction.h"
#include "model/cache/head_linear.h"
#include "model/cache/k_only.h"
#include "model/cache/kivi.h"
#include "model/cache/offload.h"
#include "model/cache/residual.h"
#include "model/cache/xquant.h"

namespace kvfathom::cache {

/// Nothing for schemes that take no parameters; the five evictions share a struct.
using SchemeParameters = std::variant<std::monostate,
                                      KOnlyParameters,
                                      HeadLinearParameters,
                                      ResidualParameters,
                                      XQuantParameters,
                                      KiviParameters,
                                      EvictionParameters>;

}  // namespace kvfathom::cache
