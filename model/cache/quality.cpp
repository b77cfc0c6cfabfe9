#include "model/cache/quality.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <utility>

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

/// "meta-llama/Llama-3.1-8B", "Llama 3.1 8B" and "Llama-3.1-8B-Instruct" are one model: tuned on
/// other text, but of one shape and one history.
std::string plain_name(std::string_view model) {
  std::string name(model.substr(model.rfind('/') + 1));  // npos + 1 is 0
  for (char& c : name) {
    c = c == ' ' || c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  for (const std::string_view ending : {"-instruct", "-it", "-chat", "-base", "-pt", "-hf"}) {
    if (name.ends_with(ending)) {
      name.resize(name.size() - ending.size());
    }
  }
  return name;
}

}  // namespace

std::vector<Evidence> nearest(std::span<const Evidence> all,
                              std::string_view scheme,
                              std::string_view model,
                              std::span<const std::pair<std::string, double>> asked) {
  std::vector<Evidence> found;
  std::ranges::copy_if(
      all, std::back_inserter(found), [&](const Evidence& e) { return e.scheme == scheme; });
  const std::string own = plain_name(model);
  std::ranges::stable_sort(found, {}, [&](const Evidence& e) {
    return std::pair(plain_name(e.model) != own, distance(e, asked));
  });
  return found;
}

}  // namespace kvfathom::cache
