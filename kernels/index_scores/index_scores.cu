#include <algorithm>

#include "kernels/common/dispatch.h"
#include "kernels/common/error.h"
#include "kernels/common/kv_rows_device.h"
#include "kernels/index_scores/index_scores.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * simt::kWarpSize;

SIMT_DEVICE float key_scale(const IndexScoresParams& params, KvSlot at) {
  return simt::ld(reinterpret_cast<const float*>(row_scales(params.keys.k, at, 0)));
}

// ---- tensor cores ----

constexpr int kMmaDim = 128;
constexpr int kSteps = kMmaDim / 16;  // mma steps along a row
constexpr int kTokenTiles = 4;        // of 8 tokens, a warp's at a time
constexpr int kWarpTokens = 8 * kTokenTiles;
constexpr int kBlockTokens = kWarps * kWarpTokens;

// The order in which a product's elements are summed is free, as long as q and k agree. Lane
// 4 g + c holds bytes 32 c .. 32 c + 31 of the key of token g, which it loads as two 16-byte words:
// step s takes its bytes 4 s .. 4 s + 3. Queries are packed to match, once a block.

/// Queries as A fragments: [n_heads / 16, kSteps, 32 lanes] of four registers.
SIMT_DEVICE void pack_queries(const IndexScoresParams& params,
                              int sequence,
                              simt::U32x4* fragments) {
  const auto* q = reinterpret_cast<const std::byte*>(params.q) +
                  static_cast<std::int64_t>(sequence) * params.n_heads * kMmaDim;
  const int n = params.n_heads / 16 * kSteps * simt::kWarpSize;
  for (int i = static_cast<int>(simt::thread_idx().x); i < n; i += kThreads) {
    const int lane = i % simt::kWarpSize;
    const int step = i / simt::kWarpSize % kSteps;
    const int head = i / simt::kWarpSize / kSteps * 16 + lane / 4;
    const int column = lane % 4 * 32 + step * 4;
    const auto word = [&](int row) {
      return simt::ld(reinterpret_cast<const std::uint32_t*>(q + row * kMmaDim + column));
    };
    const std::uint32_t upper = word(head);
    const std::uint32_t lower = word(head + 8);
    fragments[i] = simt::U32x4{simt::f16x2_of_e4m3x2(upper & 0xffffU),
                               simt::f16x2_of_e4m3x2(lower & 0xffffU),
                               simt::f16x2_of_e4m3x2(upper >> 16),
                               simt::f16x2_of_e4m3x2(lower >> 16)};
  }
}

/// The lane's 32 bytes of its token in each of the warp's tiles; zeros beyond the length.
SIMT_DEVICE void load_keys(const IndexScoresParams& params,
                           int sequence,
                           int first_token,
                           int length,
                           std::uint32_t (&words)[kTokenTiles][kSteps]) {
  SIMT_UNROLL for (int tile = 0; tile < kTokenTiles; ++tile) {
    const int token = first_token + tile * 8 + simt::lane_id() / 4;
    simt::U32x4 low{0, 0, 0, 0};
    simt::U32x4 high{0, 0, 0, 0};
    if (token < length) {
      const KvSlot at = device_slot_of(params.keys, sequence, token);
      const std::byte* bytes = row_data(params.keys.k, at, 0) + simt::lane_id() % 4 * 32;
      low = simt::ld_stream<simt::U32x4>(bytes);
      high = simt::ld_stream<simt::U32x4>(bytes + 16);
    }
    words[tile][0] = low.x;
    words[tile][1] = low.y;
    words[tile][2] = low.z;
    words[tile][3] = low.w;
    words[tile][4] = high.x;
    words[tile][5] = high.y;
    words[tile][6] = high.z;
    words[tile][7] = high.w;
  }
}

/// Adds this lane's heads' share of each tile's two tokens: rows g and g + 8 of every 16 heads.
template <int HeadTiles>
SIMT_DEVICE void multiply(const simt::U32x4* fragments,
                          const std::uint32_t (&words)[kTokenTiles][kSteps],
                          float (&dots)[HeadTiles][kTokenTiles][4]) {
  SIMT_UNROLL for (int step = 0; step < kSteps; ++step) {
    std::uint32_t keys[kTokenTiles][2];
    SIMT_UNROLL for (int tile = 0; tile < kTokenTiles; ++tile) {
      keys[tile][0] = simt::f16x2_of_e4m3x2(words[tile][step] & 0xffffU);
      keys[tile][1] = simt::f16x2_of_e4m3x2(words[tile][step] >> 16);
    }
    SIMT_UNROLL for (int h = 0; h < HeadTiles; ++h) {
      const simt::U32x4 packed = fragments[(h * kSteps + step) * simt::kWarpSize + simt::lane_id()];
      const std::uint32_t queries[4] = {packed.x, packed.y, packed.z, packed.w};
      SIMT_UNROLL for (int tile = 0; tile < kTokenTiles; ++tile) {
        simt::mma_f16(dots[h][tile], queries, keys[tile]);
      }
    }
  }
}

