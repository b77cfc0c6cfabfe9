#include "cli/adapters.h"

#include <algorithm>
#include <array>
#include <sstream>
#include <variant>

#include "cli/format.h"
#include "cli/values.h"
#include "model/architecture/tensor_inventory.h"
#include "model/engine/ideal_stages.h"
#include "model/engine/llama_cpp/adapters.h"
#include "model/error.h"
#include "model/io/adapter_matrices.h"

namespace kvfathom::cli {
namespace {

constexpr std::int64_t kHalfBytes = 2;
constexpr std::int64_t kFloatBytes = 4;

std::vector<std::string> read_targets(const std::string& text) {
  std::vector<std::string> targets;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    targets.push_back(word);
  }
  return text == "all" ? std::vector<std::string>{} : targets;
}

void require_engine(const EngineInfo& engine) {
  if (engine.name != "llama.cpp" && engine.name != "vllm" && !is_formula(engine)) {
    throw Unsupported("--lora",
                      std::string(engine.name) + ": no rule for adapters",
                      "use --engine llama.cpp, vllm or ideal");
  }
}

void require_rule(const EngineInfo& engine, const EngineSettings& settings) {
  if (engine.name == "vllm" && (settings.pipeline_parallel > 1 || settings.expert_parallel > 1)) {
    throw Unsupported("--lora",
                      "no rule for adapters under pipeline or expert parallelism",
                      "use --tensor-parallel alone");
  }
}

/// LoRAConfig.max_lora_rank of vLLM 0.11 (vllm/config/lora.py) takes these and no other.
void require_vllm_rank(const AdapterQuery& adapters) {
  constexpr std::array<std::int64_t, 9> kRanks{1, 8, 16, 32, 64, 128, 256, 320, 512};
  if (adapters.file) {
    throw Unsupported(
        "--lora", "vllm allocates slots by rank, not by a file's tensors", "give --lora-rank");
  }
  if (!std::ranges::binary_search(kRanks, adapters.shape.rank)) {
    throw InputError("--lora-rank",
                     std::to_string(adapters.shape.rank),
                     "1, 8, 16, 32, 64, 128, 256, 320 or 512 with vllm");
  }
}

/// Rows that a product with experts has for every token: one of each chosen expert.
std::int64_t most_experts_per_token(const ModelSpec& model) {
  std::int64_t most = 1;
  for (const LayerSpec& layer : model.layers) {
    const auto* const moe = std::get_if<MixtureOfExperts>(&layer.feed_forward);
    most = std::max(most, moe != nullptr ? moe->n_experts_per_token : 0);
  }
  return most;
}

/// What llama.cpp's graph adds for an adapter (llama-graph.cpp, build_lora_mm and, for experts,
/// build_lora_mm_id): the product with A, the product with B and its scaled copy, in f32 for a
/// micro-batch. The peak of the compute buffer may be elsewhere: nothing up to this much more.
std::int64_t most_graph_bytes(const ModelSpec& model, const EngineSettings& settings) {
  constexpr std::int64_t kUbatchTokens = 512;
  const std::int64_t experts = most_experts_per_token(model);
  std::int64_t widest = 0;
  for (const Tensor& t : tensor_inventory(model)) {
    const bool of_experts = t.name.find("_exps.") != std::string::npos;
    const std::int64_t width = t.shape[1] * (of_experts ? experts : 1);
    widest = std::max(widest, t.name.starts_with("blk.") ? width : 0);
  }
  constexpr std::int64_t kProducts = 3;
  return kProducts * widest * kFloatBytes * settings.ubatch_tokens.value_or(kUbatchTokens);
}

/// A file's tensors as they are; of adapters of a shape convert_lora_to_gguf.py (0b03adaa) writes
/// f32 unless f16 or less is asked for.
struct Units {
  std::int64_t bytes = 1;
  std::int64_t low_bytes = 1;
};

std::vector<LedgerLine> llama_cpp_lines(const Query& query, const EngineSettings& settings) {
  const AdapterQuery& adapters = *query.adapters;
  const ModelSpec& model = query.model.spec;
  const Units unit = adapters.file ? Units{} : Units{kFloatBytes, kHalfBytes};
  const auto held = [&](std::int64_t unit_bytes) {
    return llama_cpp::adapter_bytes(model, settings, adapters.matrices, unit_bytes);
  };
  const llama_cpp::AdapterBytes most = held(unit.bytes);
  const llama_cpp::AdapterBytes least = held(unit.low_bytes);
  const std::int64_t graph_bytes = most_graph_bytes(model, settings);
  std::vector<LedgerLine> lines;
  const auto add = [&](Device device, std::int64_t bytes, std::int64_t low, std::int64_t copies) {
    LedgerLine line{device, LedgerKind::lora, 0, Provenance::modelled, 0, graph_bytes};
    line.bytes = adapters.slots * bytes;
    line.low_bytes = adapters.slots * low;
    line.high_bytes += adapters.slots * (bytes + copies);
    if (line.bytes > 0 || copies > 0) {
      lines.push_back(line);
    }
  };
  for (std::size_t gpu = 0; gpu < most.gpu_bytes.size(); ++gpu) {
    add(Device{static_cast<int>(gpu)},
        most.gpu_bytes[gpu],
        least.gpu_bytes[gpu],
        gpu == 0 ? most.largest_host_layer_bytes : 0);
  }
  add(Device{Device::kHost}, most.host_bytes, least.host_bytes, 0);
  return lines;
}

/// vLLM allocates `max_loras` slots of the full rank for every matrix that it can adapt, whatever
/// the adapters' targets (vllm/lora/layers/base_linear.py, column_parallel_linear.py of 0.11).
/// High: the embedding and the output head have slots too; low: the named targets, and no experts.
std::vector<LedgerLine> vllm_lines(const Query& query, const EngineSettings& settings) {
  const AdapterQuery& adapters = *query.adapters;
  const ModelSpec& model = query.model.spec;
  const LoraRank rank{.tensor_parallel = settings.tensor_parallel};
  LoraShape shape = adapters.shape;
  LoraShape least = shape;
  least.experts = false;
  shape.targets.clear();
  const std::int64_t slot_bytes = adapters.slots * kHalfBytes;
  LedgerLine line{{0}, LedgerKind::lora, 0, Provenance::modelled, 0, 0};
  line.bytes = slot_bytes * held_by(rank, model, lora_matrices(model, shape));
  line.low_bytes = slot_bytes * held_by(rank, model, lora_matrices(model, least));
  line.high_bytes =
      line.bytes + slot_bytes * 2 * shape.rank * (model.vocab_size + model.hidden_size);
  const std::int64_t ranks = settings.tensor_parallel * settings.data_parallel;
  std::vector<LedgerLine> lines;
  for (std::int64_t i = 0; i < ranks; ++i) {
    line.device.index = static_cast<int>(i);
    lines.push_back(line);
  }
  return lines;
}

/// Beside the matrices that they adapt: those of a stage's layers, cut over its ranks.
std::vector<LedgerLine> ideal_lines(const Query& query, const EngineSettings& settings) {
  const AdapterQuery& adapters = *query.adapters;
  const ModelSpec& model = query.model.spec;
  const serving::Parallel parallel = ideal_parallel(model, settings);
  const std::int64_t unit_bytes = adapters.file ? 1 : adapters.slots * kHalfBytes;
  std::vector<LedgerLine> lines;
  Device device{settings.n_gpus > 0 ? 0 : Device::kHost};
  for (std::size_t stage = 0; stage + 1 < parallel.stage_bounds.size(); ++stage) {
    const LoraRank rank{.tensor_parallel = parallel.tensor,
                        .first_layer = parallel.stage_bounds[stage],
                        .end_layer = parallel.stage_bounds[stage + 1]};
    const std::int64_t bytes = unit_bytes * held_by(rank, model, adapters.matrices);
    for (std::int64_t i = 0; i < parallel.tensor; ++i, ++device.index) {
      lines.push_back(exact_line(device, LedgerKind::lora, bytes));
    }
  }
  return lines;
}

std::string llama_cpp_options(const AdapterQuery& adapters) {
  if (adapters.file) {
    return " --lora " + shell_word(*adapters.file);
  }
  std::string text;
  for (std::int64_t i = 1; i <= adapters.slots; ++i) {  // files that somebody would have to make
    text += " --lora adapter-" + std::to_string(i) + ".gguf";
  }
  return text;
}

}  // namespace

