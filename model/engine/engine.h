// Every engine whose allocation kvfathom knows, behind one question: what does it allocate for
// this model under these settings?
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/engine/settings.h"
#include "model/memory/ledger.h"

namespace kvfathom {

/// Layers that share one cache layout, as one engine allocates them.
struct CacheGroup {
  std::string_view scheme;    ///< "full", "window", "mla-latent", "state", ...
  std::int64_t n_layers = 0;  ///< layers that own the cache (readers of it not counted)
  std::int64_t cells = 0;     ///< tokens that one stream can hold; 0 for a state
  std::int64_t streams = 1;   ///< caches of as many cells: of each sequence, on every rank
  std::int64_t k_bytes = 0;
  std::int64_t v_bytes = 0;
  std::int64_t state_bytes = 0;
};

/// The line for weights of `bytes`: exact for a file's own tensors; real files quantised by a
/// recipe stay within 1 % of it (tests/data/quant), so that is the interval of any other.
[[nodiscard]] LedgerLine weights_line(Device device,
                                      std::int64_t bytes,
                                      const EngineSettings& settings);

/// K and V in a slower tier: a line of the host in the ledger, or on no device at all.
struct OffloadedCache {
  std::string_view tier;  ///< "host", "nvme", "network"
  std::int64_t bytes = 0;
  std::int64_t bytes_per_token = 0;  ///< of the report's
};

/// What the cache takes, all devices together.
struct CacheReport {
  std::int64_t k_bytes = 0;
  std::int64_t v_bytes = 0;
  std::int64_t state_bytes = 0;
  std::int64_t bytes_per_token = 0;  ///< what one more token of one sequence adds at this context
  std::int64_t fixed_bytes_per_sequence = 0;  ///< windows and states: paid however short
  std::int64_t prefill_peak_bytes = 0;        ///< largest cache + compute while the prompt runs
  std::optional<OffloadedCache> offloaded;    ///< of k_bytes and v_bytes; empty: nothing moves
  std::vector<CacheGroup> groups;
  [[nodiscard]] std::int64_t bytes() const { return k_bytes + v_bytes + state_bytes; }
};

/// What of one more token stays with the devices.
[[nodiscard]] inline std::int64_t device_bytes_per_token(const CacheReport& cache) {
  return cache.bytes_per_token - (cache.offloaded ? cache.offloaded->bytes_per_token : 0);
}

/// The answer for exact settings.
struct MemoryReport {
  std::int64_t context_tokens = 0;  ///< per sequence, as asked
  MemoryLedger ledger;
  CacheReport cache;
};

/// What an engine makes of memory that it sets aside for the cache when it starts.
struct CachePool {
  std::int64_t blocks = 0;   ///< of the smallest rank
  std::int64_t tokens = 0;   ///< in all sequences together
  double concurrency = 0.0;  ///< sequences of the context at hand that it holds
};

/// Where the layers of a model went that are not simply all on one device.
struct Placement {
  std::vector<std::pair<Device, std::int64_t>> layers;  ///< the output head counts as one
  std::int64_t host_expert_layers =
      0;                               ///< so many layers, from the first, have experts on the host
  std::vector<MovedLayer> moved = {};  ///< what else is not with its layer, by layer
};

/// Layers in a row of which the same matrices are on the same device.
struct MovedLayers {
  std::int64_t first = 0;
  std::int64_t last = 0;
  MovedMatrices matrices = MovedMatrices::experts;
  Device device;
};
[[nodiscard]] std::vector<MovedLayers> moved_layers(const Placement& placement);
/// As the enumerator is spelled.
[[nodiscard]] std::string_view name(MovedMatrices matrices);

/// A model under an engine and settings, prepared once so that many contexts can be priced fast.
class MemoryPlan {
 public:
  MemoryPlan() = default;
  MemoryPlan(const MemoryPlan&) = delete;
  MemoryPlan& operator=(const MemoryPlan&) = delete;
  virtual ~MemoryPlan() = default;

  /// The ledger at `context_tokens` per sequence (> 0). Not monotone in it: an engine's scratch
  /// may shrink as the context grows.
  [[nodiscard]] virtual MemoryReport evaluate(std::int64_t context_tokens) const = 0;

  /// Lower bound of what `device` needs at this or any larger context: monotone, and cheap.
  [[nodiscard]] virtual std::int64_t floor_bytes(Device device,
                                                 std::int64_t context_tokens) const = 0;

  /// The next smaller context whose ledger can differ from this one's (0 at the end): between two
  /// roundings of the engine every context costs the same.
  [[nodiscard]] virtual std::int64_t next_smaller(std::int64_t context_tokens) const = 0;

  /// What `available_bytes` on each device would hold, for engines that fill a pool at the start.
  [[nodiscard]] virtual std::optional<CachePool> pool(std::int64_t /*available_bytes*/,
                                                      std::int64_t /*context_tokens*/) const {
    return std::nullopt;
  }

  /// Where layers went; empty: all on one device.
  [[nodiscard]] virtual std::optional<Placement> placement() const { return std::nullopt; }

  /// The engine's own command that realises the answer, with `model` in the place of the file
  /// (empty: the engine has none).
  [[nodiscard]] virtual std::string command(std::int64_t context_tokens,
                                            std::string_view model) const = 0;
};

/// One row of the engine table.
struct EngineInfo {
  std::string_view name;            ///< "ideal", "llama.cpp"
  std::string_view summary;         ///< one line for `kvfathom list engines`
  std::string_view newest_version;  ///< what an empty engine_version means
  std::string_view source;          ///< where the rules come from
  /// Prepares a plan. Throws Unsupported for a model, scheme or version the engine has no rule
  /// for, InputError for settings the engine itself refuses.
  std::unique_ptr<MemoryPlan> (*prepare)(const ModelSpec&, const EngineSettings&);
};

[[nodiscard]] std::span<const EngineInfo> engines();

/// The row named `name`; InputError listing the names otherwise.
[[nodiscard]] const EngineInfo& engine_named(std::string_view name);

/// Every llama.cpp cache scheme id, in the order of CacheScheme.
[[nodiscard]] std::string_view name(CacheScheme scheme);
[[nodiscard]] CacheScheme scheme_named(std::string_view name);

}  // namespace kvfathom
