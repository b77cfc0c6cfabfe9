#include "model/engine/serving/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <span>
#include <utility>

#include "model/engine/serving/draft.h"
#include "model/engine/serving/prediction.h"
#include "model/engine/serving/profile.h"
#include "model/error.h"
#include "model/rounding.h"

namespace kvfathom::serving {
namespace {

/// What a stage's ranks hold of the cache.
struct Held {
  std::int64_t tokens = 0;  ///< of each sequence
  std::int64_t sequences = 0;
  std::int64_t ranks = 1;  ///< each with a cache of its own
};

/// One group of a stage. A state's pages are counted as allocated; of two pools each is a stream,
/// and its spare blocks are among its bytes.
CacheGroup report_of(const PagedGroup& group, const PagedCache& cache, const Held& held) {
  const std::int64_t copies = held.sequences * held.ranks;
  CacheGroup out{.scheme = group.scheme, .n_layers = group.n_layers, .streams = copies};
  if (group.block_tokens == 0) {
    out.state_bytes = group.n_tables * group.blocks(held.tokens) * cache.block_bytes * copies;
    if (cache.state_pool) {
      const std::int64_t verifying = held.sequences + cache.state_pool->spare_slots;
      out.state_bytes =
          (cache.state_slots(held.sequences) * group.page_bytes + verifying * group.verify_bytes) *
          group.n_layers * held.ranks;
    }
    return out;
  }
  if (cache.window_pool) {
    const std::int64_t full_blocks = cache.blocks(held.tokens, held.sequences);
    const bool slides = group.most_tokens > 0;
    const std::int64_t blocks = slides ? cache.window_blocks(full_blocks) : full_blocks;
    const std::int64_t pages = (blocks + cache.spare_blocks) * group.n_layers * held.ranks;
    out.streams = held.ranks;
    out.cells = blocks * group.block_tokens;
    out.k_bytes = pages * group.k_bytes;
    out.v_bytes = pages * group.v_bytes;
    return out;
  }
  const std::int64_t pages = group.blocks(held.tokens) * group.n_layers * copies;
  out.cells = group.blocks(held.tokens) * group.block_tokens;
  out.k_bytes = pages * group.k_bytes;
  out.v_bytes = pages * group.v_bytes;
  return out;
}

/// The lines of each device without its cache, replica by replica, stage by stage.
using FixedLines = std::vector<std::vector<LedgerLine>>;

class ServingPlan final : public MemoryPlan {
 public:
  ServingPlan(std::vector<PagedCache> stages,
              FixedLines fixed,
              const EngineSettings& settings,
              Parallel parallel,
              CommandRule rule)
      : stages_(std::move(stages)),
        fixed_(std::move(fixed)),
        parallel_(std::move(parallel)),
        sequences_(settings.sequences),
        context_is_total_(settings.context_is_total),
        settings_(settings),
        command_(rule) {
    for (std::vector<LedgerLine>& lines : fixed_) {
      std::ranges::stable_sort(lines, {}, &LedgerLine::kind);
    }
  }

  [[nodiscard]] MemoryReport evaluate(std::int64_t context_tokens) const override {
    MemoryReport report;
    report.context_tokens = tokens_of(context_tokens);
    for (std::int64_t replica = 0; replica < parallel_.replicas; ++replica) {
      const std::int64_t sequences =
          sequences_ / parallel_.replicas + (replica < sequences_ % parallel_.replicas ? 1 : 0);
      for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
        add_stage(stage, replica, sequences, report);
      }
    }
    report.cache.prefill_peak_bytes = peak(report);
    return report;
  }

  [[nodiscard]] std::int64_t floor_bytes(Device device,
                                         std::int64_t context_tokens) const override {
    if (device.index == Device::kHost || device.index >= parallel_.devices()) {
      return 0;
    }
    const std::int64_t at = device.index / parallel_.tensor;
    const std::int64_t replica = at / parallel_.stages;
    const std::int64_t sequences =
        sequences_ / parallel_.replicas + (replica < sequences_ % parallel_.replicas ? 1 : 0);
    const PagedCache& cache = stages_[static_cast<std::size_t>(at % parallel_.stages)];
    std::int64_t sum = cache.bytes(tokens_of(context_tokens), sequences);
    for (const LedgerLine& line : fixed_[static_cast<std::size_t>(device.index)]) {
      sum += line.high_bytes;
    }
    return sum;
  }

