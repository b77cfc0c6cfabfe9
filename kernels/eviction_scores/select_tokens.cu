#include "kernels/common/kv_rows_device.h"
#include "kernels/common/select_top_device.h"
#include "kernels/eviction_scores/select_tokens.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

constexpr int kCopyThreads = 128;

/// A block owns one row of scores.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kSelectThreads) select_kernel(SelectTokensParams params) {
  const int row = static_cast<int>(simt::block_idx().x);
  const int length =
      simt::ld_index(params.lengths + (params.lengths_per_head ? row : row / params.n_heads));
  const int budget =
      params.budgets != nullptr ? simt::ld_index(params.budgets + row) : params.budget;
  const int n_kept = length < budget ? length : budget;
  const float* scores = params.scores + static_cast<std::int64_t>(row) * params.max_tokens;
  std::int32_t* kept = params.kept + static_cast<std::int64_t>(row) * params.budget;
  const auto key_of = [&](int token) {
    if (token < params.n_sinks || token >= length - params.n_recent) {
      return kKeptKey;
    }
    return params.scores != nullptr ? score_key(simt::ld(scores + token)) : score_key(0.0F);
  };
  select_top(
      length,
      n_kept,
      key_of,
      [&](int rank, int token) { simt::st(kept + rank, token); },
      *simt::shared_memory<SelectShared>());
  if (simt::thread_idx().x == 0) {
    simt::st(params.n_kept + row, n_kept);
  }
}

/// Bytes of one row, in the units that a thread copies.
struct RowUnits {
  int unit_bytes;  // 16, or 4 where rows hold no whole 16
  int n_units;
  int scale_bytes;
};

SIMT_DEVICE void copy_unit(const std::byte* from, std::byte* to, int unit_bytes) {
  if (unit_bytes == 16) {
    simt::st(reinterpret_cast<simt::U32x4*>(to), simt::ld_stream<simt::U32x4>(from));
  } else {
    simt::st(reinterpret_cast<std::uint32_t*>(to), simt::ld_stream<std::uint32_t>(from));
  }
}
SIMT_DEVICE void copy_scales(const std::byte* from, std::byte* to, int bytes) {
  for (int i = 0; i < bytes / 2; ++i) {
    simt::st(reinterpret_cast<std::uint16_t*>(to) + i,
             simt::ld(reinterpret_cast<const std::uint16_t*>(from) + i));
  }
}

/// A thread owns one unit of one kept row of K (blockIdx.z = 0) or V. Grid: (units, sequences and
/// heads, planes).
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kCopyThreads)
    gather_kernel(GatherCacheParams params, RowUnits units) {
  const int n_heads = params.from.n_kv_heads;
  const int sequence = static_cast<int>(simt::block_idx().y) / n_heads;
  const int head = static_cast<int>(simt::block_idx().y) % n_heads;
  const bool is_k = simt::block_idx().z == 0;
  const int row = params.kept_per_head ? sequence * n_heads + head : sequence;
  const int n_kept = simt::ld_index(params.n_kept + row);
  const std::int64_t item =
      static_cast<std::int64_t>(simt::block_idx().x) * kCopyThreads + simt::thread_idx().x;
  if (item == 0 && is_k && (params.kept_per_head || head == 0)) {
    simt::st(const_cast<std::int32_t*>(params.to.lengths) + row, n_kept);
  }
  const int slot = static_cast<int>(item / units.n_units);
  const int unit = static_cast<int>(item % units.n_units);
  if (slot >= n_kept) {
    return;
  }
  const int token =
      simt::ld_index(params.kept + static_cast<std::int64_t>(row) * params.budget + slot);
  const KvSlot source = device_slot_of(params.from, sequence, token);
  const KvSlot target = device_slot_of(params.to, sequence, slot);
  const KvPlane& from = is_k ? params.from.k : params.from.v;
  const KvPlane& to = is_k ? params.to.k : params.to.v;
  copy_unit(row_data(from, source, head) + unit * units.unit_bytes,
            const_cast<std::byte*>(row_data(to, target, head)) + unit * units.unit_bytes,
            units.unit_bytes);
  if (unit == 0 && units.scale_bytes > 0) {
    copy_scales(row_scales(from, source, head),
                const_cast<std::byte*>(row_scales(to, target, head)),
                units.scale_bytes);
  }
}

}  // namespace

void select_tokens_launch(const SelectTokensParams& params, Stream stream) {
  check_select_tokens(params);
  static_cast<void>(device());
  const auto n_rows = static_cast<unsigned>(params.n_sequences * params.n_heads);
  if (n_rows > 0) {
    simt::launch(&select_kernel, n_rows, kSelectThreads, sizeof(SelectShared), stream, params);
  }
}

void gather_cache_launch(const GatherCacheParams& params, Stream stream) {
  check_gather_cache(params);
  static_cast<void>(device());
  const auto row_bytes = static_cast<int>(row_data_bytes(params.from.format, params.head_dim));
  const int unit_bytes = row_bytes % 16 == 0 ? 16 : 4;
  const RowUnits units{unit_bytes,
                       row_bytes / unit_bytes,
                       static_cast<int>(row_scale_bytes(params.from.format, params.head_dim))};
  const std::int64_t items = static_cast<std::int64_t>(params.budget) * units.n_units;
  const auto n_rows = static_cast<unsigned>(params.from.n_sequences * params.from.n_kv_heads);
  if (n_rows > 0) {
    const std::int64_t blocks = (items + kCopyThreads - 1) / kCopyThreads;
    simt::launch(&gather_kernel,
                 simt::Dim3(static_cast<unsigned>(blocks > 0 ? blocks : 1), n_rows, 2),
                 kCopyThreads,
                 0,
                 stream,
                 params,
                 units);
  }
}

}  // namespace kvfathom::kernels
