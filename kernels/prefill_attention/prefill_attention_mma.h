// Prefill attention on tensor cores, after FlashAttention-2. Device code.
//
// A block owns 64 or 128 queries of one head; each of its four warps owns 16 or 32 of them with
// their whole softmax state, so warps meet only to exchange buffers: K and V have one each, and
// while one is multiplied the other's next tile is copied. Scores stay in registers: mma's output
// of Q K^T is, packed to 16 bits, its input for P V.
#pragma once

#include "kernels/prefill_attention/prefill_attention_args.h"
#include "kernels/prefill_attention/prefill_attention_tile.h"

namespace kvfathom::kernels {

template <typename Element, int HeadDim, typename Tile>
class PrefillBlock {
 public:
  using Layout = PrefillLayout<HeadDim, Tile>;

  SIMT_DEVICE explicit PrefillBlock(const PrefillArgs& args)
      : args_(args),
        share_(prefill_share(args, Tile::kQueries)),
        memory_(simt::shared_memory<unsigned char>()),
        thread_(static_cast<int>(simt::thread_idx().x)),
        warp_(thread_ / simt::kWarpSize),
        lane_(simt::lane_id()) {}

  SIMT_DEVICE void run() {
    if (share_.n_queries <= 0) {
      return;
    }
    copy_queries();
    copy_rows(args_.cache.k, Layout::kKeys, share_.first_token);
    clear();
    for (int token = share_.first_token; token < share_.end_token; token += Tile::kKeyTokens) {
      simt::cp_async_wait<0>();
      simt::syncblock();  // this tile's K has landed for all; V's buffer is free
      copy_rows(args_.cache.v, Layout::kValues, token);
      float s[Tile::kRowTiles][kScoreTiles][4];
      score(s);
      if (needs_mask(token)) {
        mask(token, s);
      }
      std::uint32_t weights[Tile::kRowTiles][kScoreTiles][2];
      softmax(s, weights);
      simt::cp_async_wait<0>();
      simt::syncblock();  // this tile's V has landed for all; K's buffer is free
      copy_rows(args_.cache.k, Layout::kKeys, token + Tile::kKeyTokens);
      add_values(weights);
    }
    store();
  }

 private:
  static constexpr int kScoreTiles = Tile::kKeyTokens / 8;
  static constexpr int kOutTiles = HeadDim / 8;
  static constexpr int kRowsPerWarp = 16 * Tile::kRowTiles;
  static constexpr int kChunkBytes = 16;
  static constexpr int kChunks = HeadDim * 2 / kChunkBytes;
  static_assert(HeadDim % 16 == 0 && kScoreTiles % 2 == 0);

  /// The row of row tile i that this lane holds, its upper or lower half, within the block.
  SIMT_DEVICE int own_row(int i, int half) const {
    return warp_ * kRowsPerWarp + i * 16 + lane_ / 4 + 8 * half;
  }

  SIMT_DEVICE void copy_queries() {
    for (int i = thread_; i < Tile::kQueries * kChunks; i += kPrefillThreads) {
      const int query = i / kChunks;
      const int chunk = i % kChunks;
      const bool valid = query < share_.n_queries;
      const std::int64_t row = share_.first_row + (valid ? query : 0);
      simt::cp_async16(memory_ + Layout::kQueries + query * Layout::kPitch + chunk * kChunkBytes,
                       args_.q + (row * args_.n_heads + share_.head) * HeadDim + chunk * 8,
                       valid);
    }
  }

