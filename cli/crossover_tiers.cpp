// The tiers that `kvfathom crossover` fetches from, and the way to each.
#include "cli/crossover.h"
#include "cli/format.h"
#include "cli/values.h"
#include "model/error.h"
#include "model/latency/datasheet_laws.h"
#include "model/text/size.h"

namespace kvfathom::cli {
namespace {

struct TierRow {
  Tier tier;
  const char* name;
  OpKind kind;
};
constexpr TierRow kTiers[] = {{Tier::host, "host", OpKind::host_transfer},
                              {Tier::nvme, "nvme", OpKind::file_read},
                              {Tier::network, "network", OpKind::network_transfer}};

/// A prefix comes over a network as one transfer: 1.8 ms until it flows, then the line's share, as
/// Mooncake logs it from 49 MB to 12.6 GB (data/truth/transfers.tsv).
constexpr Seconds kNetworkHandshake{1.8e-3};

/// The tier's link as the laws price it, or as the person describes it.
TierLink tier_link(const TierRow& row, const LawSource& laws, const CrossoverOptions& options) {
  const PricedClass priced = laws.law({.kind = row.kind}, false);
  TierLink tier{.tier = row.tier,
                .name = row.name,
                .link = {.bandwidth = 0.5 * *priced.law.bandwidth,  // laws count both sides
                         .call = priced.law.fixed + priced.launch},
                .log_error = priced.log_error,
                .provenance = priced.provenance};
  if (row.tier == Tier::network && !options.piece) {
    tier.link.call = kNetworkHandshake;
    tier.link.piece = kWholePrefix;
  }
  if (options.bandwidth) {
    tier.link.bandwidth = parse_bandwidth(*options.bandwidth, "--bandwidth");
    tier.log_error = 0.0;
    tier.provenance = Provenance::exact;  // the person's own figure
  }
  if (options.call) {
    constexpr std::int64_t kMostMicroseconds = 1'000'000;
    tier.link.call = Seconds(
        1e-6 * static_cast<double>(parse_count("--call", *options.call, 0, kMostMicroseconds)));
  }
  if (options.piece) {
    tier.link.piece = Bytes(static_cast<double>(parse_size(*options.piece, "--piece")));
  }
  return tier;
}

}  // namespace

std::vector<TierLink> tiers_of(const Query& query,
                               const LawSource& laws,
                               const CrossoverOptions& options) {
  const HardwareSpec& device = query.machine.devices.front();
  std::vector<TierLink> tiers;
  const std::string wanted = options.tier ? lower(*options.tier) : "";
  for (const TierRow& row : kTiers) {
    const bool same_memory = row.tier == Tier::host && device.unified_memory;
    const bool is_named = wanted == row.name || (wanted == "net" && row.tier == Tier::network);
    if (is_named && same_memory) {
      throw InputError("--tier",
                       "'host', which is the memory that " + query.machine.name + " computes from",
                       "nvme or network");
    }
    if (is_named) {
      return {tier_link(row, laws, options)};
    }
    if (!same_memory) {
      tiers.push_back(tier_link(row, laws, options));
    }
  }
  if (!wanted.empty()) {
    throw InputError("--tier", "'" + printable(wanted) + "'", "host, nvme or network");
  }
  if (options.bandwidth) {
    throw InputError("--bandwidth", "given without --tier", "name the tier that it is of");
  }
  return tiers;
}

}  // namespace kvfathom::cli
