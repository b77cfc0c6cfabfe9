#include "model/engine/llama_cpp/prediction.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <variant>

#include "model/engine/llama_cpp/behaviours.h"
#include "model/engine/llama_cpp/placement.h"
#include "model/error.h"
#include "model/weights/mtp.h"
#include "model/weights/tensor_name.h"

namespace kvfathom::llama_cpp {
namespace {

/// Architectures whose second context is built like Qwen3.5's: one decoder layer over the model's
/// vocabulary, with a plain cache of its own.
struct KnownBlock {
  std::string_view architecture;
  bool logged = false;
};

constexpr std::array<KnownBlock, 7> kKnownBlocks{{
    {"qwen35", true},
    {"qwen35moe", true},
    {"qwen3next"},
    {"deepseek2"},
    {"deepseek32"},
    {"glm-dsa"},
    {"glm4moe"},
}};

const KnownBlock* known_block(const ModelSpec& model) {
  const auto* const known =
      std::ranges::find(kKnownBlocks, model.architecture, &KnownBlock::architecture);
  return known == kKnownBlocks.end() ? nullptr : known;
}

bool is_stored(const ModelSpec& model) {
  return std::ranges::any_of(model.tensors,
                             [&](const Tensor& t) { return block_of(t.name) >= n_layers(model); });
}

/// How much less and more than the graph of the block a context may take.
struct ComputeShare {
  std::int64_t less_percent = 0;
  std::int64_t more_percent = 0;
};

ComputeShare compute_share(const ModelSpec& model) {
  const KnownBlock* const known = known_block(model);
  return known != nullptr && known->logged ? ComputeShare{15, 5} : ComputeShare{50, 30};
}

/// Copies of the model's tables that checkpoints keep with the block, and converters may leave out.
std::int64_t own_table_bytes(const ModelSpec& model) {
  std::int64_t bytes = 0;
  for (const Tensor& t : prediction_model(model).tensors) {
    const bool is_table = t.name.find("nextn.embed_tokens") != std::string::npos ||
                          t.name.find("nextn.shared_head_head") != std::string::npos;
    bytes += is_table ? data_bytes(t) : 0;
  }
  return bytes;
}

}  // namespace

void refuse_prediction(const ModelSpec& model, const EngineSettings& settings) {
  const auto part = std::ranges::find(model.extras, std::string("mtp"), &ExtraPart::kind);
  if (part == model.extras.end() || part->n_layers == 0) {
    throw InputError("--mtp", model.name + " has no prediction blocks", "leave it out");
  }
  if (known_block(model) == nullptr || part->n_layers != 1) {
    throw Unsupported("--mtp",
                      "llama.cpp: no rule for the second context of architecture \"" +
                          model.architecture + "\" with " + std::to_string(part->n_layers) +
                          (part->n_layers == 1 ? " block" : " blocks"),
                      "leave it out");
  }
  const bool has_context = behaviours_without(settings.missing_behaviours).glm4moe_prediction ||
                           model.architecture != "glm4moe";
  if (!has_context || !allocates_as_today(settings.missing_behaviours)) {
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
  if (auto* latent = std::get_if<LatentAttention>(&block.layers.front().mixer)) {
    latent->indexer.reset();
    block.architecture = "deepseek2";  // whose graph this is, without the index
  }
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

std::vector<LedgerLine> prediction_lines(const ModelSpec& spec,
                                         const MemoryLedger& model,
                                         const MemoryLedger& block,
                                         std::int64_t n_draft_tokens) {
  std::vector<LedgerLine> lines;
  const ComputeShare share = compute_share(spec);
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
                       -line.bytes * share.less_percent / 100,
                       line.bytes * share.more_percent / 100});
    }
    if (line.kind == LedgerKind::weights && !is_stored(spec)) {
      const std::int64_t bytes = own_table_bytes(spec);
      lines.push_back({line.device, LedgerKind::draft, 0, Provenance::modelled, -bytes, 0});
    }
  }
  return lines;
}

std::string prediction_options(std::int64_t n_draft_tokens) {
  return " --spec-type draft-mtp --spec-draft-n-max " + std::to_string(n_draft_tokens);
}

}  // namespace kvfathom::llama_cpp
