#include "model/weights/mtp.h"

#include <algorithm>
#include <string>

#include "model/weights/tensor_name.h"

namespace kvfathom {
namespace {

void add_prediction_tensors(const ModelSpec& model,
                            const std::string& prefix,
                            DType matrix_dtype,
                            bool own_embeddings,
                            std::vector<Tensor>& out) {
  const std::int64_t d = model.hidden_size;
  out.push_back({prefix + "nextn.eh_proj.weight", {2 * d, d, 1, 1}, matrix_dtype});
  for (const char* const norm : {"enorm", "hnorm", "shared_head_norm"}) {
    out.push_back({prefix + "nextn." + norm + ".weight", {d, 1, 1, 1}, DType::f32});
  }
  if (own_embeddings) {
    for (const char* const table : {"embed_tokens", "shared_head_head"}) {
      out.push_back(
          {prefix + "nextn." + table + ".weight", {d, model.vocab_size, 1, 1}, matrix_dtype});
    }
  }
}

}  // namespace

bool files_hold_mtp(std::string_view architecture) {
  // convert_hf_to_gguf since it knows them (2025-07, 2025-10, 2026-01), without a way to leave
  // the blocks out
  return architecture == "glm4moe" || architecture == "bailingmoe2" || architecture == "exaone-moe";
}

std::vector<Tensor> with_mtp_blocks(const ModelSpec& model, std::vector<Tensor> decoder) {
  const auto part = std::ranges::find(model.extras, std::string("mtp"), &ExtraPart::kind);
  if (part == model.extras.end() || part->n_layers == 0) {
    return decoder;
  }
  const std::int64_t n = n_layers(model);
  const std::string last = "blk." + std::to_string(n - 1) + ".";
  std::vector<Tensor> block;
  DType matrix_dtype = DType::bf16;
  for (const Tensor& t : decoder) {
    if (block_of(t.name) == n - 1) {
      block.push_back(t);
    }
    matrix_dtype = t.name == "token_embd.weight" ? t.dtype : matrix_dtype;
  }
  const bool own_embeddings =
      part->n_parameters / part->n_layers >= 2 * model.hidden_size * model.vocab_size;
  for (std::int64_t i = 0; i < part->n_layers; ++i) {
    const std::string prefix = "blk." + std::to_string(n + i) + ".";
    for (Tensor t : block) {
      t.name = prefix + t.name.substr(last.size());
      decoder.push_back(std::move(t));
    }
    add_prediction_tensors(model, prefix, matrix_dtype, own_embeddings, decoder);
  }
  return decoder;
}

}  // namespace kvfathom
