// Decode attention on tensor cores, from global memory straight to registers.
//
// The inner dimension of a product may be permuted as long as both operands agree. So each lane
// reads consecutive bytes of a K row and uses them as they lie; the queries are permuted once to
// match. The columns of V may be permuted too, which the store undoes; pairs of tokens, which the
// instruction wants in one register, cost a byte permutation. No shared memory but for the
// queries, and no barrier, in the loop.
//
// Lane = 4 * quad + member. A matrix instruction multiplies 16 query heads by 8 tokens (scores) or
// 8 columns of V; lanes of quad g hold rows g and g + 8 of the left operand and of the result.
#pragma once

#include "kernels/decode_attention/decode_attention_row_share.h"
#include "kernels/decode_attention/decode_attention_runs.h"
#include "kernels/decode_attention/decode_attention_tensor_format.h"

namespace kvfathom::kernels::decode {

inline constexpr int kTensorRows = 16;

template <KvFormat kFormat, int kHeadDim>
struct TensorShape {
  using Format = TensorFormat<kFormat>;
  static constexpr int kRowBytes = kHeadDim * Format::kBits / 8;
  static constexpr int kSteps = kHeadDim / 16;  ///< of the scores
  static constexpr int kTiles = kHeadDim / 8;   ///< of the output
  static constexpr bool kBlockScales = Format::kScaling == Scaling::block;
  static constexpr bool kTokenScales = Format::kScaling == Scaling::token;
  static constexpr bool kHeadScales = Format::kScaling == Scaling::head;
  /// K of the next tile is on its way while this one's softmax and V are worked on, unless a
  /// lane's registers do not hold it beside V and the output. Then rows come in two halves.
  static constexpr bool kPrefetch = 4 * kTiles + 2 * (kRowBytes / 16) + 4 * (kRowBytes / 32) <= 160;
  static constexpr int kRounds = kPrefetch ? 1 : 2;
  static constexpr int kRoundBytes = kRowBytes / kRounds;
  static constexpr int kRoundSteps = kSteps / kRounds;
  static constexpr int kRoundTiles = kTiles / kRounds;
  using KeyShare = RowShare<kRoundBytes, 4>;
  using ValueShare = RowShare<kRoundBytes, 8>;
  /// Rows in shared memory, padded against bank conflicts.
  static constexpr int kPitch = kHeadDim + 4;

  static std::size_t shared_bytes(int n_rows) {
    const std::size_t queries = sizeof(simt::U32x4) * kSteps * simt::kWarpSize;
    return std::max(queries, block_states_bytes(kWarps, n_rows, kPitch));
  }
};

/// The softmax state of one warp, and its way through every fourth tile of the block's run.
template <KvFormat kFormat, int kHeadDim>
class TensorWarp {
  using Shape = TensorShape<kFormat, kHeadDim>;
  using Format = typename Shape::Format;
  using KeyShare = typename Shape::KeyShare;
  using ValueShare = typename Shape::ValueShare;

 public:
  SIMT_DEVICE TensorWarp(const Arguments& arguments, const Task& task)
      : params_(arguments.params), task_(task) {
    score_scale_ = params_.softmax_scale * kLog2E;
    if constexpr (Shape::kHeadScales) {
      score_scale_ *=
          simt::ld(reinterpret_cast<const float*>(params_.cache.k.scales) + task_.kv_head);
      value_unit_ =
          simt::ld(reinterpret_cast<const float*>(params_.cache.v.scales) + task_.kv_head);
    }
    SIMT_UNROLL for (int tile = 0; tile < Shape::kTiles; ++tile) {
      SIMT_UNROLL for (int i = 0; i < 4; ++i) {
        out_[tile][i] = 0.0F;
      }
    }
  }

  /// `queries`: [kSteps, 32 lanes] left operands.
  SIMT_DEVICE void attend(const simt::U32x4* queries) {
    constexpr int kStride = kWarps * kTileTokens;
    const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
    int tile = task_.first + warp * kTileTokens;
    if (Shape::kPrefetch && tile < task_.last) {
      load_keys(tile, 0);
    }
    for (; tile < task_.last; tile += kStride) {
      if constexpr (Shape::kPrefetch) {
        attend_tile(queries, tile, tile + kStride);
      } else {
        attend_tile_in_rounds(queries, tile);
      }
    }
  }

