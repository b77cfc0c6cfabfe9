// Notes under a table: rows that share a sentence are named together.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace kvfathom::cli {

/// Sentences in order of first appearance, each with the names that it is true of, once each.
class Sentences {
 public:
  void add(const std::string& name, const std::string& sentence);
  /// Names, joined by commas, and their sentence.
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& rows() const {
    return rows_;
  }

 private:
  std::vector<std::pair<std::string, std::string>> rows_;
};

}  // namespace kvfathom::cli
