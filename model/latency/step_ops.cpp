#include "model/latency/step_ops.h"

#include <numeric>
#include <string>

#include "model/error.h"
#include "model/latency/emit.h"
#include "model/ops/elementwise.h"
#include "model/ops/gemm.h"

namespace kvfathom {
namespace latency {

std::int64_t Emit::context() const {
  if (step.ragged.empty()) {
    return step.n_cached_tokens + step.n_new_tokens;
  }
  const std::int64_t sum = std::accumulate(step.ragged.begin(), step.ragged.end(), std::int64_t{0});
  return sum / static_cast<std::int64_t>(step.ragged.size()) + step.n_new_tokens;
}

std::vector<std::int64_t> Emit::lengths() const {
  if (step.ragged.empty()) {
    return {context()};
  }
  std::vector<std::int64_t> all(step.ragged.begin(), step.ragged.end());
  for (std::int64_t& length : all) {
    length += step.n_new_tokens;
  }
  return all;
}

}  // namespace latency

namespace {

void require_heads_divide(const ModelSpec& model, std::int64_t ranks) {
  for (const LayerSpec& layer : model.layers) {
    const auto* a = std::get_if<Attention>(&layer.mixer);
    const auto* latent = std::get_if<LatentAttention>(&layer.mixer);
    const std::int64_t heads = a != nullptr        ? a->n_heads
                               : latent != nullptr ? latent->n_heads
                                                   : ranks;
    if (heads % ranks != 0) {
      throw InputError(
          "--tensor-parallel",
          std::to_string(ranks) + " ranks for " + std::to_string(heads) + " attention heads",
          "use a divisor");
    }
  }
}

}  // namespace

StepOps::StepOps(const ModelSpec& model, const LatencySettings& settings)
    : hidden_size_(model.hidden_size),
      vocab_size_(model.vocab_size),
      n_layers_(kvfathom::n_layers(model)),
      settings_(settings),
      work_(model_work(model, settings.scheme, settings.is_on_host)) {
  cache::require_applicable(model, settings.scheme);
  require_heads_divide(model, settings.tensor_parallel);
}

void StepOps::emit(const StepShape& step, std::vector<Op>& ops) const {
  ops.clear();
  for (const LayerWork& layer : work_.layers) {
    const latency::Emit emit{settings_, step, hidden_size_, layer.n_layers, ops, layer.on_host};
    const std::size_t first = ops.size();
    latency::emit_products(emit, layer);
    latency::emit_mixer(emit, layer);
    latency::bring_from_host(emit, first);
  }
  const latency::Emit once{settings_, step, hidden_size_, 1, ops};
  const std::size_t first = ops.size();
  for (const MatrixWork& matrix : work_.once) {
    latency::emit_matrix(once, matrix, NoMixer{});
  }
  latency::bring_from_host(once, first);
  // A prompt's last token alone has logits; every token of a draft is judged by its own.
  const std::int64_t rows = step.phase == Phase::prefill ? step.n_sequences : once.tokens();
  const MatrixWork& head = work_.output_head;
  const std::int64_t vocabulary = once.share(head.n_out);
  const Bytes weights(static_cast<double>(head.weights_bytes) /
                      static_cast<double>(settings_.tensor_parallel));
  OpCost cost = gemm_cost({.m = rows, .n = 0, .k = head.n_in});
  cost.read += weights;
  cost.written = Bytes(4.0 * static_cast<double>(rows * vocabulary));
  cost.flops = Flops(2.0 * static_cast<double>(rows * vocabulary) * static_cast<double>(head.n_in));
  once.add({.op_class = {.kind = OpKind::gemm, .format = head.dtype, .few_rows = rows <= kFewRows},
            .part = "output head",
            .cost = cost,
            .n_blocks = vocabulary / 128 + 1,
            .weights = weights},
           head.on_host);
  once.add({.op_class = {.kind = OpKind::elementwise},
            .part = "sample",
            .cost = sample_cost(rows, vocab_size_),
            .n_blocks = rows});
  if (settings_.pipeline_parallel > 1) {
    const Bytes message(2.0 * static_cast<double>(once.tokens() * hidden_size_));
    once.add({.op_class = {.kind = OpKind::peer_transfer},
              .part = "to the next stage",
              .cost = {.read = message},
              .n_times = settings_.pipeline_parallel - 1});
  }
}

}  // namespace kvfathom
