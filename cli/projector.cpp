#include "cli/projector.h"

#include <string>

#include "cli/format.h"
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
  if (!query.settings.missing_behaviours.empty()) {
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
  static_cast<void>(llama_cpp::projector_bytes(projector.spec, false));  // says what has no rule
  require_pair(projector.spec, query.model.spec);
  return projector;
}

Companion projector_companion(const Query& query,
                              const EngineInfo& engine,
                              const EngineSettings& settings) {
  const ProjectorQuery& projector = *query.projector;
  const bool on_gpu = settings.n_gpus > 0 && !projector.on_host;
  const Device device{on_gpu ? 0 : Device::kHost};
  const llama_cpp::ProjectorBytes bytes = llama_cpp::projector_bytes(
      projector.spec, on_gpu, settings.flash_attention != FlashAttention::off);
  Companion companion;
  companion.kind = LedgerKind::vision;
  if (engine.name != "llama.cpp") {
    companion.fixed = {exact_line(device, LedgerKind::vision, bytes.weights_bytes)};
    return companion;
  }
  const auto line = [&](Device where, std::int64_t weights, std::int64_t compute) {
    LedgerLine l = exact_line(where, LedgerKind::vision, weights + compute);
    if (bytes.provenance != Provenance::exact) {
      l.provenance = bytes.provenance;
      l.low_bytes -= compute / 10;
      l.high_bytes += compute / 10;
    }
    return l;
  };
  companion.fixed = {line(device, bytes.weights_bytes, bytes.compute_bytes)};
  if (bytes.input_bytes > 0) {
    companion.fixed.push_back(line({Device::kHost}, 0, bytes.input_bytes));
  }
  companion.options = " --mmproj " + shell_word(projector.file);
  companion.options += projector.on_host ? " --no-mmproj-offload" : "";
  return companion;
}

}  // namespace kvfathom::cli
