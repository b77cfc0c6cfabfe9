#include "cli/values.h"

#include <array>
#include <charconv>

#include "cli/format.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

/// Element types that llama.cpp takes for its cache (common/arg.cpp, kv_cache_types), and those of
/// the serving engines; each engine refuses what it has not.
constexpr std::array<DType, 12> kCacheTypes{DType::f32,
                                            DType::f16,
                                            DType::bf16,
                                            DType::q8_0,
                                            DType::q4_0,
                                            DType::q4_1,
                                            DType::iq4_nl,
                                            DType::q5_0,
                                            DType::q5_1,
                                            DType::f8_e4m3,
                                            DType::f8_e5m2,
                                            DType::nvfp4};

/// Digits with the separators a person types between groups removed.
std::string without_separators(const std::string& text) {
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool separator = (text[i] == ',' || text[i] == '_') && i > 0 && i + 1 < text.size();
    if (!separator) {
      digits += text[i];
    }
  }
  return digits;
}

std::optional<std::int64_t> optional_count(const char* option, const Text& text, std::int64_t low) {
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  if (!text) {
    return std::nullopt;
  }
  return parse_count(option, *text, low, kMost);
}

constexpr std::int64_t kMostRanks = 1024;

std::optional<double> optional_share(const char* option, const Text& text) {
  if (!text) {
    return std::nullopt;
  }
  double value = 0;
  const char* end = text->data() + text->size();
  const auto [last, failure] = std::from_chars(text->data(), end, value);
  if (failure != std::errc{} || last != end || !(value > 0) || value > 1) {
    throw InputError(option, "'" + printable(*text) + "' is no share", "more than 0, at most 1");
  }
  return value;
}

}  // namespace

std::int64_t parse_count(const std::string& option,
                         const std::string& text,
                         std::int64_t low,
                         std::int64_t high) {
  const std::string digits = without_separators(text);
  std::int64_t value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool whole = failure == std::errc{} && end == digits.data() + digits.size();
  if (!whole || value < low || value > high) {
    const std::string range = high == std::numeric_limits<std::int64_t>::max()
                                  ? std::to_string(low) + " or more"
                                  : std::to_string(low) + " to " + std::to_string(high);
    throw InputError(option, "'" + printable(text) + "' is out of range or no whole number", range);
  }
  return value;
}

double parse_share(const std::string& option, const std::string& text, double most) {
  double value = -1.0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = failure == std::errc{} && end == text.data() + text.size();
  if (!whole || !(value >= 0.0 && value <= most)) {
    throw InputError(option, "'" + printable(text) + "' is no share", "0 to " + rounded(most));
  }
  return value;
}

bool parse_on_off(const std::string& option, const std::string& text) {
  const std::string word = lower(text);
  if (word != "on" && word != "off") {
    throw InputError(option, "'" + printable(text) + "' is no switch", "use on or off");
  }
  return word == "on";
}

FlashAttention parse_flash_attention(const std::string& text) {
  const std::string word = lower(text);
  if (word == "auto") {
    return FlashAttention::automatic;
  }
  if (word != "on" && word != "off") {
    throw InputError(
        "--flash-attention", "'" + printable(text) + "' is no setting", "use on, off or auto");
  }
  return word == "on" ? FlashAttention::on : FlashAttention::off;
}

DType parse_cache_type(const std::string& option, const std::string& text) {
  std::string names;
  const std::string word = lower(text) == "fp8" ? "f8_e4m3" : lower(text);
  for (const DType dtype : kCacheTypes) {
    if (word == name(dtype)) {
      return dtype;
    }
    names += names.empty() ? "" : ", ";
    names += name(dtype);
  }
  throw InputError(option, "'" + printable(text) + "' is no cache type", "use one of " + names);
}

EngineSettings settings_of(const EngineOptions& options) {
  EngineSettings settings;
  settings.sequences = optional_count("--sequences", options.sequences, 1).value_or(1);
  settings.batch_tokens = optional_count("--batch-tokens", options.batch_tokens, 1);
  settings.ubatch_tokens = optional_count("--ubatch-tokens", options.ubatch_tokens, 1);
  settings.outputs = optional_count("--outputs", options.outputs, 0);
  if (options.cache_type_k) {
    settings.cache_type_k = parse_cache_type("--cache-type-k", *options.cache_type_k);
  }
  if (options.cache_type_v) {
    settings.cache_type_v = parse_cache_type("--cache-type-v", *options.cache_type_v);
  }
  if (options.flash_attention) {
    settings.flash_attention = parse_flash_attention(*options.flash_attention);
  }
  if (options.kv_unified) {
    settings.kv_unified = parse_on_off("--kv-unified", *options.kv_unified);
  }
  if (options.swa_full) {
    settings.swa_full = parse_on_off("--swa-full", *options.swa_full);
  }
  settings.gpu_memory_utilization =
      optional_share("--gpu-memory-utilization", options.gpu_memory_utilization);
  settings.max_batched_tokens =
      optional_count("--max-batched-tokens", options.max_batched_tokens, 1);
  settings.max_sequences = optional_count("--max-sequences", options.max_sequences, 1);
  settings.block_tokens = optional_count("--block-tokens", options.block_tokens, 1);
  const auto ranks = [](const char* option, const Text& text) {
    return text ? parse_count(option, *text, 1, kMostRanks) : 1;
  };
  settings.tensor_parallel = ranks("--tensor-parallel", options.tensor_parallel);
  settings.pipeline_parallel = ranks("--pipeline-parallel", options.pipeline_parallel);
  settings.data_parallel = ranks("--data-parallel", options.data_parallel);
  settings.expert_parallel = ranks("--expert-parallel", options.expert_parallel);
  settings.engine_version = options.engine_version.value_or("");
  return settings;
}

}  // namespace kvfathom::cli
