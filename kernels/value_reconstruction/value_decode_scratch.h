// Where the passes of an absorbed decode leave their results for each other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/grouped_decode.h"
#include "kernels/value_reconstruction/value_reconstruction.h"

namespace kvfathom::kernels {

/// Byte offsets of the arrays, and their end.
struct ValueDecodeLayout {
  ValueDecodeLayout(const ValueReconstructionParams& p, int longest_tokens, int n_splits) {
    const std::int64_t rows = static_cast<std::int64_t>(p.cache.n_sequences) * p.n_heads;
    const std::int64_t scores = rows * round_to_eight(longest_tokens);
    sums_at = scores * 4;
    weights_at = sums_at + rows * n_splits * kv_width(p) * 4;
    end = weights_at + scores * 2;
  }
  std::int64_t sums_at, weights_at, end;
};

struct ValueDecodeScratch {
  ValueDecodeScratch(const ValueReconstructionParams& p,
                     int longest_tokens,
                     int n_splits,
                     void* memory) {
    const ValueDecodeLayout layout(p, longest_tokens, n_splits);
    auto* bytes = static_cast<std::byte*>(memory);
    scores = reinterpret_cast<float*>(bytes);
    sums = reinterpret_cast<float*>(bytes + layout.sums_at);
    weights = reinterpret_cast<std::uint16_t*>(bytes + layout.weights_at);
  }
  float* scores;           // [n_sequences, n_heads, tokens rounded to eight]
  float* sums;             // [n_splits, n_sequences, n_heads, kv_width]
  std::uint16_t* weights;  // as the scores, in the cache's element
};

}  // namespace kvfathom::kernels
