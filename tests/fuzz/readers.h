// What the fuzz targets, and the test that replays their finds, do with one input: read it and, if
// it is refused, check that the refusal is one line.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/error.h"
#include "model/io/gguf_model.h"
#include "model/io/hf_config.h"

namespace kvfathom::fuzz {

/// Any exception that is none of ours escapes and counts as a crash.
template <class Read>
void read_or_refuse(const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    const std::string_view message = error.what();
    if (message.empty() || message.find('\n') != std::string_view::npos) {
      std::abort();
    }
  }
}

inline void gguf(std::string_view bytes) {
  read_or_refuse([&] {
    const GgufHeader header = parse_gguf(bytes, "fuzz.gguf");
    const GgufHeader* const shards[] = {&header};
    const ModelSpec model = model_of_gguf(shards);
    std::int64_t total = 0;  // must not overflow
    for (const Tensor& tensor : model.tensors) {
      total += data_bytes(tensor);
    }
    if (total < 0 || model.layers.empty()) {
      std::abort();
    }
  });
}

inline void hf_config(std::string_view bytes) {
  read_or_refuse([&] {
    if (read_hf_config_text(bytes, "config.json").layers.empty()) {
      std::abort();
    }
  });
}

}  // namespace kvfathom::fuzz
