// MLA decode on tensor cores. Device code.
//
// A block owns 16 * HeadTiles heads, one sequence and one run of tokens. Its four warps share a
// ring of tiles of cached rows that asynchronous copies fill: every cached byte is read once from
// memory and used twice from shared memory, as K by ldmatrix and as V by ldmatrix transposed.
// Scoring splits a tile's tokens (and, for 16-token tiles, the heads) over the warps; the weighted
// sum splits the latent's columns. FP8 rows are decoded to bf16 on the way, which is exact: K's
// scales go to the scores and V's to the softmax weights.
#pragma once

#include "kernels/mla_decode/mla_decode_args.h"
#include "kernels/mla_decode/mla_decode_rows.h"
#include "kernels/mla_decode/mla_decode_tile.h"

namespace kvfathom::kernels {

template <typename Row, typename Tile>
class MlaBlock {
 public:
  using Layout = MlaLayout<Row, Tile>;

  SIMT_DEVICE explicit MlaBlock(const MlaArgs& args)
      : args_(args),
        share_(mla_share(args, Tile::kHeads, Tile::kTokens)),
        memory_(simt::shared_memory<unsigned char>()),
        warp_(static_cast<int>(simt::thread_idx().x) / simt::kWarpSize),
        lane_(simt::lane_id()) {}

  SIMT_DEVICE void run() {
    const int n_tokens = share_.end_token - share_.first_token;
    const int n_tiles = n_tokens > 0 ? (n_tokens + Tile::kTokens - 1) / Tile::kTokens : 0;
    memory_.load_queries(args_, share_);
    SIMT_UNROLL for (int tile = 0; tile < Tile::kStages - 1; ++tile) {
      memory_.start_copy(args_, share_, tile, n_tiles);
    }
    clear();
    for (int tile = 0; tile < n_tiles; ++tile) {
      simt::cp_async_wait<Tile::kStages - 2>();
      simt::syncblock();  // `tile` has landed for all; the ring's place of tile - 1 is free
      memory_.start_copy(args_, share_, tile + Tile::kStages - 1, n_tiles);
      if constexpr (Row::kFp8) {
        memory_.decode_tile(tile);
        simt::syncblock();
      }
      Scores scores;
      score_tile(tile, scores);
      share_maxima(scores);
      simt::syncblock();
      rescale();
      share_weights(tile, scores);
      simt::syncblock();
      add_values(tile);
    }
    share_sums();
    simt::syncblock();
    store_states();
  }

 private:
  // Warps side by side over a tile's tokens, and how many heads' tiles are left for the rest.
  static constexpr int kTokenWarps = Tile::kTokens >= 32 ? 4 : 2;
  static constexpr int kHeadWarps = kMlaWarps / kTokenWarps;
  static constexpr int kScoreHeads = kHeadWarps == 1 ? Tile::kHeadTiles : 1;
  static constexpr int kTokensPerWarp = Tile::kTokens / kTokenWarps;
  static constexpr int kScoreTiles = kTokensPerWarp / 8;
  static constexpr int kColumnsPerWarp = Row::kRank / kMlaWarps;
  static constexpr int kOutTiles = kColumnsPerWarp / 8;
  static_assert(kHeadWarps == 1 || Tile::kHeadTiles <= kHeadWarps);
  static_assert(kScoreTiles == 1 || kScoreTiles == 2);
  static_assert(Row::kDim % 32 == 0 && kOutTiles % 2 == 0);
  static_assert(!Row::kFp8 || kColumnsPerWarp == kMlaFp8ScaleBlock);

  /// One warp's scores of one tile, in mma's layout: [row + 8][token pair].
  struct Scores {
    float s[kScoreHeads][kScoreTiles][4];
  };