  /// Leaves the state for merge_and_store.
  SIMT_DEVICE void leave_state(const BlockStates& states) {
    const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      sum_[half] += simt::shfl_xor(sum_[half], 1);
      sum_[half] += simt::shfl_xor(sum_[half], 2);
      const int row = quad() + 8 * half;
      if (row < task_.n_rows) {
        const int state = warp * task_.n_rows + row;
        SIMT_UNROLL for (int tile = 0; tile < Shape::kTiles; ++tile) {
          SIMT_UNROLL for (int i = 0; i < 2; ++i) {
            states.out[state * states.pitch + column(tile, 2 * member() + i)] =
                out_[tile][2 * half + i] * value_unit_;
          }
        }
        if (member() == 0) {
          states.max_sum[state * 2] = largest_[half];
          states.max_sum[state * 2 + 1] = sum_[half];
        }
      }
    }
  }

  /// The head_dim elements of a k-step that member `member` of each quad multiplies: four, from
  /// here on.
  static constexpr int step_element(int step, int member) {
    const int byte = KeyShare::row_byte(Format::step_byte(step % Shape::kRoundSteps), member);
    return kHeadDim / Shape::kRounds * (step / Shape::kRoundSteps) +
           element_at(kFormat, byte, Format::part(step));
  }

 private:
  /// K of `tile` is there already; K of `next_tile` is asked for.
  SIMT_DEVICE void attend_tile(const simt::U32x4* queries, int tile, int next_tile) {
    load_values(tile, 0);
    float scores[2][4] = {};
    multiply_keys(queries, 0, scores);
    if (next_tile < task_.last) {
      load_keys(next_tile, 0);
    }
    std::uint32_t weights[4];
    softmax(tile, scores, weights);
    multiply_values(weights, 0);
  }
  SIMT_DEVICE void attend_tile_in_rounds(const simt::U32x4* queries, int tile) {
    float scores[2][4] = {};
    // Unrolled, the assembler would start every load of the tile at once, and spill.
    SIMT_NO_UNROLL for (int round = 0; round < Shape::kRounds; ++round) {
      load_keys(tile, round);
      multiply_keys(queries, round, scores);
    }
    std::uint32_t weights[4];
    SIMT_UNROLL for (int round = 0; round < Shape::kRounds; ++round) {
      load_values(tile, round);
      if (round == 0) {
        softmax(tile, scores, weights);
      }
      multiply_values(weights, round);
    }
  }

  SIMT_DEVICE static int quad() { return simt::lane_id() / 4; }
  SIMT_DEVICE static int member() { return simt::lane_id() % 4; }
  /// The column of V that lane group `g` brings to an output tile.
  static constexpr int column(int tile, int g) {
    const int byte = ValueShare::row_byte(Format::tile_byte(tile % Shape::kRoundTiles), g);
    return kHeadDim / Shape::kRounds * (tile / Shape::kRoundTiles) +
           element_at(kFormat, byte, Format::part(tile));
  }
  /// Of this lane's i-th score and weight of a row: tokens in pairs, 8 apart.
  SIMT_DEVICE static int token_of(int i) { return 2 * member() + i % 2 + 8 * (i / 2); }

  template <class Share>
  SIMT_DEVICE static std::uint32_t block_scale(const std::byte* scales,
                                               int first_byte,
                                               int piece,
                                               int lane) {
    const int byte = first_byte + Share::row_byte(Share::piece_first(piece), lane);
    const int block = element_at(kFormat, byte, 0) / kQuantBlock;
    return simt::ld(reinterpret_cast<const F16*>(scales) + block).bits;
  }

