#include "cli/smallest_gpu.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "cli/commands.h"
#include "cli/data_dir.h"
#include "cli/format.h"
#include "cli/json_writer.h"
#include "cli/nearest.h"
#include "cli/quality.h"
#include "cli/values.h"
#include "model/error.h"
#include "model/io/hardware_json.h"

namespace kvfathom::cli {
namespace {

constexpr std::int64_t kMostTokens = (std::int64_t{1} << 31) - 1;
constexpr std::array<int, 4> kCounts{1, 2, 4, 8};
constexpr std::size_t kNext = 4;

/// Ledgers of one query over many machines. Two machines share one where the engine cannot tell
/// them apart: only serving engines ask how large a device is.
class Ledgers {
 public:
  Ledgers(Query& query, const CacheCase& cache_case, std::int64_t context_tokens)
      : query_(query), cache_case_(cache_case), context_tokens_(context_tokens) {}

  /// Null where the engine refuses so many devices.
  const MemoryReport* on_machine_at_hand() {
    const EngineSettings& settings = query_.settings;
    const bool asks = loads_checkpoints(*query_.engine);
    const Key key{settings.n_gpus,
                  query_.machine.rules().host_shares_memory,
                  asks ? settings.device_memory_bytes : 0,
                  asks ? settings.device_name : ""};
    const auto known = reports_.find(key);
    if (known != reports_.end()) {
      return known->second.get();
    }
    return reports_.emplace(key, evaluated()).first->second.get();
  }

  /// Why so many devices are refused: the first reason; by count.
  [[nodiscard]] const std::map<int, std::string>& refusals() const { return refusals_; }

 private:
  using Key = std::tuple<int, bool, std::int64_t, std::string>;

  std::unique_ptr<MemoryReport> evaluated() {
    try {
      return std::make_unique<MemoryReport>(
          plan_of(query_, cache_case_)->evaluate(context_tokens_));
    } catch (const Error& error) {
      refusals_.emplace(query_.settings.n_gpus, error.what());
      if (query_.settings.n_gpus == 1 && error.exit_code() == 2) {
        throw;  // a setting that no machine makes right
      }
      return nullptr;
    }
  }

