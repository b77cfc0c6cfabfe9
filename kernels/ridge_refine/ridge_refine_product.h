// A 64 x 64 tile of a product of two matrices in float, on the CUDA cores. Device code.
#pragma once

#include "kernels/simt/simt.h"

namespace kvfathom::kernels::ridge {

inline constexpr int kTile = 64;          // rows and columns of a tile
inline constexpr int kDepth = 16;         // of the inner dimension at a time
inline constexpr int kThreads = 256;      // 16 x 16, each with 4 x 4 elements of the tile
inline constexpr int kPitch = kTile + 4;  // floats between two depths in shared memory
inline constexpr int kStageFloats = kDepth * kPitch;

/// Four neighbours of a matrix, as float.
struct alignas(16) Quad {
  float x[4];
};

SIMT_DEVICE Quad ld_quad(const float* p) {
  return simt::ld(reinterpret_cast<const Quad*>(p));
}
SIMT_DEVICE Quad ld_quad(const Bf16* p) {
  const simt::U32x2 pairs = simt::ld(reinterpret_cast<const simt::U32x2*>(p));
  return Quad{{simt::bf16_low(pairs.x),
               simt::bf16_high(pairs.x),
               simt::bf16_low(pairs.y),
               simt::bf16_high(pairs.y)}};
}
SIMT_DEVICE void st_quad(float* p, const float (&values)[4]) {
  simt::st(reinterpret_cast<Quad*>(p), Quad{{values[0], values[1], values[2], values[3]}});
}

/// The place of this thread's 4 x 4 elements in the tile.
SIMT_DEVICE int first_row() {
  return static_cast<int>(simt::thread_idx().x) / 16 * 4;
}
SIMT_DEVICE int first_column() {
  return static_cast<int>(simt::thread_idx().x) % 16 * 4;
}

/// Puts [kDepth][kTile] of an operand into shared memory. AlongDepth: `load(index, depth)` gives
/// four depths of one row or column; otherwise four rows or columns of one depth.
template <bool AlongDepth, typename Load>
SIMT_DEVICE void stage(float* to, int depth, const Load& load) {
  const int thread = static_cast<int>(simt::thread_idx().x);
  if constexpr (AlongDepth) {
    const int index = thread / 4;
    const int first = thread % 4 * 4;
    const Quad quad = load(index, depth + first);
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      to[(first + i) * kPitch + index] = quad.x[i];
    }
  } else {
    const int index = thread % 16 * 4;
    *reinterpret_cast<Quad*>(to + thread / 16 * kPitch + index) = load(index, depth + thread / 16);
  }
}

/// sums += left^T right over kDepth depths that stand in shared memory.
SIMT_DEVICE void accumulate(float (&sums)[4][4], const float* left, const float* right) {
  SIMT_UNROLL for (int depth = 0; depth < kDepth; ++depth) {
    const Quad a = *reinterpret_cast<const Quad*>(left + depth * kPitch + first_row());
    const Quad b = *reinterpret_cast<const Quad*>(right + depth * kPitch + first_column());
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        sums[i][j] += a.x[i] * b.x[j];
      }
    }
  }
}

/// sums += the product of two operands over n_depth, each given by a `load` as in stage().
/// `shared` holds 2 * kStageFloats.
template <bool LeftAlongDepth, bool RightAlongDepth, typename Left, typename Right>
SIMT_DEVICE void product(
    float (&sums)[4][4], int n_depth, float* shared, const Left& left, const Right& right) {
  float* left_stage = shared;
  float* right_stage = shared + kStageFloats;
  for (int depth = 0; depth < n_depth; depth += kDepth) {
    simt::syncblock();  // the stages are free
    stage<LeftAlongDepth>(left_stage, depth, left);
    stage<RightAlongDepth>(right_stage, depth, right);
    simt::syncblock();
    accumulate(sums, left_stage, right_stage);
  }
}

/// Sum over the 16 threads that share rows of the tile, in each of them.
SIMT_DEVICE float sum_along_row(float value) {
  SIMT_UNROLL for (int mask = 8; mask > 0; mask /= 2) {
    value += simt::shfl_xor(value, mask);
  }
  return value;
}
SIMT_DEVICE float max_along_row(float value) {
  SIMT_UNROLL for (int mask = 8; mask > 0; mask /= 2) {
    value = fmaxf(value, simt::shfl_xor(value, mask));
  }
  return value;
}

/// Sum over the block, in every thread. `shared` holds kThreads / 32 floats.
SIMT_DEVICE float block_sum(float value, float* shared) {
  const float of_warp = simt::warp_sum(value);
  simt::syncblock();  // the last sum has been read
  if (simt::lane_id() == 0) {
    shared[simt::thread_idx().x / simt::kWarpSize] = of_warp;
  }
  simt::syncblock();
  float sum = 0.0F;
  SIMT_UNROLL for (int warp = 0; warp < kThreads / simt::kWarpSize; ++warp) {
    sum += shared[warp];
  }
  return sum;
}

}  // namespace kvfathom::kernels::ridge
