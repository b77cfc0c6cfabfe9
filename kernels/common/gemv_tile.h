// One block's 16 rows of weights times up to 8 activation rows. For kernels only.
//
// The weights stream through each warp's own ring in shared memory, as stored, and are the 16 rows
// of mma's A; the activations are its 8 columns. The order of k within 32 elements is permuted the
// same way on both sides, so that a lane takes four consecutive elements at a time. Quantised
// elements enter the mma as whole numbers, which f16 holds exactly; scales multiply its sums.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/weight_decode.h"
#include "kernels/common/weight_format.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels {

template <WeightFormat kFormat>
class GemvTile {
 public:
  static constexpr int kRows = 16;
  static constexpr int kMostTokens = 8;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * simt::kWarpSize;

 private:
  static constexpr int kStages = 3;
  /// Elements of a row in a stage: rows of 256 quantised elements keep 16-byte alignment.
  static constexpr int kStretch = is_quantised(kFormat) ? 256 : 128;
  static constexpr int kStretchBytes = static_cast<int>(weight_row_bytes(kFormat, kStretch));
  static constexpr int kChunks = kStretchBytes / 16;
  /// Eight rows of four lanes meet every bank once, in 4-byte reads of quants and 8-byte reads of
  /// 16-bit elements.
  static constexpr int kPitch = is_quantised(kFormat) ? kStretchBytes : kStretchBytes + 32;
  static constexpr int kStageBytes = kRows * kPitch;

 public:
  static constexpr std::size_t kSharedBytes = kWarps * kStages * kStageBytes;
  /// What k must be a multiple of.
  static constexpr int kMultipleOfK = is_quantised(kFormat) ? 256 : 8;

  /// Calls use(row, token, sum) once for each of the 16 x 8 products, in some thread, for rows and
  /// tokens within range or not. `rows` points to the first row, of which `n_rows` exist;
  /// x_row(token) gives a token's k activations, or null beyond the last token. All threads of the
  /// block; `shared` holds kSharedBytes and may be used again after the next block barrier.
  template <typename RowOfX, typename Use>
  SIMT_DEVICE static void run(std::byte* shared,
                              const std::byte* rows,
                              int n_rows,
                              int k,
                              const RowOfX& x_row,
                              const Use& use) {
    const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
    std::byte* ring = shared + warp * kStages * kStageBytes;
    const std::int64_t row_bytes = weight_row_bytes(kFormat, k);
    const int n_stretches = (k + kStretch - 1) / kStretch;
    const std::uint16_t* x = x_row(simt::lane_id() / 4);
    SIMT_UNROLL for (int stage = 0; stage < kStages - 1; ++stage) {
      fill(ring + stage * kStageBytes, rows, n_rows, row_bytes, warp + kWarps * stage);
      simt::cp_async_commit();
    }
    float sums[4] = {};
    int slot = 0;
    for (int stretch = warp; stretch < n_stretches; stretch += kWarps) {
      simt::cp_async_wait<kStages - 2>();
      simt::syncwarp();  // the stage has landed for the warp; all have left the one filled next
      const int filled = slot == 0 ? kStages - 1 : slot - 1;
      fill(ring + filled * kStageBytes, rows, n_rows, row_bytes, stretch + kWarps * (kStages - 1));
      simt::cp_async_commit();
      multiply(ring + slot * kStageBytes, x, stretch * kStretch, k, sums);
      slot = slot == kStages - 1 ? 0 : slot + 1;
    }
    simt::cp_async_wait<0>();
    add_warps(reinterpret_cast<float*>(shared), sums, use);
  }

 private:
  SIMT_DEVICE static void fill(
      std::byte* stage, const std::byte* rows, int n_rows, std::int64_t row_bytes, int stretch) {
    for (int chunk = simt::lane_id(); chunk < kRows * kChunks; chunk += simt::kWarpSize) {
      const int row = chunk / kChunks;
      const int byte = chunk % kChunks * 16;
      const std::int64_t at = static_cast<std::int64_t>(stretch) * kStretchBytes + byte;
      const bool valid = row < n_rows && at < row_bytes;
      simt::cp_async16(
          stage + row * kPitch + byte, valid ? rows + row * row_bytes + at : rows, valid);
    }
  }

