// How many parameters a model has, in all and at work on one token.
#pragma once

#include <cstdint>

#include "model/architecture/model_spec.h"

namespace kvfathom {

struct ParameterCount {
  /// Every stored parameter of the decoder: the elements of its tensor inventory, or of the
  /// tensors the source lists. A tied output head counts once.
  std::int64_t total = 0;
  /// What one token passes: `total` less the experts that it is not routed to.
  std::int64_t active = 0;
  /// The token embedding, and the output head where it is stored apart.
  std::int64_t embedding = 0;
  /// Parts beside the decoder, by kind (`ModelSpec::extras`); not in `total`.
  std::int64_t mtp = 0;
  std::int64_t vision = 0;
  std::int64_t audio = 0;
  std::int64_t other_extras = 0;
};

[[nodiscard]] ParameterCount count_parameters(const ModelSpec& model);

/// Parameters of one block of `model`, whether or not it is one of its layers (a
/// multi-token-prediction layer is not).
[[nodiscard]] std::int64_t layer_parameters(const ModelSpec& model, const LayerSpec& layer);

}  // namespace kvfathom
