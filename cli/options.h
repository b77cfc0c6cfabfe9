// What the command line may say. Text is kept as written and turned into numbers by values.h, so
// that every refusal names the option, the value and what is allowed in one form.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace CLI {  // NOLINT(readability-identifier-naming): the library's own
class App;
}

namespace kvfathom::cli {

using Text = std::optional<std::string>;

/// Options of every command.
struct OutputOptions {
  bool json = false;
  bool quiet = false;
  bool no_color = false;
  Text width;
};

/// Which machine: a catalog name, this one, or a size.
struct GpuOptions {
  Text gpu;
  Text gpus;
  Text memory;
  Text bandwidth;
  Text reserve;
  Text host_memory;
  Text host_bandwidth;
};

/// What is asked of the engine.
struct EngineOptions {
  Text engine;
  Text engine_version;
  Text context;
  Text total_context;
  Text sequences;
  std::vector<std::string> schemes;
  Text cache_type_k;
  Text cache_type_v;
  Text batch_tokens;
  Text ubatch_tokens;
  Text outputs;
  Text flash_attention;
  Text kv_unified;
  Text swa_full;
  Text gpu_memory_utilization;
  Text max_batched_tokens;
  Text max_sequences;
  Text block_tokens;
  Text tensor_parallel;
  Text pipeline_parallel;
  Text data_parallel;
  Text expert_parallel;
  Text gpu_layers;
  bool cpu_moe = false;
  Text cpu_moe_layers;
  bool auto_placement = false;
};

/// What `crossover` is asked besides.
struct CrossoverOptions {
  Text tier;
  Text bandwidth;
  Text call;
  Text piece;
  Text load;
  Text link_load;
  Text queued;
  Text running;
  Text svg;
  bool map = false;
  bool batch_map = false;
  bool measure = false;
  Text lengths;
  Text seconds;
};

/// A second model that drafts for the first.
struct DraftOptions {
  Text own_block;  ///< tokens drafted by the model's own prediction block
  Text model;
  Text weights;
  Text gpu_layers;
  Text cache_type_k;
  Text cache_type_v;
};

/// Low-rank adapters beside the model.
struct AdapterOptions {
  Text file;
  Text rank;
  Text targets;
  Text slots;
};

/// A vision tower and its projector beside the model.
struct ProjectorOptions {
  Text file;
  bool on_host = false;
};

/// One struct for all commands: each registers the part it has a use for.
struct Options {
  OutputOptions output;
  std::string model;
  Text weights;
  GpuOptions gpu;
  EngineOptions engine;
  DraftOptions draft;
  AdapterOptions adapters;
  ProjectorOptions projector;
  bool beyond_trained = false;
  bool users = false;
  bool smallest_gpu = false;
  Text max_gpus;
  Text vendor;
  bool best_quant = false;
  bool with_speed = false;
  bool energy = false;
  Text calibration;
  Text draft_tokens;
  Text acceptance;
  CrossoverOptions crossover;
  std::string list_what;
  Text truth;
  bool speed_truth = false;
};

void add_output_options(CLI::App& command, Options& options);
void add_model_options(CLI::App& command, Options& options);
void add_gpu_options(CLI::App& command, Options& options);
void add_crossover_options(CLI::App& command, Options& options);
void add_engine_options(CLI::App& command, Options& options);
void add_inverse_options(CLI::App& command, Options& options);
void add_law_options(CLI::App& command, Options& options);
void add_speed_options(CLI::App& command, Options& options);
void add_draft_options(CLI::App& command, Options& options);
void add_adapter_options(CLI::App& command, Options& options);
void add_projector_options(CLI::App& command, Options& options);

}  // namespace kvfathom::cli
