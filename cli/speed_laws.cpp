#include "cli/speed_laws.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "cli/data_dir.h"
#include "model/error.h"
#include "model/io/calibration_json.h"
#include "model/io/engine_law_json.h"
#include "model/io/file.h"
#include "model/latency/calibrated_laws.h"
#include "model/latency/datasheet_laws.h"
#include "model/latency/engine_law.h"

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

 private:
  EngineSpeed speed_;
  EngineLaws laws_;
  DatasheetLaws host_;
};

/// What a serving engine takes besides its kernels: sampling and scheduling of a step, and what
/// lies between the kernels of a layer. Round figures, not a fit, but chosen after the rows were
/// seen that `validate --speed` replays: with the fixed costs of the published kernels themselves
/// they make the 35 to 52 us a layer by which a 70B step on an H200 exceeds its kernels' roofline.
/// The interval holds 93 % of 711 rows (docs/speed-validation.md).
constexpr EngineGaps kServingGaps{
    .per_step = Seconds(0.5e-3), .per_layer = Seconds(20e-6), .log_error = 0.4};

/// How near a calibration is to a query's device.
Provenance nearness(const Calibration& calibration, const HardwareSpec& device) {
  return calibration.device_name == device.name ? Provenance::measured : Provenance::assumed;
}

/// Our kernels run back to back, their threads never sleep: no engine beside them.
constexpr EngineGaps kNoGaps{.per_step = {}, .per_layer = {}, .log_error = 0.0};

/// Measured kernels first, the data sheet for what was not.
std::unique_ptr<LawSource> calibrated_laws(const Query& query) {
  const HardwareSpec& device = query.machine.devices.front();
  return std::make_unique<CalibratedLaws>(
      *query.calibration,
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

const Calibration* SpeedData::published_kernels(const HardwareSpec& device) {
  const auto [entry, is_new] = kernels_.try_emplace(device.id);
  std::optional<Calibration>& kernels = entry->second;
  if (is_new && !device.id.empty()) {
    std::string newest;
    std::error_code none;
    for (const auto& file : std::filesystem::directory_iterator(
             data_directory() / "calibrations" / "published", none)) {
      const bool of_device = file.path().filename().string().starts_with(device.id + "-vllm-");
      newest = of_device ? std::max(newest, file.path().string()) : newest;
    }
    if (!newest.empty()) {
      kernels = read_calibration(newest);
    }
  }
  return kernels ? &*kernels : nullptr;
}

std::unique_ptr<LawSource> SpeedData::laws(const EngineInfo& engine,
                                           const HardwareSpec& device,
                                           const std::optional<HardwareSpec>& host,
                                           const EngineRun& run) {
  const std::filesystem::path folder = data_directory() / "engines" / "speed";
  const std::string fitted = (folder / (std::string(engine.name) + ".json")).string();
  const bool is_fitted = is_regular_file(fitted);
  const std::string path = is_fitted ? fitted : (folder / "reference.json").string();
  auto laws = std::make_unique<FittedEngineLaws>(speed(path), device, host, run);
  const bool serves = loads_checkpoints(engine);
  const Calibration* kernels = is_fitted && !serves ? nullptr : published_kernels(device);
  if (kernels == nullptr) {
    return laws;
  }
  const EngineGaps gaps = serves ? kServingGaps : laws->gaps();
  return std::make_unique<CalibratedLaws>(*kernels, Provenance::published, std::move(laws), gaps);
}

std::unique_ptr<LawSource> laws_of(const Query& query, Phase phase) {
  if (query.machine.devices.empty()) {
    throw InputError("--gpu", "missing", "give --gpu NAME, or --memory with its bandwidth");
  }
  if (query.calibration) {
    return calibrated_laws(query);
  }
  const EngineRun run{.phase = phase,
                      .backend = "",
                      .flash_attention = query.settings.flash_attention != FlashAttention::off};
  return SpeedData().laws(*query.engine, query.machine.devices.front(), query.machine.host, run);
}

}  // namespace kvfathom::cli
