// Predicted heads by the definition, in double.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/head_reconstruction/head_reconstruction.h"

namespace kvfathom::kernels {
namespace {

double number(const HeadReconstructionParams& p, const void* element) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, element, sizeof bits);
  return p.cache.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
}

struct Row {
  std::vector<double> values;
  std::vector<double> magnitude;  // sum |M x| + |beta|, or |value| of a row that is had exactly
};

std::vector<double> stored_row(
    const HeadReconstructionParams& p, const KvPlane& plane, int sequence, int token, int head) {
  std::vector<double> row;
  const std::byte* data = row_data(plane, slot_of(p.cache, sequence, token), head);
  for (int d = 0; d < p.head_dim; ++d) {
    row.push_back(number(p, data + 2 * d));
  }
  return row;
}

/// The row of a KV head: stored, exact, or predicted.
Row head_row(const HeadReconstructionParams& p,
             const HeadSources& side,
             const KvPlane& plane,
             int sequence,
             int token,
             int kv_head) {
  const int dim = p.head_dim;
  const int n = p.cache.lengths[sequence];
  const std::int32_t* stored = side.stored + kv_head * side.max_references;
  Row row;
  if (side.map_of_head[kv_head] == 0) {
    row.values = stored_row(p, plane, sequence, token, stored[0]);
  } else if (const int map = side.map_of_head[kv_head] - 1;
             token < p.n_first || token >= n - p.n_last) {
    const std::int64_t slot = token < p.n_first ? token : p.n_first + token - (n - p.n_last);
    const std::int64_t at =
        ((static_cast<std::int64_t>(sequence) * (p.n_first + p.n_last) + slot) * side.n_maps +
         map) *
        dim;
    for (int d = 0; d < dim; ++d) {
      row.values.push_back(number(p, side.exact + at + d));
    }
  } else {
    const int stride = side.max_references * dim;
    for (int d = 0; d < dim; ++d) {
      double value = side.bias[map * dim + d];
      double magnitude = std::fabs(value);
      for (int reference = 0; reference < side.n_stored[kv_head]; ++reference) {
        const std::vector<double> x = stored_row(p, plane, sequence, token, stored[reference]);
        for (int i = 0; i < dim; ++i) {
          const double weight =
              number(p,
                     side.maps + (static_cast<std::int64_t>(map) * dim + d) * stride +
                         reference * dim + i);
          value += weight * x[i];
          magnitude += std::fabs(weight * x[i]);
        }
      }
      row.values.push_back(value);
      row.magnitude.push_back(magnitude);
    }
    return row;
  }
  for (const double value : row.values) {
    row.magnitude.push_back(std::fabs(value));
  }
  return row;
}

}  // namespace

void head_rows_reference(const HeadReconstructionParams& p,
                         HeadSide which,
                         const HeadRowsReference& result) {
  const bool keys = which == HeadSide::keys;
  const HeadSources& side = keys ? p.k : p.v;
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    for (int token = 0; token < p.cache.lengths[sequence]; ++token) {
      const bool exact = token < p.n_first || token >= p.cache.lengths[sequence] - p.n_last;
      for (int head = 0; head < p.n_kv_heads; ++head) {
        if (side.map_of_head[head] == 0) {
          continue;
        }
        const Row row = head_row(p, side, keys ? p.cache.k : p.cache.v, sequence, token, head);
        const std::int64_t at =
            ((static_cast<std::int64_t>(sequence) * p.token_capacity + token) * side.n_maps +
             side.map_of_head[head] - 1) *
            p.head_dim;
        for (int d = 0; d < p.head_dim; ++d) {
          result.rows[at + d] = row.values[d];
          result.magnitude[at + d] = exact ? 0.0 : row.magnitude[d];
        }
      }
    }
  }
}

void head_decode_reference(const HeadReconstructionParams& p, const HeadDecodeReference& result) {
  const int dim = p.head_dim;
  const int group = p.n_heads / p.n_kv_heads;
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    const int n = p.cache.lengths[sequence];
    for (int kv_head = 0; kv_head < p.n_kv_heads; ++kv_head) {
      std::vector<Row> keys;
      std::vector<Row> values;
      for (int token = 0; token < n; ++token) {
        keys.push_back(head_row(p, p.k, p.cache.k, sequence, token, kv_head));
        values.push_back(head_row(p, p.v, p.cache.v, sequence, token, kv_head));
      }
      for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const std::int64_t row = static_cast<std::int64_t>(sequence) * p.n_heads + head;
        std::vector<double> scores(static_cast<std::size_t>(n));
        double largest = -INFINITY;
        double magnitude = 0.0;
        for (int token = 0; token < n; ++token) {
          double absolute = 0.0;
          for (int d = 0; d < dim; ++d) {
            const double q = number(p, p.q + row * dim + d) * p.softmax_scale;
            scores[token] += q * keys[token].values[d];
            absolute += std::fabs(q) * keys[token].magnitude[d];
          }
          largest = std::max(largest, scores[token]);
          magnitude = std::max(magnitude, absolute);
        }
        double sum = 0.0;
        for (double& score : scores) {
          score = std::exp(score - largest);
          sum += score;
        }
        result.largest_abs_score[row] = magnitude;
        for (int d = 0; d < dim; ++d) {
          double out = 0.0;
          double weighted = 0.0;
          for (int token = 0; token < n; ++token) {
            out += scores[token] / sum * values[token].values[d];
            weighted += scores[token] / sum * values[token].magnitude[d];
          }
          result.out[row * dim + d] = out;
          result.weighted_abs_v[row * dim + d] = weighted;
        }
      }
    }
  }
}

}  // namespace kvfathom::kernels