  // Eight lanes copy a row, 128 bytes at a time. Rows that no query sees become zeros, unread.
  SIMT_DEVICE void copy_rows(const KvPlane& plane, int buffer, int first_token) {
    constexpr int kLanesPerRow = 8;
    constexpr int kRowsAtOnce = kPrefillThreads / kLanesPerRow;
    if (first_token < share_.end_token) {
      const int lane = thread_ % kLanesPerRow;
      SIMT_UNROLL for (int pass = 0; pass < Tile::kKeyTokens / kRowsAtOnce; ++pass) {
        const int row = pass * kRowsAtOnce + thread_ / kLanesPerRow;
        const int token = first_token + row;
        const bool valid = token < share_.end_token;
        const std::byte* from = row_data(
            plane,
            prefill_slot(args_.cache, share_.sequence, valid ? token : share_.end_token - 1),
            share_.kv_head);
        unsigned char* to = memory_ + buffer + row * Layout::kPitch;
        SIMT_UNROLL for (int first = 0; first < kChunks; first += kLanesPerRow) {
          const int chunk = first + lane;
          if (kChunks % kLanesPerRow == 0 || chunk < kChunks) {
            simt::cp_async16(to + chunk * kChunkBytes, from + chunk * kChunkBytes, valid);
          }
        }
      }
    }
    simt::cp_async_commit();
  }

