#include "cli/speed_laws.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include "cli/data_dir.h"
#include "cli/device_shares.h"
#include "model/error.h"
#include "model/io/calibration_json.h"
#include "model/io/engine_law_json.h"
#include "model/io/file.h"
#include "model/io/hardware_json.h"
#include "model/latency/calibrated_laws.h"
#include "model/latency/datasheet_laws.h"
#include "model/latency/engine_law.h"
#include "model/latency/mixed_laws.h"
#include "model/latency/scaled_calibration.h"

namespace kvfathom::cli {
namespace {

/// Laws fitted to an engine, with the parameters that they refer to. Work that is left on the host
/// is the data sheet's matter: the engine's rows have none.
class FittedEngineLaws final : public LawSource {
 public:
  FittedEngineLaws(EngineSpeed speed,
                   const HardwareSpec& device,
                   const std::optional<HardwareSpec>& host,
                   const EngineRun& run)
      : speed_(std::move(speed)), laws_(speed_, device, run), host_(device, host) {}

  [[nodiscard]] PricedClass law(const OpClass& op_class, bool on_host) const override {
    return on_host ? host_.law(op_class, true) : laws_.law(op_class, false);
  }
  [[nodiscard]] EngineGaps gaps() const override { return laws_.gaps(); }
  [[nodiscard]] std::int64_t n_units() const override { return laws_.n_units(); }
  [[nodiscard]] double pipeline_share() const override { return laws_.pipeline_share(); }
  [[nodiscard]] bool knows_device() const { return laws_.knows_device(); }

