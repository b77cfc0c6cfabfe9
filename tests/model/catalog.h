// Models of the catalog, with the tensors that their architecture implies.
#pragma once

#include <string>

#include "model/architecture/tensor_inventory.h"
#include "model/io/inspect_json.h"

namespace kvfathom::testing {

inline ModelSpec catalog(const std::string& id) {
  ModelSpec model = read_inspect(std::string(KVFATHOM_SOURCE_DIR) + "/data/models/" + id + ".json");
  model.tensors = tensor_inventory(model);
  return model;
}

}  // namespace kvfathom::testing