  // Loads look up all rows first, so that no row waits for another's page.
  SIMT_DEVICE void load_keys(int tile, int round) {
    const int first_byte = round * Shape::kRoundBytes;
    KvSlot slots[2];
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      slots[half] = task_.slot(params_.cache, tile + 8 * half + quad());
    }
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      const bool exists = tile + 8 * half + quad() < task_.last;
      const KvSlot slot = slots[half];
      KeyShare::load(keys_[half],
                     row_data(params_.cache.k, slot, task_.kv_head) + first_byte,
                     member(),
                     exists);
      if constexpr (Shape::kBlockScales) {
        const std::byte* scales = row_scales(params_.cache.k, slot, task_.kv_head);
        SIMT_UNROLL for (int piece = 0; piece < KeyShare::kPieces; ++piece) {
          const std::uint32_t scale =
              exists ? block_scale<KeyShare>(scales, first_byte, piece, member()) : 0U;
          key_scales_[half][piece] = scale | scale << 16;
        }
      }
    }
  }

  SIMT_DEVICE void load_values(int tile, int round) {
    const int first_byte = round * Shape::kRoundBytes;
    KvSlot slots[4];
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      slots[i] = task_.slot(params_.cache, tile + token_of(i));
    }
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      const bool exists = tile + token_of(i) < task_.last;
      const KvSlot slot = slots[i];
      ValueShare::load(
          values_[i], row_data(params_.cache.v, slot, task_.kv_head) + first_byte, quad(), exists);
      if constexpr (Shape::kBlockScales) {
        const std::byte* scales = row_scales(params_.cache.v, slot, task_.kv_head);
        SIMT_UNROLL for (int piece = 0; piece < ValueShare::kPieces; ++piece) {
          const std::uint32_t scale =
              exists ? block_scale<ValueShare>(scales, first_byte, piece, quad()) : 0U;
          std::uint32_t& pair = value_scales_[i / 2][piece];
          pair = i % 2 == 0 ? scale : pair | scale << 16;
        }
      }
      if (Shape::kTokenScales && round == 0) {
        const auto scale_of = [&](const KvPlane& plane) {
          return exists ? simt::ld(reinterpret_cast<const float*>(
                              row_scales(plane, slot, task_.kv_head)))
                        : 0.0F;
        };
        token_key_scales_[i] = scale_of(params_.cache.k);
        token_value_scales_[i] = scale_of(params_.cache.v);
      }
    }
  }

  SIMT_DEVICE void multiply_keys(const simt::U32x4* queries, int round, float (&scores)[2][4]) {
    SIMT_UNROLL for (int step = 0; step < Shape::kRoundSteps; ++step) {
      const simt::U32x4 q =
          queries[(round * Shape::kRoundSteps + step) * simt::kWarpSize + simt::lane_id()];
      const std::uint32_t left[4] = {q.x, q.y, q.z, q.w};
      SIMT_UNROLL for (int half = 0; half < 2; ++half) {
        std::uint32_t right[2];
        Format::key_operand(keys_[half], step, right);
        if constexpr (Shape::kBlockScales) {
          const std::uint32_t scale =
              key_scales_[half][KeyShare::piece_of(Format::step_byte(step)).index];
          right[0] = simt::mul_f16x2(right[0], scale);
          right[1] = simt::mul_f16x2(right[1], scale);
        }
        Format::mma(scores[half], left, right);
      }
    }
  }

  /// Moves the state to the new maximum and makes the tile's weights the next left operand.
  SIMT_DEVICE void softmax(int tile, float (&scores)[2][4], std::uint32_t (&weights)[4]) {
    float unit_ratio = 1.0F;
    float to_unit[4] = {1.0F, 1.0F, 1.0F, 1.0F};
    if constexpr (Shape::kTokenScales) {
      unit_ratio = update_value_unit(to_unit);
    }
    SIMT_UNROLL for (int row = 0; row < 2; ++row) {
      float score[4];
      float largest = largest_[row];
      SIMT_UNROLL for (int i = 0; i < 4; ++i) {
        float scale = score_scale_;
        if constexpr (Shape::kTokenScales) {
          scale *= token_key_scales_[i];
        }
        const bool exists = tile + token_of(i) < task_.last;
        score[i] = exists ? scores[i / 2][2 * row + i % 2] * scale : -INFINITY;
        largest = fmaxf(largest, score[i]);
      }
      largest = fmaxf(largest, simt::shfl_xor(largest, 1));
      largest = fmaxf(largest, simt::shfl_xor(largest, 2));
      // Finite: a tile has at least one token.
      const float correction = simt::exp2_fast(largest_[row] - largest);
      largest_[row] = largest;
      sum_[row] *= correction;
      SIMT_UNROLL for (int out_tile = 0; out_tile < Shape::kTiles; ++out_tile) {
        out_[out_tile][2 * row] *= correction * unit_ratio;
        out_[out_tile][2 * row + 1] *= correction * unit_ratio;
      }
      SIMT_UNROLL for (int i = 0; i < 4; ++i) {
        score[i] = simt::exp2_fast(score[i] - largest);
        sum_[row] += score[i];
        score[i] *= to_unit[i];
      }
      weights[row] = Format::pack(score[0], score[1]);
      weights[row + 2] = Format::pack(score[2], score[3]);
    }
  }

  /// int8_token: the weights carry V's scales. As they become binary16, whose range is short, they
  /// and the output are kept in units of the largest scale so far. Returns old unit / new unit.
  SIMT_DEVICE float update_value_unit(float (&to_unit)[4]) {
    const float before = value_unit_;
    float unit = before;
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      unit = fmaxf(unit, token_value_scales_[i]);
    }
    unit = fmaxf(unit, simt::shfl_xor(unit, 1));
    unit = fmaxf(unit, simt::shfl_xor(unit, 2));
    const float inverse = 1.0F / unit;
    SIMT_UNROLL for (int i = 0; i < 4; ++i) {
      to_unit[i] = token_value_scales_[i] * inverse;
    }
    value_unit_ = unit;
    return before * inverse;
  }

  SIMT_DEVICE void multiply_values(const std::uint32_t (&weights)[4], int round) {
    SIMT_UNROLL for (int tile = 0; tile < Shape::kRoundTiles; ++tile) {
      std::uint32_t right[2];
      SIMT_UNROLL for (int pair = 0; pair < 2; ++pair) {
        right[pair] = Format::value_pair(values_[2 * pair], values_[2 * pair + 1], tile);
        if constexpr (Shape::kBlockScales) {
          const int piece = ValueShare::piece_of(Format::tile_byte(tile)).index;
          right[pair] = simt::mul_f16x2(right[pair], value_scales_[pair][piece]);
        }
      }
      Format::mma(out_[round * Shape::kRoundTiles + tile], weights, right);
    }
  }

  const DecodeAttentionParams& params_;
  const Task& task_;
  float score_scale_;
  // Of int8_token it must start above 0, so that rows of zeros do not divide by it.
  float value_unit_ = Shape::kTokenScales ? 0x1p-126F : 1.0F;
  float out_[Shape::kTiles][4];  // rows quad, quad and quad + 8, quad + 8
  float largest_[2] = {-INFINITY, -INFINITY};
  float sum_[2] = {0.0F, 0.0F};
  std::uint32_t keys_[2][KeyShare::kWords];
  std::uint32_t key_scales_[2][KeyShare::kPieces];
  std::uint32_t values_[4][ValueShare::kWords];
  std::uint32_t value_scales_[2][ValueShare::kPieces];
  float token_key_scales_[4];
  float token_value_scales_[4];
};

