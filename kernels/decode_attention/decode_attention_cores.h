// Decode attention on CUDA cores: for devices whose tensor cores lack the format, and as a second
// implementation that shares no arithmetic with the first.
//
// A group of 8, 16 or 32 lanes reads one token's row, eight elements a lane, and every value that
// is read meets all query heads of the block. Groups keep softmax states of their own, which meet
// in shared memory at the end.
#pragma once

#include "kernels/decode_attention/decode_attention_runs.h"

namespace kvfathom::kernels::decode {

/// Query heads of a block: their queries and outputs are in registers.
inline constexpr int kCoreRows = 4;
/// Tokens of a group that are on their way at once.
inline constexpr int kTokensInFlight = 4;
inline constexpr int kLaneElements = 8;

/// Eight elements of a row, as stored.
template <KvFormat kFormat>
struct RowPiece {
  static constexpr bool k16Bits = kFormat == KvFormat::f16 || kFormat == KvFormat::bf16;
  static constexpr bool k4Bits = kFormat == KvFormat::q4_0;
  static constexpr int kWords = k16Bits ? 4 : k4Bits ? 1 : 2;

  std::uint32_t words[kWords];
  float scale;

  /// Which element of the row a lane's i-th is.
  static constexpr int element(int lane, int i) {
    return k4Bits ? lane / 4 * kQuantBlock + lane % 4 * 4 + i % 4 + i / 4 * 16
                  : lane * kLaneElements + i;
  }

  SIMT_DEVICE void load(const KvPlane& plane, KvSlot slot, int kv_head, int lane) {
    const std::byte* from = row_data(plane, slot, kv_head) + lane * kWords * 4;
    if constexpr (k16Bits) {
      const auto piece = simt::ld_stream<simt::U32x4>(from);
      words[0] = piece.x, words[1] = piece.y, words[2] = piece.z, words[3] = piece.w;
    } else if constexpr (k4Bits) {
      words[0] = simt::ld_stream<std::uint32_t>(from);
    } else {
      const auto piece = simt::ld_stream<simt::U32x2>(from);
      words[0] = piece.x, words[1] = piece.y;
    }
    if constexpr (kFormat == KvFormat::q8_0 || kFormat == KvFormat::q4_0) {
      const auto* scales = reinterpret_cast<const F16*>(row_scales(plane, slot, kv_head));
      scale = to_f32(simt::ld(scales + lane * kLaneElements / kQuantBlock));
    } else if constexpr (kFormat == KvFormat::int8_token) {
      scale = simt::ld(reinterpret_cast<const float*>(row_scales(plane, slot, kv_head)));
    }
  }
  SIMT_DEVICE void clear() {
    SIMT_UNROLL for (int i = 0; i < kWords; ++i) {
      words[i] = 0;
    }
    scale = 0.0F;
  }

  /// The i-th of the lane's eight values (for fp8_e4m3 without the scale of its head).
  [[nodiscard]] SIMT_DEVICE float value(int i) const {
    if constexpr (k16Bits) {
      const auto bits = static_cast<std::uint16_t>(words[i / 2] >> 16 * (i % 2));
      return kFormat == KvFormat::f16 ? to_f32(F16{bits}) : to_f32(Bf16{bits});
    } else if constexpr (kFormat == KvFormat::q4_0) {
      return static_cast<float>(static_cast<int>(words[0] >> (i % 4 * 8 + i / 4 * 4) & 0xfU) - 8) *
             scale;
    } else {
      const auto byte = static_cast<std::uint8_t>(words[i / 4] >> 8 * (i % 4));
      return kFormat == KvFormat::fp8_e4m3
                 ? to_f32(Fp8E4m3{byte})
                 : static_cast<float>(static_cast<std::int8_t>(byte)) * scale;
    }
  }
};

/// The softmax states of one group of lanes, a state per query head.
template <KvFormat kFormat, int kGroupLanes>
class CoreGroup {
  using Piece = RowPiece<kFormat>;
  static constexpr int kGroups = kThreads / kGroupLanes;

 public:
  SIMT_DEVICE CoreGroup(const Arguments& arguments, const Task& task)
      : params_(arguments.params), task_(task) {
    float query_scale = params_.softmax_scale * kLog2E;
    if constexpr (kFormat == KvFormat::fp8_e4m3) {
      query_scale *=
          simt::ld(reinterpret_cast<const float*>(params_.cache.k.scales) + task_.kv_head);
      value_scale_ =
          simt::ld(reinterpret_cast<const float*>(params_.cache.v.scales) + task_.kv_head);
    }
    SIMT_UNROLL for (int row = 0; row < kCoreRows; ++row) {
      const std::int64_t head =
          static_cast<std::int64_t>(task_.sequence) * params_.n_heads + task_.first_head + row;
      const bool exists = row < task_.n_rows && owns_elements();
      SIMT_UNROLL for (int i = 0; i < kLaneElements; ++i) {
        queries_[row][i] =
            exists ? query_at(head * params_.head_dim + Piece::element(lane(), i)) * query_scale
                   : 0.0F;
        out_[row][i] = 0.0F;
      }
      largest_[row] = -INFINITY;
      sum_[row] = 0.0F;
    }
  }