  SIMT_DEVICE static simt::U32x2 x_pairs(const std::uint16_t* x, int k, int end) {
    if (x == nullptr || k >= end) {
      return {0, 0};
    }
    return simt::ld(reinterpret_cast<const simt::U32x2*>(x + k));
  }

  /// Lane t's elements of one row and block of 32: 4t.. and 16 + 4t.., as four pairs.
  struct Pairs {
    std::uint32_t p[4];
  };

  SIMT_DEVICE static std::uint32_t word_at(const std::byte* shared, int byte) {
    return *reinterpret_cast<const std::uint32_t*>(shared + byte);
  }
  /// Four bytes from an even address in aligned shared memory.
  SIMT_DEVICE static std::uint32_t unaligned_word(const std::byte* row, int byte) {
    if (byte % 4 == 0) {
      return word_at(row, byte);
    }
    return simt::permute_bytes(word_at(row, byte - 2), word_at(row, byte + 2), 0x5432);
  }
  /// Bytes b of a word as the f16 numbers b - bias; `biased` holds 1024 + bias twice.
  SIMT_DEVICE static void whole_numbers(std::uint32_t bytes,
                                        std::uint32_t biased,
                                        std::uint32_t& low,
                                        std::uint32_t& high) {
    // A byte under the exponent byte 0x64 is the f16 1024 + b.
    low = simt::sub_f16x2(simt::permute_bytes(bytes, 0x64646464U, 0x4140), biased);
    high = simt::sub_f16x2(simt::permute_bytes(bytes, 0x64646464U, 0x4342), biased);
  }

