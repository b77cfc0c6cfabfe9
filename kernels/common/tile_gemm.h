// One block's tile of C = A B on the tensor cores: 16-bit operands, float sums. For kernels only.
//
// The operands pass through a ring of shared-memory stages by asynchronous copies. What an operand
// is, its copy8() says: rows of a matrix (MatrixRows below), gathered rows, or quantised blocks
// that are decoded on the way. Where the tensor cores cannot multiply the format (bf16 below
// sm_80), TileMath::cuda_cores computes the same tile from the same stages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

/// How B lies in memory: as checkpoints store weights, or as a second activation.
enum class BLayout : std::uint8_t { n_by_k, k_by_n };
enum class TileMath : std::uint8_t { tensor_cores, cuda_cores };

/// A matrix of 16-bit elements by rows, seen from the first row of a tile. Also serves B in either
/// layout. Rows start on 16-byte boundaries; n_columns and the stride are multiples of 8.
template <typename Element>
struct MatrixRows {
  const Element* first = nullptr;
  std::int64_t row_stride = 0;  ///< elements
  int n_rows = 0;               ///< what lies beyond reads as zeros
  int n_columns = 0;

  /// Brings elements [column, column + 8) of `row` to 16 bytes of shared memory.
  SIMT_DEVICE void copy8(void* shared, int row, int column) const {
    const bool valid = row < n_rows && column < n_columns;
    simt::cp_async16(shared, valid ? first + row * row_stride + column : first, valid);
  }
};

/// A tile of kTileM x kTileN, worked on by kWarpsM x kWarpsN warps.
template <typename Element,
          BLayout kLayout,
          TileMath kMath,
          int kTileM,
          int kTileN,
          int kWarpsM,
          int kWarpsN,
          int kStages = 2>
class TileGemm {
 public:
  static constexpr int kM = kTileM;
  static constexpr int kN = kTileN;
  static constexpr int kK = 32;  ///< depth of a stage
  static constexpr int kThreads = simt::kWarpSize * kWarpsM * kWarpsN;
  /// Row pitch of the staged result: two columns of a lane's four rows meet no bank twice.
  static constexpr int kResultPitch = kN + 8;

