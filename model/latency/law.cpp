#include "model/latency/law.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "model/rounding.h"

namespace kvfathom {
namespace {

/// Seconds of the three terms that overlap: memory, arithmetic, dequantisation.
std::array<double, 3> overlapping(const Law& law, const Work& work) {
  return {law.bandwidth ? (work.bytes / *law.bandwidth).value() : 0.0,
          law.flops ? (work.flops / *law.flops).value() : 0.0,
          law.dequant_ops_per_s ? work.dequant_ops / *law.dequant_ops_per_s : 0.0};
}

/// (a^p + b^p + c^p)^(1/p), with the largest taken out so that no power over- or underflows.
double p_norm(const std::array<double, 3>& terms, double p) {
  const double largest = *std::max_element(terms.begin(), terms.end());
  if (largest <= 0.0) {
    return 0.0;
  }
  double sum = 0.0;
  for (const double term : terms) {
    sum += term > 0.0 ? std::pow(term / largest, p) : 0.0;
  }
  return largest * std::pow(sum, 1.0 / p);
}

double wave_seconds(const Law& law, const Work& work) {
  return law.wave ? law.wave->value() * work.waves : 0.0;
}

/// The number behind one letter ("d128"); nothing if the part is not that.
std::optional<std::int64_t> number_behind(char letter, std::string_view part) {
  std::int64_t number = 0;
  if (part.size() < 2 || part.front() != letter) {
    return std::nullopt;
  }
  const char* const end = part.data() + part.size();
  const auto [stopped, error] = std::from_chars(part.data() + 1, end, number);
  return error == std::errc() && stopped == end && number > 0 ? std::optional(number)
                                                              : std::nullopt;
}

/// Cuts off what stands before the next slash.
std::string_view next_part(std::string_view& rest) {
  const std::size_t slash = rest.find('/');
  const std::string_view part = rest.substr(0, slash);
  rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
  return part;
}

}  // namespace

Work work_of(const OpCost& cost, double waves, double dequant_ops) {
  return Work{.bytes = cost.read + cost.written,
              .flops = cost.flops,
              .dequant_ops = dequant_ops,
              .waves = waves,
              .launches = cost.launches};
}

double waves(std::int64_t n_blocks, std::int64_t n_units) {
  return static_cast<double>(std::max<std::int64_t>(1, divide_up(n_blocks, n_units)));
}

Seconds time(const Law& law, const Work& work) {
  return law.fixed + Seconds(wave_seconds(law, work) + p_norm(overlapping(law, work), law.p));
}

std::string_view bound_by(const Law& law, const Work& work) {
  const std::array<double, 3> terms = overlapping(law, work);
  const std::array<std::pair<double, std::string_view>, 5> candidates{{
      {terms[0], "memory"},
      {terms[1], "arithmetic"},
      {terms[2], "dequantise"},
      {wave_seconds(law, work), "waves"},
      {law.fixed.value(), "fixed"},
  }};
  return std::max_element(candidates.begin(),
                          candidates.end(),
                          [](const auto& a, const auto& b) { return a.first < b.first; })
      ->second;
}

std::string text_of(const KernelClass& id) {
  std::string text = id.op + "/" + id.format;
  if (id.head_dim) {
    text += "/d" + std::to_string(*id.head_dim);
  }
  if (id.group) {
    text += "/g" + std::to_string(*id.group);
  }
  return id.variant.empty() ? text : text + "/" + id.variant;
}

std::optional<KernelClass> kernel_class_named(std::string_view text) {
  if (text.empty() || text.back() == '/') {
    return std::nullopt;
  }
  std::string_view rest = text;
  KernelClass id;
  id.op = next_part(rest);
  id.format = next_part(rest);
  std::string_view part = next_part(rest);
  id.head_dim = number_behind('d', part);
  part = id.head_dim ? next_part(rest) : part;
  id.group = number_behind('g', part);
  id.variant = id.group ? next_part(rest) : part;
  const bool whole = rest.empty() && !id.op.empty() && !id.format.empty();
  return whole && text_of(id) == text ? std::optional(id) : std::nullopt;
}

}  // namespace kvfathom
