#include "cli/query.h"

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <variant>

#include "cli/adapters.h"
#include "cli/auto_placement.h"
#include "cli/data_dir.h"
#include "cli/drafting.h"
#include "cli/engine_options.h"
#include "cli/format.h"
#include "cli/projector.h"
#include "cli/speed_laws.h"
#include "cli/values.h"
#include "model/cache/applicability.h"
#include "model/engine/history.h"
#include "model/engine/ideal.h"
#include "model/error.h"
#include "model/io/engine_history_json.h"
#include "model/io/file.h"
#include "model/memory/companions.h"

namespace kvfathom::cli {
namespace {

DType default_cache_type(const Query& query) {
  const bool model_dtype = query.engine->name != "llama.cpp" && query.model.spec.weight_dtype;
  const DType dtype = model_dtype ? *query.model.spec.weight_dtype : DType::f16;
  const bool narrowed = loads_checkpoints(*query.engine) && dtype == DType::f32;  // to 16 bits
  return keeps_all(dtype) && !narrowed ? dtype : DType::f16;
}

/// What `version` of the engine does not do yet. An engine without a history has one version.
std::vector<std::string> behaviours_before(const std::string& engine, const std::string& version) {
  const std::string path = (data_directory() / "engines" / (engine + ".json")).string();
  if (!is_regular_file(path)) {
    throw Unsupported("--engine-version", "'" + version + "': " + engine + " has one version", "");
  }
  return missing_behaviours(read_engine_history(path), version);
}

/// One device for each rank of an engine that cuts the model, unless --gpus says how many.
GpuOptions with_a_device_per_rank(GpuOptions gpu, const EngineSettings& settings) {
  const std::int64_t ranks =
      settings.tensor_parallel * settings.pipeline_parallel * settings.data_parallel;
  const bool one_name = !gpu.gpu || gpu.gpu->find(',') == std::string::npos;
  if (!gpu.gpus && ranks > 1 && one_name) {
    gpu.gpus = std::to_string(ranks);
  }
  return gpu;
}

/// llama.cpp loads no checkpoint's packed matrices: a GGUF has types of its own.
void require_loadable(const Query& query) {
  if (query.engine->name != "llama.cpp" || !query.model.foretold) {
    return;
  }
  for (const Tensor& tensor : query.model.spec.tensors) {
    if (tensor.name.ends_with("qweight") || tensor.name.find("weight_scale") != std::string::npos) {
      throw Unsupported("--weights",
                        query.model.weights + " is a checkpoint's format; llama.cpp loads a GGUF",
                        "use q8_0, q4_k_m or another of its types");
    }
  }
}

/// Where the layers go, which only llama.cpp lets one choose.
void read_placement(const Options& all, Query& query) {
  const EngineOptions& options = all.engine;
  constexpr std::int64_t kMostLayers = 1'000'000;
  EngineSettings& settings = query.settings;
  if (options.gpu_layers) {
    settings.gpu_layers = parse_count("--gpu-layers", *options.gpu_layers, 0, kMostLayers);
  }
  if (options.cpu_moe && options.cpu_moe_layers) {
    throw InputError("--cpu-moe-layers", "given together with --cpu-moe", "give one of them");
  }
  if (options.cpu_moe) {
    settings.cpu_moe_layers = n_layers(query.model.spec);
  }
  if (options.cpu_moe_layers) {
    settings.cpu_moe_layers =
        parse_count("--cpu-moe-layers", *options.cpu_moe_layers, 0, kMostLayers);
  }
  const bool by_hand = options.gpu_layers || options.cpu_moe || options.cpu_moe_layers;
  const char* first = options.auto_placement   ? "--auto"
                      : options.gpu_layers     ? "--gpu-layers"
                      : options.cpu_moe_layers ? "--cpu-moe-layers"
                                               : "--cpu-moe";
  if (options.auto_placement && by_hand) {
    throw InputError("--auto", "given together with a placement", "give one of them");
  }
  if ((options.auto_placement || by_hand) && query.engine->name != "llama.cpp") {
    throw InputError(first,
                     "given with engine " + std::string(query.engine->name),
                     "only llama.cpp places layers: --engine llama.cpp");
  }
  if (options.auto_placement && (!query.machine.known() || query.machine.n_gpus == 0)) {
    throw InputError("--auto", "given without a GPU", "give --gpu NAME or --memory SIZE");
  }
  if (options.auto_placement) {
    query.auto_context_tokens = llama_cpp::kFitContextTokens;
    query.machine.reserve_bytes =
        all.gpu.reserve ? query.machine.reserve_bytes : llama_cpp::kFitMarginBytes;
  }
}

void require_served(const Machine& machine) {
  for (const HardwareSpec& device : machine.devices) {
    if (!runs_on(engine_named(kCheckpointEngine), device)) {
      throw Unsupported(
          std::string(kCheckpointEngine), "no rule for the memory of " + device.name, "");
    }
  }
}

/// Whether another engine may have an answer: not where what was asked for is a mistake.
bool is_for_another_engine(const Error& error) {
  return dynamic_cast<const Unsupported*>(&error) != nullptr ||
         error.where().starts_with("--cache-type");
}

/// The query of an engine that has a rule for all that was asked.
Query with_planned_engine(const Query& base, const Options& options, std::string_view engine) {
  Query query = with_engine(base, options, engine_named(engine));
  for (const CacheCase& cache_case : fit_cases(query, options)) {
    static_cast<void>(plan_of(query, cache_case));
  }
  return query;
}

/// vLLM where it has a rule, else the formula; what that has none for either is vLLM's to refuse.
Query with_default_engine(const Query& base, const Options& options) {
  try {
    require_served(base.machine);
    return with_planned_engine(base, options, kCheckpointEngine);
  } catch (const Error& error) {
    if (!is_for_another_engine(error)) {
      throw;
    }
    try {
      Query query = with_planned_engine(base, options, "ideal");
      query.default_refused = error.where() + ": " + error.found();
      return query;
    } catch (const Error& other) {
      if (other.where() == error.where()) {
        throw;  // it knows the scheme, and says what is wrong with it
      }
    }
    throw;
  }
}

/// The plan with all that the query loads beside the model.
std::unique_ptr<MemoryPlan> with_all_beside(const Query& query,
                                            const EngineInfo& engine,
                                            const EngineSettings& settings,
                                            std::unique_ptr<MemoryPlan> plan) {
  std::vector<Companion> companions;
  if (query.draft && !loads_checkpoints(engine)) {
    companions.push_back(draft_companion(query, engine, settings));
  }
  if (query.settings.draft_tokens > 0 && engine.name == "llama.cpp") {
    companions.push_back(prediction_companion(query, engine, settings, *plan));
  }
  if (query.adapters) {
    companions.push_back(adapter_companion(query, engine, settings));
  }
  if (query.projector) {
    companions.push_back(projector_companion(query, engine, settings));
  }
  return companions.empty() ? std::move(plan)
                            : with_companions(std::move(plan), std::move(companions));
}

/// Serving engines attend to caches in nvfp4 on Blackwell and later alone: on compute capability 10
/// first, on 12 since github.com/vllm-project/vllm/pull/49818.
void require_device_type(const EngineInfo& engine, const Machine& machine, DType type) {
  constexpr int kFirstMajor = 10;
  if (type != DType::nvfp4 || !loads_checkpoints(engine)) {
    return;
  }
  for (const HardwareSpec& device : machine.devices) {
    const auto& capability = device.compute_capability;
    if (capability && std::atoi(capability->c_str()) < kFirstMajor) {
      throw Unsupported(
          std::string(engine.name),
          "no cache in nvfp4 on " + device.name + " (compute capability " + *capability + ")",
          "use bf16 or f8_e4m3, or a GPU of compute capability 10 and above");
    }
  }
}

}  // namespace

void require_cache_types(const Query& query, const char* option, DType k, DType v) {
  for (const DType type : {k, v}) {
    const bool serving = type == DType::f8_e4m3 || type == DType::f8_e5m2 || type == DType::nvfp4;
    if (serving && query.engine->name == "llama.cpp") {
      throw InputError(option,
                       std::string(name(type)) + " is no cache type of llama.cpp",
                       "use f16, bf16, q8_0, q4_0 or another of its types");
    }
  }
}

bool keeps_all(DType dtype) {
  return dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f32;
}

bool is_formula(const EngineInfo& engine) {
  return engine.prepare == prepare_ideal;
}

bool loads_checkpoints(const EngineInfo& engine) {
  return !is_formula(engine) && engine.name != "llama.cpp";
}

bool quantises_online(const EngineInfo& engine, const std::string& weights) {
  return (engine.name == "vllm" || engine.name == "sglang") &&
         (weights == "fp8" || weights == "fp8-dynamic");
}

bool runs_on(const EngineInfo& engine, const HardwareSpec& device) {
  if (engine.name == "tensorrt-llm") {
    return device.vendor == "nvidia" || device.vendor.empty();  // a size alone has no vendor
  }
  const bool is_accelerator = device.kind == "tpu" || device.id.starts_with("gaudi");
  if (is_accelerator) {
    return is_formula(engine);  // plug-ins of their vendors run vLLM and PyTorch there
  }
  const bool served = device.vendor != "apple" && device.kind != "cpu";
  return served || (engine.name != "vllm" && engine.name != "sglang");
}

bool has_latent_attention(const ModelSpec& model) {
  return std::any_of(model.layers.begin(), model.layers.end(), [](const LayerSpec& layer) {
    return std::holds_alternative<LatentAttention>(layer.mixer);
  });
}

bool has_experts(const ModelSpec& model) {
  return std::any_of(model.layers.begin(), model.layers.end(), [](const LayerSpec& layer) {
    return std::holds_alternative<MixtureOfExperts>(layer.feed_forward);
  });
}

void set_machine(Query& query, Machine machine) {
  EngineSettings& settings = query.settings;
  query.machine = std::move(machine);
  settings.n_gpus = query.machine.n_gpus;
  settings.gpu_memory_bytes = query.machine.uneven_memory();
  settings.uneven_device_memory_bytes.clear();
  if (query.machine.devices.empty()) {
    return;
  }
  settings.device_name = query.machine.devices.front().name;
  std::vector<std::int64_t> memory;
  for (const HardwareSpec& device : query.machine.devices) {
    memory.push_back(device.memory_bytes);
  }
  const auto [least, most] = std::minmax_element(memory.begin(), memory.end());
  settings.device_memory_bytes = *least;
  if (*least != *most) {
    settings.uneven_device_memory_bytes = std::move(memory);
  }
}

Query read_model_and_machine(const Options& options) {
  Query query;
  query.speeds = std::make_shared<SpeedData>();
  query.settings = settings_of(options.engine);
  query.model = read_model(options.model, options.weights);
  set_machine(query, read_machine(with_a_device_per_rank(options.gpu, query.settings)));
  return query;
}

Query with_engine(Query query, const Options& options, const EngineInfo& engine) {
  query.engine = &engine;
  require_own_options(options.engine, engine);
  if (query.model.checkpoint && query.engine->name == "llama.cpp") {
    foretell_gguf(query.model);  // it loads no safetensors
  }
  if (loads_checkpoints(engine)) {
    const bool online = options.weights && quantises_online(engine, query.model.weights);
    query.settings.online_fp8 = online;
    query.model.file =
        served_name(query.model, options.model, options.weights.has_value() && !online);
  }
  read_placement(options, query);
  if (query.model.foretold) {
    query.settings.weights_provenance = Provenance::modelled;
  }
  query.engine_version = query.settings.engine_version.empty()
                             ? std::string(query.engine->newest_version)
                             : query.settings.engine_version;
  if (!query.engine_version.empty()) {
    query.settings.missing_behaviours =
        behaviours_before(std::string(query.engine->name), query.engine_version);
  }
  if (!options.engine.cache_type_k) {
    query.settings.cache_type_k = default_cache_type(query);
  }
  if (!options.engine.cache_type_v) {
    query.settings.cache_type_v = default_cache_type(query);
  }
  require_cache_types(
      query, "--cache-type-k", query.settings.cache_type_k, query.settings.cache_type_v);
  require_loadable(query);
  read_drafting(options.draft, query);
  query.adapters = read_adapters(options, query);
  query.projector = read_projector(options, query);
  return query;
}

Query read_query(const Options& options) {
  Query query = read_model_and_machine(options);
  if (options.engine.engine) {
    return with_engine(std::move(query), options, engine_named(lower(*options.engine.engine)));
  }
  return query.model.gguf ? with_engine(std::move(query), options, engine_named("llama.cpp"))
                          : with_default_engine(query, options);
}

std::unique_ptr<MemoryPlan> plan_of(const Query& query, const CacheCase& cache_case) {
  return plan_of(query, cache_case, query.settings);
}

std::unique_ptr<MemoryPlan> plan_of(const Query& query,
                                    const CacheCase& cache_case,
                                    const EngineSettings& settings) {
  if (!query.auto_context_tokens) {
    return plan_as_placed(query, cache_case, settings);
  }
  const EngineSettings chosen = auto_fitted(query, cache_case, query.auto_context_tokens).settings;
  EngineSettings placed = settings;
  placed.gpu_layers = chosen.gpu_layers;
  placed.layers_per_gpu = chosen.layers_per_gpu;
  placed.moved_layers = chosen.moved_layers;
  return plan_as_placed(query, cache_case, placed);
}

std::unique_ptr<MemoryPlan> plan_as_placed(const Query& query,
                                           const CacheCase& cache_case,
                                           const EngineSettings& settings) {
  EngineSettings of_case = settings;
  of_case.scheme = cache_case.scheme;
  of_case.cache_type_k = cache_case.k;
  of_case.cache_type_v = cache_case.v;
  of_case.scheme_parameters = cache_case.parameters;
  of_case.offload = cache_case.offload;
  const EngineInfo& engine = cache_case.by_formula ? engine_named("ideal") : *query.engine;
  if (!is_formula(engine)) {
    cache::require_model_scheme(engine.name, of_case);
  }
  require_device_type(engine, query.machine, of_case.cache_type_k);
  require_device_type(engine, query.machine, of_case.cache_type_v);
  auto plan = with_all_beside(query, engine, of_case, engine.prepare(query.model.spec, of_case));
  return on_machine(std::move(plan), query.machine.rules());
}

}  // namespace kvfathom::cli
