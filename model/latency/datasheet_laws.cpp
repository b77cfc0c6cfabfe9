#include "model/latency/datasheet_laws.h"

#include <array>
#include <string_view>
#include <utility>

#include "model/error.h"

namespace kvfathom {
namespace {

// Shares that published measurements reach at the median: bf16 weight reads .73 to .88 of peak and
// large products .64 to .90 on data-centre GPUs, prefill attention .51 to .64 (vLLM tables of
// aiconfigurator); 4-bit reads .35 to .80 (llama.cpp). aiconfigurator itself assumes .8 and 3 us.
constexpr double kReadShare = 0.8;
constexpr double kProductShare = 0.65;
constexpr double kAttentionShare = 0.5;
constexpr double kLinkShare = 0.8;
/// What nvbandwidth reaches of raw PCIe: 26.1 of 31.5 GB/s (4090), 24.8 of 31.5 (A100), 56.4 of 63
/// (5090); and Mooncake of four 400 Gbit/s lines, 164 of 200 GB/s.
constexpr double kPcieShare = 0.83;
constexpr double kPcieLogError = 0.1;
/// Of memory that is not pinned, which the driver copies into a buffer of its own first: 26 of 63
/// GB/s as experts were brought over (RTX 5080, github.com/ollama/ollama/issues/11772). One figure,
/// so with the interval of shares in general.
constexpr double kPageableShare = 26.0 / 63.0;
constexpr Seconds kLaunch{3e-6};
/// A copy call takes 2 to 10 us (cudaMemcpyAsync), a request to a drive 100, to another machine 50.
constexpr Seconds kLinkCall{1e-5};
constexpr Seconds kFileCall{1e-4};
constexpr Seconds kNetworkCall{5e-5};
constexpr double kOverlap = 2.0;
/// Those measurements lie within a factor of 2 of these shares, nine times in ten.
constexpr double kLogError = 0.6;

/// Hosts: a copy of the data reaches about this much of the bus, and a core's products their share.
constexpr BytesPerSecond kUnknownHostBandwidth{75e9};  // two channels of DDR5-4800
constexpr FlopsPerSecond kUnknownHostRate{1e12};       // sixteen cores of AVX2 at 4 GHz

std::optional<FlopsPerSecond> first_of(const HardwareSpec& device,
                                       std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto rate = device.peak_rates.find(name);
    if (rate != device.peak_rates.end() && rate->second.value() > 0.0) {
      return rate->second;
    }
  }
  return std::nullopt;
}

/// Bytes that cross a link for each byte of a message, of one rank: a ring's all-reduce sends
/// 2 (n - 1) / n of it.
double crossings(const OpClass& op_class) {
  if (op_class.kind != OpKind::all_reduce || op_class.heads_per_kv < 2) {
    return 1.0;
  }
  const auto ranks = static_cast<double>(op_class.heads_per_kv);
  return 2.0 * (ranks - 1.0) / ranks;
}

BytesPerSecond link_bandwidth(const HardwareSpec& device, OpKind kind) {
  constexpr BytesPerSecond kNvme{7e9};        // one PCIe 4.0 x4 drive
  constexpr BytesPerSecond kNetwork{12.5e9};  // 100 Gbit/s
  constexpr BytesPerSecond kPcie4{31.5e9};
  if (kind == OpKind::file_read) {
    return kNvme;
  }
  if (kind == OpKind::network_transfer) {
    return kNetwork;
  }
  const BytesPerSecond host = device.host_link ? device.host_link->bandwidth : kPcie4;
  if (kind == OpKind::host_transfer) {
    return device.unified_memory ? device.bandwidth : host;
  }
  return device.peer_link ? device.peer_link->bandwidth : host;
}

Law link_law(const HardwareSpec& device, const OpClass& op_class) {
  // A transfer counts its bytes on both sides; a collective one rank's message.
  const BytesPerSecond raw = link_bandwidth(device, op_class.kind);
  switch (op_class.kind) {
    case OpKind::host_transfer:
      return {.bandwidth =
                  2.0 *
                  (op_class.pageable && !device.unified_memory ? kPageableShare : kPcieShare) *
                  raw};
    case OpKind::network_transfer:
      return {.bandwidth = 2.0 * kPcieShare * raw};
    case OpKind::file_read:
      return {.bandwidth = 2.0 * raw};
    default:
      return {.bandwidth = (kLinkShare / crossings(op_class)) * raw};
  }
}

Seconds link_call(OpKind kind) {
  return kind == OpKind::file_read          ? kFileCall
         : kind == OpKind::network_transfer ? kNetworkCall
                                            : kLinkCall;
}

/// Drives and networks are no part of a device's data sheet.
bool is_known(const HardwareSpec& device, OpKind link) {
  return link != OpKind::file_read && link != OpKind::network_transfer &&
         (device.host_link || device.peer_link || device.unified_memory);
}

}  // namespace