  SIMT_DEVICE int token_warp() const { return warp_ % kTokenWarps; }
  SIMT_DEVICE int head_warp() const { return warp_ / kTokenWarps; }
  /// 16 heads by 16 tokens are work for two warps; the others have no scores of their own.
  SIMT_DEVICE bool has_scores() const { return kHeadWarps == 1 || head_warp() < Tile::kHeadTiles; }
  /// The head tile of this warp's i-th tile of scores.
  SIMT_DEVICE int score_head_tile(int i) const { return kHeadWarps == 1 ? i : head_warp(); }
  /// Of what is kept for every head tile, the one of this warp's i-th tile of scores. Registers
  /// have no run-time index.
  SIMT_DEVICE float own(const float (&of_head_tiles)[Tile::kHeadTiles][2], int i, int half) const {
    if constexpr (kHeadWarps == 1) {
      return of_head_tiles[i][half];
    } else {
      return head_warp() == 0 ? of_head_tiles[0][half] : of_head_tiles[Tile::kHeadTiles - 1][half];
    }
  }
  /// First of the two neighbouring tokens that this lane holds of score tile j.
  SIMT_DEVICE int own_token(int j) const {
    return token_warp() * kTokensPerWarp + j * 8 + lane_ % 4 * 2;
  }
  /// The row of head tile i that this lane holds, its upper or lower half.
  SIMT_DEVICE int own_row(int i, int half) const { return i * 16 + lane_ / 4 + 8 * half; }

