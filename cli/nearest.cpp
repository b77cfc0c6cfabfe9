#include "cli/nearest.h"

#include <algorithm>
#include <utility>

namespace kvfathom::cli {
namespace {

std::string letters(std::string_view text) {
  std::string kept;
  for (const char c : text) {
    if (c >= 'A' && c <= 'Z') {
      kept += static_cast<char>(c - 'A' + 'a');
    } else if (c != '-' && c != '_' && c != '/' && c != ' ') {
      kept += c;
    }
  }
  return kept;
}

/// Smaller is nearer. A name that continues the word is as near as its rest is short.
int distance(const std::string& word, const std::string& name) {
  constexpr int kUnlike = 100;
  if (word.empty() || name.empty()) {
    return kUnlike * 2;
  }
  const bool inside = name.find(word) != std::string::npos || word.find(name) != std::string::npos;
  const int length_gap = std::abs(static_cast<int>(word.size()) - static_cast<int>(name.size()));
  return inside ? std::min(length_gap, edit_distance(word, name)) : 2 * edit_distance(word, name);
}

}  // namespace

int edit_distance(std::string_view a, std::string_view b) {
  // Optimal string alignment, three rows: before last, last, current.
  constexpr std::size_t kLongest = 128;
  a = a.substr(0, kLongest);
  b = b.substr(0, kLongest);
  std::vector<int> before(b.size() + 1);
  std::vector<int> last(b.size() + 1);
  std::vector<int> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) {
    last[j] = static_cast<int>(j);
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int replace = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replace, last[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::vector<std::string> nearest(std::string_view word,
                                 const std::vector<std::string>& names,
                                 std::size_t n) {
  const std::string wanted = letters(word);
  std::vector<std::pair<int, std::string>> ranked;
  ranked.reserve(names.size());
  for (const std::string& name : names) {
    ranked.emplace_back(distance(wanted, letters(name)), name);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> best;
  for (std::size_t i = 0; i < ranked.size() && i < n; ++i) {
    best.push_back(ranked[i].second);
  }
  return best;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

}  // namespace kvfathom::cli
