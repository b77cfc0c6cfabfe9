// Which known names a misspelt one may have meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvfathom::cli {

/// Letters to insert, delete, replace or swap with their neighbour to make `a` of `b`.
[[nodiscard]] int edit_distance(std::string_view a, std::string_view b);

/// The `n` names nearest to `word`, best first: those that contain it or are contained in it come
/// before those that only look alike; case, '-', '_', '/' and spaces do not count.
[[nodiscard]] std::vector<std::string> nearest(std::string_view word,
                                               const std::vector<std::string>& names,
                                               std::size_t n);

/// "a, b, c".
[[nodiscard]] std::string joined(const std::vector<std::string>& names);

}  // namespace kvfathom::cli
