#include <algorithm>
#include <type_traits>

#include "kernels/common/tile_gemm.h"
#include "kernels/residual_recompute/residual_recompute.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

using simt::U32x4;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / simt::kWarpSize;
constexpr int kVector = 8;  // elements that a thread handles together: 16 bytes of Bf16

/// Elements [column, column + 8) of a stored row.
SIMT_DEVICE void load8(const StoredRows& rows,
                       std::int64_t token,
                       int column,
                       float (&out)[kVector]) {
  if (rows.format == RowFormat::bf16) {
    const auto* from = static_cast<const Bf16*>(rows.data) + token * rows.n_columns + column;
    const auto v = simt::ld_stream<U32x4>(from);
    const std::uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      out[2 * i] = simt::bf16_low(pairs[i]);
      out[2 * i + 1] = simt::bf16_high(pairs[i]);
    }
    return;
  }
  const auto* words =
      static_cast<const std::uint32_t*>(rows.data) + token * (rows.n_columns / 32 * rows.bits);
  const bool by_channels = rows.axis == GroupAxis::channels;
  const std::int64_t group = by_channels ? token * (rows.n_columns / kRowGroup) + column / kRowGroup
                                         : token / kRowGroup * rows.n_columns + column;
  SIMT_UNROLL for (int i = 0; i < kVector; ++i) {
    const int bit = (column + i) * rows.bits;
    std::uint32_t code = simt::ld(words + bit / 32) >> bit % 32;
    if (bit % 32 + rows.bits > 32) {  // 3-bit codes cross words
      code |= simt::ld(words + bit / 32 + 1) << (32 - bit % 32);
    }
    code &= (1U << rows.bits) - 1;
    const std::int64_t at = group + (by_channels ? 0 : i);
    out[i] = to_f32(simt::ld(rows.minima + at)) +
             static_cast<float>(code) * to_f32(simt::ld(rows.steps + at));
  }
}

SIMT_DEVICE float block_sum(float value, float* warp_sums) {
  value = simt::warp_sum(value);
  if (simt::lane_id() == 0) {
    warp_sums[simt::thread_idx().x / simt::kWarpSize] = value;
  }
  simt::syncblock();
  float sum = 0.0F;
  for (int warp = 0; warp < kWarps; ++warp) {
    sum += warp_sums[warp];
  }
  return sum;
}

/// One block owns one token: its row of X widened, normalised where there is a weight, and rounded
/// to Bf16. The row waits in shared memory, so that it is read once.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) prepare_rows_kernel(
    StoredRows rows, const Bf16* norm_weight, float epsilon, std::int64_t first_token, Bf16* out) {
  float* warp_sums = simt::shared_memory<float>();
  float* row = warp_sums + kWarps;
  const std::int64_t token = first_token + simt::block_idx().x;
  const int start = static_cast<int>(simt::thread_idx().x) * kVector;
  float squares = 0.0F;
  for (int column = start; column < rows.n_columns; column += kThreads * kVector) {
    float values[kVector];
    load8(rows, token, column, values);
    SIMT_UNROLL for (int i = 0; i < kVector; ++i) {
      squares += values[i] * values[i];
      row[column + i] = values[i];
    }
  }
  const float mean = block_sum(squares, warp_sums) / static_cast<float>(rows.n_columns);
  const float inverse = norm_weight != nullptr ? simt::rsqrt_fast(mean + epsilon) : 1.0F;
  Bf16* to = out + static_cast<std::int64_t>(simt::block_idx().x) * rows.n_columns;
  for (int column = start; column < rows.n_columns; column += kThreads * kVector) {
    float scaled[kVector];
    SIMT_UNROLL for (int i = 0; i < kVector; ++i) {
      const float weight =
          norm_weight != nullptr ? to_f32(simt::ld(norm_weight + column + i)) : 1.0F;
      scaled[i] = row[column + i] * inverse * weight;
    }
    simt::st(reinterpret_cast<U32x4*>(to + column),
             U32x4{simt::pack_bf16(scaled[0], scaled[1]),
                   simt::pack_bf16(scaled[2], scaled[3]),
                   simt::pack_bf16(scaled[4], scaled[5]),
                   simt::pack_bf16(scaled[6], scaled[7])});
  }
}

struct Projection {
  const Bf16* of_k;     // [n_tokens, depth]
  const Bf16* of_v;     // [n_tokens, depth]; may be of_k
  const Bf16* weights;  // [2 * width, depth]
  Bf16* k;              // [n_tokens, width]
  Bf16* v;
  int n_tokens, width, depth;
};

