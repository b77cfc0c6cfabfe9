#include "model/io/projector_file.h"

#include "model/error.h"
#include "model/io/gguf.h"
#include "model/io/gguf_keys.h"

namespace kvfathom {
namespace {

constexpr GgufRange kSize{1, 1 << 20};
constexpr GgufRange kMaybeNone{0, 1 << 20};

std::string type_of(const GgufKeys& keys) {
  const auto type = keys.text_at("clip.projector_type");
  return std::string(type ? *type : keys.text_at("clip.vision.projector_type").value_or(""));
}

}  // namespace

ProjectorSpec read_projector_file(const std::string& path) {
  const GgufFile file = open_gguf(path);
  const GgufKeys keys(file.header, "clip.");
  if (keys.text_at("general.architecture") != "clip") {
    throw InputError(path, "no projector: its architecture is another", "an mmproj GGUF");
  }
  if (!keys.boolean("has_vision_encoder").value_or(false)) {
    throw Unsupported(path, "a projector without a vision encoder: no rule for it", "");
  }
  ProjectorSpec spec;
  spec.type = type_of(keys);
  spec.has_audio = keys.boolean("has_audio_encoder").value_or(false);
  spec.n_layers = keys.required("vision.block_count", kSize);
  spec.hidden_size = keys.required("vision.embedding_length", kSize);
  spec.n_heads = keys.required("vision.attention.head_count", kSize);
  spec.intermediate_size = keys.required("vision.feed_forward_length", kSize);
  spec.image_pixels = keys.required("vision.image_size", kMaybeNone);
  spec.patch_pixels = keys.required("vision.patch_size", kSize);
  spec.merged_patches =
      keys.integer("vision.spatial_merge_size", kMaybeNone)
          .value_or(keys.integer("vision.projector.scale_factor", kMaybeNone).value_or(0));
  spec.full_attention_period = keys.integer("vision.n_wa_pattern", kMaybeNone).value_or(0);
  for (const GgufTensor& tensor : file.header.tensors) {
    spec.tensors.push_back({std::string(tensor.name), tensor.shape, tensor.dtype});
  }
  return spec;
}

}  // namespace kvfathom