SIMT_DEVICE float relu(float x) {
  return x > 0.0F ? x : 0.0F;
}

/// Blocks share a sequence's tokens in tiles of 128, a warp taking 32. Grid: (blocks, n_sequences).
template <int HeadTiles>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) index_mma_kernel(IndexScoresParams params) {
  const int sequence = static_cast<int>(simt::block_idx().y);
  const int length = device_length_of(params.keys, sequence, 0);
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  const int row = simt::lane_id() / 4;
  auto* fragments = simt::shared_memory<simt::U32x4>();
  pack_queries(params, sequence, fragments);
  simt::syncblock();
  const float* weights = params.weights + static_cast<std::int64_t>(sequence) * params.n_heads;
  const int stride = static_cast<int>(simt::grid_dim().x) * kBlockTokens;
  const int first = static_cast<int>(simt::block_idx().x) * kBlockTokens + warp * kWarpTokens;
  for (int first_token = first; first_token < length; first_token += stride) {
    std::uint32_t words[kTokenTiles][kSteps];
    load_keys(params, sequence, first_token, length, words);
    float dots[HeadTiles][kTokenTiles][4] = {};
    multiply<HeadTiles>(fragments, words, dots);
    SIMT_UNROLL for (int tile = 0; tile < kTokenTiles; ++tile) {
      float even = 0.0F;
      float odd = 0.0F;
      SIMT_UNROLL for (int h = 0; h < HeadTiles; ++h) {
        const float upper = simt::ld(weights + h * 16 + row);
        const float lower = simt::ld(weights + h * 16 + row + 8);
        even += upper * relu(dots[h][tile][0]) + lower * relu(dots[h][tile][2]);
        odd += upper * relu(dots[h][tile][1]) + lower * relu(dots[h][tile][3]);
      }
      SIMT_UNROLL for (int mask = 4; mask < simt::kWarpSize; mask *= 2) {
        even += simt::shfl_xor(even, mask);
        odd += simt::shfl_xor(odd, mask);
      }
      // Lanes 0..3 write the even tokens and 4..7 the odd ones: every lane holds its column's sums.
      const int token = first_token + tile * 8 + simt::lane_id() % 4 * 2 + row;
      if (row < 2 && token < length) {
        const float scale = key_scale(params, device_slot_of(params.keys, sequence, token));
        simt::st(params.scores + static_cast<std::int64_t>(sequence) * params.max_tokens + token,
                 (row == 0 ? even : odd) * scale);
      }
    }
  }
}

// ---- CUDA cores ----

constexpr int kTileTokens = simt::kWarpSize;  // a lane owns a token
constexpr int kTileHeads = 8;                 // whose queries are in shared memory at a time
constexpr int kHeadsPerWarp = kTileHeads / kWarps;
constexpr int kKeyPad = 1;  // floats: lanes read their own keys without bank conflicts

/// Rows of E4M3 as float; zeros from row n_valid on.
template <typename RowAt>
SIMT_DEVICE void stage_rows(
    int n_rows, int n_valid, int dim, int pitch, const RowAt& row_at, float* to) {
  const int quads = dim / 4;
  for (int i = static_cast<int>(simt::thread_idx().x); i < n_rows * quads; i += kThreads) {
    const int row = i / quads;
    float values[4] = {};
    if (row < n_valid) {
      load_row4(KvFormat::fp8_e4m3, DeviceRow{row_at(row), nullptr, 1.0F}, i % quads * 4, values);
    }
    SIMT_UNROLL for (int j = 0; j < 4; ++j) {
      to[row * pitch + i % quads * 4 + j] = values[j];
    }
  }
}

