// A projector's GGUF (llama.cpp's mmproj), from its header alone.
#pragma once

#include <string>
#include <vector>

#include "model/architecture/projector_spec.h"

namespace kvfathom {

/// `path`: a GGUF whose general.architecture is "clip". InputError for any other file and for
/// missing keys. A vision tower comes before an audio encoder.
[[nodiscard]] std::vector<ProjectorSpec> read_projector_file(const std::string& path);

}  // namespace kvfathom
