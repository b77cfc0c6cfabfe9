#include "model/hardware/hardware_name.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <numeric>
#include <utility>

namespace kvfathom {
namespace {

constexpr std::array<std::string_view, 12> kBrands{"nvidia",
                                                   "amd",
                                                   "apple",
                                                   "intel",
                                                   "google",
                                                   "geforce",
                                                   "tesla",
                                                   "radeon",
                                                   "instinct",
                                                   "rtx",
                                                   "rx",
                                                   "gpu"};

bool is_brand(std::string_view word) {
  return std::find(kBrands.begin(), kBrands.end(), word) != kBrands.end();
}

bool all_digits(std::string_view word) {
  return std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// Case and separators only; brands kept.
std::vector<std::string> raw_words(std::string_view name) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (word.empty()) {
      return;
    }
    const bool is_size = (word == "gb" || word == "gib") && !words.empty();
    if (is_size && all_digits(words.back())) {
      words.back() += "gb";
    } else {
      words.push_back(word);
    }
    word.clear();
  };
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '.') {
      word += static_cast<char>(std::tolower(byte));
      continue;
    }
    end_word();
    if (c == '+') {
      words.emplace_back("plus");
    }
  }
  end_word();
  return words;
}

}  // namespace

std::vector<std::string> hardware_words(std::string_view name) {
  std::vector<std::string> words = raw_words(name);
  std::vector<std::string> kept;
  for (std::string& word : words) {
    // "rtx4090" is "rtx 4090" to everybody.
    for (const std::string_view brand : {"rtx", "rx"}) {
      if (word.size() > brand.size() && word.starts_with(brand) &&
          std::isdigit(static_cast<unsigned char>(word[brand.size()])) != 0) {
        word.erase(0, brand.size());
        break;
      }
    }
    if (!is_brand(word)) {
      kept.push_back(word);
    }
  }
  return kept.empty() ? words : kept;
}

std::string hardware_slug(std::string_view name) {
  std::string slug;
  for (const std::string& word : raw_words(name)) {
    slug += (slug.empty() ? "" : "-") + word;
  }
  return slug;
}

std::string hardware_key(std::string_view name) {
  std::string key;
  for (const std::string& word : hardware_words(name)) {
    key += word;
  }
  return key;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Three rows of the usual table: a swap looks back two.
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> above(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, above);
    std::swap(above, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replaced, row[j - 1] + 1, above[j] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row.back();
}

}  // namespace kvfathom
