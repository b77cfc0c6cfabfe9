// What so many tokens and sequences take of a paged cache, and what so many blocks hold: the
// arithmetic of a cache whose groups paged_cache.cpp has laid out.
#include <algorithm>
#include <cmath>

#include "model/engine/serving/paged_cache.h"
#include "model/rounding.h"

namespace kvfathom::serving {

std::int64_t WindowPool::full_blocks(std::int64_t blocks) const {
  return static_cast<std::int64_t>(std::ceil(static_cast<double>(blocks) / share));
}

std::int64_t WindowPool::blocks_beside(std::int64_t full_blocks, std::int64_t block_tokens) const {
  const double tokens = static_cast<double>(full_blocks * block_tokens) * share;
  return static_cast<std::int64_t>(tokens) / block_tokens;
}

std::int64_t PagedGroup::blocks(std::int64_t tokens) const {
  if (block_tokens == 0) {
    return 1 + extra_blocks;
  }
  const std::int64_t all = tokens + ahead_tokens;
  const std::int64_t held = most_tokens > 0 ? std::min(all, most_tokens) : all;
  return divide_up(held, block_tokens) + extra_blocks;
}

std::int64_t PagedCache::blocks(std::int64_t tokens) const {
  std::int64_t sum = 0;
  for (const PagedGroup& group : groups) {
    sum += group.n_tables > 0 ? group.n_tables * group.blocks(tokens) : 0;
  }
  return sum;
}

std::int64_t PagedCache::blocks(std::int64_t tokens, std::int64_t sequences) const {
  const std::int64_t grown = sequences * blocks(tokens);
  if (!window_pool) {
    return grown;
  }
  const PagedGroup& window = groups.back();
  const std::int64_t in_flight = divide_up(window_pool->in_flight_tokens, window.block_tokens);
  const std::int64_t slid = std::min(grown, sequences * window.blocks(tokens) + in_flight);
  const std::int64_t least = divide_up(window_pool->least_tokens, window.block_tokens);
  return std::max(grown, window_pool->full_blocks(std::max(slid, least)));
}

double PagedCache::sequences(std::int64_t tokens, std::int64_t n_blocks) const {
  const double grown = static_cast<double>(n_blocks) / static_cast<double>(blocks(tokens));
  if (!window_pool) {
    return grown;
  }
  const PagedGroup& window = groups.back();
  const std::int64_t slots = window_blocks(n_blocks);
  const std::int64_t in_flight = divide_up(window_pool->in_flight_tokens, window.block_tokens);
  const double whole = static_cast<double>(slots) / static_cast<double>(blocks(tokens));
  const double slid =
      static_cast<double>(slots - in_flight) / static_cast<double>(window.blocks(tokens));
  return std::min(grown, std::max(whole, slid));
}

std::int64_t PagedCache::window_blocks(std::int64_t n_blocks) const {
  return window_pool ? window_pool->blocks_beside(n_blocks, groups.back().block_tokens) : 0;
}

std::int64_t PagedCache::blocks_in(std::int64_t available_bytes) const {
  if (!window_pool) {
    return available_bytes / block_bytes - spare_blocks;
  }
  const double both = static_cast<double>(block_bytes) +
                      window_pool->share * static_cast<double>(window_block_bytes);
  return static_cast<std::int64_t>(static_cast<double>(available_bytes) / both) - spare_blocks;
}

std::int64_t PagedCache::state_slots(std::int64_t sequences) const {
  return state_pool ? sequences * state_pool->slots_per_sequence + state_pool->spare_slots : 0;
}

std::int64_t PagedCache::state_bytes(std::int64_t sequences) const {
  if (state_pool) {
    return state_slots(sequences) * state_slot_bytes +
           (sequences + state_pool->spare_slots) * state_verify_bytes;
  }
  std::int64_t blocks = 0;
  for (const PagedGroup& group : groups) {
    blocks += group.block_tokens == 0 ? group.n_tables * group.blocks(0) : 0;
  }
  return sequences * blocks * block_bytes;
}

std::int64_t PagedCache::bytes(std::int64_t tokens, std::int64_t sequences) const {
  const std::int64_t n_blocks = blocks(tokens, sequences);
  const std::int64_t windows =
      window_pool ? (window_blocks(n_blocks) + spare_blocks) * window_block_bytes : 0;
  const std::int64_t states = state_pool ? state_bytes(sequences) : 0;  // else among the blocks
  return (n_blocks + spare_blocks) * block_bytes + windows + states;
}

std::int64_t PagedCache::n_tables() const {
  std::int64_t sum = 0;
  for (const PagedGroup& group : groups) {
    sum += group.n_tables;
  }
  return sum;
}

}  // namespace kvfathom::serving
