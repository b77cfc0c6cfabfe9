// What MLA decode on tensor cores keeps in shared memory, and how rows get there. Device code.
#pragma once

#include "kernels/mla_decode/mla_decode_args.h"
#include "kernels/mla_decode/mla_decode_tile.h"

namespace kvfathom::kernels {

/// A block's shared memory: queries, the ring of tiles of cached rows, and what warps share.
template <typename Row, typename Tile>
class MlaMemory {
 public:
  using Layout = MlaLayout<Row, Tile>;

  SIMT_DEVICE explicit MlaMemory(unsigned char* base) : base_(base) {}

  SIMT_DEVICE unsigned char* queries() const { return base_ + Layout::kQueries; }
  SIMT_DEVICE unsigned char* ring(int tile) const {
    return base_ + Layout::kRing + tile % Tile::kStages * (Tile::kTokens * Layout::kRingPitch);
  }
  SIMT_DEVICE unsigned char* v_ring(int tile) const {
    return base_ + Layout::kVRing + tile % Tile::kStages * (Tile::kTokens * Layout::kVPitch);
  }
  SIMT_DEVICE unsigned char* decoded() const { return base_ + Layout::kDecoded; }
  SIMT_DEVICE const unsigned char* keys(int tile) const {
    return Row::kFp8 ? decoded() : ring(tile);
  }
  SIMT_DEVICE const unsigned char* values(int tile) const {
    return Row::kSeparateV ? v_ring(tile) : keys(tile);
  }
  SIMT_DEVICE float* row_max(int warp) const {
    return reinterpret_cast<float*>(base_ + Layout::kRowMax) + warp * Tile::kHeads;
  }
  SIMT_DEVICE float* row_sum(int warp) const {
    return reinterpret_cast<float*>(base_ + Layout::kRowSum) + warp * Tile::kHeads;
  }
  SIMT_DEVICE unsigned char* weights(int copy) const {
    return base_ + Layout::kWeights + copy * (Tile::kHeads * Layout::kWeightPitch);
  }

  /// Heads beyond the last are zeros: scored like the others, never written.
  SIMT_DEVICE void load_queries(const MlaArgs& args, const MlaShare& share) const {
    const auto thread = static_cast<int>(simt::thread_idx().x);
    constexpr int kChunks = Row::kDim * 2 / kChunkBytes;
    const std::int64_t first =
        static_cast<std::int64_t>(share.sequence) * args.n_heads + share.first_head;
    for (int i = thread; i < Tile::kHeads * kChunks; i += kMlaThreads) {
      const int head = i / kChunks;
      const int chunk = i % kChunks;
      simt::U32x4 words{0, 0, 0, 0};
      if (share.first_head + head < args.n_heads) {
        words = simt::ld(reinterpret_cast<const simt::U32x4*>(args.q + (first + head) * Row::kDim) +
                         chunk);
      }
      *reinterpret_cast<simt::U32x4*>(queries() + head * Layout::kPitch + chunk * kChunkBytes) =
          words;
    }
  }

  /// Eight lanes copy a row, 128 bytes at a time. Rows beyond the run become zeros, without a
  /// read. Commits a group also where there is nothing to copy, so that waits can count groups.
  SIMT_DEVICE void start_copy(const MlaArgs& args,
                              const MlaShare& share,
                              int tile,
                              int n_tiles) const {
    constexpr int kLanesPerRow = 8;
    constexpr int kRowsAtOnce = kMlaThreads / kLanesPerRow;
    const auto thread = static_cast<int>(simt::thread_idx().x);
    if (tile < n_tiles) {
      SIMT_UNROLL for (int pass = 0; pass < Tile::kTokens / kRowsAtOnce; ++pass) {
        const int row = pass * kRowsAtOnce + thread / kLanesPerRow;
        const int token = share.first_token + tile * Tile::kTokens + row;
        const bool valid = token < share.end_token;
        const KvSlot slot =
            mla_slot(args.cache, share.sequence, valid ? token : share.end_token - 1);
        copy_row<Row::kBytes>(ring(tile) + row * Layout::kRingPitch,
                              row_data(args.cache.k, slot, 0),
                              thread % kLanesPerRow,
                              valid);
        if constexpr (Row::kSeparateV) {
          copy_row<2 * Row::kRank>(v_ring(tile) + row * Layout::kVPitch,
                                   row_data(args.cache.v, slot, 0),
                                   thread % kLanesPerRow,
                                   valid);
        }
      }
    }
    simt::cp_async_commit();
  }

  /// FP8 rows to bf16 ones, scales left out.
  SIMT_DEVICE void decode_tile(int tile) const {
    const auto thread = static_cast<int>(simt::thread_idx().x);
    constexpr int kLatentChunks = kMlaFp8Latent / kChunkBytes;
    constexpr int kRopeChunks = kMlaFp8Rope * 2 / kChunkBytes;
    constexpr int kChunks = kLatentChunks + kRopeChunks;
    for (int i = thread; i < Tile::kTokens * kChunks; i += kMlaThreads) {
      const int row = i / kChunks;
      const int chunk = i % kChunks;
      const unsigned char* from = ring(tile) + row * Layout::kRingPitch;
      unsigned char* to = decoded() + row * Layout::kPitch;
      if (chunk >= kLatentChunks) {
        const int at = (chunk - kLatentChunks) * kChunkBytes;
        *reinterpret_cast<simt::U32x4*>(to + 2 * kMlaFp8Latent + at) =
            *reinterpret_cast<const simt::U32x4*>(from + kMlaFp8RopeOffset + at);
        continue;
      }
      const auto codes = *reinterpret_cast<const simt::U32x4*>(from + chunk * kChunkBytes);
      auto* out = reinterpret_cast<simt::U32x4*>(to + 2 * chunk * kChunkBytes);
      out[0] = decode_eight(codes.x, codes.y);
      out[1] = decode_eight(codes.z, codes.w);
    }
  }

 private:
  static constexpr int kChunkBytes = 16;

  template <int RowBytes>
  static SIMT_DEVICE void copy_row(unsigned char* to, const std::byte* from, int lane, bool valid) {
    constexpr int kChunks = RowBytes / kChunkBytes;
    SIMT_UNROLL for (int first = 0; first < kChunks; first += 8) {
      const int chunk = first + lane;
      if (kChunks % 8 == 0 || chunk < kChunks) {
        simt::cp_async16(to + chunk * kChunkBytes, from + chunk * kChunkBytes, valid);
      }
    }
  }
  static SIMT_DEVICE simt::U32x4 decode_eight(std::uint32_t low, std::uint32_t high) {
    return simt::U32x4{simt::bf16x2_of_e4m3x2(low & 0xffffU),
                       simt::bf16x2_of_e4m3x2(low >> 16),
                       simt::bf16x2_of_e4m3x2(high & 0xffffU),
                       simt::bf16x2_of_e4m3x2(high >> 16)};
  }

  unsigned char* base_;
};

}  // namespace kvfathom::kernels
