// How `fit --smallest-gpu` is printed.
#include <algorithm>

#include "cli/format.h"
#include "cli/headline.h"
#include "cli/ledger_table.h"
#include "cli/quality.h"
#include "cli/smallest_gpu.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

std::string offer_name(const GpuOffer& offer) {
  return (offer.n_gpus > 1 ? std::to_string(offer.n_gpus) + " x " : "") + offer.device->name;
}

std::int64_t usable_bytes(const GpuOffer& offer) {
  return offer.device->usable_memory_bytes.value_or(offer.device->memory_bytes);
}

std::string each(const GpuOffer& offer) {
  return offer.n_gpus > 1 ? " each" : "";
}

void add_row(Table& table, const GpuOffer& offer, Style style) {
  constexpr double kGiga = 1e9;
  const std::int64_t usable = usable_bytes(offer);
  const auto rate = static_cast<std::int64_t>(offer.device->bandwidth.value() / kGiga);
  const bool fits = offer.headroom_bytes >= 0;
  table.rows.push_back(
      {{offer_name(offer), style},
       {gib_number(usable) + each(offer), style},
       {rate > 0 ? thousands(rate) : "-", style},
       {gib_number(usable - offer.headroom_bytes), style},
       {(fits ? "" : "-") + gib_number(fits ? offer.headroom_bytes : -offer.headroom_bytes),
        style}});
}

void print_offers(Console& console, const GpuSearch& search) {
  const SmallestMachine& found = search.found;
  Table table{.columns = {{"GPU", Align::left, true},
                          {"GiB", Align::right},
                          {"GB/s", Align::right},
                          {"needs at most", Align::right},
                          {"left", Align::right}},
              .rows = {}};
  if (found.below) {
    add_row(table, search.offers[*found.below], Style::bad);
  }
  if (found.smallest) {
    add_row(table, search.offers[*found.smallest], Style::good);
  }
  for (const std::size_t i : found.next) {
    add_row(table, search.offers[i], Style::plain);
  }
  print(console, table);
}

/// The smallest with fewer or more devices, where that is another.
void print_other_counts(Console& console, const GpuSearch& search) {
  for (const std::size_t i : search.found.by_count) {
    const GpuOffer& offer = search.offers[i];
    if (i == *search.found.smallest) {
      continue;
    }
    const std::string n =
        offer.n_gpus == 1 ? "As one GPU" : "As " + std::to_string(offer.n_gpus) + " GPUs";
    console.paragraph(n + ": " + offer_name(offer) + ", " + gib(usable_bytes(offer)) + each(offer) +
                          ", with " + gib(offer.headroom_bytes) + " left",
                      2);
  }
}

/// "- 2, 4, 8 of each refused: ..."; counts with one reason are one line.
void print_refused_counts(Console& console, const GpuSearch& search) {
  for (std::size_t i = 0; i < search.refused.size();) {
    std::size_t end = i;
    std::string counts;
    for (; end < search.refused.size() && search.refused[end].reason == search.refused[i].reason;
         ++end) {
      counts += (end > i ? ", " : "") + std::to_string(search.refused[end].n_gpus);
    }
    console.paragraph("- " + counts + " of each refused: " + printable(search.refused[i].reason),
                      2);
    i = end;
  }
}

}  // namespace

std::string smallest_sentence(const GpuSearch& search) {
  int most = 1;
  for (const GpuOffer& offer : search.offers) {
    most = std::max(most, offer.n_gpus);
  }
  const std::string tried = thousands(static_cast<std::int64_t>(search.offers.size())) +
                            " machines tried (GPUs of the catalog" +
                            (most > 1 ? ", up to " + std::to_string(most) + " of each)" : ")");
  if (!search.found.smallest) {
    return "Nothing fits: none of " + tried + " holds it.";
  }
  const GpuOffer& offer = search.offers[*search.found.smallest];
  return offer_name(offer) + " has the least memory, " + gib(usable_bytes(offer) * offer.n_gpus) +
         " in all, of the " + tried + " that hold it: it needs at most " +
         gib(usable_bytes(offer) - offer.headroom_bytes) + each(offer) + " and leaves " +
         gib(offer.headroom_bytes) + ".";
}

std::string below_sentence(const GpuSearch& search) {
  const GpuOffer& offer = search.offers[*search.found.below];
  const MemoryLedger& ledger = offer.report->ledger;
  const Device device = fullest_device(ledger, machine_of(*offer.device, offer.n_gpus));
  std::string lines;
  for (const LedgerLine& line : ledger.lines) {
    if (line.device == device) {
      lines += (lines.empty() ? "" : " + ") + std::string(name(line.kind)) + " " +
               gib_number(line.high_bytes);
    }
  }
  return offer_name(offer) + " lacks " + gib(-offer.headroom_bytes) + ": " + lines + " of " +
         gib_number(usable_bytes(offer)) + " GiB" + each(offer);
}

void print_smallest_gpu(Console& console, Query& query, const GpuSearch& search) {
  const SmallestMachine& found = search.found;
  if (!console.quiet) {
    console.line(console.styled(model_line(query.model), Style::bold));
    console.paragraph(extent(search.context_tokens, query.settings.sequences) + ", " +
                      search.label.text + (search.label.exact ? "" : " ~") + ", " +
                      type_pair(search.label.k, search.label.v) + " cache; " + engine_line(query));
    print_default_refused(console, query);
    console.line();
  }
  print_offers(console, search);
  if (console.quiet) {
    return;
  }
  console.line();
  console.paragraph(smallest_sentence(search));
  if (found.below) {
    console.paragraph(below_sentence(search), 2);
  }
  print_refused_counts(console, search);
  if (found.smallest) {
    print_other_counts(console, search);
  }
  print_quality_lines(console, {quality_row(search.label, search.cache_case)});
  if (!found.smallest) {
    return;
  }
  const GpuOffer& offer = search.offers[*found.smallest];
  place_on(query, *offer.device, offer.n_gpus);
  console.line();
  print_ledger(console, *offer.report, query.machine);
  const std::string command = plan_of(query, search.cache_case)
                                  ->command(search.context_tokens, shell_word(query.model.file));
  print_command(console, query, search.context_tokens, command);
}

}  // namespace kvfathom::cli