std::optional<FlopsPerSecond> peak_rate(const HardwareSpec& device, DType format) {
  switch (format) {
    case DType::f32:
      return first_of(device, {"tf32", "fp32", "fp16"});
    case DType::f8_e4m3:
    case DType::f8_e5m2:
      return first_of(device, {"fp8", "bf16", "fp16", "fp32"});
    case DType::nvfp4:  // without rates of their own 4-bit floats are widened to 16 bits, not to 8
      return first_of(device, {"fp4", "bf16", "fp16", "fp32"});
    default:
      return first_of(device, {"bf16", "fp16", "fp32"});
  }
}

DatasheetLaws::DatasheetLaws(HardwareSpec device, std::optional<HardwareSpec> host)
    : device_(std::move(device)), host_(std::move(host)) {
  if (device_.bandwidth.value() <= 0.0) {
    throw InputError("--bandwidth",
                     "not known of " + (device_.name.empty() ? "this device" : device_.name),
                     "give --bandwidth, or a device of the catalog");
  }
}

PricedClass DatasheetLaws::law(const OpClass& op_class, bool on_host) const {
  PricedClass priced{.op_class = op_class,
                     .on_host = on_host,
                     .law = {},
                     .log_error = kLogError,
                     .provenance = Provenance::datasheet,
                     .origin = "data sheet"};
  if (is_link(op_class.kind)) {
    priced.law = link_law(device_, op_class);
    priced.launch = link_call(op_class.kind);
    if (!is_known(device_, op_class.kind)) {
      priced.provenance = Provenance::assumed;
      priced.origin = "assumed link";
    } else if (op_class.kind == OpKind::host_transfer && device_.host_link && !op_class.pageable) {
      priced.log_error = kPcieLogError;
    }
    return priced;
  }
  const HardwareSpec& spec = on_host && host_ ? *host_ : device_;
  const double rate_share = is_attention(op_class.kind) ? kAttentionShare : kProductShare;
  priced.launch = kLaunch;
  priced.law.bandwidth = kReadShare * (on_host && !host_ ? kUnknownHostBandwidth : spec.bandwidth);
  const auto rate = on_host && !host_ ? std::nullopt : peak_rate(spec, op_class.format);
  if (on_host && !rate) {
    priced.law.flops = rate_share * kUnknownHostRate;
  } else if (rate) {
    priced.law.flops = rate_share * *rate;
  }
  priced.law.p = kOverlap;
  if (on_host && (!host_ || !rate)) {
    priced.provenance = Provenance::assumed;
    priced.origin = "assumed host";
  }
  return priced;
}

EngineGaps DatasheetLaws::gaps() const {
  return {.per_step = Seconds(1e-3), .per_layer = {}};
}

std::int64_t DatasheetLaws::n_units() const {
  return device_.n_compute_units.value_or(0);
}

}  // namespace kvfathom
