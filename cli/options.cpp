#include "cli/options.h"

#include <CLI/CLI.hpp>

namespace kvfathom::cli {

void add_output_options(CLI::App& command, Options& options) {
  OutputOptions& out = options.output;
  command.add_flag("--json", out.json, "a JSON document (data/schemas/) instead of a table")
      ->group("Output");
  command.add_flag("--quiet", out.quiet, "the answer only, without notes")->group("Output");
  command.add_flag("--no-color", out.no_color, "no colours (also: NO_COLOR set)")->group("Output");
  command.add_option("--width", out.width, "columns to print in (default: the terminal's)")
      ->type_name("N")
      ->group("Output");
}

void add_model_options(CLI::App& command, Options& options) {
  command
      .add_option("MODEL",
                  options.model,
                  "catalog name, .gguf, config.json, model folder or inspect document")
      ->required();
  command
      .add_option("--weights",
                  options.weights,
                  "weight format or quantiser recipe (bf16, q8_0, q4_k_m ..); default: the file's")
      ->type_name("F")
      ->group("Model");
}

void add_gpu_options(CLI::App& command, Options& options) {
  GpuOptions& gpu = options.gpu;
  const auto add = [&](const char* name, Text& target, const char* type, const char* help) {
    command.add_option(name, target, help)->type_name(type)->group("Machine");
  };
  add("--gpu", gpu.gpu, "GPU", "catalog name, 'local', or a hardware JSON file");
  add("--gpus", gpu.gpus, "N|A,B", "how many, or their names; 0: everything on the host");
  add("--memory", gpu.memory, "SIZE", "memory of the device (24GiB; 24GB is 24e9 bytes)");
  if (command.get_name() == "crossover") {  // whose --bandwidth is the tier's
    add("--memory-bandwidth", gpu.bandwidth, "RATE", "its memory bandwidth (1008GB/s)");
  } else {
    add("--bandwidth", gpu.bandwidth, "RATE", "its memory bandwidth (1008GB/s)");
  }
  add("--reserve", gpu.reserve, "SIZE", "memory to keep free on each GPU (0; --auto: 1GiB)");
  add("--host-memory", gpu.host_memory, "SIZE", "memory of the host beside the GPUs");
}

void add_crossover_options(CLI::App& command, Options& options) {
  CrossoverOptions& crossover = options.crossover;
  const auto add = [&](const char* name, Text& target, const char* type, const char* help) {
    command.add_option(name, target, help)->type_name(type)->group("Tier");
  };
  add("--tier", crossover.tier, "T", "host, nvme or network; default: each");
  add("--bandwidth",
      crossover.bandwidth,
      "RATE",
      "of the tier (25GB/s); default: the device's link");
  add("--call", crossover.call, "US", "microseconds until a piece flows");
  add("--piece", crossover.piece, "SIZE", "bytes moved at a time (2MiB)");
  add("--load", crossover.load, "SHARE", "of the device and the link that others take, 0 to 0.95");
  add("--queued", crossover.queued, "SIZE", "bytes on the link before ours");
  add("--running", crossover.running, "N", "sequences that decode meanwhile");
  add("--svg", crossover.svg, "FILE", "writes the map of length and bandwidth as a picture");
  command.add_flag("--map", crossover.map, "who wins, by length and bandwidth")->group("Tier");
  command
      .add_flag("--measure",
                crossover.measure,
                "runs both on this machine's CPU, beside what its calibration predicts")
      ->group("Measure");
  command.add_option("--lengths", crossover.lengths, "tokens to measure at, N,N,..")
      ->type_name("LIST")
      ->group("Measure");
  command
      .add_option("--seconds", crossover.seconds, "for each figure at most, besides warming up (3)")
      ->type_name("S")
      ->group("Measure");
  command
      .add_option("--calibration",
                  options.calibration,
                  "of this CPU (default: its newest by kvfathom calibrate)")
      ->type_name("FILE")
      ->group("Measure");
}

void add_inverse_options(CLI::App& command, Options& options) {
  constexpr const char* kGroup = "What to find (default: the longest context)";
  command.add_flag("--beyond-trained", options.beyond_trained, "look past the trained length")
      ->group(kGroup);
  command.add_flag("--users", options.users, "as many sequences of --context tokens as fit")
      ->group(kGroup);
  command
      .add_flag("--smallest-gpu",
                options.smallest_gpu,
                "the smallest GPU, and number of it, that holds --context tokens")
      ->group(kGroup);
  command
      .add_option("--max-gpus", options.max_gpus, "at most so many of a GPU (8; 1, 2, 4, 8 tried)")
      ->type_name("N")
      ->group(kGroup);
  command.add_option("--vendor", options.vendor, "only its GPUs (nvidia, amd, intel, apple)")
      ->type_name("NAME")
      ->group(kGroup);
  command
      .add_flag("--best-quant",
                options.best_quant,
                "the finest types of weights and cache that hold --context tokens")
      ->group(kGroup);
}

void add_speed_options(CLI::App& command, Options& options) {
  command
      .add_option("--host-bandwidth",
                  options.gpu.host_bandwidth,
                  "memory bandwidth of the host, for experts that stay there (80GB/s)")
      ->type_name("RATE")
      ->group("Machine");
  command
      .add_option("--draft-tokens",
                  options.draft_tokens,
                  "speculative decoding: tokens drafted a step, by the model's own prediction "
                  "blocks")
      ->type_name("K")
      ->group("Engine");
  command
      .add_option("--acceptance",
                  options.acceptance,
                  "share of drafted tokens that are accepted, 0 to 1 (measure it: it differs by "
                  "task)")
      ->type_name("A")
      ->group("Engine");
  command
      .add_option("--calibration",
                  options.calibration,
                  "measured laws to price by, or none (default: for --engine ideal the newest of "
                  "this device by kvfathom calibrate)")
      ->type_name("FILE")
      ->group("Machine");
  command.add_flag("--energy", options.energy, "joules per token, from the GPUs' TDP")
      ->group("Machine");
}

void add_engine_options(CLI::App& command, Options& options) {
  EngineOptions& engine = options.engine;
  const auto add = [&](const char* name, Text& target, const char* type, const char* help) {
    command.add_option(name, target, help)->type_name(type)->group("Engine");
  };
  add("--engine",
      engine.engine,
      "E",
      "llama.cpp (default for GGUF), vllm (default else), ideal .. or all");
  add("--engine-version", engine.engine_version, "V", "build (b9000), release or date");
  add("--context", engine.context, "N", "tokens per sequence");
  add("--sequences", engine.sequences, "S", "concurrent sequences, default 1 (llama.cpp -np)");
  command
      .add_option("--scheme",
                  engine.schemes,
                  "cache scheme, repeatable: ID, ID:key=value,.. or ID+offload:..; 'all': every "
                  "one that applies")
      ->type_name("ID")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group("Engine");
  add("--cache-type-k",
      engine.cache_type_k,
      "T",
      "element type of K, default f16 (llama.cpp -ctk)");
  add("--cache-type-v",
      engine.cache_type_v,
      "T",
      "element type of V, default f16 (llama.cpp -ctv)");
  add("--batch-tokens,--batch", engine.batch_tokens, "N", "tokens per logical pass (llama.cpp -b)");
  add("--ubatch-tokens,--ubatch", engine.ubatch_tokens, "N", "tokens per physical pass (-ub)");
  add("--outputs", engine.outputs, "N", "rows of logits reserved; 0: a whole micro-batch");
  add("--flash-attention", engine.flash_attention, "on|off|auto", "llama.cpp -fa");
  add("--kv-unified", engine.kv_unified, "on|off", "one cache for all sequences (llama.cpp -kvu)");
  add("--swa-full", engine.swa_full, "on|off", "windows get the whole context (--swa-full)");
  add("--gpu-memory-utilization",
      engine.gpu_memory_utilization,
      "F",
      "the engine's share of a device (vLLM; SGLang --mem-fraction-static)");
  add("--max-batched-tokens", engine.max_batched_tokens, "N", "tokens per step (vLLM, SGLang)");
  add("--max-sequences", engine.max_sequences, "N", "sequences per step (vLLM --max-num-seqs)");
  add("--block-tokens", engine.block_tokens, "N", "tokens per page (vLLM --block-size)");
  add("--tensor-parallel", engine.tensor_parallel, "N", "ranks that share each layer, default 1");
  add("--pipeline-parallel", engine.pipeline_parallel, "N", "stages of layers, default 1");
  add("--data-parallel", engine.data_parallel, "N", "replicas, default 1");
  add("--expert-parallel",
      engine.expert_parallel,
      "N",
      "ranks that share whole experts, default 1");
  add("--gpu-layers,--n-gpu-layers",
      engine.gpu_layers,
      "N",
      "the last N layers on the GPUs, the output head counted (llama.cpp -ngl)");
  command.add_flag("--cpu-moe", engine.cpu_moe, "all experts on the host")->group("Engine");
  add("--cpu-moe-layers,--n-cpu-moe",
      engine.cpu_moe_layers,
      "N",
      "the experts of the first N layers on the host (llama.cpp --n-cpu-moe)");
  command
      .add_flag("--auto",
                engine.auto_placement,
                "as much on the GPUs as fits: all layers, then experts, then context")
      ->group("Engine");
}

void add_draft_options(CLI::App& command, Options& options) {
  DraftOptions& draft = options.draft;
  const auto add = [&](const char* name, Text& target, const char* type, const char* help) {
    command.add_option(name, target, help)->type_name(type)->group("Draft model");
  };
  add("--draft", draft.model, "MODEL", "a second model that drafts for the first (llama.cpp -md)");
  add("--draft-weights", draft.weights, "F", "its weight format, as --weights");
  add("--draft-gpu-layers", draft.gpu_layers, "N", "its last N layers on the GPUs (-ngld)");
  add("--draft-cache-type-k",
      draft.cache_type_k,
      "T",
      "its element type of K, default f16 (-ctkd)");
  add("--draft-cache-type-v",
      draft.cache_type_v,
      "T",
      "its element type of V, default f16 (-ctvd)");
}

void add_adapter_options(CLI::App& command, Options& options) {
  AdapterOptions& adapters = options.adapters;
  const auto add = [&](const char* name, Text& target, const char* type, const char* help) {
    command.add_option(name, target, help)->type_name(type)->group("Adapters");
  };
  add("--lora",
      adapters.file,
      "FILE",
      "an adapter: GGUF, PEFT folder or adapter_model.safetensors");
  add("--lora-rank", adapters.rank, "R", "adapters of this rank, 16-bit (llama.cpp: f32)");
  add("--lora-targets", adapters.targets, "LIST", "of q,k,v,o,gate,up,down; default all");
  add("--max-loras", adapters.slots, "N", "so many of them at once, default 1");
}

}  // namespace kvfathom::cli
