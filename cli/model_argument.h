// The MODEL that a command was given: a catalog name, a GGUF, a config, a folder, an inspect
// document.
#pragma once

#include <string>

#include "cli/options.h"
#include "model/architecture/model_spec.h"

namespace kvfathom::cli {

struct ModelArgument {
  ModelSpec spec;           ///< with its tensors: stored ones, or those a recipe foretells
  std::string file;         ///< what the engine's command loads
  std::string weights;      ///< "q4_k_m", "bf16", "as stored"
  bool foretold = false;    ///< by a recipe or dtype: no file holds these weights
  bool checkpoint = false;  ///< the tensors are a safetensors checkpoint's, under its own names
  bool gguf = false;        ///< the weights are, or would be, a GGUF file
};

/// Only the structure: for commands that print what a file says.
[[nodiscard]] ModelArgument read_model_spec(const std::string& argument);

/// The structure and its weights: as stored, by the recipe `weights`, or in the config's dtype.
[[nodiscard]] ModelArgument read_model(const std::string& argument, const Text& weights);

/// What an engine that serves checkpoints is told to load: "org/model" where the source is a
/// Hugging Face address, else the `argument`. Of one that somebody packed before there is no name,
/// so a placeholder in angle brackets stands for it.
[[nodiscard]] std::string served_name(const ModelArgument& model,
                                      const std::string& argument,
                                      bool packed_before);

/// Replaces the tensors by those of the GGUF that llama.cpp's converter would make of the model.
void foretell_gguf(ModelArgument& model);

}  // namespace kvfathom::cli