/// A block owns 32 tokens; its warps share the heads. Grid: (token tiles, n_sequences).
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) index_simt_kernel(IndexScoresParams params) {
  const int sequence = static_cast<int>(simt::block_idx().y);
  const int length = device_length_of(params.keys, sequence, 0);
  const int first_token = static_cast<int>(simt::block_idx().x) * kTileTokens;
  if (first_token >= length) {
    return;
  }
  const int dim = params.head_dim;
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  auto* keys = simt::shared_memory<float>();
  float* queries = keys + kTileTokens * (dim + kKeyPad);
  float* sums = queries + kTileHeads * dim;  // [kWarps, kTileTokens]
  const auto key_row = [&](int token) {
    return row_data(params.keys.k, device_slot_of(params.keys, sequence, first_token + token), 0);
  };
  stage_rows(kTileTokens, length - first_token, dim, dim + kKeyPad, key_row, keys);
  const std::int64_t first_query = static_cast<std::int64_t>(sequence) * params.n_heads;
  float score = 0.0F;
  for (int first_head = 0; first_head < params.n_heads; first_head += kTileHeads) {
    const auto query_row = [&](int head) {
      return reinterpret_cast<const std::byte*>(params.q + (first_query + first_head + head) * dim);
    };
    stage_rows(kTileHeads, params.n_heads - first_head, dim, dim, query_row, queries);
    simt::syncblock();
    float dots[kHeadsPerWarp] = {};
    for (int i = 0; i < dim; ++i) {
      const float k = keys[simt::lane_id() * (dim + kKeyPad) + i];
      SIMT_UNROLL for (int h = 0; h < kHeadsPerWarp; ++h) {
        dots[h] += k * queries[(h * kWarps + warp) * dim + i];
      }
    }
    SIMT_UNROLL for (int h = 0; h < kHeadsPerWarp; ++h) {
      const int head = first_head + h * kWarps + warp;
      if (head < params.n_heads) {
        score += simt::ld(params.weights + first_query + head) * relu(dots[h]);
      }
    }
    simt::syncblock();
  }
  sums[warp * kTileTokens + simt::lane_id()] = score;
  simt::syncblock();
  const int token = first_token + simt::lane_id();
  if (warp == 0 && token < length) {
    score = 0.0F;
    SIMT_UNROLL for (int w = 0; w < kWarps; ++w) {
      score += sums[w * kTileTokens + simt::lane_id()];
    }
    const float scale = key_scale(params, device_slot_of(params.keys, sequence, token));
    simt::st(params.scores + static_cast<std::int64_t>(sequence) * params.max_tokens + token,
             score * scale);
  }
}

int tiles(int n, int per_tile) {
  return (n + per_tile - 1) / per_tile;
}

bool fits_tensor_cores(const IndexScoresParams& params) {
  return params.head_dim == kMmaDim &&
         (params.n_heads == 16 || params.n_heads == 32 || params.n_heads == 64);
}

void launch_mma(const IndexScoresParams& params, Stream stream) {
  // Four blocks a multiprocessor, so that packing the queries is paid for by many tokens.
  const int resident = 4 * device().n_multiprocessors / params.keys.n_sequences;
  const int blocks = std::clamp(resident, 1, tiles(params.max_tokens, kBlockTokens));
  using HeadCounts = std::integer_sequence<int, 16, 32, 64>;
  dispatch(HeadCounts{}, params.n_heads, "index_scores: n_heads", [&](auto n_heads) {
    constexpr int kHeadTiles = decltype(n_heads)::value / 16;
    simt::launch(
        &index_mma_kernel<kHeadTiles>,
        simt::Dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(params.keys.n_sequences)),
        kThreads,
        kHeadTiles * kSteps * simt::kWarpSize * sizeof(simt::U32x4),
        stream,
        params);
  });
}

}  // namespace

void index_scores_launch(const IndexScoresParams& params, Stream stream, IndexKernel kernel) {
  check_index_scores(params);
  const bool has_mma = device().compute_capability >= 75;  // f16 operands
  const bool tensor_cores = kernel == IndexKernel::automatic ? has_mma && fits_tensor_cores(params)
                                                             : kernel == IndexKernel::tensor_cores;
  if (params.keys.n_sequences == 0 || params.max_tokens == 0) {
    return;
  }
  if (tensor_cores) {
    if (!has_mma || !fits_tensor_cores(params)) {
      throw UnsupportedShape(
          "index_scores: tensor cores need 16, 32 or 64 heads of 128 and sm_75 or newer");
    }
    launch_mma(params, stream);
    return;
  }
  const std::size_t shared_floats = kTileTokens * (params.head_dim + kKeyPad) +
                                    kTileHeads * params.head_dim + kWarps * kTileTokens;
  simt::launch(&index_simt_kernel,
               simt::Dim3(static_cast<unsigned>(tiles(params.max_tokens, kTileTokens)),
                          static_cast<unsigned>(params.keys.n_sequences)),
               kThreads,
               shared_floats * sizeof(float),
               stream,
               params);
}

}  // namespace kvfathom::kernels
