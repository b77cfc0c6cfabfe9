#include "cli/quality.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "cli/data_dir.h"
#include "cli/format.h"
#include "cli/headline.h"
#include "cli/sentences.h"
#include "cli/table.h"
#include "model/cache/applicability.h"
#include "model/io/quality_json.h"

namespace kvfathom::cli {
namespace {

const std::vector<cache::Evidence>& all_figures() {
  static const std::vector<cache::Evidence> figures =
      read_quality((data_directory() / "quality" / "schemes.json").string());
  return figures;
}

/// The shortest text of a figure: 5.54, 33.96, 0.3802.
std::string number(double value) {
  std::array<char, 32> digits{};
  const auto [end, failure] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  return {digits.data(), end};
}

/// "WikiText-2 PPL 9.95, baseline 6.24 (Llama-3.1-8B, 2 bits, group 128; arXiv 2508.10395); 5 more
/// with --json".
std::string nearest_text(const std::vector<cache::Evidence>& figures) {
  if (figures.empty()) {
    return "nothing known here";
  }
  const cache::Evidence& first = figures.front();
  std::string text = first.benchmark + " " + number(first.value);
  text += first.baseline ? ", baseline " + number(*first.baseline) : ", no baseline given";
  text += " (" + first.model + ", " + first.setting + "; " + first.source + ")";
  const auto n_more = static_cast<std::int64_t>(figures.size()) - 1;
  return n_more == 0 ? text : text + "; " + thousands(n_more) + " more with --json";
}

}  // namespace

std::vector<cache::Evidence> evidence(const Query& query,
                                      const SchemeLabel& label,
                                      const CacheCase& cache_case,
                                      std::int64_t context_tokens) {
  const cache::SchemeRequest request = request_of(cache_case);
  if (label.exact || cache::is_model_scheme(request.id)) {
    return {};
  }
  auto asked = cache::numbers_of(request);
  if (const auto* eviction = std::get_if<cache::EvictionParameters>(&request.parameters)) {
    const double share =
        static_cast<double>(eviction->budget) / static_cast<double>(context_tokens);
    asked.emplace_back("share", std::min(1.0, share));
  }
  return cache::nearest(all_figures(), name(request.id), query.model.spec.name, asked);
}

bool is_for_comparison(const SchemeLabel& label, const CacheCase& cache_case) {
  return !label.engine_support && !cache_case.by_formula;
}

std::string marked(const SchemeLabel& label, const CacheCase& cache_case) {
  return label.text + (label.exact ? "" : " ~") +
         (is_for_comparison(label, cache_case) ? " *" : "");
}

QualityRow quality_row(const SchemeLabel& label, const CacheCase& cache_case) {
  return {&label, cache::is_exact(request_of(cache_case))};
}

void print_quality_lines(Console& console, const std::vector<QualityRow>& rows) {
  Sentences lines;
  for (const auto& [label, by_type] : rows) {
    if (!label->exact) {
      lines.add(label->text + (by_type ? " in " + type_pair(label->k, label->v) : ""),
                nearest_text(label->quality));
    }
  }
  if (lines.rows().empty()) {
    return;
  }
  console.line();
  console.paragraph("~ lossy; what was published about it, nearest first (nothing is predicted):",
                    2);
  for (const auto& [names, text] : lines.rows()) {
    console.paragraph(std::string(names).append(": ").append(text), 2);
  }
}

Json quality_json(const std::vector<cache::Evidence>& figures) {
  Json json = Json::array();
  for (const cache::Evidence& figure : figures) {
    json.push_back({{"benchmark", figure.benchmark},
                    {"model", figure.model},
                    {"setting", figure.setting},
                    {"baseline", figure.baseline ? Json(*figure.baseline) : Json(nullptr)},
                    {"value", figure.value},
                    {"source", figure.source}});
  }
  return json;
}

void print_quality(Console& console, const std::vector<cache::Evidence>& figures) {
  constexpr std::size_t kShown = 3;
  console.line();
  if (figures.empty()) {
    console.paragraph(
        "Lossy. Nothing published on its quality is known here; nothing is predicted.", 2);
    return;
  }
  Table table{.columns = {{"published"},
                          {"model"},
                          {"setting", Align::left, true},
                          {"baseline", Align::right},
                          {"value", Align::right}},
              .rows = {}};
  std::vector<std::string> sources;
  for (std::size_t i = 0; i < std::min(kShown, figures.size()); ++i) {
    const cache::Evidence& figure = figures[i];
    table.rows.push_back({{figure.benchmark},
                          {figure.model},
                          {figure.setting},
                          {figure.baseline ? number(*figure.baseline) : "-"},
                          {number(figure.value)}});
    if (std::find(sources.begin(), sources.end(), figure.source) == sources.end()) {
      sources.push_back(figure.source);
    }
  }
  print(console, table);
  std::string text = "Lossy. Same model first, then the nearest setting";
  if (figures.size() > kShown) {
    text +=
        ", " + thousands(static_cast<std::int64_t>(figures.size() - kShown)) + " more with --json";
  }
  for (const std::string& source : sources) {
    text += "; " + source;
  }
  console.paragraph(text + ".", 2);
}

}  // namespace kvfathom::cli
