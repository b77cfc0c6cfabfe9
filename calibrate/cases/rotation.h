// How many input sets take turns, so that no cache answers, and whether a case is right at all.
#pragma once

#include <cstdint>
#include <optional>

#include "calibrate/cases/case.h"

namespace kvfathom::bench {

inline constexpr double kLeastRotationBytes = 256.0 * 1024 * 1024;

/// What all sets together should hold: `asked`, or four times the last cache and no less than that.
[[nodiscard]] double rotation_bytes(Place place, std::optional<std::int64_t> asked = {});

/// Sets of a case that hold so much.
[[nodiscard]] int sets_for(const Case& c, double rotation);

/// Runs set 0 once and compares it with the reference: right is at most 1.
[[nodiscard]] double error_of(PreparedRun& prepared, Place place);

}  // namespace kvfathom::bench