  SIMT_DEVICE static Pairs pairs_of(const std::byte* row, int block, int t) {
    Pairs r;
    if constexpr (kFormat == WeightFormat::q8_0) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        const std::uint32_t q = unaligned_word(row + 4 * t, 34 * block + 2 + 16 * half);
        whole_numbers(q ^ 0x80808080U, 0x64806480U, r.p[2 * half], r.p[2 * half + 1]);
      }
    } else if constexpr (kFormat == WeightFormat::q4_0) {
      const std::uint32_t q = unaligned_word(row + 4 * t, 18 * block + 2);
      whole_numbers(q & 0x0f0f0f0fU, 0x64086408U, r.p[0], r.p[1]);
      whole_numbers(q >> 4 & 0x0f0f0f0fU, 0x64086408U, r.p[2], r.p[3]);
    } else if constexpr (kFormat == WeightFormat::q4_k) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        const std::uint32_t q = word_at(row, 16 + 32 * (block / 2) + 16 * half + 4 * t);
        whole_numbers(
            q >> 4 * (block % 2) & 0x0f0f0f0fU, 0x64006400U, r.p[2 * half], r.p[2 * half + 1]);
      }
    } else {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        const auto* at = reinterpret_cast<const simt::U32x2*>(row + 64 * block + 32 * half + 8 * t);
        r.p[2 * half] = at->x;
        r.p[2 * half + 1] = at->y;
      }
    }
    return r;
  }

  SIMT_DEVICE static float f16_in(const std::byte* shared) {
    return to_f32(F16{*reinterpret_cast<const std::uint16_t*>(shared)});
  }
  /// What the sums of a block are multiplied by, and what the sum of x is multiplied by and taken
  /// away.
  struct BlockScale {
    float scale, offset;
  };
  SIMT_DEVICE static BlockScale scale_of(const std::byte* row, int block) {
    if constexpr (kFormat == WeightFormat::q4_k) {
      const SubBlockScale s = q4_k_scale(block, [&](int i) {
        return static_cast<std::uint32_t>(*reinterpret_cast<const std::uint8_t*>(row + 4 + i));
      });
      return {f16_in(row) * static_cast<float>(s.scale),
              f16_in(row + 2) * static_cast<float>(s.min)};
    } else {
      return {f16_in(row + block * block_of(kFormat).bytes), 0.0F};
    }
  }

  SIMT_DEVICE static void multiply_add(
      float (&d)[4], const Pairs& low, const Pairs& high, simt::U32x2 first, simt::U32x2 second) {
    const std::uint32_t a0[4] = {low.p[0], high.p[0], low.p[1], high.p[1]};
    const std::uint32_t a1[4] = {low.p[2], high.p[2], low.p[3], high.p[3]};
    const std::uint32_t b0[2] = {first.x, first.y};
    const std::uint32_t b1[2] = {second.x, second.y};
    if constexpr (kFormat == WeightFormat::bf16) {
      simt::mma_bf16(d, a0, b0);
      simt::mma_bf16(d, a1, b1);
    } else {
      simt::mma_f16(d, a0, b0);
      simt::mma_f16(d, a1, b1);
    }
  }

  /// Adds one stage to the sums: rows g and g + 8, tokens 2t and 2t + 1 (lane = 4g + t).
  SIMT_DEVICE static void multiply(
      const std::byte* stage, const std::uint16_t* x, int first_k, int k, float (&sums)[4]) {
    const int g = simt::lane_id() / 4;
    const int t = simt::lane_id() % 4;
    const std::byte* low = stage + g * kPitch;
    const std::byte* high = low + 8 * kPitch;
    SIMT_UNROLL for (int block = 0; block < kStretch / 32; ++block) {
      const int at = first_k + 32 * block + 4 * t;
      const simt::U32x2 first = x_pairs(x, at, k);
      const simt::U32x2 second = x_pairs(x, at + 16, k);
      const Pairs of_low = pairs_of(low, block, t);
      const Pairs of_high = pairs_of(high, block, t);
      if constexpr (!is_quantised(kFormat)) {
        multiply_add(sums, of_low, of_high, first, second);
      } else {
        const BlockScale scale_low = scale_of(low, block);
        const BlockScale scale_high = scale_of(high, block);
        float whole[4] = {};
        multiply_add(whole, of_low, of_high, first, second);
        sums[0] += scale_low.scale * whole[0];
        sums[1] += scale_low.scale * whole[1];
        sums[2] += scale_high.scale * whole[2];
        sums[3] += scale_high.scale * whole[3];
        if constexpr (kFormat == WeightFormat::q4_k) {
          constexpr std::uint32_t kOnes = 0x3c003c00U;
          const Pairs ones{{kOnes, kOnes, kOnes, kOnes}};
          float of_x[4] = {};  // the sum of x over the block, in every row
          multiply_add(of_x, ones, ones, first, second);
          sums[0] -= scale_low.offset * of_x[0];
          sums[1] -= scale_low.offset * of_x[1];
          sums[2] -= scale_high.offset * of_x[2];
          sums[3] -= scale_high.offset * of_x[3];
        }
      }
    }
  }

  template <typename Use>
  SIMT_DEVICE static void add_warps(float* shared, const float (&sums)[4], const Use& use) {
    const int thread = static_cast<int>(simt::thread_idx().x);
    simt::syncblock();  // the rings are no longer read
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      shared[i * kThreads + thread] = sums[i];
    }
    simt::syncblock();
    // Thread 32 i + lane adds the four warps' sums[i] of its lane.
    const int i = thread / simt::kWarpSize;
    const int lane = simt::lane_id();
    float total = 0.0F;
    SIMT_UNROLL for (int warp = 0; warp < kWarps; ++warp) {
      total += shared[i * kThreads + warp * simt::kWarpSize + lane];
    }
    use(lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2, total);
  }
};

}  // namespace kvfathom::kernels