  SIMT_DEVICE void clear() {
    SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
      sum_[i][0] = sum_[i][1] = 0.0F;
    }
    SIMT_UNROLL for (int i = 0; i < Tile::kHeadTiles; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        max_[i][half] = -INFINITY;
      }
      SIMT_UNROLL for (int x = 0; x < kOutTiles; ++x) {
        SIMT_UNROLL for (int e = 0; e < 4; ++e) {
          out_[i][x][e] = 0.0F;
        }
      }
    }
  }

  // ---- scores ----
  SIMT_DEVICE void score_tile(int tile, Scores& scores) {
    SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
      SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
        SIMT_UNROLL for (int e = 0; e < 4; ++e) {
          scores.s[i][j][e] = 0.0F;
        }
      }
    }
    if (!has_scores()) {
      return;
    }
    if constexpr (Row::kFp8) {
      SIMT_NO_UNROLL for (int block = 0; block < kMlaFp8Scales; ++block) {
        add_scaled_block(tile, block, scores);
      }
      add_products<kMlaFp8Rope>(tile, kMlaFp8Latent, scores.s);
    } else {
      add_products<Row::kDim>(tile, 0, scores.s);
    }
    const int first_token = share_.first_token + tile * Tile::kTokens;
    SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
      SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
        SIMT_UNROLL for (int e = 0; e < 4; ++e) {
          const bool valid = first_token + own_token(j) + e % 2 < share_.end_token;
          scores.s[i][j][e] = valid ? scores.s[i][j][e] * args_.scale_log2 : -INFINITY;
        }
      }
    }
  }

  /// s += Q K^T over Columns columns from `first` on, of the own heads and tokens.
  template <int Columns>
  SIMT_DEVICE void add_products(int tile, int first, float (&s)[kScoreHeads][kScoreTiles][4]) {
    const unsigned char* key_rows = memory_.keys(tile) +
                                    (token_warp() * kTokensPerWarp + lane_ % 8) * Layout::kPitch +
                                    first * 2;
    const unsigned char* query_rows =
        memory_.queries() + (score_head_tile(0) * 16 + lane_ % 16) * Layout::kPitch + first * 2;
    SIMT_UNROLL for (int column = 0; column < Columns; column += 32) {
      std::uint32_t k[kScoreTiles][4];
      SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
        simt::ldmatrix_x4(k[j], key_rows + j * 8 * Layout::kPitch + (column + lane_ / 8 * 8) * 2);
      }
      SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
        SIMT_UNROLL for (int half = 0; half < 2; ++half) {
          std::uint32_t q[4];
          simt::ldmatrix_x4(
              q, query_rows + i * 16 * Layout::kPitch + (column + half * 16 + lane_ / 16 * 8) * 2);
          SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
            const std::uint32_t pair[2] = {k[j][2 * half], k[j][2 * half + 1]};
            simt::mma_bf16(s[i][j], q, pair);
          }
        }
      }
    }
  }

  /// FP8: the scale of one of the two tokens that this lane holds of score tile j.
  SIMT_DEVICE float scale_of(int tile, int j, int token, int block) const {
    return reinterpret_cast<const float*>(memory_.ring(tile) +
                                          (own_token(j) + token) * Layout::kRingPitch +
                                          kMlaFp8ScaleOffset)[block];
  }
  SIMT_DEVICE void add_scaled_block(int tile, int block, Scores& scores) {
    float products[kScoreHeads][kScoreTiles][4] = {};
    add_products<kMlaFp8ScaleBlock>(tile, block * kMlaFp8ScaleBlock, products);
    SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
      SIMT_UNROLL for (int token = 0; token < 2; ++token) {
        const float scale = scale_of(tile, j, token, block);
        SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
          scores.s[i][j][token] += products[i][j][token] * scale;
          scores.s[i][j][token + 2] += products[i][j][token + 2] * scale;
        }
      }
    }
  }

  // ---- softmax ----
  SIMT_DEVICE void share_maxima(const Scores& scores) {
    if (!has_scores()) {
      return;
    }
    SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        float largest = -INFINITY;
        SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
          const float(&s)[4] = scores.s[i][j];
          largest = fmaxf(largest, fmaxf(s[2 * half], s[2 * half + 1]));
        }
        largest = fmaxf(largest, simt::shfl_xor(largest, 1));
        largest = fmaxf(largest, simt::shfl_xor(largest, 2));
        if (lane_ % 4 == 0) {
          memory_.row_max(token_warp())[own_row(score_head_tile(i), half)] = largest;
        }
      }
    }
  }

  /// Every warp, for all rows: the columns it owns follow the common maximum.
  SIMT_DEVICE void rescale() {
    float shrink[Tile::kHeadTiles][2];
    SIMT_UNROLL for (int i = 0; i < Tile::kHeadTiles; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        float largest = max_[i][half];
        SIMT_UNROLL for (int warp = 0; warp < kTokenWarps; ++warp) {
          largest = fmaxf(largest, memory_.row_max(warp)[own_row(i, half)]);
        }
        shrink[i][half] = simt::exp2_fast(max_[i][half] - largest);
        max_[i][half] = largest;
        SIMT_UNROLL for (int x = 0; x < kOutTiles; ++x) {
          out_[i][x][2 * half] *= shrink[i][half];
          out_[i][x][2 * half + 1] *= shrink[i][half];
        }
      }
    }
    SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
      sum_[i][0] *= own(shrink, i, 0);
      sum_[i][1] *= own(shrink, i, 1);
    }
  }

  SIMT_DEVICE void share_weights([[maybe_unused]] int tile, const Scores& scores) {
    if (!has_scores()) {
      return;
    }
    SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        const float largest = own(max_, i, half);
        const int row = own_row(score_head_tile(i), half);
        SIMT_UNROLL for (int j = 0; j < kScoreTiles; ++j) {
          const float(&s)[4] = scores.s[i][j];
          const float first = simt::exp2_fast(s[2 * half] - largest);
          const float second = simt::exp2_fast(s[2 * half + 1] - largest);
          sum_[i][half] += first + second;
          SIMT_UNROLL for (int copy = 0; copy < Layout::kWeightCopies; ++copy) {
            std::uint32_t pair = 0;
            if constexpr (Row::kFp8) {
              pair = simt::pack_bf16(first * scale_of(tile, j, 0, copy),
                                     second * scale_of(tile, j, 1, copy));
            } else {
              pair = simt::pack_bf16(first, second);
            }
            *reinterpret_cast<std::uint32_t*>(memory_.weights(copy) + row * Layout::kWeightPitch +
                                              own_token(j) * 2) = pair;
          }
        }
      }
    }
  }

  // ---- weighted sum ----
  SIMT_DEVICE void add_values(int tile) {
    const unsigned char* weight_rows = memory_.weights(Row::kFp8 ? warp_ : 0) +
                                       lane_ % 16 * Layout::kWeightPitch + lane_ / 16 * 16;
    const unsigned char* value_rows = memory_.values(tile) + lane_ % 16 * Layout::kVPitch +
                                      (warp_ * kColumnsPerWarp + lane_ / 16 * 8) * 2;
    SIMT_UNROLL for (int token = 0; token < Tile::kTokens; token += 16) {
      std::uint32_t p[Tile::kHeadTiles][4];
      SIMT_UNROLL for (int i = 0; i < Tile::kHeadTiles; ++i) {
        simt::ldmatrix_x4(p[i], weight_rows + i * 16 * Layout::kWeightPitch + token * 2);
      }
      SIMT_UNROLL for (int x = 0; x < kOutTiles; x += 2) {
        std::uint32_t v[4];
        simt::ldmatrix_x4<true>(v, value_rows + token * Layout::kVPitch + x * 8 * 2);
        const std::uint32_t left[2] = {v[0], v[1]};
        const std::uint32_t right[2] = {v[2], v[3]};
        SIMT_UNROLL for (int i = 0; i < Tile::kHeadTiles; ++i) {
          simt::mma_bf16(out_[i][x], p[i], left);
          simt::mma_bf16(out_[i][x + 1], p[i], right);
        }
      }
    }
  }

  // ---- results ----
  SIMT_DEVICE void share_sums() {
    if (!has_scores()) {
      return;
    }
    SIMT_UNROLL for (int i = 0; i < kScoreHeads; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        float sum = sum_[i][half];
        sum += simt::shfl_xor(sum, 1);
        sum += simt::shfl_xor(sum, 2);
        if (lane_ % 4 == 0) {
          memory_.row_sum(token_warp())[own_row(score_head_tile(i), half)] = sum;
        }
      }
    }
  }
  SIMT_DEVICE void store_states() {
    SIMT_UNROLL for (int i = 0; i < Tile::kHeadTiles; ++i) {
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        const int row = own_row(i, half);
        const int head = share_.first_head + row;
        if (head >= args_.n_heads) {
          continue;
        }
        const std::int64_t state = mla_state_index(args_, share_, head);
        float* out = args_.states.out + state * Row::kRank + warp_ * kColumnsPerWarp;
        SIMT_UNROLL for (int x = 0; x < kOutTiles; ++x) {
          const simt::U32x2 pair{bits_of_f32(out_[i][x][2 * half]),
                                 bits_of_f32(out_[i][x][2 * half + 1])};
          simt::st(reinterpret_cast<simt::U32x2*>(out + x * 8 + lane_ % 4 * 2), pair);
        }
        if (warp_ == 0 && lane_ % 4 == 0) {
          float sum = 0.0F;
          SIMT_UNROLL for (int warp = 0; warp < kTokenWarps; ++warp) {
            sum += memory_.row_sum(warp)[row];
          }
          simt::st(args_.states.max_sum + state * 2, max_[i][half]);
          simt::st(args_.states.max_sum + state * 2 + 1, sum);
        }
      }
    }
  }

  const MlaArgs& args_;
  MlaShare share_;
  MlaMemory<Row, Tile> memory_;
  int warp_, lane_;
  float out_[Tile::kHeadTiles][kOutTiles][4];  // own columns of all heads, unnormalised
  float max_[Tile::kHeadTiles][2];             // of all heads, equal in every warp
  float sum_[kScoreHeads][2];                  // of own heads and tokens
};

template <typename Row, typename Tile>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kMlaThreads, 2) mla_decode_mma(MlaArgs args) {
  MlaBlock<Row, Tile>(args).run();
}

}  // namespace kvfathom::kernels
