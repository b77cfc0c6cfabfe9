#include "cli/speed_laws.h"

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
  FittedEngineLaws(EngineSpeed speed, const Machine& machine, EngineRun run)
      : speed_(std::move(speed)),
        laws_(speed_, machine.devices.front(), std::move(run)),
        host_(machine.devices.front(), machine.host) {}

  [[nodiscard]] PricedClass law(const OpClass& op_class, bool on_host) const override {
    return on_host ? host_.law(op_class, true) : laws_.law(op_class, false);
  }
  [[nodiscard]] EngineGaps gaps() const override { return laws_.gaps(); }
  [[nodiscard]] std::int64_t n_units() const override { return laws_.n_units(); }

 private:
  EngineSpeed speed_;
  EngineLaws laws_;
  DatasheetLaws host_;
};

/// What a serving engine takes besides its kernels: sampling and scheduling of a step, and what
/// lies between the kernels of a layer. Not fitted: round figures within what was logged (a 70B
/// step on an H200 shows 2.7 to 4.2 ms beyond its kernels' roofline, 35 to 52 us a layer, launches
/// among them). With the published kernels these give 703 measured steps of vLLM, SGLang and
/// TensorRT-LLM a median error of 16 % and nine in ten within 45 %, dense and mixture models alike;
/// the shares fitted to those engines do better on the mixtures that they were fitted to and are
/// off by two on others, so kernels go first where they are published.
constexpr EngineGaps kServingGaps{
    .per_step = Seconds(0.5e-3), .per_layer = Seconds(20e-6), .log_error = 0.4};

/// The newest file of published kernels of this device; empty: there is none.
std::string published_kernels(const HardwareSpec& device) {
  std::string newest;
  const std::filesystem::path folder = data_directory() / "calibrations" / "published";
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string path = entry.path().string();
    const bool of_device = entry.path().filename().string().starts_with(device.id + "-vllm-");
    if (!device.id.empty() && of_device && path > newest) {
      newest = path;
    }
  }
  return newest;
}

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

std::unique_ptr<LawSource> laws_of(const Query& query, Phase phase) {
  if (query.calibration) {
    return calibrated_laws(query);
  }
  if (query.machine.devices.empty()) {
    throw InputError("--gpu", "missing", "give --gpu NAME, or --memory with its bandwidth");
  }
  const HardwareSpec& device = query.machine.devices.front();
  const std::filesystem::path folder = data_directory() / "engines" / "speed";
  std::string path = (folder / (std::string(query.engine->name) + ".json")).string();
  const bool is_fitted = is_regular_file(path);
  path = is_fitted ? path : (folder / "reference.json").string();
  const EngineRun run{.phase = phase,
                      .backend = "",
                      .flash_attention = query.settings.flash_attention != FlashAttention::off};
  auto laws = std::make_unique<FittedEngineLaws>(read_engine_speed(path), query.machine, run);
  const bool serves = loads_checkpoints(*query.engine);
  const std::string kernels = is_fitted && !serves ? "" : published_kernels(device);
  if (kernels.empty()) {
    return laws;
  }
  const EngineGaps gaps = serves ? kServingGaps : laws->gaps();
  return std::make_unique<CalibratedLaws>(
      read_calibration(kernels), Provenance::published, std::move(laws), gaps);
}

}  // namespace kvfathom::cli
