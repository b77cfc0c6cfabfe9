// MLA decode on CUDA cores: the fallback below sm_80, and a second, independent implementation.
// Device code.
//
// A block owns kMlaCoreHeads heads, one sequence and one run of tokens. Its warps take turns by
// token; the lanes of a warp share a row, eight columns a piece, and keep their columns of all
// heads' queries and outputs in registers. Four private softmax states merge in shared memory.
#pragma once

#include "kernels/mla_decode/mla_decode_args.h"
#include "kernels/mla_decode/mla_decode_tile.h"

namespace kvfathom::kernels {

/// How the lanes of a warp share a row: pieces of eight columns.
template <typename Row>
struct MlaLanes {
  static constexpr int kPieces = (Row::kDim + 255) / 256;
  static constexpr int kVPieces = Row::kRank / 256;
  static_assert(Row::kRank % 256 == 0);

  static SIMT_DEVICE int column(int piece, int lane) {
    if (Row::kFp8 && piece < kVPieces) {  // 16 bytes of E4M3 are two neighbouring pieces
      return lane * 16 + piece * 8;
    }
    return (piece * simt::kWarpSize + lane) * 8;
  }
  static SIMT_DEVICE bool holds(int piece, int lane) { return column(piece, lane) < Row::kDim; }
};

/// One row as loaded: this lane's pieces.
template <typename Row>
struct MlaLaneRow {
  using Lanes = MlaLanes<Row>;
  simt::U32x4 words[Lanes::kPieces];
  simt::U32x4 v_words[Row::kSeparateV ? Lanes::kVPieces : 1];
  float scale = 1.0F;

  SIMT_DEVICE void load(const KvCacheView& cache, KvSlot slot, int lane) {
    const std::byte* row = row_data(cache.k, slot, 0);
    if constexpr (Row::kFp8) {
      words[0] = simt::ld_stream<simt::U32x4>(row + lane * 16);
      words[1] = simt::U32x4{0, 0, 0, 0};
      constexpr int kRopeLanes = kMlaFp8Rope / 8;
      words[2] = lane < kRopeLanes
                     ? simt::ld_stream<simt::U32x4>(row + kMlaFp8RopeOffset + lane * 16)
                     : simt::U32x4{0, 0, 0, 0};
      scale =
          lane < kMlaFp8Scales ? simt::ld_stream<float>(row + kMlaFp8ScaleOffset + lane * 4) : 0.0F;
    } else {
      SIMT_UNROLL for (int piece = 0; piece < Lanes::kPieces; ++piece) {
        words[piece] = Lanes::holds(piece, lane)
                           ? simt::ld_stream<simt::U32x4>(row + Lanes::column(piece, lane) * 2)
                           : simt::U32x4{0, 0, 0, 0};
      }
    }
    if constexpr (Row::kSeparateV) {
      const std::byte* v_row = row_data(cache.v, slot, 0);
      SIMT_UNROLL for (int piece = 0; piece < Lanes::kVPieces; ++piece) {
        v_words[piece] = simt::ld_stream<simt::U32x4>(v_row + Lanes::column(piece, lane) * 2);
      }
    }
  }
  /// FP8: each lane gets the scale of its own columns. All lanes take part.
  SIMT_DEVICE void spread_scale(int lane) {
    if constexpr (Row::kFp8) {
      scale = simt::shfl(scale, lane * 16 / kMlaFp8ScaleBlock);
    }
  }

