#include "model/memory/smallest_machine.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

namespace kvfathom {

bool is_smaller(const MachineOffer& a, const MachineOffer& b) {
  return std::tie(a.bytes, a.n_devices, b.bandwidth, a.name) <
         std::tie(b.bytes, b.n_devices, a.bandwidth, b.name);
}

SmallestMachine smallest_machine(std::span<const MachineOffer> offers, std::size_t n_next) {
  std::vector<std::size_t> order(offers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order,
                    [&](std::size_t a, std::size_t b) { return is_smaller(offers[a], offers[b]); });
  SmallestMachine found;
  std::map<std::int64_t, std::size_t> by_count;
  for (const std::size_t i : order) {
    if (!offers[i].fits) {
      found.below = found.smallest ? found.below : i;
      continue;
    }
    by_count.emplace(offers[i].n_devices, i);
    if (!found.smallest) {
      found.smallest = i;
    } else if (found.next.size() < n_next) {
      found.next.push_back(i);
    }
  }
  for (const auto& [count, i] : by_count) {
    found.by_count.push_back(i);
  }
  return found;
}

}  // namespace kvfathom
