#include "model/latency/scaled_calibration.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "model/latency/datasheet_laws.h"
#include "model/latency/op.h"

namespace kvfathom {
namespace {

bool is_collective(const KernelClass& id) {
  return id.op == name(OpKind::all_reduce) || id.op == name(OpKind::all_to_all) ||
         id.op == "all_gather" || id.op == "reduce_scatter";
}

/// In what a class multiplies: integers and mxfp4 are unpacked to 16-bit floats.
DType multiplied(std::string_view format) {
  return format.starts_with("fp8") ? DType::f8_e4m3
         : format == "nvfp4"       ? DType::nvfp4
                                   : DType::bf16;
}

std::optional<double> ratio_of_rates(const HardwareSpec& from,
                                     const HardwareSpec& to,
                                     std::string_view format) {
  const auto rate = [&](const HardwareSpec& device) {
    return peak_rate(device, multiplied(format));
  };
  return rate(from) && rate(to) ? std::optional(*rate(to) / *rate(from)) : std::nullopt;
}

std::optional<double> ratio_of_links(const HardwareSpec& from, const HardwareSpec& to) {
  return from.peer_link && to.peer_link
             ? std::optional(to.peer_link->bandwidth / from.peer_link->bandwidth)
             : std::nullopt;
}

/// Whether the class could be scaled.
bool scale(FittedClass& fitted, const HardwareSpec& from, const HardwareSpec& to) {
  const bool collective = is_collective(fitted.id);
  const auto of_bytes =
      collective ? ratio_of_links(from, to) : std::optional(to.bandwidth / from.bandwidth);
  const auto of_flops = ratio_of_rates(from, to, fitted.id.format);
  Law& law = fitted.law;
  if ((law.bandwidth && !of_bytes) || (law.flops && !of_flops)) {
    return false;
  }
  if (law.bandwidth) {
    law.bandwidth = *of_bytes * *law.bandwidth;
  }
  if (law.flops) {
    law.flops = *of_flops * *law.flops;
  }
  if (law.dequant_ops_per_s && of_flops) {
    law.dequant_ops_per_s = *of_flops * *law.dequant_ops_per_s;
  }
  fitted.provenance = worst(fitted.provenance, Provenance::modelled);
  return true;
}

}  // namespace

Calibration scaled(Calibration calibration, const HardwareSpec& from, const HardwareSpec& to) {
  std::erase_if(calibration.classes, [&](FittedClass& fitted) { return !scale(fitted, from, to); });
  calibration.device_name += ", scaled to " + to.name;
  calibration.device_id = to.id;
  calibration.n_compute_units = to.n_compute_units;
  return calibration;
}

}  // namespace kvfathom
