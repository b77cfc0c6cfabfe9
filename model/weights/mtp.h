// Multi-token-prediction blocks as GGUF files carry them behind the decoder's own.
#pragma once

#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom {

/// Whether every GGUF file of the architecture holds the model's prediction blocks. Converters
/// of other architectures leave them out, or did until mid 2026 and make it a choice since.
[[nodiscard]] bool files_hold_mtp(std::string_view architecture);

/// Adds the prediction blocks that `model.extras` counts to `decoder` (GGUF tensors): each is one
/// more block like the last, with `nextn.*` tensors beside it (DeepSeek-V3 report s2.2). They
/// count in the file's size; llama.cpp does not load them with the decoder.
[[nodiscard]] std::vector<Tensor> with_mtp_blocks(const ModelSpec& model,
                                                  std::vector<Tensor> decoder);

}  // namespace kvfathom
