#include "model/io/projector_file.h"

#include <string_view>

#include "model/error.h"
#include "model/io/gguf.h"
#include "model/io/gguf_keys.h"

namespace kvfathom {
namespace {

constexpr GgufRange kSize{1, 1 << 20};
constexpr GgufRange kMaybeNone{0, 1 << 20};
constexpr GgufRange kMelBands{1, 256};  // what the engine takes

/// A file of one modality may name its type without it; Qwen2.5-Omni's has one name for both.
std::string type_of(const GgufKeys& keys, Modality modality) {
  const bool audio = modality == Modality::audio;
  const auto own = keys.text_at(audio ? "clip.audio.projector_type" : "clip.vision.projector_type");
  const std::string type(keys.text_at("clip.projector_type").value_or(own.value_or("")));
  return type == "qwen2.5o" ? (audio ? "qwen2a" : "qwen2.5vl_merger") : type;
}

bool is_of_audio(std::string_view name) {
  return name.starts_with("a.") || name.starts_with("mm.a.");
}

void read_widths(const GgufKeys& keys, const std::string& modality, ProjectorSpec& spec) {
  spec.n_layers = keys.required(modality + ".block_count", kSize);
  spec.hidden_size = keys.required(modality + ".embedding_length", kSize);
  spec.n_heads = keys.required(modality + ".attention.head_count", kSize);
  spec.intermediate_size = keys.required(modality + ".feed_forward_length", kSize);
}

void read_vision(const GgufKeys& keys, ProjectorSpec& spec) {
  read_widths(keys, "vision", spec);
  spec.image_pixels = keys.required("vision.image_size", kMaybeNone);
  spec.patch_pixels = keys.required("vision.patch_size", kSize);
  spec.merged_patches =
      keys.integer("vision.spatial_merge_size", kMaybeNone)
          .value_or(keys.integer("vision.projector.scale_factor", kMaybeNone).value_or(0));
  spec.full_attention_period = keys.integer("vision.n_wa_pattern", kMaybeNone).value_or(0);
}

void read_audio(const GgufKeys& keys, ProjectorSpec& spec) {
  read_widths(keys, "audio", spec);
  spec.mel_bands = keys.required("audio.num_mel_bins", kMelBands);
  spec.stacked_frames = keys.integer("audio.projector.stack_factor", kSize).value_or(1);
}

}  // namespace

std::vector<ProjectorSpec> read_projector_file(const std::string& path) {
  const GgufFile file = open_gguf(path);
  const GgufKeys keys(file.header, "clip.");
  if (keys.text_at("general.architecture") != "clip") {
    throw InputError(path, "no projector: its architecture is another", "an mmproj GGUF");
  }
  const bool sees = keys.boolean("has_vision_encoder").value_or(false);
  const bool hears = keys.boolean("has_audio_encoder").value_or(false);
  std::vector<ProjectorSpec> encoders;
  if (sees) {
    read_vision(keys, encoders.emplace_back());
  }
  if (hears) {
    encoders.emplace_back().modality = Modality::audio;
    read_audio(keys, encoders.back());
  }
  if (encoders.empty()) {
    throw Unsupported(path, "a projector without an encoder: no rule for it", "");
  }
  for (ProjectorSpec& spec : encoders) {
    spec.type = type_of(keys, spec.modality);
  }
  for (const GgufTensor& tensor : file.header.tensors) {
    ProjectorSpec& spec = is_of_audio(tensor.name) ? encoders.back() : encoders.front();
    spec.tensors.push_back({std::string(tensor.name), tensor.shape, tensor.dtype});
  }
  return encoders;
}

}  // namespace kvfathom