  Query& query_;
  const CacheCase& cache_case_;
  std::int64_t context_tokens_;
  std::map<Key, std::unique_ptr<MemoryReport>> reports_;
  std::map<int, std::string> refusals_;
};

/// GPUs and machines whose GPU shares the host's memory, of the vendor asked for.
std::vector<HardwareSpec> catalog_gpus(const EngineInfo& engine, const Text& vendor) {
  std::vector<HardwareSpec> devices = list_hardware(data_directory());
  std::erase_if(devices, [&](const HardwareSpec& device) {
    return (device.kind != "gpu" && device.kind != "apu") || !runs_on(engine, device);
  });
  if (vendor) {
    std::set<std::string> vendors;
    for (const HardwareSpec& device : devices) {
      vendors.insert(device.vendor);
    }
    std::erase_if(devices,
                  [&](const HardwareSpec& device) { return device.vendor != lower(*vendor); });
    if (devices.empty()) {
      throw InputError(
          "--vendor",
          "'" + printable(*vendor) + "' makes no GPU of the catalog that the engine runs on",
          "use one of " + joined({vendors.begin(), vendors.end()}));
    }
  }
  return devices;
}

std::int64_t left_on(Device device, const MemoryLedger& ledger, const Machine& machine) {
  for (const Capacity& capacity : machine.capacities) {
    if (capacity.device == device) {
      return capacity.bytes - held(ledger, capacity).high_bytes;
    }
  }
  return 0;
}

void require_no_machine(const Options& options) {
  const GpuOptions& gpu = options.gpu;
  const EngineOptions& engine = options.engine;
  const std::array<std::pair<const char*, bool>, 11> looked_for{
      {{"--gpu", gpu.gpu.has_value()},
       {"--gpus", gpu.gpus.has_value()},
       {"--memory", gpu.memory.has_value()},
       {"--host-memory", gpu.host_memory.has_value()},
       {"--auto", engine.auto_placement},
       {"--tensor-parallel", engine.tensor_parallel.has_value()},
       {"--pipeline-parallel", engine.pipeline_parallel.has_value()},
       {"--data-parallel", engine.data_parallel.has_value()},
       {"--expert-parallel", engine.expert_parallel.has_value()},
       {"--users", options.users},
       {"--best-quant", options.best_quant}}};
  for (const auto& [option, given] : looked_for) {
    if (given) {
      throw InputError(option, "given together with --smallest-gpu", "leave one of them out");
    }
  }
  if (!engine.context) {
    throw InputError("--smallest-gpu", "--context is missing", "give the tokens: --context N");
  }
}

GpuSearch searched(Query& query,
                   const Options& options,
                   const std::vector<HardwareSpec>& devices,
                   Ledgers& ledgers,
                   GpuSearch search) {
  const std::int64_t most = options.max_gpus
                                ? parse_count("--max-gpus", *options.max_gpus, 1, kCounts.back())
                                : kCounts.back();
  std::vector<MachineOffer> offers;
  for (const HardwareSpec& device : devices) {
    for (const int n : kCounts) {
      if (n > most || (n > 1 && device.unified_memory)) {
        break;
      }
      place_on(query, device, n);
      const MemoryReport* report = ledgers.on_machine_at_hand();
      if (report == nullptr) {
        continue;
      }
      const Device fullest = fullest_device(report->ledger, query.machine);
      const std::int64_t left = left_on(fullest, report->ledger, query.machine);
      search.offers.push_back({&device, n, report, left});
      offers.push_back({.bytes = query.machine.capacities.front().bytes * n,
                        .n_devices = n,
                        .bandwidth = device.bandwidth,
                        .name = device.name,
                        .fits = fits(report->ledger, query.machine.capacities)});
    }
  }
  if (offers.empty()) {
    throw Unsupported(
        "--smallest-gpu", "the engine refuses it: " + ledgers.refusals().begin()->second, "");
  }
  for (const auto& [n, reason] : ledgers.refusals()) {
    if (std::ranges::find(search.offers, n, &GpuOffer::n_gpus) == search.offers.end()) {
      search.refused.push_back({n, reason});
    }
  }
  search.found = smallest_machine(offers, kNext);
  return search;
}

Json offer_json(Query& query, const GpuSearch& search, const GpuOffer& offer) {
  place_on(query, *offer.device, offer.n_gpus);
  const MemoryLedger& ledger = offer.report->ledger;
  std::string command;
  if (offer.headroom_bytes >= 0) {
    command = plan_of(query, search.cache_case)
                  ->command(search.context_tokens, shell_word(query.model.file));
  }
  return {{"gpu", offer.device->id},
          {"name", offer.device->name},
          {"count", offer.n_gpus},
          {"usable_bytes", query.machine.capacities.front().bytes * offer.n_gpus},
          {"bandwidth_bytes_per_s", offer.device->bandwidth.value()},
          {"fits", offer.headroom_bytes >= 0},
          {"headroom_bytes", offer.headroom_bytes},
          {"ledger", ledger_json(ledger)},
          {"device_totals", device_totals_json(ledger, query.machine)},
          {"command", text_or_null(command)}};
}

Json json_of(Query& query, const GpuSearch& search) {
  const SmallestMachine& found = search.found;
  Json json = document("fit-smallest-gpu");
  json["model"] = model_json(query.model.spec);
  json["engine"] = engine_json(query);
  json["scheme"] = scheme_json(search.label);
  json["context_tokens"] = search.context_tokens;
  json["sequences"] = query.settings.sequences;
  json["n_tried"] = search.offers.size();
  const auto one = [&](const std::optional<std::size_t>& i) {
    return i ? offer_json(query, search, search.offers[*i]) : Json(nullptr);
  };
  const auto several = [&](const std::vector<std::size_t>& indices) {
    Json list = Json::array();
    for (const std::size_t i : indices) {
      list.push_back(offer_json(query, search, search.offers[i]));
    }
    return list;
  };
  json["smallest"] = one(found.smallest);
  json["below"] = one(found.below);
  json["next"] = several(found.next);
  json["by_count"] = several(found.by_count);
  json["refused"] = Json::array();
  for (const RefusedCount& refusal : search.refused) {
    json["refused"].push_back({{"count", refusal.n_gpus}, {"reason", refusal.reason}});
  }
  json["explanation"] = {smallest_sentence(search)};
  if (found.below) {
    json["explanation"].push_back(below_sentence(search));
  }
  return json;
}

}  // namespace

void place_on(Query& query, const HardwareSpec& device, int n_gpus) {
  Machine machine = machine_of(device, n_gpus);
  machine.reserve_bytes = query.machine.reserve_bytes;
  set_machine(query, std::move(machine));
  query.settings.tensor_parallel = loads_checkpoints(*query.engine) ? n_gpus : 1;
}

Device fullest_device(const MemoryLedger& ledger, const Machine& machine) {
  return std::ranges::min_element(
             machine.capacities,
             {},
             [&](const Capacity& capacity) { return left_on(capacity.device, ledger, machine); })
      ->device;
}

int fit_smallest_gpu(const Options& options, Console& console) {
  require_no_machine(options);
  Query query = read_query(options);
  const std::vector<HardwareSpec> devices = catalog_gpus(*query.engine, options.vendor);
  GpuSearch search;
  search.cache_case = single_case(query, options);
  search.context_tokens = parse_count("--context", *options.engine.context, 1, kMostTokens);
  place_on(query, devices.front(), 1);
  search.label = label_of(query, search.cache_case, *plan_of(query, search.cache_case));
  search.label.quality = evidence(query, search.label, search.cache_case, search.context_tokens);
  const CacheCase cache_case = search.cache_case;
  Ledgers ledgers(query, cache_case, search.context_tokens);
  search = searched(query, options, devices, ledgers, std::move(search));
  if (console.json) {
    print_json(console, json_of(query, search));
  } else {
    print_smallest_gpu(console, query, search);
  }
  return search.found.smallest ? 0 : 1;
}

}  // namespace kvfathom::cli
