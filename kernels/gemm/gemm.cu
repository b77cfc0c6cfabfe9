#include <string>
#include <utility>

#include "kernels/common/error.h"
#include "kernels/common/gemv_tile.h"
#include "kernels/common/tile_gemm.h"
#include "kernels/common/weight_decode.h"
#include "kernels/gemm/gemm.h"

namespace kvfathom::kernels {
namespace {

/// Block x owns rows 16 x .. of the weights, for all tokens.
template <WeightFormat kFormat>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(GemvTile<kFormat>::kThreads) gemv_kernel(const GemmParams p) {
  using Tile = GemvTile<kFormat>;
  const int row0 = static_cast<int>(simt::block_idx().x) * Tile::kRows;
  const int n = static_cast<int>(p.weights.n);
  const int k = static_cast<int>(p.weights.k);
  Tile::run(
      simt::shared_memory<std::byte>(),
      p.weights.data + row0 * weight_row_bytes(kFormat, k),
      n - row0,
      k,
      [&](int token) { return token < p.m ? p.x + static_cast<std::int64_t>(token) * k : nullptr; },
      [&](int row, int token, float sum) {
        if (row0 + row < n && token < p.m) {
          simt::st(p.out + static_cast<std::int64_t>(token) * n + row0 + row,
                   activation_of_f32(kFormat, sum));
        }
      });
}

constexpr int kCudaCoreWarps = 4;

/// Each warp owns one row of the weights, for all tokens; lanes take eight elements in turn.
template <WeightFormat kFormat>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kCudaCoreWarps* simt::kWarpSize)
    gemv_cuda_cores_kernel(const GemmParams p) {
  constexpr int kMostTokens = 8;
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  const std::int64_t row = static_cast<std::int64_t>(simt::block_idx().x) * kCudaCoreWarps + warp;
  if (row >= p.weights.n) {
    return;
  }
  const int k = static_cast<int>(p.weights.k);
  const std::byte* weights = p.weights.data + row * weight_row_bytes(kFormat, k);
  float sums[kMostTokens] = {};
  for (int at = 8 * simt::lane_id(); at < k; at += 8 * simt::kWarpSize) {
    float w[8];
    decode8<kFormat>(weights, at, w);
    SIMT_UNROLL for (int token = 0; token < kMostTokens; ++token) {
      if (token < p.m) {
        const auto x = simt::ld(
            reinterpret_cast<const simt::U32x4*>(p.x + static_cast<std::int64_t>(token) * k + at));
        const std::uint32_t pairs[4] = {x.x, x.y, x.z, x.w};
        SIMT_UNROLL for (int i = 0; i < 8; ++i) {
          const auto bits = static_cast<std::uint16_t>(pairs[i / 2] >> 16 * (i % 2));
          sums[token] += w[i] * activation_to_f32(kFormat, bits);
        }
      }
    }
  }
  SIMT_UNROLL for (int token = 0; token < kMostTokens; ++token) {
    if (token < p.m) {
      const float sum = simt::warp_sum(sums[token]);
      if (simt::lane_id() == 0) {
        simt::st(p.out + token * p.weights.n + row, activation_of_f32(kFormat, sum));
      }
    }
  }
}

/// Block (x, y) owns one tile of the outputs: columns by x, tokens by y.
template <WeightFormat kFormat, typename Tile, typename Element>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Tile::kThreads) tile_kernel(const GemmParams p) {
  const int row0 = static_cast<int>(simt::block_idx().y) * Tile::kM;
  const int column0 = static_cast<int>(simt::block_idx().x) * Tile::kN;
  const int n = static_cast<int>(p.weights.n);
  const int k = static_cast<int>(p.weights.k);
  const MatrixRows<Element> x{
      reinterpret_cast<const Element*>(p.x) + static_cast<std::int64_t>(row0) * k,
      k,
      p.m - row0,
      k};
  const std::int64_t row_bytes = weight_row_bytes(kFormat, k);
  const std::byte* first = p.weights.data + column0 * row_bytes;
  Tile tile;
  if constexpr (is_quantised(kFormat)) {
    const QuantisedRows<kFormat> w{first, row_bytes, n - column0, k};
    tile.accumulate(simt::shared_memory<Element>(), x, w, k);
  } else {
    const MatrixRows<Element> w{reinterpret_cast<const Element*>(first), k, n - column0, k};
    tile.accumulate(simt::shared_memory<Element>(), x, w, k);
  }
  tile.for_each_pair([&](int row, int column, float v0, float v1) {
    if (row0 + row < p.m && column0 + column < n) {
      std::uint16_t* to = p.out + static_cast<std::int64_t>(row0 + row) * n + column0 + column;
      simt::st(to, activation_of_f32(kFormat, v0));
      if (column0 + column + 1 < n) {
        simt::st(to + 1, activation_of_f32(kFormat, v1));
      }
    }
  });
}

