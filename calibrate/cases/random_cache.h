// A cache of random bits, made at memory speed: large ones could not be quantised row by row in
// the time that timing them takes.
#pragma once

#include <memory>
#include <vector>

#include "calibrate/cases/case.h"
#include "kernels/common/kv_cache.h"

namespace kvfathom::bench {

struct RandomCacheShape {
  kernels::KvFormat format = kernels::KvFormat::bf16;
  int n_sequences = 1;
  int n_kv_heads = 1;
  int k_dim = 128;
  int v_dim = 128;      ///< 0: no V
  int tokens = 0;       ///< of every sequence
  int page_tokens = 0;  ///< a power of two, pages in random order; 0: contiguous
  /// The rows of one token's KV heads lie side by side, as most engines store them; else those of
  /// one KV head's tokens.
  bool token_major = false;
};

/// Throws InputError for a name that is no format.
[[nodiscard]] kernels::KvFormat kv_format_named(std::string_view name);
/// The names of all formats, for KernelBench::formats.
[[nodiscard]] std::vector<std::string> kv_format_names();

/// Contiguous, of the request's format and its dimensions n_sequences, n_kv_heads, head_dim,
/// tokens, and token_major where it has that.
[[nodiscard]] RandomCacheShape cache_shape_of(const Request& request);
/// K or V of one token and head, scales included.
[[nodiscard]] std::int64_t stored_row_bytes(const Request& request);
/// What one row of a cache in host memory stands for: decode_row.
[[nodiscard]] std::vector<double> stored_row(const kernels::KvCacheView& cache,
                                             const kernels::KvPlane& plane,
                                             int sequence,
                                             int kv_head,
                                             int token,
                                             int dim);

/// Random numbers in (-1, 1), or whatever a quantised format makes of random bits of that size.
class RandomCache {
 public:
  RandomCache(Place place, const RandomCacheShape& shape, std::uint64_t seed);
  /// Valid as long as this object.
  [[nodiscard]] kernels::KvCacheView view() const { return view_; }
  /// What kernels have made of it.
  [[nodiscard]] RandomCache on_host() const;

 private:
  RandomCache() = default;
  kernels::KvPlane make_plane(Place place, int dim, std::uint64_t seed);
  void make_pages(Place place, std::uint64_t seed);
  void point_to_arrays();

  RandomCacheShape shape_;
  int n_pages_ = 0;
  int page_tokens_ = 0;
  std::vector<Array<std::uint32_t>> arrays_;  ///< data and, where there are any, scales, K first
  std::vector<Array<std::int32_t>> indices_;  ///< the page table, if any, and lengths
  kernels::KvCacheView view_;
};

}  // namespace kvfathom::bench
