// OpenBLAS does the product; what surrounds it is a few operations per element.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/parallel.h"
#include "kernels/common/weight_product.h"
#include "kernels/residual_recompute/residual_recompute.h"

namespace kvfathom::kernels {
namespace {

void widen_uniform(const StoredRows& rows, std::int64_t token, float* out) {
  const std::int64_t row_words = rows.n_columns / 32 * rows.bits;
  const auto* words = static_cast<const std::uint32_t*>(rows.data) + token * row_words;
  const bool by_channels = rows.axis == GroupAxis::channels;
  const std::int64_t groups =
      by_channels ? token * (rows.n_columns / kRowGroup) : token / kRowGroup * rows.n_columns;
  const std::uint64_t mask = (std::uint64_t{1} << rows.bits) - 1;
  for (int c = 0; c < rows.n_columns; ++c) {
    const int bit = c * rows.bits;
    const int word = bit / 32;
    const std::uint64_t next = word + 1 < row_words ? words[word + 1] : 0;
    const std::uint64_t code = (words[word] | next << 32) >> bit % 32 & mask;
    const std::int64_t group = groups + (by_channels ? c / kRowGroup : c);
    out[c] = to_f32(rows.minima[group]) + static_cast<float>(code) * to_f32(rows.steps[group]);
  }
}

void widen_row(const StoredRows& rows, std::int64_t token, float* out) {
  if (rows.format == RowFormat::uniform) {
    widen_uniform(rows, token, out);
    return;
  }
  const Bf16* from = static_cast<const Bf16*>(rows.data) + token * rows.n_columns;
  std::transform(from, from + rows.n_columns, out, [](Bf16 x) { return to_f32(x); });
}

/// Rows [first, first + count) of X as floats, normalised where there is a weight.
void prepare_rows(const ResidualRecomputeParams& p,
                  const StoredRows& rows,
                  std::int64_t first,
                  std::int64_t count,
                  int n_threads,
                  std::vector<float>& out) {
  out.resize(count * rows.n_columns);
  parallel_shares(n_threads, count, [&](int, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* row = out.data() + i * rows.n_columns;
      widen_row(rows, first + i, row);
      if (p.norm_weight != nullptr) {
        float squares = 0.0F;
        for (int c = 0; c < rows.n_columns; ++c) {
          squares += row[c] * row[c];
        }
        const float inverse =
            1.0F / std::sqrt(squares / static_cast<float>(rows.n_columns) + p.norm_epsilon);
        for (int c = 0; c < rows.n_columns; ++c) {
          row[c] *= inverse * to_f32(p.norm_weight[c]);
        }
      }
    }
  });
}

/// out [count, width] = rows times the weights from `first_weight` on.
void project(const ResidualRecomputeParams& p,
             const std::vector<float>& rows,
             std::int64_t count,
             std::int64_t first_weight,
             std::int64_t width,
             int n_threads,
             std::vector<float>& out) {
  const WeightMatrix weights{
      .format = WeightFormat::bf16,
      .n = width,
      .k = p.x.n_columns,
      .data = reinterpret_cast<const std::byte*>(p.weights + first_weight * p.x.n_columns)};
  out.resize(count * width);
  times_weights(weights, static_cast<int>(count), rows.data(), out.data(), n_threads);
}

void norm_heads(const ResidualRecomputeParams& p, int n_threads, std::vector<float>& k) {
  const int n = p.to.head_dim;
  parallel_shares(n_threads,
                  static_cast<std::int64_t>(k.size()) / n,
                  [&](int, std::int64_t begin, std::int64_t end) {
                    for (float* head = k.data() + begin * n; head != k.data() + end * n;
                         head += n) {
                      float squares = 0.0F;
                      for (int i = 0; i < n; ++i) {
                        squares += head[i] * head[i];
                      }
                      const float inverse =
                          1.0F / std::sqrt(squares / static_cast<float>(n) + p.k_norm_epsilon);
                      for (int i = 0; i < n; ++i) {
                        head[i] *= inverse * to_f32(p.k_norm_weight[i]);
                      }
                    }
                  });
}

}  // namespace

void residual_recompute_cpu(const ResidualRecomputeParams& p, int n_threads) {
  check_residual_recompute(p);
  const std::int64_t width = std::int64_t{p.to.cache.n_kv_heads} * p.to.head_dim;
  std::vector<float> rows;
  std::vector<float> k;
  std::vector<float> v;
  for (std::int64_t first = 0; first < p.to.n_tokens; first += p.chunk_tokens) {
    const std::int64_t count = std::min<std::int64_t>(p.chunk_tokens, p.to.n_tokens - first);
    prepare_rows(p, p.x, first, count, n_threads, rows);
    project(p, rows, count, 0, width, n_threads, k);
    if (p.x_v.data != nullptr) {
      prepare_rows(p, p.x_v, first, count, n_threads, rows);
    }
    project(p, rows, count, width, width, n_threads, v);
    if (p.k_norm_weight != nullptr) {
      norm_heads(p, n_threads, k);
    }
    cache_write_cpu(cache_write_of_chunk(p, first, count, Element::f32, k.data(), v.data()),
                    n_threads);
  }
}

}  // namespace kvfathom::kernels