 private:
  EngineSpeed speed_;
  EngineLaws laws_;
  DatasheetLaws host_;
};

/// What a serving engine takes besides its kernels: sampling and scheduling of a step, and what
/// lies between the kernels of a layer, beside the fixed costs of the published kernels themselves.
/// Round figures; of 0, 5, 10, 15 and 20 us a layer this one leaves the least error at the median
/// of the rows that `validate --speed` replays, and the interval holds 94 % of 465
/// (docs/speed-validation.md).
constexpr EngineGaps kServingGaps{
    .per_step = Seconds(0.5e-3), .per_layer = Seconds(15e-6), .log_error = 0.3};

/// How near a calibration is to a query's device.
Provenance nearness(const Calibration& calibration, const HardwareSpec& device) {
  return calibration.device_name == device.name ? Provenance::measured : Provenance::assumed;
}

/// What scaling adds to that error: 453 rows of GPUs that have kernels of their own are 7.5 % off
/// at the median by those of another, 8.7 % by their own (docs/speed-validation.md).
constexpr double kScaledLogError = 0.15;

constexpr std::string_view kMark = "-vllm-";

std::filesystem::path published_directory() {
  return data_directory() / "calibrations" / "published";
}

/// Files of the device: of kernels and of collective operations.
std::vector<std::filesystem::path> published_files(const std::string& device_id) {
  std::vector<std::filesystem::path> files;
  std::error_code none;
  for (const auto& file : std::filesystem::directory_iterator(published_directory(), none)) {
    const std::string name = file.path().filename().string();
    if (name.starts_with(device_id + std::string(kMark)) ||
        name.starts_with(device_id + "-nccl-")) {
      files.push_back(file.path());
    }
  }
  return files;
}

/// Ids of devices whose kernels were published.
std::set<std::string> published_devices() {
  std::set<std::string> ids;
  std::error_code none;
  for (const auto& file : std::filesystem::directory_iterator(published_directory(), none)) {
    const std::string name = file.path().filename().string();
    if (const std::size_t mark = name.find(kMark); mark != std::string::npos) {
      ids.insert(name.substr(0, mark));
    }
  }
  return ids;
}

/// Collective operations over PCIe are those of the host that was measured, whose GPUs may reach
/// each other through two sockets: they say nothing of another host.
void forget_collectives(Calibration& calibration) {
  std::erase_if(calibration.classes, [](const FittedClass& one) {
    return one.id.op == name(OpKind::all_reduce) || one.id.op == name(OpKind::all_to_all);
  });
}

/// "0.24.0" as numbers.
std::vector<int> version(const Calibration& calibration) {
  std::vector<int> numbers;
  std::istringstream parts(calibration.engine_version);
  for (std::string part; std::getline(parts, part, '.');) {
    numbers.push_back(std::atoi(part.c_str()));
  }
  return numbers;
}

/// Our kernels run back to back, their threads never sleep: no engine beside them.
constexpr EngineGaps kNoGaps{.per_step = {}, .per_layer = {}, .log_error = 0.0};

/// Measured kernels first, the data sheet for what was not.
std::unique_ptr<LawSource> calibrated_laws(const Query& query, const HardwareSpec& device) {
  return std::make_unique<CalibratedLaws>(
      std::vector<Calibration>{*query.calibration},
      nearness(*query.calibration, device),
      std::make_unique<DatasheetLaws>(device, query.machine.host),
      kNoGaps);
}

}  // namespace

const EngineSpeed& SpeedData::speed(const std::string& path) {
  const auto known = speeds_.find(path);
  return known != speeds_.end() ? known->second
                                : speeds_.emplace(path, read_engine_speed(path)).first->second;
}

const std::vector<Calibration>& SpeedData::published_kernels(const HardwareSpec& device) {
  const auto [entry, is_new] = kernels_.try_emplace(device.id);
  std::vector<Calibration>& kernels = entry->second;
  if (!is_new || device.id.empty()) {
    return kernels;
  }
  for (const std::filesystem::path& file : published_files(device.id)) {
    kernels.push_back(read_calibration(file));
    if (!device.peer_link) {
      forget_collectives(kernels.back());
    }
  }
  std::ranges::sort(kernels, [](const Calibration& a, const Calibration& b) {
    return a.engine != b.engine ? a.engine > b.engine  // vllm before nccl
                                : version(a) > version(b);
  });
  return kernels;
}

std::vector<Calibration> SpeedData::scaled_kernels(const HardwareSpec& device) {
  std::optional<HardwareSpec> nearest;
  const auto octaves = [&](const HardwareSpec& other) {
    return std::abs(std::log2(other.bandwidth / device.bandwidth));
  };
  for (const std::string& id : published_devices()) {
    HardwareSpec other = read_hardware(data_directory() / "hardware" / (id + ".json"));
    const bool is_like = !other.architecture.empty() && other.architecture == device.architecture;
    if (is_like && other.id != device.id && (!nearest || octaves(other) < octaves(*nearest))) {
      nearest = std::move(other);
    }
  }
  std::vector<Calibration> kernels;
  if (nearest) {
    for (const Calibration& one : published_kernels(*nearest)) {
      kernels.push_back(scaled(one, *nearest, device));
    }
  }
  return kernels;
}

std::unique_ptr<LawSource> SpeedData::laws(const EngineInfo& engine,
                                           const HardwareSpec& device,
                                           const std::optional<HardwareSpec>& host,
                                           const EngineRun& run) {
  if (engine.name == "huggingface") {
    throw Unsupported("--engine huggingface",
                      "nothing is known of its speed, which its host's Python bounds",
                      "use vllm, sglang or tensorrt-llm; ideal is what the hardware allows");
  }
  const std::filesystem::path folder = data_directory() / "engines" / "speed";
  const std::string fitted = (folder / (std::string(engine.name) + ".json")).string();
  const bool is_fitted = is_regular_file(fitted);
  const std::string path = is_fitted ? fitted : (folder / "reference.json").string();
  auto laws = std::make_unique<FittedEngineLaws>(speed(path), device, host, run);
  const bool serves = loads_checkpoints(engine);
  const bool runs_published = serves || !is_fitted;
  if (!runs_published) {
    return laws;
  }
  EngineGaps gaps = serves ? kServingGaps : laws->gaps();
  if (const auto& own = published_kernels(device); !own.empty()) {
    return std::make_unique<CalibratedLaws>(own, Provenance::published, std::move(laws), gaps);
  }
  auto like = laws->knows_device() ? std::vector<Calibration>() : scaled_kernels(device);
  if (like.empty()) {
    return laws;
  }
  gaps.log_error = std::hypot(gaps.log_error, kScaledLogError);
  return std::make_unique<CalibratedLaws>(
      std::move(like), Provenance::modelled, std::move(laws), gaps);
}

std::unique_ptr<LawSource> laws_of(const Query& query, Phase phase) {
  const EngineRun run{.phase = phase,
                      .backend = "",
                      .flash_attention = query.settings.flash_attention != FlashAttention::off};
  std::vector<LawShare> shares;
  for (const DeviceShare& one : device_shares(query)) {
    // A calibration is of the first device's kind.
    const bool calibrated =
        query.calibration && one.device.name == query.machine.devices.front().name;
    shares.push_back({calibrated
                          ? calibrated_laws(query, one.device)
                          : query.speeds->laws(*query.engine, one.device, query.machine.host, run),
                      one.share});
  }
  return shares.size() == 1 ? std::move(shares.front().laws)
                            : std::make_unique<MixedLaws>(std::move(shares));
}

}  // namespace kvfathom::cli
