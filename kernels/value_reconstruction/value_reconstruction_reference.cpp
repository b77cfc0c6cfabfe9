// Values from keys by the definition, in double.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/value_reconstruction/value_reconstruction.h"

namespace kvfathom::kernels {
namespace {

double stored(const ValueReconstructionParams& p, const void* element) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, element, sizeof bits);
  return p.cache.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
}

/// A token's key row of all heads, before and after it is turned back; and the absolute parts.
struct KeyRow {
  std::vector<double> cached, turned_back, magnitude;
};
KeyRow key_row(const ValueReconstructionParams& p, int sequence, int token) {
  KeyRow row;
  for (int head = 0; head < p.cache.n_kv_heads; ++head) {
    const std::byte* data = row_data(p.cache.k, slot_of(p.cache, sequence, token), head);
    for (int d = 0; d < p.head_dim; ++d) {
      row.cached.push_back(stored(p, data + 2 * d));
    }
  }
  row.turned_back = row.cached;
  row.magnitude = row.cached;
  for (int i = 0; i < kv_width(p); ++i) {
    row.magnitude[i] = std::fabs(row.cached[i]);
    if (p.cos_sin == nullptr) {
      continue;
    }
    const int half = p.head_dim / 2;
    const int within = i % p.head_dim;
    const bool low = within < half;
    const int partner = low ? i + half : i - half;
    const float* turn = p.cos_sin + (static_cast<std::int64_t>(token) * half + within % half) * 2;
    const double cosine = turn[0];
    const double sine = turn[1];
    row.turned_back[i] = row.cached[i] * cosine + row.cached[partner] * (low ? sine : -sine);
    row.magnitude[i] = std::fabs(row.cached[i] * cosine) + std::fabs(row.cached[partner] * sine);
  }
  return row;
}

double projector_at(const ValueReconstructionParams& p, int from, int to) {
  return stored(p, p.projector + static_cast<std::int64_t>(from) * kv_width(p) + to);
}

}  // namespace

void value_rows_reference(const ValueReconstructionParams& p, const ValueRowsReference& result) {
  const int width = kv_width(p);
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    for (int token = 0; token < p.cache.lengths[sequence]; ++token) {
      const KeyRow key = key_row(p, sequence, token);
      const std::int64_t row =
          (static_cast<std::int64_t>(sequence) * p.token_capacity + token) * width;
      for (int to = 0; to < width; ++to) {
        double value = 0.0;
        double magnitude = 0.0;
        for (int from = 0; from < width; ++from) {
          value += key.turned_back[from] * projector_at(p, from, to);
          magnitude += key.magnitude[from] * std::fabs(projector_at(p, from, to));
        }
        result.values[row + to] = value;
        result.magnitude[row + to] = magnitude;
      }
    }
  }
}

void value_decode_reference(const ValueReconstructionParams& p,
                            const ValueDecodeReference& result) {
  const int width = kv_width(p);
  const int group = p.n_heads / p.cache.n_kv_heads;
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    const int n = p.cache.lengths[sequence];
    std::vector<KeyRow> keys;
    for (int token = 0; token < n; ++token) {
      keys.push_back(key_row(p, sequence, token));
    }
    for (int head = 0; head < p.n_heads; ++head) {
      const int kv_head = head / group;
      const std::int64_t row = static_cast<std::int64_t>(sequence) * p.n_heads + head;
      std::vector<double> scores(static_cast<std::size_t>(n));
      double largest = -INFINITY;
      double magnitude = 0.0;
      for (int token = 0; token < n; ++token) {
        double absolute = 0.0;
        for (int d = 0; d < p.head_dim; ++d) {
          const double product = stored(p, p.q + row * p.head_dim + d) *
                                 keys[token].cached[kv_head * p.head_dim + d] * p.softmax_scale;
          scores[token] += product;
          absolute += std::fabs(product);
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
      for (int d = 0; d < p.head_dim; ++d) {
        double out = 0.0;
        double weighted = 0.0;
        for (int token = 0; token < n; ++token) {
          double value = 0.0;
          double absolute = 0.0;
          for (int from = 0; from < width; ++from) {
            const double w = projector_at(p, from, kv_head * p.head_dim + d);
            value += keys[token].turned_back[from] * w;
            absolute += keys[token].magnitude[from] * std::fabs(w);
          }
          out += scores[token] / sum * value;
          weighted += scores[token] / sum * absolute;
        }
        result.out[row * p.head_dim + d] = out;
        result.weighted_abs_v[row * p.head_dim + d] = weighted;
      }
    }
  }
}

}  // namespace kvfathom::kernels
