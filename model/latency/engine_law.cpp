#include "model/latency/engine_law.h"

#include <algorithm>
#include <array>
#include <utility>

#include "model/error.h"

namespace kvfathom {
namespace {

/// Of the data sheet, below and above which no fit is believed.
constexpr double kLeastShare = 0.05;
constexpr double kMostShare = 1.0;

struct NamedClass {
  std::string_view architecture;
  std::string_view name;
};
constexpr std::array<NamedClass, 22> kClasses{{{"Turing", "turing"},
                                               {"Volta", "volta"},
                                               {"Ampere GA100", "ampere-datacentre"},
                                               {"Ampere GA10B", "orin"},
                                               {"Ampere GA10x", "ampere"},
                                               {"Ada Lovelace", "ada"},
                                               {"Hopper", "hopper"},
                                               {"Blackwell GB100", "blackwell-datacentre"},
                                               {"Blackwell GB10B", "thor"},
                                               {"Blackwell GB20x", "blackwell"},
                                               {"RDNA2", "rdna2"},
                                               {"RDNA3", "rdna3"},
                                               {"RDNA3.5", "strix-halo"},
                                               {"RDNA4", "rdna4"},
                                               {"CDNA1", "cdna1"},
                                               {"CDNA2", "cdna2"},
                                               {"CDNA3", "cdna3"},
                                               {"CDNA4", "cdna4"},
                                               {"Xe-HPG", "xe"},
                                               {"Xe2-HPG", "xe2"},
                                               {"Xe-HPC", "xe-hpc"},
                                               {"Gaudi", "gaudi"}}};

/// The rate at which the engine multiplies. llama.cpp multiplies quantised weights in int8, where
/// the device has it, and f16 with f16 sums (ggml-cuda mmq.cu and its cuBLAS calls, b7948).
std::optional<FlopsPerSecond> engine_rate(const HardwareSpec& device,
                                          DType format,
                                          std::string_view engine) {
  if (engine == "llama.cpp") {
    const std::string_view group = format_class(format);
    const char* own = group == "16-bit" ? "fp16_fp16acc" : "int8";
    if (const auto rate = device.peak_rates.find(own); rate != device.peak_rates.end()) {
      return rate->second;
    }
    return peak_rate(device, DType::bf16);
  }
  return peak_rate(device, format);
}

/// What the engine's makers run on a vendor's GPUs; empty: nothing that the rows know.
std::string_view own_backend(const HardwareSpec& device) {
  const std::string_view vendor = device.kind == "cpu" ? "" : std::string_view(device.vendor);
  return vendor == "nvidia"  ? "cuda"
         : vendor == "amd"   ? "rocm"
         : vendor == "apple" ? "metal"
         : vendor == "intel" ? "vulkan"
                             : "";
}

/// Of a class, that say something of it.
constexpr std::int64_t kEnoughRows = 30;

/// Held-out rows lie within this: those of the class, if there are enough, else those of all
/// classes where this one was seen, else those of classes that were held out as a whole.
double log_error_of(const EngineSpeed& speed, Phase phase, const std::string& device) {
  constexpr double kUnknown = 0.7;  // a factor of 2, as of shares of data sheets in general
  double of_known = 0.0;
  double of_unknown = kUnknown;
  bool known = false;
  for (const EngineError& error : speed.errors) {
    if (error.phase != phase) {
      continue;
    }
    const bool own = error.device_known && error.device_class == device;
    if (own && error.n >= kEnoughRows) {
      return error.log_error;
    }
    known = known || own;
    if (error.device_class == "all") {
      (error.device_known ? of_known : of_unknown) = error.log_error;
    }
  }
  return known ? of_known : of_unknown;
}

}  // namespace

std::string device_class(const HardwareSpec& device) {
  if (device.vendor == "apple") {
    return device.id.substr(0, device.id.find('-'));  // m1, m2, ...
  }
  if (device.compute_capability == "12.1") {
    return "gb10";
  }
  const auto* const known =
      std::ranges::find(kClasses, std::string_view(device.architecture), &NamedClass::architecture);
  return known == kClasses.end() ? "" : std::string(known->name);
}

std::string_view format_class(DType format) {
  switch (format) {
    case DType::f8_e4m3:
    case DType::f8_e5m2:
      return "fp8";
    case DType::nvfp4:
    case DType::mxfp4:
      return "fp4";
    case DType::q8_0:
    case DType::q8_1:
    case DType::q8_k:
    case DType::i8:
    case DType::u8:
      return "8-bit";
    case DType::q4_k:
    case DType::q5_k:
    case DType::q6_k:
      return "4-bit k";
    case DType::q4_0:
    case DType::q4_1:
    case DType::q5_0:
    case DType::q5_1:
    case DType::iq4_nl:
    case DType::iq4_xs:
    case DType::i32:  // packed four-bit integers of serving checkpoints
      return "4-bit";
    case DType::f64:
    case DType::f32:
    case DType::f16:
    case DType::bf16:
      return "16-bit";
    default:
      return "below 4-bit";
  }
}

std::string_view format_class(const OpClass& op_class) {
  const std::string_view own = format_class(op_class.format);
  return op_class.kind == OpKind::decode_attention && own == "fp8" ? "8-bit" : own;
}

EngineLaws::EngineLaws(const EngineSpeed& speed, HardwareSpec device, EngineRun run)
    : speed_(&speed), device_(std::move(device)), datasheet_(device_), run_(std::move(run)) {
  const std::string named = device_.name.empty() ? "this device" : device_.name;
  if (run_.phase == Phase::prefill && !peak_rate(device_, DType::bf16)) {
    throw Unsupported(named, "its data sheet names no peak rate, so no prompt can be priced", "");
  }
  if (run_.backend.empty()) {
    run_.backend = own_backend(device_);
  }
  const std::string own = device_class(device_);
  for (const std::string& feature : {own, device_.vendor, run_.backend}) {
    if (!feature.empty()) {
      features_.push_back(feature);
    }
  }
  if (!run_.flash_attention) {
    features_.emplace_back("no flash attention");
  }
  log_error_ = log_error_of(speed, run_.phase, own);
  knows_device_ = std::ranges::any_of(speed.errors, [&](const EngineError& error) {
    return error.device_known && error.device_class == own && error.n >= kEnoughRows;
  });
}

bool EngineLaws::has_feature(std::string_view feature) const {
  return std::ranges::find(features_, feature) != features_.end();
}

double EngineLaws::value(std::string_view quantity,
                         std::string_view format,
                         std::string_view kind) const {
  double product = 1.0;
  for (const EngineParameter& parameter : speed_->parameters) {
    const std::string_view name = parameter.name;
    if (!name.starts_with(quantity)) {
      continue;
    }
    const std::string_view tail = name.substr(quantity.size());
    if (tail.empty()) {
      product *= parameter.value;
    } else if (tail.front() == '/') {
      const std::string_view feature = tail.substr(1);
      const bool of_both = !format.empty() && !run_.backend.empty() &&
                           feature.size() == run_.backend.size() + 1 + format.size() &&
                           feature.starts_with(run_.backend) && feature.ends_with(format);
      const bool applies = of_both || feature == format || feature == kind || has_feature(feature);
      product *= applies ? parameter.value : 1.0;
    }
  }
  return product;
}

double EngineLaws::share(std::string_view quantity,
                         std::string_view format,
                         std::string_view kind) const {
  return std::clamp(value(quantity, format, kind), kLeastShare, kMostShare);
}

PricedClass EngineLaws::law(const OpClass& op_class, bool on_host) const {
  // Work left on the host and links to slower tiers have no rows: the data sheet's law stands.
  PricedClass priced = datasheet_.law(op_class, on_host);
  const OpKind kind = op_class.kind;
  const bool is_of_tier = kind == OpKind::host_transfer || kind == OpKind::file_read ||
                          kind == OpKind::network_transfer;
  if (on_host || is_of_tier) {
    return priced;
  }
  priced.log_error = 0.0;  // the step's error is known, not its parts': gaps()
  priced.provenance = speed_->provenance;
  priced.origin = speed_->provenance == Provenance::assumed
                      ? "data sheet, at assumed shares"
                      : "data sheet, at shares fitted to the engine";
  Law& law = priced.law;
  if (is_link(kind)) {
    priced.launch = Seconds(value("link call"));
    law.bandwidth = value("link") * *law.bandwidth;
    return priced;
  }
  priced.launch = Seconds(value("launch"));
  law.p = 1.0 + value("overlap");
  if (kind == OpKind::gemm || kind == OpKind::moe_ffn) {
    const std::string_view format = format_class(op_class.format);
    const std::string_view experts = kind == OpKind::moe_ffn ? "experts" : "";
    law.bandwidth = share("read", format, experts) * device_.bandwidth;
    if (const auto rate = engine_rate(device_, op_class.format, speed_->engine)) {
      law.flops = share("rate", format, experts) * *rate;
    }
  } else if (is_attention(kind) || kind == OpKind::state_update || kind == OpKind::index_scores) {
    const std::string_view latent = kind == OpKind::mla_decode ? "latent" : "";
    law.bandwidth = share("cache", format_class(op_class), latent) * device_.bandwidth;
    if (const auto rate = peak_rate(device_, DType::bf16)) {
      law.flops = share("attention", {}, latent) * *rate;
    }
  }
  return priced;
}

EngineGaps EngineLaws::gaps() const {
  return {.per_step = Seconds(value("step gap")),
          .per_layer = Seconds(value("layer gap")),
          .log_error = log_error_};
}

}  // namespace kvfathom
