#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "calibrate/fit/table.h"
#include "model/latency/kernel_work.h"
#include "model/ops/gemm.h"
#include "model/ops/moe_ffn.h"

namespace kvfathom {
namespace {

/// What one row of a table is, or nothing for a row that is left out.
struct Row {
  KernelClass id;
  Work work;
};

struct Format {
  const char* spelling;  ///< in the tables
  const char* name;      ///< in a class
  DType dtype;
  const char* rate;  ///< of the hardware file: the type that is multiplied
};
/// Weights of 4 bits that are multiplied as 16-bit numbers are bounded by the 16-bit rate.
constexpr std::array<Format, 8> kFormats{{
    {"bfloat16", "bf16", DType::bf16, "bf16"},
    {"half", "f16", DType::f16, "fp16"},
    {"fp8", "fp8", DType::f8_e4m3, "fp8"},
    {"fp8_block", "fp8_block", DType::f8_e4m3, "fp8"},
    {"nvfp4", "nvfp4", DType::nvfp4, "fp4"},
    {"int4_wo", "int4", DType::q4_0, "bf16"},
    {"w4a16_mxfp4", "mxfp4", DType::mxfp4, "bf16"},
    {"w4a8_mxfp4_mxfp8", "mxfp4_fp8", DType::mxfp4, "fp8"},
}};

const Format* format_named(const std::string& spelling) {
  const auto* const found = std::find_if(
      kFormats.begin(), kFormats.end(), [&](const Format& f) { return spelling == f.spelling; });
  return found == kFormats.end() ? nullptr : found;
}

std::optional<std::int64_t> window_of(const Table& table, std::size_t row) {
  return table.has("window_size") ? table.count(row, "window_size") : 0;
}

/// Attention of fewer than 128 tokens is all fixed cost; more than 16 heads a KV head are other
/// kernels.
constexpr std::int64_t kLeastTokens = 128;
constexpr std::int64_t kMostHeadsPerKv = 16;

std::optional<Row> generation_attention(const Table& table, std::size_t row, std::int64_t n_units) {
  const Format* const format = format_named(table.text(row, "kv_cache_dtype"));
  DecodeAttentionShape shape;
  shape.n_heads = table.count(row, "num_heads");
  shape.n_kv_heads = table.count(row, "num_key_value_heads");
  shape.head_dim = table.count(row, "head_dim");
  shape.n_sequences = table.count(row, "batch_size");
  shape.lengths = {table.count(row, "step") + 1};
  shape.window_tokens = window_of(table, row).value_or(0);
  const std::int64_t group = shape.n_heads / std::max<std::int64_t>(1, shape.n_kv_heads);
  if (format == nullptr || shape.lengths[0] < kLeastTokens || group > kMostHeadsPerKv) {
    return std::nullopt;
  }
  shape.row_bytes = row_bytes(format->dtype, shape.head_dim);
  shape.heads_per_pass = kMostHeadsPerKv;
  return Row{{.op = "decode_attention",
              .format = format->name,
              .head_dim = shape.head_dim,
              .group = {},
              .variant = shape.window_tokens > 0 ? "window" : ""},
             decode_attention_work(shape, n_units)};
}

std::optional<Row> context_attention(const Table& table, std::size_t row, std::int64_t n_units) {
  const Format* const format = format_named(table.text(row, "kv_cache_dtype"));
  PrefillAttentionShape shape;
  shape.n_query_tokens = table.count(row, "isl");
  shape.n_cached_tokens = shape.n_query_tokens + table.count(row, "step");
  shape.n_heads = static_cast<int>(table.count(row, "num_heads"));
  shape.n_kv_heads = static_cast<int>(table.count(row, "num_key_value_heads"));
  shape.head_dim = static_cast<int>(table.count(row, "head_dim"));
  shape.window_tokens = static_cast<int>(window_of(table, row).value_or(0));
  if (format == nullptr || shape.n_query_tokens < kLeastTokens) {
    return std::nullopt;
  }
  return Row{{.op = "prefill_attention",
              .format = format->name,
              .head_dim = shape.head_dim,
              .group = {},
              .variant = shape.window_tokens > 0 ? "window" : ""},
             prefill_attention_work(shape, table.count(row, "batch_size"), n_units)};
}

/// Keys of 192 and values of 128: two products of 160 on average. Every head has its own rows.
std::optional<Row> context_mla(const Table& table, std::size_t row, std::int64_t n_units) {
  const Format* const format = format_named(table.text(row, "kv_cache_dtype"));
  PrefillAttentionShape shape;
  shape.n_query_tokens = table.count(row, "isl");
  shape.n_cached_tokens = shape.n_query_tokens + table.count(row, "step");
  shape.n_heads = static_cast<int>(table.count(row, "num_heads"));
  shape.n_kv_heads = shape.n_heads;
  shape.head_dim = 160;
  if (format == nullptr || shape.n_query_tokens < kLeastTokens) {
    return std::nullopt;
  }
  return Row{{.op = "prefill_attention",
              .format = format->name,
              .head_dim = 192,
              .group = {},
              .variant = "mla"},
             prefill_attention_work(shape, table.count(row, "batch_size"), n_units)};
}

/// DeepSeek-V3's latent: 512 and 64.
std::optional<Row> generation_mla(const Table& table, std::size_t row, std::int64_t n_units) {
  const Format* const format = format_named(table.text(row, "kv_cache_dtype"));
  const std::int64_t n_tokens = table.count(row, "step") + 1;
  if (format == nullptr || n_tokens < kLeastTokens) {
    return std::nullopt;
  }
  const std::int64_t n_sequences = table.count(row, "batch_size");
  const MlaDecodeShape shape{.n_sequences = n_sequences,
                             .n_cached_tokens = n_sequences * n_tokens,
                             .n_heads = static_cast<int>(table.count(row, "num_heads")),
                             .kv_lora_rank = 512,
                             .qk_rope_head_dim = 64,
                             .fp8_latent = format->dtype == DType::f8_e4m3};
  return Row{
      {.op = "mla_decode", .format = format->name, .head_dim = {}, .group = {}, .variant = ""},
      mla_decode_work(shape, n_units)};
}

std::optional<Row> gemm(const Table& table, std::size_t row, std::int64_t /*n_units*/) {
  const Format* const format = format_named(table.text(row, "gemm_dtype"));
  const std::int64_t k = table.count(row, "k");
  if (format == nullptr || k % info(format->dtype).block_elements != 0) {
    return std::nullopt;
  }
  const GemmShape shape{
      .m = table.count(row, "m"), .n = table.count(row, "n"), .k = k, .weights = format->dtype};
  return Row{{.op = "gemm", .format = format->name, .head_dim = {}, .group = {}, .variant = ""},
             work_of(gemm_cost(shape))};
}

double active_experts(const MoeFfnShape& shape, const std::string& distribution) {
  constexpr std::string_view kPowerLaw = "power_law_";
  if (distribution.starts_with(kPowerLaw)) {
    return power_law_active_experts(shape.n_tokens,
                                    shape.n_experts,
                                    shape.n_chosen,
                                    std::stod(distribution.substr(kPowerLaw.size())));
  }
  return static_cast<double>(std::min(shape.n_experts, shape.n_tokens * shape.n_chosen));
}

/// Experts that are spread over ranks are left out: which rank's load was timed, the table says
/// not.
std::optional<Row> moe(const Table& table, std::size_t row, std::int64_t /*n_units*/) {
  const Format* const format = format_named(table.text(row, "moe_dtype"));
  const std::int64_t inner = table.count(row, "inter_size") / table.count(row, "moe_tp_size");
  const std::int64_t hidden = table.count(row, "hidden_size");
  if (format == nullptr || table.count(row, "moe_ep_size") != 1 ||
      inner % info(format->dtype).block_elements != 0 ||
      hidden % info(format->dtype).block_elements != 0) {
    return std::nullopt;
  }
  MoeFfnShape shape{.n_tokens = table.count(row, "num_tokens"),
                    .hidden_size = hidden,
                    .intermediate_size = inner,
                    .n_experts = table.count(row, "num_experts"),
                    .n_chosen = table.count(row, "topk"),
                    .weights = format->dtype};
  shape.n_active_experts = active_experts(shape, table.text(row, "distribution"));
  return Row{{.op = "moe_ffn", .format = format->name, .head_dim = {}, .group = {}, .variant = ""},
             work_of(moe_ffn_cost(shape))};
}

/// Bytes of a collective are those of one rank's message; the tables count it in 16-bit elements.
Work message(const Table& table, std::size_t row) {
  return Work{.bytes = Bytes(2.0 * table.number(row, "message_size"))};
}

std::optional<Row> custom_allreduce(const Table& table, std::size_t row, std::int64_t /*n_units*/) {
  const bool eager = table.text(row, "kernel_source") == "vLLM_custom_eager";
  return Row{{.op = "all_reduce",
              .format = "bf16",
              .head_dim = {},
              .group = table.count(row, "num_gpus"),
              .variant = eager ? "eager" : ""},
             message(table, row)};
}

std::optional<Row> nccl(const Table& table, std::size_t row, std::int64_t /*n_units*/) {
  if (table.text(row, "nccl_dtype") != "half") {
    return std::nullopt;
  }
  const std::string& op = table.text(row, "op_name");
  return Row{{.op = op == "alltoall" ? "all_to_all" : op,
              .format = "bf16",
              .head_dim = {},
              .group = table.count(row, "num_gpus"),
              .variant = ""},
             message(table, row)};
}

struct Kind {
  std::string_view name;
  std::optional<Row> (*row)(const Table&, std::size_t, std::int64_t);
  FitTerms terms;
  bool capped;     ///< by the data sheet's rates
  bool host_time;  ///< about 100 us of it are in every row
  /// The engine chooses the kernel by the shape, so that all of them together are the class.
  bool mixes_kernels = false;
};
constexpr FitTerms kDecode{.fixed = true, .wave = true, .bandwidth = true};
constexpr FitTerms kProduct{.fixed = true, .bandwidth = true, .flops = true, .p = true};
constexpr FitTerms kMessage{.fixed = true, .bandwidth = true};
constexpr std::array<Kind, 8> kKinds{{
    {"generation_attention", generation_attention, kDecode, true, false},
    {"context_attention", context_attention, kProduct, true, false},
    {"generation_mla", generation_mla, kProduct, true, true},
    {"context_mla", context_mla, kProduct, true, true},
    {"gemm", gemm, kProduct, true, false, true},
    {"moe", moe, kProduct, true, false},
    {"custom_allreduce", custom_allreduce, kMessage, false, false},
    {"nccl", nccl, kMessage, false, false},
}};

FitSettings settings_of(const Kind& kind, const KernelClass& id, const HardwareSpec& device) {
  FitSettings settings{.terms = kind.terms, .holdout_share = 0.1};
  if (!kind.capped) {
    settings.holdout_share = 0.0;  // some twenty points: none to spare
    return settings;
  }
  if (device.bandwidth > BytesPerSecond(0)) {
    settings.max_bandwidth = device.bandwidth;
  }
  const bool attention = id.op.find("attention") != std::string::npos || id.op == "mla_decode";
  const auto* const format = std::find_if(
      kFormats.begin(), kFormats.end(), [&](const Format& f) { return id.format == f.name; });
  const auto rate = device.peak_rates.find(attention ? "bf16" : format->rate);
  if (rate != device.peak_rates.end()) {
    settings.max_flops = rate->second;
  }
  return settings;
}

}  // namespace

double power_law_active_experts(std::int64_t n_tokens,
                                std::int64_t n_experts,
                                std::int64_t n_chosen,
                                double alpha) {
  const auto choices = static_cast<double>(n_tokens * n_chosen);
  const bool many = n_tokens * n_chosen > n_experts;
  const double from = std::pow(many ? 1.0 : 0.01, 1.0 - alpha);
  const double to = std::pow(many ? 0.8 * static_cast<double>(n_tokens) : 2.0, 1.0 - alpha);
  std::vector<double> loads;
  double sum = 0.0;
  for (std::int64_t i = 0; i < n_experts; ++i) {
    const double share = (static_cast<double>(i) + 0.5) / static_cast<double>(n_experts);
    loads.push_back(std::pow(from + (to - from) * share, 1.0 / (1.0 - alpha)));
    sum += loads.back();
  }
  std::int64_t active = 0;
  double placed = 0.0;
  for (const double load : loads) {
    const double rounded =
        std::min(std::round(load * choices / sum), static_cast<double>(n_tokens));
    active += rounded >= 1.0 ? 1 : 0;
    placed += rounded;
  }
  const double left = std::max(0.0, choices - placed);
  return std::min(static_cast<double>(n_experts), static_cast<double>(active) + left);
}

std::vector<ClassPoints> classes_of(std::string_view kind_name,
                                    const Table& table,
                                    const HardwareSpec& device) {
  const auto* const kind = std::find_if(
      kKinds.begin(), kKinds.end(), [&](const Kind& known) { return known.name == kind_name; });
  if (kind == kKinds.end()) {
    return {};
  }
  std::map<std::string, std::map<std::string, ClassPoints>> classes;  // by id, by kernel
  for (std::size_t row = 0; row < table.size(); ++row) {
    std::optional<Row> found = kind->row(table, row, device.n_compute_units.value_or(1));
    if (found) {
      const std::string kernel =
          kind->mixes_kernels ? "the engine's choice by shape" : table.text(row, "kernel_source");
      ClassPoints& points = classes[text_of(found->id)][kernel];
      points.id = std::move(found->id);
      points.kernel = kernel;
      points.points.push_back({found->work, Seconds(1e-3 * table.number(row, "latency"))});
    }
  }
  std::vector<ClassPoints> result;
  for (auto& [text, kernels] : classes) {
    auto most = std::max_element(kernels.begin(), kernels.end(), [](const auto& a, const auto& b) {
      return a.second.points.size() < b.second.points.size();
    });
    most->second.settings = settings_of(*kind, most->second.id, device);
    // A product scaled block by block was timed with its host: the smallest takes 60 us and more,
    // where one scaled as a whole takes 5.
    most->second.host_time = kind->host_time || text == "gemm/fp8_block";
    result.push_back(std::move(most->second));
  }
  return result;
}

}  // namespace kvfathom
