#include "cli/options.h"

#include <string>

#include <CLI/CLI.hpp>

namespace kvfathom::cli {
namespace {

/// Options and flags under one title of a command's help.
struct Group {
  CLI::App& command;
  const char* title;
  void add(const char* names, Text& target, const char* type, const char* help) const {
    command.add_option(names, target, help)->type_name(type)->group(title);
  }
  void add(const char* names, bool& target, const char* help) const {
    command.add_flag(names, target, help)->group(title);
  }
};

}  // namespace

void add_output_options(CLI::App& command, Options& options) {
  OutputOptions& out = options.output;
  const Group group{command, "Output"};
  group.add("--json", out.json, "a JSON document (data/schemas/) instead of a table");
  group.add("--quiet", out.quiet, "the answer only, without notes");
  group.add("--no-color", out.no_color, "no colours (also: NO_COLOR set)");
  group.add("--width", out.width, "N", "columns to print in (default: the terminal's)");
}

void add_model_options(CLI::App& command, Options& options) {
  command
      .add_option("MODEL",
                  options.model,
                  "catalog name, .gguf, config.json, model folder or inspect document")
      ->required();
  const Group group{command, "Model"};
  group.add("--weights",
            options.weights,
            "F",
            "weight format or quantiser recipe (bf16, q8_0, q4_k_m ..); default: the file's");
}

void add_gpu_options(CLI::App& command, Options& options) {
  GpuOptions& gpu = options.gpu;
  const Group group{command, "Machine"};
  group.add("--gpu", gpu.gpu, "GPU", "catalog name, 'local', or a hardware JSON file");
  group.add("--gpus", gpu.gpus, "N|A,B", "how many, or their names; 0: everything on the host");
  group.add("--memory", gpu.memory, "SIZE", "memory of the device (24GiB; 24GB is 24e9 bytes)");
  if (command.get_name() == "crossover") {  // whose --bandwidth is the tier's
    group.add("--memory-bandwidth", gpu.bandwidth, "RATE", "its memory bandwidth (1008GB/s)");
  } else {
    group.add("--bandwidth", gpu.bandwidth, "RATE", "its memory bandwidth (1008GB/s)");
  }
  group.add("--reserve", gpu.reserve, "SIZE", "memory to keep free on each GPU (0; --auto: 1GiB)");
  group.add("--host-memory", gpu.host_memory, "SIZE", "memory of the host beside the GPUs");
}

void add_crossover_options(CLI::App& command, Options& options) {
  CrossoverOptions& crossover = options.crossover;
  const Group group{command, "Tier"};
  group.add("--tier", crossover.tier, "T", "host, nvme or network; default: each");
  group.add("--bandwidth",
            crossover.bandwidth,
            "RATE",
            "of the tier (25GB/s); default: the device's link");
  group.add("--call", crossover.call, "US", "microseconds until a piece flows");
  group.add("--piece", crossover.piece, "SIZE", "bytes moved at a time (2MiB)");
  group.add("--load", crossover.load, "SHARE", "of the device's compute others take, 0 to 0.95");
  group.add("--link-load", crossover.link_load, "SHARE", "of the link others take, 0 to 0.95");
  group.add("--queued", crossover.queued, "SIZE", "bytes on the link before ours");
  group.add("--running",
            crossover.running,
            "N",
            "sequences of --context tokens that decode in the recompute's steps");
  group.add("--map", crossover.map, "who wins, by length and bandwidth");
  group.add("--batch-map", crossover.batch_map, "who wins, by length and prefixes at once");
  group.add("--svg",
            crossover.svg,
            "FILE",
            "writes the map as a picture: of bandwidths, or of prefixes at once");
  const Group measure{command, "Measure"};
  measure.add("--measure",
              crossover.measure,
              "runs both on this machine's CPU, beside what its calibration predicts");
  measure.add("--lengths", crossover.lengths, "LIST", "tokens to measure at, N,N,..");
  measure.add(
      "--seconds", crossover.seconds, "S", "for each figure at most, besides warming up (3)");
}

void add_inverse_options(CLI::App& command, Options& options) {
  const Group group{command, "What to find (default: the longest context)"};
  group.add("--beyond-trained", options.beyond_trained, "look past the trained length");
  group.add("--users", options.users, "as many sequences of --context tokens as fit");
  group.add("--smallest-gpu",
            options.smallest_gpu,
            "the smallest GPU, and number of it, that holds --context tokens");
  group.add("--max-gpus", options.max_gpus, "N", "at most so many of a GPU (8; 1, 2, 4, 8 tried)");
  group.add("--vendor", options.vendor, "NAME", "only its GPUs (nvidia, amd, intel, apple)");
  group.add("--best-quant",
            options.best_quant,
            "the finest types of weights and cache that hold --context tokens");
  group.add("--with-speed",
            options.with_speed,
            "predicted tokens/s and TTFT beside each answer (kvfathom speed tells more)");
}

void add_law_options(CLI::App& command, Options& options) {
  const Group group{command, "Machine"};
  group.add("--host-bandwidth",
            options.gpu.host_bandwidth,
            "RATE",
            "memory bandwidth of the host, for experts that stay there (80GB/s)");
  group.add("--calibration",
            options.calibration,
            "FILE",
            "measured laws to price by, or none (default: for --engine reference and ideal the "
            "newest of this device by kvfathom calibrate)");
}

void add_speed_options(CLI::App& command, Options& options) {
  const Group engine{command, "Engine"};
  engine.add("--draft-tokens",
             options.draft_tokens,
             "K",
             "speculative decoding: tokens drafted a step, by --draft MODEL or the model's own "
             "prediction block");
  engine.add("--acceptance",
             options.acceptance,
             "A",
             "share of drafted tokens that are accepted, 0 to 1 (measure it: it differs by task)");
  const Group machine{command, "Machine"};
  machine.add("--energy", options.energy, "joules per token, from the GPUs' TDP");
}

void add_engine_options(CLI::App& command, Options& options) {
  EngineOptions& engine = options.engine;
  const Group group{command, "Engine"};
  const std::string name = command.get_name();
  group.add("--engine",
            engine.engine,
            "E",
            name == "fit"
                ? "llama.cpp (default for GGUF), vllm (default else), ideal, reference .. or all"
                : "llama.cpp (default for GGUF), vllm (default else), ideal, reference ..");
  group.add("--engine-version", engine.engine_version, "V", "build (b9000), release or date");
  group.add("--context", engine.context, "N", "tokens per sequence");
  group.add(
      "--sequences", engine.sequences, "S", "concurrent sequences, default 1 (llama.cpp -np)");
  command
      .add_option("--scheme",
                  engine.schemes,
                  name == "fit" || name == "speed"
                      ? "cache scheme, repeatable: ID, ID:key=value,.. or ID+offload:..; 'all': "
                        "every one that applies"
                      : "cache scheme: ID, ID:key=value,.. or ID+offload:..")
      ->type_name("ID")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group("Engine");
  group.add("--cache-type-k",
            engine.cache_type_k,
            "T",
            "element type of K, default f16 (llama.cpp -ctk)");
  group.add("--cache-type-v",
            engine.cache_type_v,
            "T",
            "element type of V, default f16 (llama.cpp -ctv)");
  group.add(
      "--batch-tokens,--batch", engine.batch_tokens, "N", "tokens per logical pass (llama.cpp -b)");
  group.add(
      "--ubatch-tokens,--ubatch", engine.ubatch_tokens, "N", "tokens per physical pass (-ub)");
  group.add("--outputs", engine.outputs, "N", "rows of logits reserved; 0: a whole micro-batch");
  group.add("--flash-attention", engine.flash_attention, "on|off|auto", "llama.cpp -fa");
  group.add(
      "--kv-unified", engine.kv_unified, "on|off", "one cache for all sequences (llama.cpp -kvu)");
  group.add("--swa-full", engine.swa_full, "on|off", "windows get the whole context (--swa-full)");
  group.add("--gpu-memory-utilization",
            engine.gpu_memory_utilization,
            "F",
            "the engine's share of a device (vLLM; SGLang --mem-fraction-static)");
  group.add(
      "--max-batched-tokens", engine.max_batched_tokens, "N", "tokens per step (vLLM, SGLang)");
  group.add(
      "--max-sequences", engine.max_sequences, "N", "sequences per step (vLLM --max-num-seqs)");
  group.add("--block-tokens", engine.block_tokens, "N", "tokens per page (vLLM --block-size)");
  group.add(
      "--tensor-parallel", engine.tensor_parallel, "N", "ranks that share each layer, default 1");
  group.add("--pipeline-parallel", engine.pipeline_parallel, "N", "stages of layers, default 1");
  group.add("--data-parallel", engine.data_parallel, "N", "replicas, default 1");
  group.add("--expert-parallel",
            engine.expert_parallel,
            "N",
            "ranks that share whole experts, default 1");
  group.add("--gpu-layers,--n-gpu-layers",
            engine.gpu_layers,
            "N",
            "the last N layers on the GPUs, the output head counted (llama.cpp -ngl)");
  group.add("--cpu-moe", engine.cpu_moe, "all experts on the host");
  group.add("--cpu-moe-layers,--n-cpu-moe",
            engine.cpu_moe_layers,
            "N",
            "the experts of the first N layers on the host (llama.cpp --n-cpu-moe)");
  group.add("--auto",
            engine.auto_placement,
            "context, layers and experts as llama.cpp's own fit chooses them (--fit on)");
}

void add_draft_options(CLI::App& command, Options& options) {
  DraftOptions& draft = options.draft;
  const Group group{command, "Draft model"};
  group.add("--mtp",
            draft.own_block,
            "N",
            "draft N tokens by the model's own prediction block (llama.cpp, vllm, sglang)");
  group.add("--draft",
            draft.model,
            "MODEL",
            "a second model that drafts for the first (llama.cpp, vllm)");
  group.add("--draft-weights", draft.weights, "F", "its weight format, as --weights");
  group.add("--draft-gpu-layers", draft.gpu_layers, "N", "its last N layers on the GPUs (-ngld)");
  group.add("--draft-cache-type-k",
            draft.cache_type_k,
            "T",
            "its element type of K, default f16 (-ctkd)");
  group.add("--draft-cache-type-v",
            draft.cache_type_v,
            "T",
            "its element type of V, default f16 (-ctvd)");
}

void add_adapter_options(CLI::App& command, Options& options) {
  AdapterOptions& adapters = options.adapters;
  const Group group{command, "Adapters"};
  group.add("--lora",
            adapters.file,
            "FILE",
            "an adapter: GGUF, PEFT folder or adapter_model.safetensors");
  group.add("--lora-rank", adapters.rank, "R", "adapters of this rank, 16-bit (llama.cpp: f32)");
  group.add("--lora-targets", adapters.targets, "LIST", "of q,k,v,o,gate,up,down; default all");
  group.add("--max-loras", adapters.slots, "N", "so many of them at once, default 1");
}

void add_projector_options(CLI::App& command, Options& options) {
  ProjectorOptions& projector = options.projector;
  const Group group{command, "Vision"};
  group.add("--mmproj", projector.file, "GGUF", "its vision tower or audio encoder (llama.cpp)");
  group.add("--no-mmproj-offload", projector.on_host, "keep them on the host");
}

}  // namespace kvfathom::cli
