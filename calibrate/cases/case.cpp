#include "calibrate/cases/case.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/number_formats.h"
#include "model/error.h"

namespace kvfathom::bench {
namespace {

/// SplitMix64 (Steele et al. 2014): a counter, so that any length fills at memory speed.
std::uint64_t random_bits(std::uint64_t seed, std::uint64_t i) {
  std::uint64_t x = (seed + 1) * 0xd1342543de82ef95U + (i + 1) * 0x9e3779b97f4a7c15U;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
  x = (x ^ x >> 27) * 0x94d049bb133111ebU;
  return x ^ x >> 31;
}

}  // namespace

std::string_view name(Place place) {
  return place == Place::cpu ? "cpu" : "cuda";
}

std::int64_t Shape::operator[](std::string_view dim) const {
  for (const auto& [of, value] : dims_) {
    if (of == dim) {
      return value;
    }
  }
  throw InputError("--shapes", "no dimension " + std::string(dim), "dimensions are " + names());
}

void Shape::set(std::string_view dim, std::int64_t value) {
  for (auto& [of, old] : dims_) {
    if (of == dim) {
      old = value;
      return;
    }
  }
  throw InputError("--shapes", "no dimension " + std::string(dim), "dimensions are " + names());
}

bool Shape::has(std::string_view dim) const {
  return std::any_of(dims_.begin(), dims_.end(), [&](const auto& d) { return d.first == dim; });
}

std::string Shape::text() const {
  std::string text;
  for (const auto& [dim, value] : dims_) {
    text += (text.empty() ? "" : "/") + dim + ":" + std::to_string(value);
  }
  return text;
}

std::string Shape::names() const {
  std::string text;
  for (const auto& [dim, value] : dims_) {
    text += (text.empty() ? "" : ", ") + dim;
  }
  return text;
}

std::vector<KernelBench>& all_kernels() {
  static std::vector<KernelBench> kernels;
  return kernels;
}

const KernelBench* kernel_named(std::string_view name) {
  const std::vector<KernelBench>& all = all_kernels();
  const auto at = std::find_if(
      all.begin(), all.end(), [&](const KernelBench& kernel) { return kernel.name == name; });
  return at == all.end() ? nullptr : &*at;
}

Registration::Registration(KernelBench kernel) {
  std::vector<KernelBench>& kernels = all_kernels();
  const auto at = std::find_if(kernels.begin(), kernels.end(), [&](const KernelBench& other) {
    return other.name > kernel.name;
  });
  kernels.insert(at, std::move(kernel));
}

void fill_random(std::span<std::uint32_t> words, std::uint64_t seed) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = static_cast<std::uint32_t>(random_bits(seed, i));
  }
}

std::vector<float> random_floats(std::size_t n, std::uint64_t seed, float scale) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto signed_bits = static_cast<std::int32_t>(random_bits(seed, i));
    values[i] = static_cast<float>(signed_bits) * 0x1p-31F * scale;
  }
  return values;
}

std::vector<float> random_fractions(std::size_t n, std::uint64_t seed) {
  std::vector<float> values = random_floats(n, seed, 0.5F);
  for (float& x : values) {
    x += 0.5F;
  }
  return values;
}

std::vector<std::uint16_t> random_bf16(std::size_t n, std::uint64_t seed, float scale) {
  std::vector<std::uint16_t> values(n);
  const std::vector<float> from = random_floats(n, seed, scale);
  std::transform(
      from.begin(), from.end(), values.begin(), [](float x) { return kernels::to_bf16(x).bits; });
  return values;
}

std::vector<std::uint16_t> random_f16(std::size_t n, std::uint64_t seed, float scale) {
  std::vector<std::uint16_t> values(n);
  const std::vector<float> from = random_floats(n, seed, scale);
  std::transform(
      from.begin(), from.end(), values.begin(), [](float x) { return kernels::to_f16(x).bits; });
  return values;
}

double worst_ratio(std::span<const float> got,
                   std::span<const double> want,
                   std::span<const double> bound) {
  double worst = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - want[i]);
    const double ratio = error == 0.0 ? 0.0 : error / bound[i];
    worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : std::max(worst, ratio);
  }
  return worst;
}

}  // namespace kvfathom::bench