  [[nodiscard]] std::int64_t next_smaller(std::int64_t context_tokens) const override {
    std::int64_t step = 1;
    if (stages_.size() == 1 && !context_is_total_) {
      step = stages_.front().step_tokens;
    }
    return (context_tokens - 1) / step * step;
  }

  [[nodiscard]] std::optional<CachePool> pool(std::int64_t available_bytes,
                                              std::int64_t context_tokens) const override {
    CachePool pool{.blocks = std::numeric_limits<std::int64_t>::max()};
    const std::int64_t sequences = divide_up(sequences_, parallel_.replicas);
    for (const PagedCache& stage : stages_) {
      const std::int64_t states = stage.state_pool ? stage.state_bytes(sequences) : 0;
      pool.blocks = std::min(pool.blocks, stage.blocks_in(available_bytes - states));
    }
    const PagedCache& cache = stages_.front();
    std::int64_t block_tokens = 0;
    for (const PagedGroup& group : cache.groups) {
      const std::int64_t tokens = group.block_tokens;
      block_tokens =
          block_tokens == 0 || (tokens > 0 && tokens < block_tokens) ? tokens : block_tokens;
    }
    pool.tokens = pool.blocks / cache.n_tables() * block_tokens;
    pool.concurrency = cache.sequences(tokens_of(context_tokens), pool.blocks);
    return pool;
  }

  [[nodiscard]] std::string command(std::int64_t context_tokens,
                                    std::string_view model) const override {
    return command_(settings_, context_tokens, model);
  }

 private:
  [[nodiscard]] std::int64_t tokens_of(std::int64_t context_tokens) const {
    return context_is_total_ ? std::max<std::int64_t>(1, context_tokens / sequences_)
                             : context_tokens;
  }

  void add_stage(std::size_t index,
                 std::int64_t replica,
                 std::int64_t sequences,
                 MemoryReport& report) const {
    const PagedCache& cache = stages_[index];
    const std::int64_t tokens = report.context_tokens;
    const std::int64_t bytes = cache.bytes(tokens, sequences);
    const std::int64_t state = cache.state_bytes(sequences);
    const std::int64_t first =
        (replica * parallel_.stages + static_cast<std::int64_t>(index)) * parallel_.tensor;
    for (std::int64_t rank = 0; rank < parallel_.tensor; ++rank) {
      const Device device{static_cast<int>(first + rank)};
      const std::array<LedgerLine, 2> held{exact_line(device, LedgerKind::cache, bytes - state),
                                           exact_line(device, LedgerKind::state, state)};
      append_merged(
          fixed_[static_cast<std::size_t>(first + rank)], held, device, report.ledger.lines);
    }
    const Held of_ranks{.tokens = tokens, .sequences = sequences, .ranks = parallel_.tensor};
    add_cache(cache, of_ranks, bytes * parallel_.tensor, report);
    if (replica == 0) {  // a sequence is on one replica, and this has the most of them
      add_growth(cache, of_ranks, report.cache);
    }
  }

  /// Both are in the order of LedgerKind; lines of nothing are left out.
  static void append_merged(const std::vector<LedgerLine>& fixed,
                            std::span<const LedgerLine> held,
                            Device device,
                            std::vector<LedgerLine>& lines) {
    std::size_t next = 0;
    const auto append_held = [&](auto wanted) {
      for (; next < held.size() && wanted(held[next]); ++next) {
        if (held[next].bytes > 0) {
          lines.push_back(held[next]);
        }
      }
    };
    for (LedgerLine line : fixed) {
      append_held([&](const LedgerLine& h) { return h.kind < line.kind; });
      line.device = device;
      lines.push_back(line);
    }
    append_held([](const LedgerLine&) { return true; });
  }

