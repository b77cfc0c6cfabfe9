// A request in the model's own words: model, machine, engine, settings, and the cases to answer.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/gpu_argument.h"
#include "cli/model_argument.h"
#include "cli/options.h"
#include "model/architecture/projector_spec.h"
#include "model/cache/quality.h"
#include "model/cache/request_text.h"
#include "model/engine/engine.h"
#include "model/engine/llama_cpp/draft.h"
#include "model/latency/calibration.h"
#include "model/weights/lora.h"

namespace kvfathom::cli {

/// One way to lay out and type the cache.
struct CacheCase {
  CacheScheme scheme = CacheScheme::native;
  DType k = DType::f16;
  DType v = DType::f16;
  cache::SchemeParameters parameters = {};
  std::optional<cache::Offload> offload = std::nullopt;
  bool by_formula = false;  ///< the engine does not run it: priced by `ideal`, for comparison
  friend bool operator==(const CacheCase&, const CacheCase&) = default;
};

[[nodiscard]] inline cache::SchemeRequest request_of(const CacheCase& cache_case) {
  return {cache_case.scheme, cache_case.parameters};
}

/// The engine of a checkpoint that nobody named one for.
inline constexpr std::string_view kCheckpointEngine = "vllm";

/// The model that drafts for the query's.
struct DraftQuery {
  ModelArgument model;
  llama_cpp::DraftChoice choice;
};

/// Adapters beside the query's model: a file, or a shape that `slots` of them have.
struct AdapterQuery {
  Text file;
  LoraShape shape;
  std::vector<LoraMatrix> matrices;  ///< of the file, in bytes; of one of the shape, in values
  std::int64_t slots = 1;
};

/// The file that llama.cpp loads beside the model to see images or hear.
struct ProjectorQuery {
  std::string file;
  std::vector<ProjectorSpec> encoders;
  bool on_host = false;
};

class SpeedData;

struct Query {
  ModelArgument model;
  Machine machine;
  const EngineInfo* engine = nullptr;
  std::string engine_version;  ///< as shown: the one asked for, or the newest known
  /// Why the default engine does not answer, where `ideal` stands in for it; else empty.
  std::string default_refused;
  /// Of this device by our own kernels: what latency is priced by, before all else.
  std::optional<Calibration> calibration;
  /// Files of speeds, read once for all plans of the query.
  std::shared_ptr<SpeedData> speeds;
  EngineSettings settings;  ///< of every case; scheme and cache types are the case's
  /// `--auto`: every case's layers are placed by llama.cpp's fit for this context.
  std::optional<std::int64_t> auto_context_tokens;
  std::optional<DraftQuery> draft;
  std::optional<AdapterQuery> adapters;
  std::optional<ProjectorQuery> projector;
};

/// The engine that was named, else llama.cpp for a GGUF and vLLM for a checkpoint. What vLLM has no
/// rule for is answered by `ideal`, and `default_refused` says why.
[[nodiscard]] Query read_query(const Options& options);

/// The part of a query that all engines share, and the rest of it for one of them.
[[nodiscard]] Query read_model_and_machine(const Options& options);
[[nodiscard]] Query with_engine(Query query, const Options& options, const EngineInfo& engine);

/// Puts the query on another machine, and tells the engine what it needs to know of it.
void set_machine(Query& query, Machine machine);

/// A plan of the query's engine for one case, on the query's machine.
[[nodiscard]] std::unique_ptr<MemoryPlan> plan_of(const Query& query, const CacheCase& cache_case);
[[nodiscard]] std::unique_ptr<MemoryPlan> plan_of(const Query& query,
                                                  const CacheCase& cache_case,
                                                  const EngineSettings& settings);

/// The same with the layers where `settings` say, whatever --auto would choose.
[[nodiscard]] std::unique_ptr<MemoryPlan> plan_as_placed(const Query& query,
                                                         const CacheCase& cache_case,
                                                         const EngineSettings& settings);

/// The case that the options name outright: `--scheme` (one) and the cache types.
[[nodiscard]] CacheCase single_case(const Query& query, const Options& options);

/// What `fit` answers: the cases named, or native in three types plus, for a latent model, the
/// layouts that keep V. Cases that the engine refuses are left out unless they were asked for.
[[nodiscard]] std::vector<CacheCase> fit_cases(const Query& query, const Options& options);

/// Whether `--scheme all` is among them.
[[nodiscard]] bool wants_all_schemes(const Options& options);

/// A scheme that `--scheme all` leaves out.
struct LeftOut {
  std::string scheme;
  std::string reason;
};
[[nodiscard]] std::vector<LeftOut> left_out(const Query& query, const Options& options);

/// How a report names a case.
struct SchemeLabel {
  std::string id;        ///< "kivi", "kivi+offload"
  std::string text;      ///< the id and the parameters that are not the defaults
  std::string spelling;  ///< as `--scheme` takes it, with every parameter
  DType k = DType::f16;
  DType v = DType::f16;
  bool exact = true;                          ///< lossless against the model's own 16-bit cache
  bool engine_support = true;                 ///< the engine version at hand can run it
  std::vector<std::string> notes = {};        ///< what to know about the scheme, a sentence each
  std::vector<cache::Evidence> quality = {};  ///< of a lossy scheme, nearest setting first
};
[[nodiscard]] SchemeLabel label_of(const Query& query,
                                   const CacheCase& cache_case,
                                   const MemoryPlan& plan);

/// Refuses types of a cache that llama.cpp does not have (fp8, nvfp4); the other engines refuse for
/// themselves.
void require_cache_types(const Query& query, const char* option, DType k, DType v);

/// Whether a cache of this type loses nothing against one of 16 bits.
[[nodiscard]] bool keeps_all(DType dtype);
/// An engine that takes what the formula says: `ideal`, and `reference`, whose kernels are ours.
[[nodiscard]] bool is_formula(const EngineInfo& engine);
/// A serving engine: it loads Hugging Face checkpoints, no GGUF.
[[nodiscard]] bool loads_checkpoints(const EngineInfo& engine);
/// Whether the engine packs a checkpoint of 16 bits like this as it loads it (--quantization).
[[nodiscard]] bool quantises_online(const EngineInfo& engine, const std::string& weights);
/// Whether the engine runs on the device, by the rules that it has here: TensorRT-LLM is NVIDIA's;
/// vLLM and SGLang list GPUs of NVIDIA, AMD and Intel in their installation guides; none of them,
/// nor llama.cpp, has TPUs or Gaudi among its own.
[[nodiscard]] bool runs_on(const EngineInfo& engine, const HardwareSpec& device);
/// Whether any decoder layer has routed experts.
[[nodiscard]] bool has_experts(const ModelSpec& model);

/// Whether any decoder layer has latent attention.
[[nodiscard]] bool has_latent_attention(const ModelSpec& model);

}  // namespace kvfathom::cli
