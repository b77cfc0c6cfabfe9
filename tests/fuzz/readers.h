// What the fuzz targets, and the test that replays their finds, do with one input: read it and, if
// it is refused, check that the refusal is one line.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <unistd.h>

#include "model/error.h"
#include "model/io/gguf_model.h"
#include "model/io/hf_config.h"
#include "model/io/safetensors.h"

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

/// A folder of this process for readers that take a path; removed when the process ends.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::temp_directory_path() /
              ("kvfathom-fuzz-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
    static_cast<void>(write("shard.safetensors", sound_shard()));
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }

  [[nodiscard]] std::string write(const std::string& name, std::string_view bytes) const {
    const std::string path = path_ / name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

 private:
  /// Two bytes of a tensor "a", for indices to point to.
  [[nodiscard]] static std::string sound_shard() {
    const std::string header = R"({"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}})";
    std::string file(8, '\0');
    file[0] = static_cast<char>(header.size());
    return file + header + "xy";
  }

  std::filesystem::path path_;
};

/// Text is taken for an index, anything else for a file of tensors.
inline void safetensors(std::string_view bytes) {
  static const Folder folder;
  const bool index = bytes.starts_with('{');
  const std::string path =
      folder.write(index ? "model.safetensors.index.json" : "model.safetensors", bytes);
  read_or_refuse([&] {
    const SafetensorsWeights weights = read_safetensors_weights(path);
    std::int64_t total = 0;
    for (const Tensor& tensor : weights.tensors) {
      total += data_bytes(tensor);
    }
    if (total != weights.bytes || total < 0 || n_elements(weights.tensors.front()) < 0) {
      std::abort();
    }
  });
}

}  // namespace kvfathom::fuzz