/// Puts the block's queries into shared memory as the left operands of the scores, zeros for the
/// rows that pad them to 16.
template <KvFormat kFormat, int kHeadDim>
SIMT_DEVICE void stage_queries(const DecodeAttentionParams& params,
                               const Task& task,
                               simt::U32x4* queries) {
  constexpr int kOperands = TensorShape<kFormat, kHeadDim>::kSteps * simt::kWarpSize;
  for (int i = static_cast<int>(simt::thread_idx().x); i < kOperands; i += kThreads) {
    const int lane = i % simt::kWarpSize;
    const int element = TensorWarp<kFormat, kHeadDim>::step_element(i / simt::kWarpSize, lane % 4);
    simt::U32x2 rows[2];
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      rows[half] = simt::U32x2{0, 0};
      if (row < task.n_rows) {
        const std::int64_t head =
            static_cast<std::int64_t>(task.sequence) * params.n_heads + task.first_head + row;
        rows[half] =
            simt::ld(reinterpret_cast<const simt::U32x2*>(params.q + head * kHeadDim + element));
      }
    }
    queries[i] = simt::U32x4{rows[0].x, rows[1].x, rows[0].y, rows[1].y};
  }
}

template <KvFormat kFormat, int kHeadDim>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads, 2) tensor_kernel(Arguments arguments) {
  const Task task = block_task<kTensorRows>(arguments);
  if (task.first >= task.last) {
    store_nothing(arguments, task);
    return;
  }
  auto* queries = simt::shared_memory<simt::U32x4>();
  stage_queries<kFormat, kHeadDim>(arguments.params, task, queries);
  simt::syncblock();
  TensorWarp<kFormat, kHeadDim> warp(arguments, task);
  warp.attend(queries);
  simt::syncblock();  // the states take the place of the queries
  const BlockStates states =
      block_states(kWarps, task.n_rows, TensorShape<kFormat, kHeadDim>::kPitch);
  warp.leave_state(states);
  simt::syncblock();
  merge_and_store(arguments, task, states, kWarps);
}

/// Defined for each format in the .cu file of its width.
template <KvFormat kFormat>
void launch_tensor_kernel(const Arguments& arguments, Stream stream);

}  // namespace kvfathom::kernels::decode