template <WeightFormat kFormat, typename Tile, typename Element>
void launch_tiles(const GemmParams& p, Stream stream) {
  const auto n = static_cast<int>(p.weights.n);
  const simt::Dim3 grid((n + Tile::kN - 1) / Tile::kN, (p.m + Tile::kM - 1) / Tile::kM);
  simt::launch(
      tile_kernel<kFormat, Tile, Element>, grid, Tile::kThreads, Tile::kRingBytes, stream, p);
}

template <WeightFormat kFormat>
void launch_format(const GemmParams& p, Stream stream, GemmKernel kernel) {
  using Element = std::conditional_t<kFormat == WeightFormat::bf16, Bf16, F16>;
  const auto n = static_cast<unsigned>(p.weights.n);
  if (kernel == GemmKernel::gemv) {
    using Tile = GemvTile<kFormat>;
    simt::launch(gemv_kernel<kFormat>,
                 (n + Tile::kRows - 1) / Tile::kRows,
                 Tile::kThreads,
                 Tile::kSharedBytes,
                 stream,
                 p);
  } else if (kernel == GemmKernel::gemv_cuda_cores) {
    simt::launch(gemv_cuda_cores_kernel<kFormat>,
                 (n + kCudaCoreWarps - 1) / kCudaCoreWarps,
                 kCudaCoreWarps * simt::kWarpSize,
                 0,
                 stream,
                 p);
  } else {
    if constexpr (kFormat == WeightFormat::bf16) {
      if (device().compute_capability < 80) {
        using Tile = TileGemm<Element, BLayout::n_by_k, TileMath::cuda_cores, 64, 64, 2, 2>;
        return launch_tiles<kFormat, Tile, Element>(p, stream);
      }
    }
    if (p.m <= 64) {
      using Tile = TileGemm<Element, BLayout::n_by_k, TileMath::tensor_cores, 32, 64, 1, 4, 3>;
      launch_tiles<kFormat, Tile, Element>(p, stream);
    } else {
      using Tile = TileGemm<Element, BLayout::n_by_k, TileMath::tensor_cores, 128, 128, 2, 4>;
      launch_tiles<kFormat, Tile, Element>(p, stream);
    }
  }
}

bool gemv_takes(const WeightMatrix& weights) {
  return weights.k % (is_quantised(weights.format) ? 256 : 8) == 0;
}

void require_shape(const GemmParams& p, GemmKernel kernel) {
  require_whole_blocks(p.weights, "gemm");
  const auto refuse = [&](const std::string& why) {
    throw UnsupportedShape("gemm: m = " + std::to_string(p.m) + ", n = " +
                           std::to_string(p.weights.n) + ", k = " + std::to_string(p.weights.k) +
                           " (" + std::string(name(p.weights.format)) + "): " + why);
  };
  if (p.m <= 0 || p.weights.k % 8 != 0) {
    refuse("m must be positive and k a multiple of 8");
  }
  const bool gemv = kernel == GemmKernel::gemv || kernel == GemmKernel::gemv_cuda_cores;
  if (gemv && p.m > 8) {
    refuse("gemv takes up to 8 rows");
  }
  if (kernel == GemmKernel::gemv && !gemv_takes(p.weights)) {
    refuse("gemv on tensor cores takes quantised rows of a multiple of 256");
  }
  if (kernel == GemmKernel::gemv && p.weights.format == WeightFormat::bf16 &&
      device().compute_capability < 80) {
    refuse("bf16 has no tensor cores below sm_80");
  }
  if (kernel == GemmKernel::library && is_quantised(p.weights.format)) {
    refuse("cuBLASLt takes f16 and bf16");
  }
}

}  // namespace

GemmKernel gemm_kernel(const GemmParams& params, const DeviceInfo& device) {
  const WeightMatrix& weights = params.weights;
  if (params.m <= 8) {
    const bool no_mma = weights.format == WeightFormat::bf16 && device.compute_capability < 80;
    return no_mma || !gemv_takes(weights) ? GemmKernel::gemv_cuda_cores : GemmKernel::gemv;
  }
  const bool library = !is_quantised(weights.format) && gemm_library_missing().empty();
  return library ? GemmKernel::library : GemmKernel::tiles;
}

void gemm_launch(const GemmParams& params, Stream stream, GemmKernel kernel) {
  if (kernel == GemmKernel::automatic) {
    kernel = gemm_kernel(params, device());
  }
  require_shape(params, kernel);
  if (kernel == GemmKernel::library) {
    gemm_library_launch(params, stream);
    return;
  }
  switch (params.weights.format) {
    case WeightFormat::f16:
      return launch_format<WeightFormat::f16>(params, stream, kernel);
    case WeightFormat::bf16:
      return launch_format<WeightFormat::bf16>(params, stream, kernel);
    case WeightFormat::q8_0:
      return launch_format<WeightFormat::q8_0>(params, stream, kernel);
    case WeightFormat::q4_0:
      return launch_format<WeightFormat::q4_0>(params, stream, kernel);
    case WeightFormat::q4_k:
      return launch_format<WeightFormat::q4_k>(params, stream, kernel);
  }
}

}  // namespace kvfathom::kernels
