// What llama.cpp takes for a projector beside the model (llama-server --mmproj).
//
// Source: llama.cpp tools/mtmd/clip.cpp and tools/mtmd/models/ of mid 2026: one buffer for all
// tensors on the first GPU, or on the host; a graph for a warm-up image, or half a minute of sound,
// whose buffers stay. A larger image, where the type takes one, allocates larger buffers in their
// place. A file with a tower and an audio encoder makes one context of each.
#pragma once

#include <cstdint>
#include <optional>

#include "model/architecture/projector_spec.h"
#include "model/provenance.h"

namespace kvfathom::llama_cpp {

struct ProjectorBytes {
  std::int64_t weights_bytes = 0;  ///< on the GPU if there is one, else on the host
  std::int64_t compute_bytes = 0;  ///< likewise
  std::int64_t input_bytes = 0;    ///< on the host, beside a GPU: the image and what goes with it
  /// Of compute: exact for the types whose graph was held to logs; others follow the same rules,
  /// within so many percent. No audio encoder's load was logged.
  Provenance provenance = Provenance::modelled;
  std::int64_t interval_percent = 10;
};

/// Unsupported for types without a graph here. The engine tries FlashAttention where it
/// `may_flash`, and leaves it out where the GPU has no kernel for it.
[[nodiscard]] ProjectorBytes projector_bytes(const ProjectorSpec& projector,
                                             bool on_gpu,
                                             bool may_flash = true);

/// Values of one token that the projector hands to the language model; nothing if its last matrix
/// is not in the file.
[[nodiscard]] std::optional<std::int64_t> output_width(const ProjectorSpec& projector);

}  // namespace kvfathom::llama_cpp
