#include "model/engine/llama_cpp/overrides.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

namespace kvfathom::llama_cpp {
namespace {

/// The names behind "blk.N." as common/fit.cpp (get_overflow_pattern) spells them.
std::string_view pattern_of(MovedMatrices matrices) {
  switch (matrices) {
    case MovedMatrices::experts:
      return "ffn_(up|down|gate_up|gate)_(ch|)exps";
    case MovedMatrices::all:
      return "ffn_(gate|up|gate_up|down).*";
    case MovedMatrices::all_but_up:
      return "ffn_(gate|gate_up|down).*";
    case MovedMatrices::down:
      return "ffn_down.*";
  }
  return "";
}

/// A regular expression of just these numbers, by tens: "7|1[0-9]|2[0-3]".
std::string one_of(const std::set<std::int64_t>& numbers) {
  std::string text;
  for (auto first = numbers.begin(); first != numbers.end();) {
    auto last = first;
    for (auto next = std::next(last);
         next != numbers.end() && *next == *last + 1 && *next / 10 == *first / 10;
         ++next) {
      last = next;
    }
    text += text.empty() ? "" : "|";
    text += *first < 10 ? "" : std::to_string(*first / 10);
    const std::string digit = std::to_string(*first % 10);
    text += first == last ? digit : "[" + digit + "-" + std::to_string(*last % 10) + "]";
    first = std::next(last);
  }
  return text;
}

}  // namespace

std::string override_options(std::span<const MovedLayer> moved) {
  std::map<std::pair<int, MovedMatrices>, std::set<std::int64_t>> groups;
  for (const MovedLayer& m : moved) {
    groups[{m.device, m.matrices}].insert(m.layer);
  }
  std::string text;
  for (const auto& [group, layers] : groups) {
    const auto& [device, matrices] = group;
    text += text.empty() ? " -ot \"" : ",";
    text += "blk\\.(" + one_of(layers) + ")\\.";
    text += pattern_of(matrices);
    text += device < 0 ? "=CPU" : "=CUDA" + std::to_string(device);
  }
  return text.empty() ? text : text + "\"";
}

}  // namespace kvfathom::llama_cpp
