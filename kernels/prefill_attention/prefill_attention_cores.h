// Prefill attention on CUDA cores: for bf16 below sm_80 and where shared memory is short, and a
// second, independent implementation. Device code.
//
// A block owns 16 queries of one head, each of its four warps four of them. Tokens come in steps of
// 32 through shared memory: for the scores a lane owns a token, for the weighted sum columns.
#pragma once

#include "kernels/prefill_attention/prefill_attention_args.h"
#include "kernels/prefill_attention/prefill_attention_tile.h"

namespace kvfathom::kernels {

template <typename Element, int HeadDim>
class PrefillCoreBlock {
 public:
  using Layout = PrefillCoreLayout<HeadDim>;

  SIMT_DEVICE explicit PrefillCoreBlock(const PrefillArgs& args)
      : args_(args),
        share_(prefill_share(args, kPrefillWarps * kPrefillCoreQueries)),
        memory_(simt::shared_memory<unsigned char>()),
        thread_(static_cast<int>(simt::thread_idx().x)),
        warp_(thread_ / simt::kWarpSize),
        lane_(simt::lane_id()) {}

  SIMT_DEVICE void run() {
    if (share_.n_queries <= 0) {
      return;
    }
    load_queries();
    clear();
    for (int token = share_.first_token; token < share_.end_token; token += kPrefillCoreTokens) {
      simt::syncblock();  // nobody reads the last tile any more
      load_rows(args_.cache.k, Layout::kKeys, token);
      load_rows(args_.cache.v, Layout::kValues, token);
      simt::syncblock();
      float scores[kPrefillCoreQueries];
      score(scores);
      softmax(token, scores);
      simt::syncwarp();
      add_values();
    }
    store();
  }

 private:
  static constexpr int kColumns = (HeadDim + 31) / 32;  // of a lane: lane, lane + 32, ...
  static constexpr int kChunks = HeadDim / 8;           // 16 bytes

  SIMT_DEVICE float* queries() const {
    return reinterpret_cast<float*>(memory_ + Layout::kQueries) +
           warp_ * kPrefillCoreQueries * HeadDim;
  }
  SIMT_DEVICE float* weights() const {
    return reinterpret_cast<float*>(memory_ + Layout::kWeights) +
           warp_ * kPrefillCoreQueries * kPrefillCoreTokens;
  }
  SIMT_DEVICE int own_query(int i) const { return warp_ * kPrefillCoreQueries + i; }

  SIMT_DEVICE void load_queries() {
    constexpr int kPairs = HeadDim / 2;
    auto* to = reinterpret_cast<float*>(memory_ + Layout::kQueries);
    for (int i = thread_; i < kPrefillWarps * kPrefillCoreQueries * kPairs; i += kPrefillThreads) {
      const int query = i / kPairs;
      std::uint32_t pair = 0;
      if (query < share_.n_queries) {
        const std::uint16_t* row =
            args_.q + ((share_.first_row + query) * args_.n_heads + share_.head) * HeadDim;
        pair = simt::ld_stream<std::uint32_t>(row + i % kPairs * 2);
      }
      to[2 * i] = low_of(Element{}, pair);
      to[2 * i + 1] = high_of(Element{}, pair);
    }
  }
  SIMT_DEVICE void load_rows(const KvPlane& plane, int buffer, int first_token) {
    for (int i = thread_; i < kPrefillCoreTokens * kChunks; i += kPrefillThreads) {
      const int row = i / kChunks;
      const int chunk = i % kChunks;
      simt::U32x4 words{0, 0, 0, 0};
      if (first_token + row < share_.end_token) {
        const KvSlot slot = prefill_slot(args_.cache, share_.sequence, first_token + row);
        words = simt::ld_stream<simt::U32x4>(row_data(plane, slot, share_.kv_head) + chunk * 16);
      }
      *reinterpret_cast<simt::U32x4*>(memory_ + buffer + row * Layout::kPitch + chunk * 16) = words;
    }
  }

  SIMT_DEVICE void clear() {
    SIMT_UNROLL for (int i = 0; i < kPrefillCoreQueries; ++i) {
      max_[i] = -INFINITY;
      sum_[i] = 0.0F;
      SIMT_UNROLL for (int c = 0; c < kColumns; ++c) {
        out_[i][c] = 0.0F;
      }
    }
  }

