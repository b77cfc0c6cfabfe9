#include "cli/sentences.h"

#include <algorithm>

namespace kvfathom::cli {

void Sentences::add(const std::string& name, const std::string& sentence) {
  const auto known =
      std::ranges::find(rows_, sentence, &std::pair<std::string, std::string>::second);
  if (known == rows_.end()) {
    rows_.emplace_back(name, sentence);
  } else if ((", " + known->first + ", ").find(", " + name + ", ") == std::string::npos) {
    known->first.append(", ").append(name);
  }
}

}  // namespace kvfathom::cli
