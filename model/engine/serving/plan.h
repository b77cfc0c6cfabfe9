// The plan that the paged engines share: fixed lines per device, and blocks of cache.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/engine/engine.h"
#include "model/engine/serving/paged_cache.h"
#include "model/engine/serving/ranks.h"

namespace kvfathom::serving {

/// One stage, prepared: what a rank of it holds whatever the context.
struct StagePlan {
  std::vector<LedgerLine> fixed;  ///< of device 0; in the order of LedgerKind, without the cache
  PagedCache cache;
};

/// Prices a rank of a stage on a device of so much memory.
using StageRule =
    std::function<StagePlan(const StageRank&, const Parallel&, std::int64_t device_memory_bytes)>;
using CommandRule = std::string (*)(const EngineSettings&, std::int64_t, std::string_view);

/// The whole plan: `rule` prices the ranks of each stage, `command` writes the engine's command
/// line. Every device keeps its own share free; all have as many blocks as the one with fewest.
/// Sequences are spread over the replicas, the first of which has the most.
[[nodiscard]] std::unique_ptr<MemoryPlan> serving_plan(const ModelSpec& model,
                                                       const EngineSettings& settings,
                                                       const LoadRules& loading,
                                                       const StageRule& rule,
                                                       CommandRule command);

/// A rank of a stage before what differs by engine: its cache in blocks, what it loads, and the
/// memory of the CUDA runtime.
[[nodiscard]] StagePlan begun_stage(const StageRank& rank,
                                    const EngineSettings& settings,
                                    const Parallel& parallel,
                                    const PagingRules& rules);

/// What the engine's share, the one asked for or `fallback`, leaves of a device.
[[nodiscard]] std::int64_t bytes_outside_share(std::int64_t device_memory_bytes,
                                               const EngineSettings& settings,
                                               double fallback);

/// What lies outside an engine's share of the device is paid from `spare_bytes`, the rest of the
/// device: the spare is a reserve line, and `lines` shrink by it until it is spent.
void pay_from_spare(std::int64_t spare_bytes,
                    std::vector<LedgerLine>& fixed,
                    std::vector<LedgerLine> lines);

/// The engine's share of a device, or of its free memory: the one asked for, else `fallback`.
/// InputError unless it is more than 0 and at most 1.
[[nodiscard]] double share_of_device(const EngineSettings& settings, double fallback);

/// Appends " option value" where `wanted`; a value may be empty.
void add_option(std::string& text, bool wanted, std::string_view option, std::string_view value);
/// Appends " option n" where a person chose n.
void add_count(std::string& text, std::string_view option, const std::optional<std::int64_t>& n);
/// Appends " option n" where there are several ranks.
void add_ranks(std::string& text, std::string_view option, std::int64_t n);
/// Appends " option 0.85" where a person chose a share: three digits at most.
void add_share(std::string& text, std::string_view option, const std::optional<double>& share);

/// "0.9", "0.85".
[[nodiscard]] std::string share_text(double share);

}  // namespace kvfathom::serving