  SIMT_DEVICE void clear() {
    SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        max_[i][half] = -INFINITY;
        sum_[i][half] = 0.0F;
      }
      SIMT_UNROLL for (int x = 0; x < kOutTiles; ++x) {
        SIMT_UNROLL for (int e = 0; e < 4; ++e) {
          out_[i][x][e] = 0.0F;
        }
      }
    }
  }

  /// s = Q K^T of the own queries and the tile's tokens, unscaled.
  SIMT_DEVICE void score(float (&s)[Tile::kRowTiles][kScoreTiles][4]) {
    SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
      SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
        SIMT_UNROLL for (int e = 0; e < 4; ++e) {
          s[i][j][e] = 0.0F;
        }
      }
    }
    const unsigned char* query_rows = memory_ + Layout::kQueries +
                                      (warp_ * kRowsPerWarp + lane_ % 16) * Layout::kPitch +
                                      lane_ / 16 * 16;
    const unsigned char* key_rows = memory_ + Layout::kKeys +
                                    (lane_ % 8 + lane_ / 16 * 8) * Layout::kPitch +
                                    lane_ / 8 % 2 * 16;
    SIMT_UNROLL for (int column = 0; column < HeadDim; column += 16) {
      std::uint32_t q[Tile::kRowTiles][4];
      SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
        simt::ldmatrix_x4(q[i], query_rows + i * 16 * Layout::kPitch + column * 2);
      }
      SIMT_UNROLL for (int j = 0; j < kScoreTiles; j += 2) {
        std::uint32_t k[4];
        simt::ldmatrix_x4(k, key_rows + j * 8 * Layout::kPitch + column * 2);
        const std::uint32_t first[2] = {k[0], k[1]};
        const std::uint32_t second[2] = {k[2], k[3]};
        SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
          mma_of(Element{}, s[i][j], q[i], first);
          mma_of(Element{}, s[i][j + 1], q[i], second);
        }
      }
    }
  }

  /// Whether some query of this warp does not see some token of the tile.
  SIMT_DEVICE bool needs_mask(int first_token) const {
    const int first = share_.first_position + warp_ * kRowsPerWarp;
    const int last = first + kRowsPerWarp - 1;
    return first_token + Tile::kKeyTokens - 1 > first ||
           (args_.window_tokens > 0 && first_token <= last - args_.window_tokens);
  }
  SIMT_DEVICE void mask(int first_token, float (&s)[Tile::kRowTiles][kScoreTiles][4]) const {
    SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
      SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
        SIMT_UNROLL for (int e = 0; e < 4; ++e) {
          const int position = share_.first_position + own_row(i, e / 2);
          const int token = first_token + j * 8 + lane_ % 4 * 2 + e % 2;
          s[i][j][e] = prefill_sees(args_, position, token) ? s[i][j][e] : -INFINITY;
        }
      }
    }
  }

  /// Scores to weights, packed in pairs of tokens for either half of the rows, and the state to the
  /// new maximum. A row that has seen nothing yet keeps a maximum of -infinity, and weights of
  /// zero.
  SIMT_DEVICE void softmax(const float (&s)[Tile::kRowTiles][kScoreTiles][4],
                           std::uint32_t (&weights)[Tile::kRowTiles][kScoreTiles][2]) {
    SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        float largest = max_[i][half];
        SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
          largest = fmaxf(largest, fmaxf(s[i][j][2 * half], s[i][j][2 * half + 1]));
        }
        largest = fmaxf(largest, simt::shfl_xor(largest, 1));
        largest = fmaxf(largest, simt::shfl_xor(largest, 2));
        const float base = largest == -INFINITY ? 0.0F : largest * args_.scale_log2;
        const float shrink = simt::exp2_fast(max_[i][half] * args_.scale_log2 - base);
        max_[i][half] = largest;
        float sum = 0.0F;
        SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
          const float first = simt::exp2_fast(s[i][j][2 * half] * args_.scale_log2 - base);
          const float second = simt::exp2_fast(s[i][j][2 * half + 1] * args_.scale_log2 - base);
          sum += first + second;
          weights[i][j][half] = pack_of(Element{}, first, second);
        }
        sum_[i][half] = sum_[i][half] * shrink + sum;
        if (simt::ballot(shrink != 1.0F) != 0) {  // seldom, once the largest score is found
          SIMT_UNROLL for (int x = 0; x < kOutTiles; ++x) {
            out_[i][x][2 * half] *= shrink;
            out_[i][x][2 * half + 1] *= shrink;
          }
        }
      }
    }
  }

  SIMT_DEVICE void add_values(const std::uint32_t (&weights)[Tile::kRowTiles][kScoreTiles][2]) {
    const unsigned char* value_rows =
        memory_ + Layout::kValues + lane_ % 16 * Layout::kPitch + lane_ / 16 * 16;
    SIMT_UNROLL for (int j = 0; j < kScoreTiles; j += 2) {
      std::uint32_t p[Tile::kRowTiles][4];
      SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
        p[i][0] = weights[i][j][0];
        p[i][1] = weights[i][j][1];
        p[i][2] = weights[i][j + 1][0];
        p[i][3] = weights[i][j + 1][1];
      }
      SIMT_UNROLL for (int x = 0; x < kOutTiles; x += 2) {
        std::uint32_t v[4];
        simt::ldmatrix_x4<true>(v, value_rows + j * 8 * Layout::kPitch + x * 16);
        const std::uint32_t left[2] = {v[0], v[1]};
        const std::uint32_t right[2] = {v[2], v[3]};
        SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
          mma_of(Element{}, out_[i][x], p[i], left);
          mma_of(Element{}, out_[i][x + 1], p[i], right);
        }
      }
    }
  }

  SIMT_DEVICE void store() {
    SIMT_UNROLL for (int i = 0; i < Tile::kRowTiles; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        float sum = sum_[i][half];
        sum += simt::shfl_xor(sum, 1);
        sum += simt::shfl_xor(sum, 2);
        const float inverse = sum > 0.0F ? 1.0F / sum : 0.0F;
        const int row = own_row(i, half);
        if (row < share_.n_queries) {
          std::uint16_t* out =
              args_.out + ((share_.first_row + row) * args_.n_heads + share_.head) * HeadDim;
          SIMT_UNROLL for (int x = 0; x < kOutTiles; ++x) {
            simt::st(
                reinterpret_cast<std::uint32_t*>(out + x * 8 + lane_ % 4 * 2),
                pack_of(
                    Element{}, out_[i][x][2 * half] * inverse, out_[i][x][2 * half + 1] * inverse));
          }
        }
      }
    }
  }

  const PrefillArgs& args_;
  PrefillShare share_;
  unsigned char* memory_;
  int thread_, warp_, lane_;
  float out_[Tile::kRowTiles][kOutTiles][4];  // unnormalised
  float max_[Tile::kRowTiles][2];             // of unscaled scores
  float sum_[Tile::kRowTiles][2];             // of this lane's tokens
};

template <typename Element, int HeadDim, typename Tile>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kPrefillThreads, 2) prefill_attention_mma(PrefillArgs args) {
  PrefillBlock<Element, HeadDim, Tile>(args).run();
}

}  // namespace kvfathom::kernels