  /// Pages hold padding; what no tensor uses is counted with K, so that the sum is what is held.
  static void add_cache(const PagedCache& cache,
                        const Held& held,
                        std::int64_t allocated_bytes,
                        MemoryReport& report) {
    std::int64_t used = 0;
    std::int64_t k_bytes = 0;
    for (const PagedGroup& group : cache.groups) {
      const CacheGroup row = report_of(group, cache, held);
      used += row.k_bytes + row.v_bytes + row.state_bytes;
      k_bytes += row.k_bytes;
      report.cache.v_bytes += row.v_bytes;
      report.cache.state_bytes += row.state_bytes;
      report.cache.groups.push_back(row);
    }
    report.cache.k_bytes += k_bytes + std::max<std::int64_t>(0, allocated_bytes - used);
  }

  /// One more token of one sequence, averaged over a block; a token is on every rank of a stage.
  static void add_growth(const PagedCache& cache, const Held& held, CacheReport& report) {
    if (cache.window_pool) {
      add_growth_of_pools(cache, held, report);
      return;
    }
    for (const PagedGroup& group : cache.groups) {
      const std::int64_t pages = group.n_layers * held.ranks;
      const bool full = group.most_tokens > 0 && held.tokens >= group.most_tokens;
      const bool grows = group.block_tokens > 0 && !full;
      report.bytes_per_token +=
          grows ? pages * (group.k_bytes + group.v_bytes) / group.block_tokens : 0;
      const bool pooled = cache.state_pool && group.block_tokens == 0;
      const std::int64_t slots =
          pooled ? cache.state_pool->slots_per_sequence : group.blocks(held.tokens);
      report.fixed_bytes_per_sequence +=
          grows ? 0 : pages * (slots * group.page_bytes + group.verify_bytes);
    }
  }

  /// Both pools grow together, each by whole pages: averaged, to the nearest byte, over as
  /// many as make a share of twentieths whole.
  static void add_growth_of_pools(const PagedCache& cache, const Held& held, CacheReport& report) {
    constexpr std::int64_t kPages = 20;
    const std::int64_t more = kPages * cache.groups.front().block_tokens;
    const std::int64_t bytes = cache.bytes(held.tokens, held.sequences);
    const std::int64_t grown = cache.bytes(held.tokens + more, held.sequences) - bytes;
    const std::int64_t tokens = more * std::max<std::int64_t>(1, held.sequences);
    report.bytes_per_token += (held.ranks * grown + tokens / 2) / tokens;
  }

  static std::int64_t peak(const MemoryReport& report) {
    return report.cache.bytes() + report.ledger.bytes_of(LedgerKind::compute);
  }

  std::vector<PagedCache> stages_;  ///< of one rank of each
  FixedLines fixed_;
  Parallel parallel_;
  std::int64_t sequences_;
  bool context_is_total_;
  EngineSettings settings_;
  CommandRule command_;
};

/// What a rank loads: its share of the decoder, and towers and what drafts beside it.
std::vector<LedgerLine> loaded_lines(const StageRank& rank, const EngineSettings& settings) {
  std::vector<LedgerLine> lines{weights_line(Device{0}, rank.weights_bytes, settings)};
  if (rank.vision_bytes > 0) {
    LedgerLine tower = weights_line(Device{0}, rank.vision_bytes, settings);
    tower.kind = LedgerKind::vision;
    lines.push_back(tower);
  }
  if (rank.draft) {
    lines.push_back(*rank.draft);
  }
  return lines;
}

}  // namespace

