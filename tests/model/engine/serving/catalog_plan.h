// Plans of catalog models under a serving engine.
#pragma once

#include <memory>
#include <string>

#include "model/engine/engine.h"
#include "tests/model/catalog.h"

namespace kvfathom::testing {

inline constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

inline EngineSettings serving_settings(DType cache = DType::bf16) {
  EngineSettings settings;
  settings.cache_type_k = cache;
  settings.cache_type_v = cache;
  settings.weights_provenance = Provenance::modelled;
  return settings;
}

inline std::unique_ptr<MemoryPlan> prepared(const char* engine,
                                            const ModelSpec& model,
                                            const EngineSettings& settings) {
  return engine_named(engine).prepare(model, settings);
}

}  // namespace kvfathom::testing
