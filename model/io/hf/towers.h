// The towers of checkpoints that see or hear: what `vision_config` and `audio_config` add to a
// model's parts, tensor by tensor as the class allocates them. Internal to model/io.
//
// A config without the tower adds nothing: text-only copies of a checkpoint leave it out.
#pragma once

#include "model/architecture/model_spec.h"
#include "model/io/json_reader.h"

namespace kvfathom::hf {

/// Gemma-3: SigLIP, and one matrix behind a pool and a norm.
void add_siglip_tower(const Reader& config, ModelSpec& model);
/// Gemma-4: a tower with gates and norms on both sides, and the conformer of the small models.
void add_gemma4_towers(const Reader& config, ModelSpec& model);
/// Gemma-3n: the conformer; its convolutional vision tower by the one published size.
void add_gemma3n_towers(const Reader& config, ModelSpec& model);
/// Qwen3-VL and Qwen3.5.
void add_qwen_tower(const Reader& config, ModelSpec& model);
/// Mistral-Small-3.1 and later, Ministral 3.
void add_pixtral_tower(const Reader& config, ModelSpec& model);
void add_llama4_tower(const Reader& config, ModelSpec& model);
/// Kimi-VL, Kimi-K2.5 and Kimi-K3.
void add_moonvit_tower(const Reader& config, ModelSpec& model);
void add_muse_tower(const Reader& config, ModelSpec& model);

}  // namespace kvfathom::hf