std::unique_ptr<MemoryPlan> serving_plan(const ModelSpec& model,
                                         const EngineSettings& settings,
                                         const LoadRules& loading,
                                         const StageRule& rule,
                                         CommandRule command) {
  const Parallel parallel = parallel_of(settings);
  std::vector<StageRank> ranks = stage_ranks(model, settings, parallel, loading);
  if (settings.draft_tokens > 0) {
    add_prediction_block(model, settings, parallel, loading, ranks);
  }
  if (settings.draft_model) {
    add_draft_model(model, settings, parallel, loading, ranks);
  }
  const std::vector<std::int64_t>& uneven = settings.uneven_device_memory_bytes;
  const auto n_devices = static_cast<std::size_t>(parallel.devices());
  if (!uneven.empty() && uneven.size() != n_devices) {
    throw InputError(
        "--gpus",
        std::to_string(uneven.size()) + " devices for " + std::to_string(n_devices) + " ranks",
        "give one for each");
  }
  std::vector<PagedCache> stages;
  FixedLines fixed(n_devices);
  for (std::size_t stage = 0; stage < ranks.size(); ++stage) {
    StagePlan plan = rule(ranks[stage], parallel, settings.device_memory_bytes);
    for (std::size_t device = 0; device < n_devices; ++device) {
      if (device / static_cast<std::size_t>(parallel.tensor) % ranks.size() == stage) {
        fixed[device] =
            uneven.empty() ? plan.fixed : rule(ranks[stage], parallel, uneven[device]).fixed;
      }
    }
    stages.push_back(std::move(plan.cache));
  }
  return std::make_unique<ServingPlan>(
      std::move(stages), std::move(fixed), settings, parallel, command);
}

StagePlan begun_stage(const StageRank& rank,
                      const EngineSettings& settings,
                      const Parallel& parallel,
                      const PagingRules& rules) {
  StagePlan plan{.fixed = loaded_lines(rank, settings),
                 .cache = paged_cache(rank.model, settings, rules)};
  plan.fixed.push_back(modelled_line(Device{0}, LedgerKind::runtime, runtime_memory(parallel)));
  return plan;
}

std::int64_t bytes_outside_share(std::int64_t device_memory_bytes,
                                 const EngineSettings& settings,
                                 double fallback) {
  const double budget =
      static_cast<double>(device_memory_bytes) * share_of_device(settings, fallback);
  return device_memory_bytes - static_cast<std::int64_t>(std::floor(budget));
}

void pay_from_spare(std::int64_t spare_bytes,
                    std::vector<LedgerLine>& fixed,
                    std::vector<LedgerLine> lines) {
  if (spare_bytes > 0) {
    fixed.push_back(exact_line(Device{0}, LedgerKind::reserve, spare_bytes));
  }
  LedgerLine spare = exact_line(Device{0}, LedgerKind::reserve, spare_bytes);
  const auto take = [](std::int64_t bytes, std::int64_t& left) {
    const std::int64_t paid = std::min(bytes, left);
    left -= paid;
    return bytes - paid;
  };
  for (LedgerLine& line : lines) {
    line.bytes = take(line.bytes, spare.bytes);
    line.low_bytes = take(line.low_bytes, spare.low_bytes);
    line.high_bytes = take(line.high_bytes, spare.high_bytes);
    if (line.high_bytes > 0) {
      fixed.push_back(line);
    }
  }
}

double share_of_device(const EngineSettings& settings, double fallback) {
  const double share = settings.gpu_memory_utilization.value_or(fallback);
  if (!(share > 0.0) || share > 1.0) {
    throw InputError("--gpu-memory-utilization",
                     share_text(share) + " is no share of a device",
                     "more than 0, at most 1");
  }
  return share;
}

void add_option(std::string& text, bool wanted, std::string_view option, std::string_view value) {
  if (wanted) {
    text += ' ';
    text += option;
    text += value.empty() ? "" : " ";
    text += value;
  }
}

void add_count(std::string& text, std::string_view option, const std::optional<std::int64_t>& n) {
  add_option(text, n.has_value(), option, std::to_string(n.value_or(0)));
}

void add_ranks(std::string& text, std::string_view option, std::int64_t n) {
  add_option(text, n > 1, option, std::to_string(n));
}

void add_share(std::string& text, std::string_view option, const std::optional<double>& share) {
  add_option(text, share.has_value(), option, share_text(share.value_or(0.0)));
}

std::string share_text(double share) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.3g", share);
  return buffer.data();
}

}  // namespace kvfathom::serving
