// The plan that the paged engines share: fixed lines per device, and blocks of cache.
#pragma once

#include <functional>
#include <memory>
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

using CommandText = std::function<std::string(std::int64_t context_tokens, std::string_view model)>;

/// `sequences` are spread over the replicas, the first of which has the most.
[[nodiscard]] std::unique_ptr<MemoryPlan> serving_plan(std::vector<StagePlan> stages,
                                                       const EngineSettings& settings,
                                                       const Parallel& parallel,
                                                       CommandText command);

/// The lines of what a rank loads: its share of the decoder, and towers beside it.
[[nodiscard]] std::vector<LedgerLine> loaded_lines(const StageRank& rank,
                                                   const EngineSettings& settings);

/// What lies outside an engine's share of the device is paid from `spare_bytes`, the rest of the
/// device: the spare is a reserve line, and `lines` shrink by it until it is spent.
void pay_from_spare(std::int64_t spare_bytes,
                    std::vector<LedgerLine>& fixed,
                    std::vector<LedgerLine> lines);

/// Appends " option value" where `wanted`.
void add_option(std::string& text, bool wanted, std::string_view option, std::string_view value);

/// "0.9", "0.85": as many decimals as the number has, three at most.
[[nodiscard]] std::string share_text(double share);

}  // namespace kvfathom::serving
