#include "model/engine/llama_cpp/prediction.h"

#include <algorithm>

#include "model/engine/llama_cpp/placement.h"
#include "model/error.h"
#include "model/weights/mtp.h"
#include "model/weights/tensor_name.h"

namespace kvfathom::llama_cpp {
namespace {

bool is_stored(const ModelSpec& model) {
  return std::ranges::any_of(model.tensors,
                             [&](const Tensor& t) { return block_of(t.name) >= n_layers(model); });
}

}  // namespace

void refuse_prediction(const ModelSpec& model, const EngineSettings& settings) {
  const auto part = std::ranges::find(model.extras, std::string("mtp"), &ExtraPart::kind);
  if (part == model.extras.end() || part->n_layers == 0) {
    throw InputError("--mtp", model.name + " has no prediction blocks", "leave it out");
  }
  const bool is_seen = model.architecture == "qwen35" || model.architecture == "qwen35moe";
  if (!is_seen || part->n_layers != 1) {
    throw Unsupported("--mtp",
                      "no rule for the second context of architecture \"" + model.architecture +
                          "\" with " + std::to_string(part->n_layers) + " blocks",
                      "leave it out");
  }
  if (!settings.missing_behaviours.empty()) {
    throw Unsupported(
        "--mtp", "no rule for llama.cpp " + settings.engine_version, "leave out --engine-version");
  }
  if (is_spread(settings)) {
    throw Unsupported("--mtp", "no rule for layers on several devices", "one GPU with every layer");
  }
}

ModelSpec prediction_model(const ModelSpec& model) {
  ModelSpec block = model;
  block.layers = {model.layers.back()};
  block.extras.clear();
  block.tensors.clear();
  const std::string prefix = "blk." + std::to_string(n_layers(model)) + ".";
  const std::vector<Tensor> all =
      is_stored(model) ? model.tensors : with_mtp_blocks(model, model.tensors);
  for (Tensor t : all) {
    if (t.name.starts_with(prefix)) {
      t.name = "blk.0." + t.name.substr(prefix.size());
      block.tensors.push_back(std::move(t));
    }
  }
  return block;
}

EngineSettings prediction_settings(const EngineSettings& settings) {
  EngineSettings block = settings;
  block.scheme = CacheScheme::native;
  block.scheme_parameters = {};
  block.offload = std::nullopt;
  block.cache_type_k = DType::f16;
  block.cache_type_v = DType::f16;
  return block;
}

std::vector<LedgerLine> prediction_lines(const MemoryLedger& model,
                                         const MemoryLedger& block,
                                         std::int64_t n_draft_tokens) {
  std::vector<LedgerLine> lines;
  for (const LedgerLine& line : model.lines) {
    if (line.kind == LedgerKind::state) {
      lines.push_back(exact_line(line.device, LedgerKind::draft, n_draft_tokens * line.bytes));
    }
  }
  for (const LedgerLine& line : block.lines) {
    if (line.kind == LedgerKind::compute && line.device.index != Device::kHost) {
      lines.push_back({line.device,
                       LedgerKind::draft,
                       0,
                       Provenance::modelled,
                       -line.bytes * 15 / 100,
                       line.bytes * 5 / 100});
    }
  }
  return lines;
}

std::string prediction_options(std::int64_t n_draft_tokens) {
  return " --spec-type draft-mtp --spec-draft-n-max " + std::to_string(n_draft_tokens);
}

}  // namespace kvfathom::llama_cpp
