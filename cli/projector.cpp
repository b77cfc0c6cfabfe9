#include "cli/projector.h"

#include <string>

#include "cli/format.h"
#include "model/engine/llama_cpp/behaviours.h"
#include "model/engine/llama_cpp/projector.h"
#include "model/error.h"
#include "model/io/projector_file.h"

namespace kvfathom::cli {
namespace {

void require_rule(const Query& query) {
  const std::string engine(query.engine->name);
  if (loads_checkpoints(*query.engine)) {
    throw InputError("--mmproj",
                     "given with engine " + engine,
                     "leave it out: a checkpoint holds its own tower");
  }
  if (!llama_cpp::allocates_as_today(query.settings.missing_behaviours)) {
    throw Unsupported("--mmproj",
                      engine + " " + query.engine_version + ": no rule for its vision buffers",
                      "leave out --engine-version");
  }
}

void require_pair(const ProjectorSpec& projector, const ModelSpec& model) {
  const auto width = llama_cpp::output_width(projector);
  if (width && *width != model.hidden_size) {
    throw InputError("--mmproj",
                     "gives " + std::to_string(*width) + " values a token beside the model's " +
                         std::to_string(model.hidden_size),
                     "the projector of this model");
  }
}

void add_exact(LedgerLine& line, std::int64_t bytes) {
  line.bytes += bytes;
  line.low_bytes += bytes;
  line.high_bytes += bytes;
}

void add_buffer(LedgerLine& line, std::int64_t bytes, const llama_cpp::ProjectorBytes& how) {
  const std::int64_t spread = bytes * how.interval_percent / 100;
  add_exact(line, bytes);
  line.low_bytes -= spread;
  line.high_bytes += spread;
  line.provenance = how.provenance == Provenance::exact ? line.provenance : how.provenance;
}

}  // namespace

std::optional<ProjectorQuery> read_projector(const Options& all, const Query& query) {
  const ProjectorOptions& options = all.projector;
  if (!options.file) {
    if (options.on_host) {
      throw InputError("--mmproj", "missing beside --no-mmproj-offload", "give --mmproj GGUF");
    }
    return std::nullopt;
  }
  require_rule(query);
  ProjectorQuery projector{*options.file, read_projector_file(*options.file), options.on_host};
  for (const ProjectorSpec& encoder : projector.encoders) {
    static_cast<void>(llama_cpp::projector_bytes(encoder, false));  // says what has no rule
    require_pair(encoder, query.model.spec);
  }
  return projector;
}

Companion projector_companion(const Query& query,
                              const EngineInfo& engine,
                              const EngineSettings& settings) {
  const ProjectorQuery& projector = *query.projector;
  const bool on_gpu = settings.n_gpus > 0 && !projector.on_host;
  const Device device{on_gpu ? 0 : Device::kHost};
  LedgerLine held = exact_line(device, LedgerKind::vision, 0);
  LedgerLine input = exact_line({Device::kHost}, LedgerKind::vision, 0);
  for (const ProjectorSpec& encoder : projector.encoders) {
    const llama_cpp::ProjectorBytes bytes = llama_cpp::projector_bytes(
        encoder, on_gpu, settings.flash_attention != FlashAttention::off);
    add_exact(held, bytes.weights_bytes);
    if (engine.name == "llama.cpp") {
      add_buffer(held, bytes.compute_bytes, bytes);
      add_buffer(input, bytes.input_bytes, bytes);
    }
  }
  Companion companion;
  companion.kind = LedgerKind::vision;
  companion.fixed = {held};
  if (engine.name != "llama.cpp") {
    return companion;
  }
  if (input.bytes > 0) {
    companion.fixed.push_back(input);
  }
  companion.options = " --mmproj " + shell_word(projector.file);
  companion.options += projector.on_host ? " --no-mmproj-offload" : "";
  return companion;
}

}  // namespace kvfathom::cli
