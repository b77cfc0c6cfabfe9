#include "cli/ledger_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "cli/format.h"
#include "cli/table.h"

namespace kvfathom::cli {
namespace {

constexpr int kBarCells = 24;

std::vector<Device> devices_of(const MemoryLedger& ledger) {
  std::vector<Device> devices;
  for (const LedgerLine& line : ledger.lines) {
    if (devices.empty() || devices.back() != line.device) {
      devices.push_back(line.device);
    }
  }
  return devices;
}

/// Devices in a row that hold the same, of which one is printed.
struct Alike {
  Device first;
  Device last;
  int n = 1;
};

const Capacity* capacity_of(const Machine& machine, Device device) {
  const auto found = std::find_if(
      machine.capacities.begin(), machine.capacities.end(), [&](const Capacity& capacity) {
        return capacity.device == device;
      });
  return found == machine.capacities.end() ? nullptr : &*found;
}

bool hold_the_same(const MemoryLedger& ledger, const Machine& machine, Device a, Device b) {
  const auto lines_of = [&](Device device) {
    std::vector<LedgerLine> lines;
    std::ranges::copy_if(ledger.lines, std::back_inserter(lines), [&](const LedgerLine& line) {
      return line.device == device;
    });
    return lines;
  };
  const auto same = [](const LedgerLine& one, const LedgerLine& other) {
    return one.kind == other.kind && one.bytes == other.bytes && one.low_bytes == other.low_bytes &&
           one.high_bytes == other.high_bytes && one.provenance == other.provenance;
  };
  const Capacity* room = capacity_of(machine, a);
  const Capacity* other_room = capacity_of(machine, b);
  const bool same_room = room == nullptr || other_room == nullptr
                             ? room == other_room
                             : room->bytes == other_room->bytes;
  const bool host = a.index == Device::kHost || b.index == Device::kHost;
  return !host && same_room && std::ranges::equal(lines_of(a), lines_of(b), same);
}

std::vector<Alike> folded(const MemoryLedger& ledger, const Machine& machine) {
  std::vector<Alike> runs;
  for (const Device device : devices_of(ledger)) {
    if (!runs.empty() && hold_the_same(ledger, machine, runs.back().first, device)) {
      runs.back().last = device;
      ++runs.back().n;
    } else {
      runs.push_back({device, device});
    }
  }
  return runs;
}

/// In the cells before the first lines: {"gpu0"}, {"each of", "8 GPUs"}, {"each of", "gpu1-7"}.
std::array<std::string, 2> labels_of(const Alike& alike, const Machine& machine) {
  if (alike.n == 1) {
    return {name(alike.first), ""};
  }
  const bool all = alike.n == machine.n_gpus;
  return {
      "each of",
      all ? counted(alike.n, "GPU") : name(alike.first) + "-" + std::to_string(alike.last.index)};
}

std::string how_sure(const LedgerLine& line) {
  std::string text(name(line.provenance));
  if (line.low_bytes != line.high_bytes) {
    text += " " + gib_number(line.low_bytes) + " to " + gib_number(line.high_bytes);
  }
  return text;
}

void add_device(Console& console,
                Table& table,
                const MemoryLedger& ledger,
                const Alike& alike,
                const Machine& machine) {
  const Device device = alike.first;
  const DeviceTotal total = ledger.total(device);
  const Capacity* capacity = capacity_of(machine, device);
  const std::int64_t whole =
      std::max<std::int64_t>(1, capacity == nullptr ? total.bytes : capacity->bytes);
  const auto share = [&](std::int64_t bytes) {
    return bar(
        static_cast<double>(bytes) / static_cast<double>(whole), kBarCells, console.terminal.utf8);
  };
  std::array<std::string, 2> labels = labels_of(alike, machine);
  for (const LedgerLine& line : ledger.lines) {
    if (line.device == device) {
      table.rows.push_back({{labels.front(), Style::bold},
                            {std::string(name(line.kind))},
                            {gib_number(line.bytes)},
                            {share(line.bytes), Style::accent},
                            {how_sure(line), Style::dim}});
      labels = {labels.back(), ""};
    }
  }
  if (capacity == nullptr) {
    table.rows.push_back({{labels.front(), Style::bold},
                          {"total", Style::bold},
                          {gib_number(total.bytes), Style::bold},
                          {},
                          {}});
    return;
  }
  const DeviceTotal paid = held(ledger, *capacity);
  const std::int64_t free = capacity->bytes - paid.bytes;
  const Style verdict = paid.high_bytes <= capacity->bytes ? Style::good : Style::bad;
  table.rows.push_back(
      {{labels.front(), Style::bold},
       {free < 0 ? "missing" : "free", verdict},
       {gib_number(std::abs(free)), verdict},
       {},
       {"of " + gib(capacity->bytes) + (capacity->with_gpu0 ? ", gpu0's in it" : ""), Style::dim}});
}

}  // namespace

std::string bar(double share, int cells, bool utf8) {
  constexpr std::array<const char*, 8> kEighths{
      "", "\u258f", "\u258e", "\u258d", "\u258c", "\u258b", "\u258a", "\u2589"};
  const double bounded = std::clamp(share, 0.0, 1.0);
  std::string text;
  if (!utf8) {
    text.assign(static_cast<std::size_t>(std::lround(bounded * cells)), '#');
    return text;
  }
  const auto eighths = static_cast<int>(std::lround(bounded * cells * 8));
  for (int i = 0; i < eighths / 8; ++i) {
    text += "\u2588";
  }
  return text + kEighths.at(static_cast<std::size_t>(eighths % 8));
}

void print_ledger(Console& console, const MemoryReport& report, const Machine& machine) {
  Table table{.columns = {{"device"}, {"line"}, {"GiB", Align::right}, {"share"}, {"how sure"}},
              .rows = {}};
  for (const Alike& alike : folded(report.ledger, machine)) {
    add_device(console, table, report.ledger, alike, machine);
  }
  const std::optional<OffloadedCache>& away = report.cache.offloaded;
  if (away && away->bytes > 0 && away->tier != name(Device{Device::kHost})) {
    table.rows.push_back({{std::string(away->tier), Style::bold},
                          {std::string(name(LedgerKind::cache))},
                          {gib_number(away->bytes)},
                          {},
                          {std::string(name(Provenance::exact)), Style::dim}});
  }
  print(console, table);
}

}  // namespace kvfathom::cli