std::optional<AdapterQuery> read_adapters(const Options& all, const Query& query) {
  const AdapterOptions& options = all.adapters;
  if (!options.file && !options.rank) {
    if (options.targets || options.slots) {
      throw InputError("--lora-rank", "missing beside its options", "give --lora-rank R");
    }
    return std::nullopt;
  }
  if (options.file && (options.rank || options.targets || options.slots)) {
    throw InputError("--lora", "given together with a rank", "give --lora or --lora-rank");
  }
  require_engine(*query.engine);
  if (query.auto_context_tokens) {
    throw Unsupported("--lora",
                      "llama.cpp's fit does not count adapters: no rule for what it leaves",
                      "leave out --auto, or place layers with --gpu-layers");
  }
  AdapterQuery adapters;
  if (options.file) {
    const AdapterFile file = read_adapter_file(*options.file);
    if (!file.gguf && query.engine->name == "llama.cpp") {
      throw InputError(
          "--lora", "llama.cpp loads no safetensors", "a GGUF: convert_lora_to_gguf.py makes one");
    }
    adapters.file = options.file;
    adapters.matrices = adapter_matrices(file, query.model.spec);
  } else {
    adapters.shape.rank = parse_count("--lora-rank", *options.rank, 1, 65'536);
    adapters.shape.targets = read_targets(options.targets.value_or("all"));
    adapters.slots = options.slots ? parse_count("--max-loras", *options.slots, 1, 1'000) : 1;
    adapters.matrices = lora_matrices(query.model.spec, adapters.shape);
  }
  if (query.engine->name == "vllm") {
    require_vllm_rank(adapters);
  }
  return adapters;
}

Companion adapter_companion(const Query& query,
                            const EngineInfo& engine,
                            const EngineSettings& settings) {
  require_rule(engine, settings);
  const AdapterQuery& adapters = *query.adapters;
  Companion companion;
  companion.kind = LedgerKind::lora;
  if (engine.name == "llama.cpp") {
    companion.fixed = llama_cpp_lines(query, settings);
    companion.options = llama_cpp_options(adapters);
  } else if (engine.name == "vllm") {
    companion.fixed = vllm_lines(query, settings);
    companion.options = " --enable-lora --max-loras " + std::to_string(adapters.slots) +
                        " --max-lora-rank " + std::to_string(adapters.shape.rank);
  } else {
    companion.fixed = ideal_lines(query, settings);
  }
  return companion;
}

}  // namespace kvfathom::cli
