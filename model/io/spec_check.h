// What must hold between the fields of any ModelSpec that a reader hands out.
#pragma once

#include <string>

#include "model/architecture/model_spec.h"

namespace kvfathom {

/// Throws InputError, naming `source` and the layer, unless: there are layers; KV heads divide
/// query heads; state groups divide what they group; no more experts are chosen than there are;
/// shared layers look back at a layer that has a cache; and all of it together stays below 1e15
/// parameters, so that no product of two fields overflows later.
void check_spec(const ModelSpec& model, const std::string& source);

/// The same without the parameters, for a reader that has counted them in the file.
void check_layers(const ModelSpec& model, const std::string& source);

}  // namespace kvfathom