 private:
  static constexpr int kWarpM = kTileM / kWarpsM;
  static constexpr int kWarpN = kTileN / kWarpsN;
  static constexpr int kFragmentsM = kWarpM / 16;
  static constexpr int kFragmentsN = kWarpN / 8;
  // Pitches are an odd number of 16-byte units, so that ldmatrix's eight rows meet no bank twice.
  static constexpr int kPitchA = kK + 8;
  static constexpr int kRowsB = kLayout == BLayout::n_by_k ? kTileN : kK;
  static constexpr int kColumnsB = kLayout == BLayout::n_by_k ? kK : kTileN;
  static constexpr int kPitchB = kColumnsB + 8;
  static constexpr int kStageElements = kTileM * kPitchA + kRowsB * kPitchB;
  static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0 && kStages >= 2);
  static_assert(kPitchB / 8 % 2 == 1);

 public:
  static constexpr std::size_t kRingBytes = kStages * kStageElements * sizeof(Element);
  static constexpr std::size_t kResultBytes = kTileM * kResultPitch * sizeof(float);
  /// Shared memory of a kernel that also stages its result.
  static constexpr std::size_t kStagedBytes = kRingBytes > kResultBytes ? kRingBytes : kResultBytes;

  /// Adds A B over `k` terms (a multiple of 8). a.copy8(to, row, k) and, by the layout of B,
  /// b.copy8(to, column, k) or b.copy8(to, k, column). All threads of the block; `shared` is
  /// 16-byte aligned and holds kRingBytes.
  template <typename OperandA, typename OperandB>
  SIMT_DEVICE void accumulate(Element* shared, const OperandA& a, const OperandB& b, int k) {
    const int n_steps = (k + kK - 1) / kK;
    SIMT_UNROLL for (int step = 0; step < kStages - 1; ++step) {
      if (step < n_steps) {
        fill(shared + step * kStageElements, a, b, step * kK);
      }
      simt::cp_async_commit();
    }
    for (int step = 0; step < n_steps; ++step) {
      simt::cp_async_wait<kStages - 2>();
      simt::syncblock();  // the stage has landed for all; all have left the one filled next
      const int next = step + kStages - 1;
      if (next < n_steps) {
        fill(shared + next % kStages * kStageElements, a, b, next * kK);
      }
      simt::cp_async_commit();
      const Element* stage = shared + step % kStages * kStageElements;
      if constexpr (kMath == TileMath::tensor_cores) {
        multiply_on_tensor_cores(stage, stage + kTileM * kPitchA);
      } else {
        multiply_on_cuda_cores(stage, stage + kTileM * kPitchA);
      }
    }
  }

  /// Calls f(row, column, value, value of column + 1) for the pairs of the tile that this thread
  /// holds; `column` is even.
  template <typename F>
  SIMT_DEVICE void for_each_pair(F&& f) const {
    SIMT_UNROLL for (int i = 0; i < kFragmentsM; ++i) {
      SIMT_UNROLL for (int j = 0; j < kFragmentsN; ++j) {
        const int row = warp_row() + 16 * i + simt::lane_id() / 4;
        const int column = warp_column() + 8 * j + 2 * (simt::lane_id() % 4);
        f(row, column, sums_[i][j][0], sums_[i][j][1]);
        f(row + 8, column, sums_[i][j][2], sums_[i][j][3]);
      }
    }
  }

  /// Multiplies each element by f of the same element of `other`.
  template <typename F>
  SIMT_DEVICE void multiply_by(const TileGemm& other, const F& f) {
    SIMT_UNROLL for (int i = 0; i < kFragmentsM; ++i) {
      SIMT_UNROLL for (int j = 0; j < kFragmentsN; ++j) {
        SIMT_UNROLL for (int value = 0; value < 4; ++value) {
          sums_[i][j][value] *= f(other.sums_[i][j][value]);
        }
      }
    }
  }

  /// Puts the tile into shared memory (kResultBytes; may overlap the ring), row r at
  /// r * kResultPitch. The block may read all of it on return.
  SIMT_DEVICE void stage_result(float* result) const {
    simt::syncblock();  // the ring is no longer read
    for_each_pair([&](int row, int column, float v0, float v1) {
      result[row * kResultPitch + column] = v0;
      result[row * kResultPitch + column + 1] = v1;
    });
    simt::syncblock();
  }

 private:
  SIMT_DEVICE static int warp() { return static_cast<int>(simt::thread_idx().x) / simt::kWarpSize; }
  SIMT_DEVICE static int warp_row() { return warp() / kWarpsN * kWarpM; }
  SIMT_DEVICE static int warp_column() { return warp() % kWarpsN * kWarpN; }

  template <typename OperandA, typename OperandB>
  SIMT_DEVICE static void fill(Element* stage, const OperandA& a, const OperandB& b, int first_k) {
    const int thread = static_cast<int>(simt::thread_idx().x);
    for (int chunk = thread; chunk < kTileM * kK / 8; chunk += kThreads) {
      const int row = chunk / (kK / 8);
      const int column = chunk % (kK / 8) * 8;
      a.copy8(stage + row * kPitchA + column, row, first_k + column);
    }
    Element* stage_b = stage + kTileM * kPitchA;
    for (int chunk = thread; chunk < kRowsB * kColumnsB / 8; chunk += kThreads) {
      const int row = chunk / (kColumnsB / 8);
      const int column = chunk % (kColumnsB / 8) * 8;
      Element* to = stage_b + row * kPitchB + column;
      if constexpr (kLayout == BLayout::n_by_k) {
        b.copy8(to, row, first_k + column);
      } else {
        b.copy8(to, first_k + row, column);
      }
    }
  }

  SIMT_DEVICE static void multiply_add(float (&d)[4],
                                       const std::uint32_t (&a)[4],
                                       const std::uint32_t (&b)[2]) {
    if constexpr (std::is_same_v<Element, Bf16>) {
      simt::mma_bf16(d, a, b);
    } else {
      simt::mma_f16(d, a, b);
    }
  }

  SIMT_DEVICE void multiply_on_tensor_cores(const Element* a, const Element* b) {
    const int lane = simt::lane_id();
    SIMT_UNROLL for (int k = 0; k < kK; k += 16) {
      std::uint32_t fragment_a[kFragmentsM][4];
      SIMT_UNROLL for (int i = 0; i < kFragmentsM; ++i) {
        const int row = warp_row() + 16 * i + lane % 16;
        simt::ldmatrix_x4(fragment_a[i], a + row * kPitchA + k + lane / 16 * 8);
      }
      SIMT_UNROLL for (int j = 0; j < kFragmentsN; j += 2) {
        std::uint32_t r[4];  // two columns of fragments, each k 0..7 and k 8..15
        if constexpr (kLayout == BLayout::n_by_k) {
          const int row = warp_column() + 8 * j + lane / 16 * 8 + lane % 8;
          simt::ldmatrix_x4(r, b + row * kPitchB + k + lane / 8 % 2 * 8);
        } else {
          const int column = warp_column() + 8 * j + lane / 16 * 8;
          simt::ldmatrix_x4<true>(r, b + (k + lane % 16) * kPitchB + column);
        }
        const std::uint32_t left[2] = {r[0], r[1]};
        const std::uint32_t right[2] = {r[2], r[3]};
        SIMT_UNROLL for (int i = 0; i < kFragmentsM; ++i) {
          multiply_add(sums_[i][j], fragment_a[i], left);
          multiply_add(sums_[i][j + 1], fragment_a[i], right);
        }
      }
    }
  }

  /// The elements of the same fragments, multiplied one by one.
  SIMT_DEVICE void multiply_on_cuda_cores(const Element* a, const Element* b) {
    const int row = warp_row() + simt::lane_id() / 4;
    const int column = warp_column() + 2 * (simt::lane_id() % 4);
    for (int k = 0; k < kK; ++k) {
      float of_a[2 * kFragmentsM];
      SIMT_UNROLL for (int i = 0; i < 2 * kFragmentsM; ++i) {
        of_a[i] = to_f32(a[(row + 8 * i) * kPitchA + k]);
      }
      SIMT_UNROLL for (int j = 0; j < kFragmentsN; ++j) {
        SIMT_UNROLL for (int odd = 0; odd < 2; ++odd) {
          const int at = column + 8 * j + odd;
          const float of_b =
              to_f32(kLayout == BLayout::n_by_k ? b[at * kPitchB + k] : b[k * kPitchB + at]);
          SIMT_UNROLL for (int i = 0; i < 2 * kFragmentsM; ++i) {
            sums_[i / 2][j][i % 2 * 2 + odd] += of_a[i] * of_b;
          }
        }
      }
    }
  }

  float sums_[kFragmentsM][kFragmentsN][4] = {};
};

/// Bytes that a grid of such tiles asks for: every column of tiles reads A, every row of them B.
[[nodiscard]] constexpr std::int64_t tile_gemm_requested_bytes(
    std::int64_t m, std::int64_t n, std::int64_t k, int tile_m, int tile_n) {
  const std::int64_t rows_of_tiles = (m + tile_m - 1) / tile_m;
  const std::int64_t columns_of_tiles = (n + tile_n - 1) / tile_n;
  return 2 * k * (m * columns_of_tiles + n * rows_of_tiles);
}

}  // namespace kvfathom::kernels