  SIMT_DEVICE void k_piece(int piece, float (&x)[8]) const {
    if (Row::kFp8 && piece < Lanes::kVPieces) {
      const std::uint32_t low = piece == 0 ? words[0].x : words[0].z;
      const std::uint32_t high = piece == 0 ? words[0].y : words[0].w;
      const std::uint32_t pairs[4] = {low & 0xffffU, low >> 16, high & 0xffffU, high >> 16};
      SIMT_UNROLL for (int i = 0; i < 4; ++i) {
        const std::uint32_t both = simt::bf16x2_of_e4m3x2(pairs[i]);
        x[2 * i] = simt::bf16_low(both) * scale;
        x[2 * i + 1] = simt::bf16_high(both) * scale;
      }
    } else {
      unpack(words[piece], x);
    }
  }
  SIMT_DEVICE void v_piece(int piece, float (&x)[8]) const {
    if constexpr (Row::kSeparateV) {
      unpack(v_words[piece], x);
    } else {
      k_piece(piece, x);
    }
  }
  static SIMT_DEVICE void unpack(const simt::U32x4& four, float (&x)[8]) {
    const std::uint32_t pairs[4] = {four.x, four.y, four.z, four.w};
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      x[2 * i] = simt::bf16_low(pairs[i]);
      x[2 * i + 1] = simt::bf16_high(pairs[i]);
    }
  }
};

template <typename Row>
class MlaCoreBlock {
 public:
  using Lanes = MlaLanes<Row>;

  SIMT_DEVICE explicit MlaCoreBlock(const MlaArgs& args)
      : args_(args),
        share_(mla_share(args, kMlaCoreHeads, kMlaWarps * kMlaCoreTokensPerWarp)),
        warp_(static_cast<int>(simt::thread_idx().x) / simt::kWarpSize),
        lane_(simt::lane_id()) {}

  SIMT_DEVICE void run() {
    load_queries();
    constexpr int kStep = kMlaWarps * kMlaCoreTokensPerWarp;
    for (int token = share_.first_token + warp_ * kMlaCoreTokensPerWarp; token < share_.end_token;
         token += kStep) {
      MlaLaneRow<Row> rows[kMlaCoreTokensPerWarp];
      SIMT_UNROLL for (int i = 0; i < kMlaCoreTokensPerWarp; ++i) {
        if (token + i < share_.end_token) {
          rows[i].load(args_.cache, mla_slot(args_.cache, share_.sequence, token + i), lane_);
        }
      }
      SIMT_UNROLL for (int i = 0; i < kMlaCoreTokensPerWarp; ++i) {
        if (token + i < share_.end_token) {
          rows[i].spread_scale(lane_);
          add_token(rows[i]);
        }
      }
    }
    share_states();
    simt::syncblock();
    merge_states();
  }

 private:
  SIMT_DEVICE void load_queries() {
    SIMT_UNROLL for (int head = 0; head < kMlaCoreHeads; ++head) {
      max_[head] = -INFINITY;
      sum_[head] = 0.0F;
      const bool real = share_.first_head + head < args_.n_heads;
      const std::int64_t row = static_cast<std::int64_t>(share_.sequence) * args_.n_heads +
                               share_.first_head + (real ? head : 0);
      SIMT_UNROLL for (int piece = 0; piece < Lanes::kPieces; ++piece) {
        simt::U32x4 words{0, 0, 0, 0};
        if (real && Lanes::holds(piece, lane_)) {
          words = simt::ld(reinterpret_cast<const simt::U32x4*>(args_.q + row * Row::kDim +
                                                                Lanes::column(piece, lane_)));
        }
        MlaLaneRow<Row>::unpack(words, q_[head][piece]);
      }
      SIMT_UNROLL for (int piece = 0; piece < Lanes::kVPieces; ++piece) {
        SIMT_UNROLL for (int i = 0; i < 8; ++i) {
          out_[head][piece][i] = 0.0F;
        }
      }
    }
  }

