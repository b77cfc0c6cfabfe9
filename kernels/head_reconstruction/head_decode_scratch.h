// Where the passes of an absorbed decode leave their results for each other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/grouped_decode.h"
#include "kernels/head_reconstruction/head_reconstruction.h"

namespace kvfathom::kernels {

/// Byte offsets of the arrays, each a multiple of 16, and their end.
struct HeadDecodeLayout {
  HeadDecodeLayout(const HeadReconstructionParams& p, int longest_tokens, int n_splits) {
    const std::int64_t rows = static_cast<std::int64_t>(p.cache.n_sequences) * p.n_heads;
    const auto take = [this](std::int64_t bytes) {
      const std::int64_t at = end;
      end += (bytes + 15) / 16 * 16;
      return at;
    };
    scores_at = take(rows * round_to_eight(longest_tokens) * 4);
    weights_at = take(rows * round_to_eight(longest_tokens) * 2);
    queries_at = take(rows * p.k.max_references * p.head_dim * 2);
    sums_at = take(rows * n_splits * p.v.max_references * p.head_dim * 4);
    exact_at = take(rows * (p.n_first + p.n_last) * 4);
    bias_at = take(rows * 4);
    mass_at = take(rows * 4);
  }
  std::int64_t end = 0;
  std::int64_t scores_at, weights_at, queries_at, sums_at, exact_at, bias_at, mass_at;
};

struct HeadDecodeScratch {
  HeadDecodeScratch(const HeadReconstructionParams& p,
                    int longest_tokens,
                    int n_splits,
                    void* memory) {
    const HeadDecodeLayout layout(p, longest_tokens, n_splits);
    auto* bytes = static_cast<std::byte*>(memory);
    const auto floats = [&](std::int64_t at) { return reinterpret_cast<float*>(bytes + at); };
    const auto elements = [&](std::int64_t at) {
      return reinterpret_cast<std::uint16_t*>(bytes + at);
    };
    scores = floats(layout.scores_at);
    weights = elements(layout.weights_at);
    queries = elements(layout.queries_at);
    sums = floats(layout.sums_at);
    exact = floats(layout.exact_at);
    bias = floats(layout.bias_at);
    mass = floats(layout.mass_at);
  }
  float* scores;           // [n_sequences, n_heads, tokens rounded to eight]
  std::uint16_t* weights;  // the same, Element
  std::uint16_t* queries;  // [n_sequences, n_heads, k.max_references * head_dim] Element M^T q
  float* sums;             // [n_splits, n_sequences, n_heads, v.max_references * head_dim]
  float* exact;            // [n_sequences, n_heads, n_first + n_last] weights of exact tokens
  float* bias;             // [n_sequences, n_heads] q.beta
  float* mass;             // [n_sequences, n_heads] weight of all predicted tokens
};

}  // namespace kvfathom::kernels
