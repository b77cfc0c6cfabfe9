#include "cli/ledger_table.h"

#include <algorithm>
#include <array>
#include <cmath>

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

const Capacity* capacity_of(const Machine& machine, Device device) {
  const auto found = std::find_if(
      machine.capacities.begin(), machine.capacities.end(), [&](const Capacity& capacity) {
        return capacity.device == device;
      });
  return found == machine.capacities.end() ? nullptr : &*found;
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
                Device device,
                const Machine& machine) {
  const DeviceTotal total = ledger.total(device);
  const Capacity* capacity = capacity_of(machine, device);
  const std::int64_t whole =
      std::max<std::int64_t>(1, capacity == nullptr ? total.bytes : capacity->bytes);
  const auto share = [&](std::int64_t bytes) {
    return bar(
        static_cast<double>(bytes) / static_cast<double>(whole), kBarCells, console.terminal.utf8);
  };
  std::string label = name(device);
  for (const LedgerLine& line : ledger.lines) {
    if (line.device == device) {
      table.rows.push_back({{label, Style::bold},
                            {std::string(name(line.kind))},
                            {gib_number(line.bytes)},
                            {share(line.bytes), Style::accent},
                            {how_sure(line), Style::dim}});
      label.clear();
    }
  }
  if (capacity == nullptr) {
    table.rows.push_back(
        {{}, {"total", Style::bold}, {gib_number(total.bytes), Style::bold}, {}, {}});
    return;
  }
  const DeviceTotal paid = held(ledger, *capacity);
  const std::int64_t free = capacity->bytes - paid.bytes;
  const Style verdict = paid.high_bytes <= capacity->bytes ? Style::good : Style::bad;
  table.rows.push_back(
      {{},
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
  for (const Device device : devices_of(report.ledger)) {
    add_device(console, table, report.ledger, device, machine);
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
