#include <type_traits>

#include "kernels/common/element_device.h"
#include "kernels/common/error.h"
#include "kernels/common/gemv_tile.h"
#include "kernels/common/tile_gemm.h"
#include "kernels/moe_ffn/moe_ffn.h"
#include "kernels/moe_ffn/moe_scratch.h"

namespace kvfathom::kernels {
namespace {

/// The pairs of the expert that block y works for.
struct ExpertPairs {
  int expert;
  int first;
  int count;
};
SIMT_DEVICE ExpertPairs pairs_of_block(const MoeScratch& scratch) {
  const int expert = static_cast<int>(simt::block_idx().y);
  const int first = simt::ld_index(scratch.starts + expert);
  return {expert, first, simt::ld_index(scratch.starts + expert + 1) - first};
}

SIMT_DEVICE std::uint16_t gated(const MoeFfnParams& p, float gate, float up) {
  const float activated = activate(p.activation, gate, [](float x) { return simt::exp2_fast(x); });
  return activation_of_f32(p.format, activated * up);
}

/// Block (x, y) owns 16 intermediate features of expert y: their gates, then their ups.
template <WeightFormat kFormat>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(GemvTile<kFormat>::kThreads, 3)
    gate_up_gemv_kernel(const MoeFfnParams p, const MoeScratch scratch) {
  using Tile = GemvTile<kFormat>;
  const ExpertPairs pairs = pairs_of_block(scratch);
  const int n = p.intermediate_size;
  const int feature0 = static_cast<int>(simt::block_idx().x) * Tile::kRows;
  const std::int64_t row_bytes = weight_row_bytes(kFormat, p.hidden_size);
  const std::byte* gates =
      p.gate_up + (static_cast<std::int64_t>(pairs.expert) * 2 * n + feature0) * row_bytes;
  for (int done = 0; done < pairs.count; done += Tile::kMostTokens) {
    const auto x_row = [&](int i) -> const std::uint16_t* {
      if (done + i >= pairs.count) {
        return nullptr;
      }
      const int token = simt::ld_index(scratch.order + pairs.first + done + i) / p.n_chosen;
      return p.x + static_cast<std::int64_t>(token) * p.hidden_size;
    };
    auto* shared = simt::shared_memory<std::byte>();
    float gate = 0.0F;
    Tile::run(shared, gates, n - feature0, p.hidden_size, x_row, [&](int, int, float sum) {
      gate = sum;  // the same thread gets the same feature and token of the ups
    });
    simt::syncblock();
    Tile::run(shared,
              gates + n * row_bytes,
              n - feature0,
              p.hidden_size,
              x_row,
              [&](int feature, int i, float sum) {
                if (feature0 + feature < n && done + i < pairs.count) {
                  const std::int64_t at = pairs.first + done + i;
                  simt::st(scratch.inner + at * n + feature0 + feature, gated(p, gate, sum));
                }
              });
    simt::syncblock();
  }
}

/// Block (x, y) owns 16 outputs of expert y.
template <WeightFormat kFormat>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(GemvTile<kFormat>::kThreads, 3)
    down_gemv_kernel(const MoeFfnParams p, const MoeScratch scratch) {
  using Tile = GemvTile<kFormat>;
  const ExpertPairs pairs = pairs_of_block(scratch);
  const int n = p.hidden_size;
  const int k = p.intermediate_size;
  const int row0 = static_cast<int>(simt::block_idx().x) * Tile::kRows;
  const std::byte* rows =
      p.down + (static_cast<std::int64_t>(pairs.expert) * n + row0) * weight_row_bytes(kFormat, k);
  for (int done = 0; done < pairs.count; done += Tile::kMostTokens) {
    Tile::run(
        simt::shared_memory<std::byte>(),
        rows,
        n - row0,
        k,
        [&](int i) {
          return done + i < pairs.count
                     ? scratch.inner + static_cast<std::int64_t>(pairs.first + done + i) * k
                     : nullptr;
        },
        [&](int row, int i, float sum) {
          if (row0 + row < n && done + i < pairs.count) {
            const std::int64_t pair = simt::ld_index(scratch.order + pairs.first + done + i);
            simt::st(scratch.answers + pair * n + row0 + row, sum);
          }
        });
    simt::syncblock();
  }
}

/// Rows of x in the order of an expert's pairs.
template <typename Element>
struct GatheredRows {
  const Element* x;
  const std::int32_t* order;  ///< of the tile's first row
  int n_rows;
  int n_columns;
  int n_chosen;