/// Block (x, y) owns one tile of tokens (y) and columns (x): K's tiles first, then V's.
template <TileMath kMath>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(4 * simt::kWarpSize) project_kernel(Projection p) {
  using Tile =
      TileGemm<Bf16, BLayout::n_by_k, kMath, kResidualTileTokens, kResidualTileColumns, 4, 1>;
  const int tiles_of_k = (p.width + Tile::kN - 1) / Tile::kN;
  const int tile_index = static_cast<int>(simt::block_idx().x);
  const bool is_v = tile_index >= tiles_of_k;
  const int column0 = (is_v ? tile_index - tiles_of_k : tile_index) * Tile::kN;
  const int token0 = static_cast<int>(simt::block_idx().y) * Tile::kM;
  const std::int64_t depth = p.depth;
  const MatrixRows<Bf16> x{
      (is_v ? p.of_v : p.of_k) + token0 * depth, depth, p.n_tokens - token0, p.depth};
  const std::int64_t weight_row = (is_v ? p.width : 0) + column0;
  const MatrixRows<Bf16> w{p.weights + weight_row * depth, depth, p.width - column0, p.depth};
  Tile tile;
  tile.accumulate(simt::shared_memory<Bf16>(), x, w, p.depth);
  Bf16* out = is_v ? p.v : p.k;
  tile.for_each_pair([&](int row, int column, float v0, float v1) {
    if (token0 + row < p.n_tokens && column0 + column < p.width) {  // width and column are even
      const std::int64_t at = static_cast<std::int64_t>(token0 + row) * p.width + column0 + column;
      simt::st(reinterpret_cast<std::uint32_t*>(out + at), simt::pack_bf16(v0, v1));
    }
  });
}

/// One warp owns one head of one token's K, in place.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) norm_heads_kernel(
    Bf16* k, std::int64_t n_rows, int head_dim, const Bf16* weight, float epsilon) {
  const std::int64_t row = static_cast<std::int64_t>(simt::block_idx().x) * kWarps +
                           simt::thread_idx().x / simt::kWarpSize;
  if (row >= n_rows) {
    return;
  }
  auto* head = reinterpret_cast<std::uint32_t*>(k + row * head_dim);  // pairs
  float squares = 0.0F;
  for (int i = simt::lane_id(); i < head_dim / 2; i += simt::kWarpSize) {
    const std::uint32_t pair = simt::ld(head + i);
    squares +=
        simt::bf16_low(pair) * simt::bf16_low(pair) + simt::bf16_high(pair) * simt::bf16_high(pair);
  }
  const float mean = simt::warp_sum(squares) / static_cast<float>(head_dim);
  const float inverse = simt::rsqrt_fast(mean + epsilon);
  for (int i = simt::lane_id(); i < head_dim / 2; i += simt::kWarpSize) {
    const std::uint32_t pair = simt::ld(head + i);
    const std::uint32_t scale = simt::ld(reinterpret_cast<const std::uint32_t*>(weight) + i);
    simt::st(head + i,
             simt::pack_bf16(simt::bf16_low(pair) * inverse * simt::bf16_low(scale),
                             simt::bf16_high(pair) * inverse * simt::bf16_high(scale)));
  }
}

unsigned tiles(std::int64_t n, int size) {
  return static_cast<unsigned>((n + size - 1) / size);
}

void prepare_rows(const ResidualRecomputeParams& p,
                  const StoredRows& rows,
                  std::int64_t first,
                  int count,
                  Bf16* out,
                  Stream stream) {
  const std::size_t shared = (kWarps + rows.n_columns) * sizeof(float);
  simt::launch(prepare_rows_kernel,
               static_cast<unsigned>(count),
               kThreads,
               shared,
               stream,
               rows,
               p.norm_weight,
               p.norm_epsilon,
               first,
               out);
}

void project(const Projection& of, Stream stream) {
  const simt::Dim3 grid(2 * tiles(of.width, kResidualTileColumns),
                        tiles(of.n_tokens, kResidualTileTokens));
  const auto run = [&](auto math) {
    using Tile = TileGemm<Bf16,
                          BLayout::n_by_k,
                          decltype(math)::value,
                          kResidualTileTokens,
                          kResidualTileColumns,
                          4,
                          1>;
    simt::launch(
        project_kernel<decltype(math)::value>, grid, Tile::kThreads, Tile::kRingBytes, stream, of);
  };
  if (device().compute_capability >= 80) {
    run(std::integral_constant<TileMath, TileMath::tensor_cores>{});
  } else {
    run(std::integral_constant<TileMath, TileMath::cuda_cores>{});
  }
}

}  // namespace

void residual_recompute_launch(const ResidualRecomputeParams& p, void* scratch, Stream stream) {
  check_residual_recompute(p);
  static_cast<void>(device());
  const int width = p.to.cache.n_kv_heads * p.to.head_dim;
  const std::int64_t chunk = p.chunk_tokens;
  auto* of_k = static_cast<Bf16*>(scratch);
  Bf16* of_v = p.x_v.data != nullptr ? of_k + chunk * p.x.n_columns : of_k;
  Bf16* k = of_v + chunk * p.x.n_columns;
  Bf16* v = k + chunk * width;
  for (std::int64_t first = 0; first < p.to.n_tokens; first += chunk) {
    const int count = static_cast<int>(std::min<std::int64_t>(chunk, p.to.n_tokens - first));
    prepare_rows(p, p.x, first, count, of_k, stream);
    if (p.x_v.data != nullptr) {
      prepare_rows(p, p.x_v, first, count, of_v, stream);
    }
    project({of_k, of_v, p.weights, k, v, count, width, p.x.n_columns}, stream);
    if (p.k_norm_weight != nullptr) {
      const std::int64_t n_rows = std::int64_t{count} * p.to.cache.n_kv_heads;
      simt::launch(norm_heads_kernel,
                   tiles(n_rows, kWarps),
                   kThreads,
                   0,
                   stream,
                   k,
                   n_rows,
                   p.to.head_dim,
                   p.k_norm_weight,
                   p.k_norm_epsilon);
    }
    cache_write_launch(cache_write_of_chunk(p, first, count, Element::bf16, k, v), stream);
  }
}

}  // namespace kvfathom::kernels