  SIMT_DEVICE void add_token(const MlaLaneRow<Row>& row) {
    float scores[kMlaCoreHeads] = {};
    SIMT_UNROLL for (int piece = 0; piece < Lanes::kPieces; ++piece) {
      float k[8];
      row.k_piece(piece, k);
      SIMT_UNROLL for (int head = 0; head < kMlaCoreHeads; ++head) {
        SIMT_UNROLL for (int i = 0; i < 8; ++i) {
          scores[head] += q_[head][piece][i] * k[i];
        }
      }
    }
    float weights[kMlaCoreHeads];
    SIMT_UNROLL for (int head = 0; head < kMlaCoreHeads; ++head) {
      const float score = simt::warp_sum(scores[head]) * args_.scale_log2;
      const float largest = fmaxf(max_[head], score);
      const float shrink = simt::exp2_fast(max_[head] - largest);
      weights[head] = simt::exp2_fast(score - largest);
      max_[head] = largest;
      sum_[head] = sum_[head] * shrink + weights[head];
      SIMT_UNROLL for (int piece = 0; piece < Lanes::kVPieces; ++piece) {
        SIMT_UNROLL for (int i = 0; i < 8; ++i) {
          out_[head][piece][i] *= shrink;
        }
      }
    }
    SIMT_UNROLL for (int piece = 0; piece < Lanes::kVPieces; ++piece) {
      float v[8];
      row.v_piece(piece, v);
      SIMT_UNROLL for (int head = 0; head < kMlaCoreHeads; ++head) {
        SIMT_UNROLL for (int i = 0; i < 8; ++i) {
          out_[head][piece][i] += weights[head] * v[i];
        }
      }
    }
  }

  // Shared memory: [warp][head][column] outputs, then [warp][head] maxima, then sums.
  SIMT_DEVICE void share_states() {
    auto* out = simt::shared_memory<float>();
    float* largest = out + kMlaWarps * kMlaCoreHeads * Row::kRank;
    SIMT_UNROLL for (int head = 0; head < kMlaCoreHeads; ++head) {
      const int state = warp_ * kMlaCoreHeads + head;
      SIMT_UNROLL for (int piece = 0; piece < Lanes::kVPieces; ++piece) {
        SIMT_UNROLL for (int i = 0; i < 8; ++i) {
          out[state * Row::kRank + Lanes::column(piece, lane_) + i] = out_[head][piece][i];
        }
      }
      if (lane_ == 0) {
        largest[state] = max_[head];
        largest[kMlaWarps * kMlaCoreHeads + state] = sum_[head];
      }
    }
  }
  SIMT_DEVICE void merge_states() const {
    const auto* out = simt::shared_memory<float>();
    const float* maxima = out + kMlaWarps * kMlaCoreHeads * Row::kRank;
    const float* sums = maxima + kMlaWarps * kMlaCoreHeads;
    const int thread = static_cast<int>(simt::thread_idx().x);
    for (int head = 0; head < kMlaCoreHeads && share_.first_head + head < args_.n_heads; ++head) {
      float largest = -INFINITY;
      for (int warp = 0; warp < kMlaWarps; ++warp) {
        largest = fmaxf(largest, maxima[warp * kMlaCoreHeads + head]);
      }
      const std::int64_t state = mla_state_index(args_, share_, share_.first_head + head);
      for (int column = thread; column < Row::kRank; column += kMlaThreads) {
        float total = 0.0F;
        for (int warp = 0; warp < kMlaWarps; ++warp) {
          const int from = warp * kMlaCoreHeads + head;
          total += weight_of(maxima[from], largest) * out[from * Row::kRank + column];
        }
        simt::st(args_.states.out + state * Row::kRank + column, total);
      }
      if (thread == 0) {
        float sum = 0.0F;
        for (int warp = 0; warp < kMlaWarps; ++warp) {
          const int from = warp * kMlaCoreHeads + head;
          sum += weight_of(maxima[from], largest) * sums[from];
        }
        simt::st(args_.states.max_sum + state * 2, largest);
        simt::st(args_.states.max_sum + state * 2 + 1, sum);
      }
    }
  }
  static SIMT_DEVICE float weight_of(float maximum, float largest) {
    return maximum == -INFINITY ? 0.0F : simt::exp2_fast(maximum - largest);
  }

  const MlaArgs& args_;
  MlaShare share_;
  int warp_, lane_;
  float q_[kMlaCoreHeads][Lanes::kPieces][8];
  float out_[kMlaCoreHeads][Lanes::kVPieces][8];
  float max_[kMlaCoreHeads], sum_[kMlaCoreHeads];
};

template <typename Row>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kMlaThreads) mla_decode_cores(MlaArgs args) {
  MlaCoreBlock<Row>(args).run();
}

}  // namespace kvfathom::kernels