  SIMT_DEVICE void copy8(void* shared, int row, int column) const {
    const bool valid = row < n_rows && column < n_columns;
    const std::int64_t token = valid ? simt::ld_index(order + row) / n_chosen : 0;
    simt::cp_async16(shared, valid ? x + token * n_columns + column : x, valid);
  }
};

template <WeightFormat kFormat>
using ElementOf = std::conditional_t<kFormat == WeightFormat::bf16, Bf16, F16>;

/// Rows [row0, row0 + n_rows) of an expert's weights as the B of a tile.
template <WeightFormat kFormat>
SIMT_DEVICE auto weight_rows(const std::byte* first, int n_rows, int k) {
  if constexpr (is_quantised(kFormat)) {
    return QuantisedRows<kFormat>{first, weight_row_bytes(kFormat, k), n_rows, k};
  } else {
    return MatrixRows<ElementOf<kFormat>>{
        reinterpret_cast<const ElementOf<kFormat>*>(first), k, n_rows, k};
  }
}

/// Block (x, y) owns kN intermediate features of expert y, for all its pairs.
template <WeightFormat kFormat, typename Tile>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Tile::kThreads, 4)
    gate_up_tile_kernel(const MoeFfnParams p, const MoeScratch scratch) {
  using Element = ElementOf<kFormat>;
  const ExpertPairs pairs = pairs_of_block(scratch);
  const int n = p.intermediate_size;
  const int feature0 = static_cast<int>(simt::block_idx().x) * Tile::kN;
  const std::int64_t row_bytes = weight_row_bytes(kFormat, p.hidden_size);
  const std::byte* gates =
      p.gate_up + (static_cast<std::int64_t>(pairs.expert) * 2 * n + feature0) * row_bytes;
  for (int done = 0; done < pairs.count; done += Tile::kM) {
    const GatheredRows<Element> x{reinterpret_cast<const Element*>(p.x),
                                  scratch.order + pairs.first + done,
                                  pairs.count - done,
                                  p.hidden_size,
                                  p.n_chosen};
    auto* shared = simt::shared_memory<Element>();
    Tile gate;
    Tile up;
    gate.accumulate(
        shared, x, weight_rows<kFormat>(gates, n - feature0, p.hidden_size), p.hidden_size);
    simt::syncblock();
    up.accumulate(shared,
                  x,
                  weight_rows<kFormat>(gates + n * row_bytes, n - feature0, p.hidden_size),
                  p.hidden_size);
    up.multiply_by(gate, [&](float of_gate) {
      return activate(p.activation, of_gate, [](float v) { return simt::exp2_fast(v); });
    });
    up.for_each_pair([&](int row, int column, float v0, float v1) {
      if (done + row < pairs.count && feature0 + column < n) {
        const std::int64_t at = static_cast<std::int64_t>(pairs.first + done + row) * n;
        simt::st(scratch.inner + at + feature0 + column, activation_of_f32(kFormat, v0));
        simt::st(scratch.inner + at + feature0 + column + 1, activation_of_f32(kFormat, v1));
      }
    });
    simt::syncblock();
  }
}

/// Block (x, y) owns kN outputs of expert y, for all its pairs.
template <WeightFormat kFormat, typename Tile>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Tile::kThreads, 4)
    down_tile_kernel(const MoeFfnParams p, const MoeScratch scratch) {
  using Element = ElementOf<kFormat>;
  const ExpertPairs pairs = pairs_of_block(scratch);
  const int n = p.hidden_size;
  const int k = p.intermediate_size;
  const int column0 = static_cast<int>(simt::block_idx().x) * Tile::kN;
  const std::byte* rows = p.down + (static_cast<std::int64_t>(pairs.expert) * n + column0) *
                                       weight_row_bytes(kFormat, k);
  for (int done = 0; done < pairs.count; done += Tile::kM) {
    const MatrixRows<Element> inner{reinterpret_cast<const Element*>(scratch.inner) +
                                        static_cast<std::int64_t>(pairs.first + done) * k,
                                    k,
                                    pairs.count - done,
                                    k};
    Tile tile;
    tile.accumulate(
        simt::shared_memory<Element>(), inner, weight_rows<kFormat>(rows, n - column0, k), k);
    tile.for_each_pair([&](int row, int column, float v0, float v1) {
      if (done + row < pairs.count && column0 + column < n) {
        const std::int64_t pair = simt::ld_index(scratch.order + pairs.first + done + row);
        simt::st(scratch.answers + pair * n + column0 + column, v0);
        simt::st(scratch.answers + pair * n + column0 + column + 1, v1);
      }
    });
    simt::syncblock();
  }
}

constexpr int kCombineThreads = 256;

/// Eight outputs of one token per thread: the answers of its experts, in the order of choice.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kCombineThreads)
    combine_kernel(const MoeFfnParams p, const MoeScratch scratch) {
  const std::int64_t at =
      8 * (static_cast<std::int64_t>(simt::block_idx().x) * kCombineThreads + simt::thread_idx().x);
  const std::int64_t n = p.hidden_size;
  if (at >= p.n_tokens * n) {
    return;
  }
  float sums[8] = {};
  for (int slot = 0; slot < p.n_chosen; ++slot) {
    const std::int64_t pair = at / n * p.n_chosen + slot;
    const float weight = simt::ld(scratch.weights + pair);
    float answer[8];
    load8(Element::f32, scratch.answers, pair * n + at % n, answer);
    SIMT_UNROLL for (int i = 0; i < 8; ++i) {
      sums[i] += weight * answer[i];
    }
  }
  store8(p.format == WeightFormat::bf16 ? Element::bf16 : Element::f16, p.out, at, sums);
}