  SIMT_DEVICE void score(float (&scores)[kPrefillCoreQueries]) const {
    SIMT_UNROLL for (int i = 0; i < kPrefillCoreQueries; ++i) {
      scores[i] = 0.0F;
    }
    const unsigned char* key = memory_ + Layout::kKeys + lane_ * Layout::kPitch;
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const auto words = *reinterpret_cast<const simt::U32x4*>(key + chunk * 16);
      const std::uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
      SIMT_UNROLL for (int e = 0; e < 4; ++e) {
        const float low = low_of(Element{}, pairs[e]);
        const float high = high_of(Element{}, pairs[e]);
        SIMT_UNROLL for (int i = 0; i < kPrefillCoreQueries; ++i) {
          const float* q = queries() + i * HeadDim + chunk * 8 + 2 * e;
          scores[i] += q[0] * low;
          scores[i] += q[1] * high;
        }
      }
    }
  }

  SIMT_DEVICE void softmax(int first_token, const float (&scores)[kPrefillCoreQueries]) {
    SIMT_UNROLL for (int i = 0; i < kPrefillCoreQueries; ++i) {
      const int position = share_.first_position + own_query(i);
      const bool seen = prefill_sees(args_, position, first_token + lane_);
      const float score = seen ? scores[i] * args_.scale_log2 : -INFINITY;
      const float largest = fmaxf(max_[i], simt::warp_max(score));
      const float base = largest == -INFINITY ? 0.0F : largest;
      const float shrink = simt::exp2_fast(max_[i] - base);
      const float weight = simt::exp2_fast(score - base);
      max_[i] = largest;
      sum_[i] = sum_[i] * shrink + simt::warp_sum(weight);
      weights()[i * kPrefillCoreTokens + lane_] = weight;
      SIMT_UNROLL for (int c = 0; c < kColumns; ++c) {
        out_[i][c] *= shrink;
      }
    }
  }

  SIMT_DEVICE void add_values() {
    for (int token = 0; token < kPrefillCoreTokens; ++token) {
      SIMT_UNROLL for (int c = 0; c < kColumns; ++c) {
        const int column = c * simt::kWarpSize + lane_;
        if (HeadDim % simt::kWarpSize == 0 || column < HeadDim) {
          const float v = low_of(Element{}, value_bits(token, column));
          SIMT_UNROLL for (int i = 0; i < kPrefillCoreQueries; ++i) {
            out_[i][c] += weights()[i * kPrefillCoreTokens + token] * v;
          }
        }
      }
    }
  }
  SIMT_DEVICE std::uint32_t value_bits(int token, int column) const {
    return *reinterpret_cast<const std::uint16_t*>(memory_ + Layout::kValues +
                                                   token * Layout::kPitch + column * 2);
  }

  SIMT_DEVICE void store() {
    SIMT_UNROLL for (int i = 0; i < kPrefillCoreQueries; ++i) {
      const int query = own_query(i);
      if (query < share_.n_queries) {
        std::uint16_t* out =
            args_.out + ((share_.first_row + query) * args_.n_heads + share_.head) * HeadDim;
        SIMT_UNROLL for (int c = 0; c < kColumns; ++c) {
          const int column = c * simt::kWarpSize + lane_;
          if (HeadDim % simt::kWarpSize == 0 || column < HeadDim) {
            const float value = sum_[i] > 0.0F ? out_[i][c] / sum_[i] : 0.0F;
            simt::st(out + column,
                     static_cast<std::uint16_t>(pack_of(Element{}, value, 0.0F) & 0xffffU));
          }
        }
      }
    }
  }

  const PrefillArgs& args_;
  PrefillShare share_;
  unsigned char* memory_;
  int thread_, warp_, lane_;
  float out_[kPrefillCoreQueries][kColumns];
  float max_[kPrefillCoreQueries], sum_[kPrefillCoreQueries];
};

template <typename Element, int HeadDim>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kPrefillThreads, 2) prefill_attention_cores(PrefillArgs args) {
  PrefillCoreBlock<Element, HeadDim>(args).run();
}

}  // namespace kvfathom::kernels
