#include "cli/device_shares.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "model/engine/llama_cpp/placement.h"
#include "model/engine/llama_cpp/weights.h"
#include "model/error.h"
#include "model/latency/datasheet_laws.h"

namespace kvfathom::cli {
namespace {

void add(std::vector<DeviceShare>& all, const HardwareSpec& device, double share) {
  const auto same = std::ranges::find_if(
      all, [&](const DeviceShare& one) { return one.device.name == device.name; });
  if (same != all.end()) {
    same->share += share;
  } else if (share > 0.0) {
    all.push_back({device, share});
  }
}

/// Layers of llama.cpp on each GPU, the output head counted as one.
std::vector<DeviceShare> layers_on_gpus(const Query& query) {
  const llama_cpp::LayerPlaces places = llama_cpp::layer_places(
      query.model.spec, query.model.spec.tensors, llama_cpp::split_of(query.settings));
  const auto on_gpus = std::ranges::count_if(places.devices, [](int gpu) { return gpu >= 0; });
  if (on_gpus == 0) {
    return {{query.machine.devices.front(), 1.0}};
  }
  std::vector<DeviceShare> all;
  for (std::size_t gpu = 0; gpu < query.machine.devices.size(); ++gpu) {
    const auto n = std::ranges::count(places.devices, static_cast<int>(gpu));
    add(all, query.machine.devices[gpu], static_cast<double>(n) / static_cast<double>(on_gpus));
  }
  return all;
}

/// Devices of one replica: of each stage the slowest, with the stage's share of the layers.
std::vector<DeviceShare> stages_of(std::span<const HardwareSpec> devices,
                                   std::size_t n_ranks,
                                   bool by_memory) {
  std::vector<const HardwareSpec*> slowest;
  std::vector<double> weights;
  for (std::size_t first = 0; first + n_ranks <= devices.size(); first += n_ranks) {
    const auto ranks = devices.subspan(first, n_ranks);
    slowest.push_back(&*std::ranges::min_element(ranks, {}, &HardwareSpec::bandwidth));
    const auto least = std::ranges::min_element(ranks, {}, &HardwareSpec::memory_bytes);
    weights.push_back(by_memory ? static_cast<double>(least->memory_bytes) : 1.0);
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<DeviceShare> all;
  for (std::size_t i = 0; i < slowest.size(); ++i) {
    add(all, *slowest[i], weights[i] / sum);
  }
  return all;
}

/// Seconds that a byte of every layer takes to read.
double slowness(const std::vector<DeviceShare>& all) {
  double sum = 0.0;
  for (const DeviceShare& one : all) {
    sum += one.share / one.device.bandwidth.value();
  }
  return sum;
}

}  // namespace

bool runs_on_host(const Machine& machine) {
  return machine.n_gpus == 0 && !machine.devices.empty() &&
         !machine.devices.front().vendor.empty() && machine.devices.front().kind != "cpu";
}

std::vector<DeviceShare> device_shares(const Query& query) {
  const std::vector<HardwareSpec>& devices = query.machine.devices;
  if (devices.empty()) {
    throw InputError("--gpu", "missing", "give --gpu NAME, or --memory with its bandwidth");
  }
  if (runs_on_host(query.machine)) {
    if (!query.machine.host) {
      throw InputError("--gpus",
                       "0: everything runs on the host, whose bandwidth is not known",
                       "give --host-bandwidth RATE, or a CPU of the catalog as --gpu");
    }
    return {{*query.machine.host, 1.0}};
  }
  const bool alike = std::ranges::all_of(
      devices, [&](const HardwareSpec& one) { return one.name == devices.front().name; });
  if (alike || query.machine.n_gpus == 0) {
    return {{devices.front(), 1.0}};
  }
  if (query.engine->name == "llama.cpp") {
    return layers_on_gpus(query);
  }
  const auto n_ranks = static_cast<std::size_t>(query.settings.tensor_parallel);
  const auto n_replicas = static_cast<std::size_t>(query.settings.data_parallel);
  const std::size_t n_each = std::max(n_ranks, devices.size() / n_replicas);
  std::vector<DeviceShare> slowest;
  for (std::size_t first = 0; first + n_each <= devices.size(); first += n_each) {
    std::vector<DeviceShare> replica =
        stages_of(std::span(devices).subspan(first, n_each), n_ranks, is_formula(*query.engine));
    if (slowest.empty() || slowness(replica) > slowness(slowest)) {
      slowest = std::move(replica);
    }
  }
  return slowest;
}

bool knows_peak_rates(const Query& query) {
  return std::ranges::all_of(device_shares(query), [](const DeviceShare& one) {
    return peak_rate(one.device, DType::bf16).has_value();
  });
}

}  // namespace kvfathom::cli
