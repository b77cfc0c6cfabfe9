#include "model/cache/quality.h"

#include <algorithm>
#include <cmath>

namespace kvfathom::cache {
namespace {

double distance(const Evidence& evidence, std::span<const std::pair<std::string, double>> asked) {
  double sum = 0;
  for (const auto& [name, value] : evidence.numbers) {
    for (const auto& [wanted, wish] : asked) {
      if (name == wanted && value > 0 && wish > 0) {
        sum += std::abs(std::log2(wish / value));
      }
    }
  }
  return sum;
}

}  // namespace

std::vector<Evidence> nearest(std::span<const Evidence> all,
                              std::string_view scheme,
                              std::span<const std::pair<std::string, double>> asked) {
  std::vector<Evidence> found;
  std::ranges::copy_if(
      all, std::back_inserter(found), [&](const Evidence& e) { return e.scheme == scheme; });
  std::ranges::stable_sort(found, {}, [&](const Evidence& e) { return distance(e, asked); });
  return found;
}

}  // namespace kvfathom::cache