template <WeightFormat kFormat>
void launch_gemv(const MoeFfnParams& p, const MoeScratch& scratch, Stream stream) {
  using Tile = GemvTile<kFormat>;
  const auto grid = [&](int n) {
    return simt::Dim3((n + Tile::kRows - 1) / Tile::kRows, p.n_experts);
  };
  simt::launch(gate_up_gemv_kernel<kFormat>,
               grid(p.intermediate_size),
               Tile::kThreads,
               Tile::kSharedBytes,
               stream,
               p,
               scratch);
  simt::launch(down_gemv_kernel<kFormat>,
               grid(p.hidden_size),
               Tile::kThreads,
               Tile::kSharedBytes,
               stream,
               p,
               scratch);
}

template <WeightFormat kFormat, TileMath kMath>
void launch_tiles(const MoeFfnParams& p, const MoeScratch& scratch, Stream stream) {
  using Tile = TileGemm<ElementOf<kFormat>, BLayout::n_by_k, kMath, 32, 64, 1, 4, 3>;
  const auto grid = [&](int n) { return simt::Dim3((n + Tile::kN - 1) / Tile::kN, p.n_experts); };
  simt::launch(gate_up_tile_kernel<kFormat, Tile>,
               grid(p.intermediate_size),
               Tile::kThreads,
               Tile::kRingBytes,
               stream,
               p,
               scratch);
  simt::launch(down_tile_kernel<kFormat, Tile>,
               grid(p.hidden_size),
               Tile::kThreads,
               Tile::kRingBytes,
               stream,
               p,
               scratch);
}

template <WeightFormat kFormat>
void launch_experts(const MoeFfnParams& p,
                    const MoeScratch& scratch,
                    Stream stream,
                    MoeKernel kernel) {
  if (kernel == MoeKernel::gemv) {
    return launch_gemv<kFormat>(p, scratch, stream);
  }
  if constexpr (kFormat == WeightFormat::bf16) {
    if (device().compute_capability < 80) {
      return launch_tiles<kFormat, TileMath::cuda_cores>(p, scratch, stream);
    }
  }
  launch_tiles<kFormat, TileMath::tensor_cores>(p, scratch, stream);
}

bool gemv_takes(const MoeFfnParams& p, const DeviceInfo& device) {
  const int multiple = is_quantised(p.format) ? 256 : 8;
  const bool no_mma = p.format == WeightFormat::bf16 && device.compute_capability < 80;
  return !no_mma && p.hidden_size % multiple == 0 && p.intermediate_size % multiple == 0;
}

}  // namespace

MoeKernel moe_kernel(const MoeFfnParams& params, const DeviceInfo& device) {
  // A gemv reads an expert's weights again for every 8 tokens; half of that on average leaves few
  // experts above.
  const bool few =
      params.n_tokens <= 8 || params.n_tokens * params.n_chosen <= 4 * params.n_experts;
  return few && gemv_takes(params, device) ? MoeKernel::gemv : MoeKernel::tiles;
}

std::int64_t moe_ffn_scratch_bytes(const MoeFfnParams& params) {
  MoeScratch scratch;
  return lay_out(params, nullptr, scratch);
}

void moe_ffn_launch(const MoeFfnParams& params, void* scratch, Stream stream, MoeKernel kernel) {
  check_moe_ffn(params);
  if (kernel == MoeKernel::automatic) {
    kernel = moe_kernel(params, device());
  }
  if (kernel == MoeKernel::gemv && !gemv_takes(params, device())) {
    throw UnsupportedShape(
        "moe_ffn: gemv takes quantised sizes of a multiple of 256, and bf16 "
        "from sm_80 on");
  }
  MoeScratch parts;
  lay_out(params, static_cast<std::byte*>(scratch), parts);
  moe_route_launch(params, parts, stream);
  switch (params.format) {
    case WeightFormat::f16:
      launch_experts<WeightFormat::f16>(params, parts, stream, kernel);
      break;
    case WeightFormat::bf16:
      launch_experts<WeightFormat::bf16>(params, parts, stream, kernel);
      break;
    case WeightFormat::q8_0:
      launch_experts<WeightFormat::q8_0>(params, parts, stream, kernel);
      break;
    case WeightFormat::q4_0:
      launch_experts<WeightFormat::q4_0>(params, parts, stream, kernel);
      break;
    case WeightFormat::q4_k:
      launch_experts<WeightFormat::q4_k>(params, parts, stream, kernel);
      break;
  }
  const std::int64_t n_combined =
      static_cast<std::int64_t>(params.n_tokens) * params.hidden_size / 8;
  simt::launch(combine_kernel,
               static_cast<unsigned>((n_combined + kCombineThreads - 1) / kCombineThreads),
               kCombineThreads,
               0,
               stream,
               params,
               parts);
}

}  // namespace kvfathom::kernels