  SIMT_DEVICE void attend() {
    for (int first = task_.first; first < task_.last; first += kGroups * kTokensInFlight) {
      Piece keys[kTokensInFlight];
      Piece values[kTokensInFlight];
      SIMT_UNROLL for (int i = 0; i < kTokensInFlight; ++i) {
        const int index = first + i * kGroups + group();
        if (index < task_.last && owns_elements()) {
          const KvSlot slot = task_.slot(params_.cache, index);
          keys[i].load(params_.cache.k, slot, task_.kv_head, lane());
          values[i].load(params_.cache.v, slot, task_.kv_head, lane());
        } else {
          keys[i].clear();
          values[i].clear();
        }
      }
      SIMT_UNROLL for (int row = 0; row < kCoreRows; ++row) {
        if (row < task_.n_rows) {  // the same in all threads
          attend_row(row, first, keys, values);
        }
      }
    }
  }

  /// Leaves the states for merge_and_store.
  SIMT_DEVICE void leave_states(const BlockStates& states) {
    SIMT_UNROLL for (int row = 0; row < kCoreRows; ++row) {
      if (row < task_.n_rows && owns_elements()) {
        const int state = group() * task_.n_rows + row;
        SIMT_UNROLL for (int i = 0; i < kLaneElements; ++i) {
          states.out[state * states.pitch + Piece::element(lane(), i)] =
              out_[row][i] * value_scale_;
        }
        if (lane() == 0) {
          states.max_sum[state * 2] = largest_[row];
          states.max_sum[state * 2 + 1] = sum_[row];
        }
      }
    }
  }

 private:
  SIMT_DEVICE static int lane() { return simt::lane_id() % kGroupLanes; }
  SIMT_DEVICE static int group() { return static_cast<int>(simt::thread_idx().x) / kGroupLanes; }
  /// Head sizes of 80, 96 and 192 leave the last lanes of a group without any.
  [[nodiscard]] SIMT_DEVICE bool owns_elements() const {
    return lane() * kLaneElements < params_.head_dim;
  }
  [[nodiscard]] SIMT_DEVICE float query_at(std::int64_t at) const {
    const std::uint16_t bits = simt::ld(params_.q + at);
    return kFormat == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
  }

  SIMT_DEVICE void attend_row(int row,
                              int first,
                              const Piece (&keys)[kTokensInFlight],
                              const Piece (&values)[kTokensInFlight]) {
    float scores[kTokensInFlight];
    float largest = largest_[row];
    SIMT_UNROLL for (int i = 0; i < kTokensInFlight; ++i) {
      float score = 0.0F;
      SIMT_UNROLL for (int j = 0; j < kLaneElements; ++j) {
        score += queries_[row][j] * keys[i].value(j);
      }
      SIMT_UNROLL for (int mask = kGroupLanes / 2; mask > 0; mask /= 2) {
        score += simt::shfl_xor(score, mask);
      }
      scores[i] = first + i * kGroups + group() < task_.last ? score : -INFINITY;
      largest = fmaxf(largest, scores[i]);
    }
    if (largest == -INFINITY) {  // no token yet for this group; the power would be NaN
      return;
    }
    const float correction = simt::exp2_fast(largest_[row] - largest);
    largest_[row] = largest;
    sum_[row] *= correction;
    SIMT_UNROLL for (int j = 0; j < kLaneElements; ++j) {
      out_[row][j] *= correction;
    }
    SIMT_UNROLL for (int i = 0; i < kTokensInFlight; ++i) {
      const float weight = simt::exp2_fast(scores[i] - largest);
      sum_[row] += weight;
      SIMT_UNROLL for (int j = 0; j < kLaneElements; ++j) {
        out_[row][j] += weight * values[i].value(j);
      }
    }
  }

  const DecodeAttentionParams& params_;
  const Task& task_;
  float value_scale_ = 1.0F;
  float queries_[kCoreRows][kLaneElements];
  float out_[kCoreRows][kLaneElements];
  float largest_[kCoreRows];
  float sum_[kCoreRows];
};

template <KvFormat kFormat, int kGroupLanes>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) cuda_core_kernel(Arguments arguments) {
  const Task task = block_task<kCoreRows>(arguments);
  if (task.first >= task.last) {
    store_nothing(arguments, task);
    return;
  }
  constexpr int kGroups = kThreads / kGroupLanes;
  CoreGroup<kFormat, kGroupLanes> group(arguments, task);
  group.attend();
  const BlockStates states = block_states(kGroups, task.n_rows, arguments.params.head_dim);
  group.leave_states(states);
  simt::syncblock();
  merge_and_store(arguments, task, states, kGroups);
}

}  // namespace kvfathom::kernels::decode
