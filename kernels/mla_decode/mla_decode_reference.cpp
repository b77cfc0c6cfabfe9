#include <cmath>
#include <vector>

#include "kernels/mla_decode/mla_decode.h"
#include "kernels/mla_decode/mla_fp8_row.h"

namespace kvfathom::kernels {
namespace {

std::vector<double> k_row(const MlaDecodeParams& params, int sequence, int token) {
  const std::byte* row = row_data(params.cache.k, slot_of(params.cache, sequence, token), 0);
  if (params.cache.format == KvFormat::fp8_e4m3) {
    return decode_mla_fp8_row(row);
  }
  return decode_row(KvFormat::bf16, params.kv_lora_rank + params.qk_rope_head_dim, row, nullptr);
}

std::vector<double> v_row(const MlaDecodeParams& params, int sequence, int token) {
  if (params.cache.v.data == nullptr) {
    std::vector<double> row = k_row(params, sequence, token);
    row.resize(params.kv_lora_rank);
    return row;
  }
  const std::byte* row = row_data(params.cache.v, slot_of(params.cache, sequence, token), 0);
  return decode_row(KvFormat::bf16, params.kv_lora_rank, row, nullptr);
}

void one_head(const MlaDecodeParams& params,
              int sequence,
              int head,
              const MlaDecodeReference& result) {
  const int length = length_of(params.cache, sequence, 0);
  const int k_dim = params.kv_lora_rank + params.qk_rope_head_dim;
  const std::int64_t row = static_cast<std::int64_t>(sequence) * params.n_heads + head;
  const std::uint16_t* q = params.q + row * k_dim;
  double* out = result.out + row * params.kv_lora_rank;
  double* weighted_abs_v = result.weighted_abs_v + row * params.kv_lora_rank;

  std::vector<double> scores(length);
  double largest = -INFINITY;
  double largest_abs = 0.0;
  for (int token = 0; token < length; ++token) {
    const std::vector<double> k = k_row(params, sequence, token);
    double score = 0.0;
    double magnitude = 0.0;
    for (int i = 0; i < k_dim; ++i) {
      const double product = to_f32(Bf16{q[i]}) * k[i];
      score += product;
      magnitude += std::fabs(product);
    }
    scores[token] = score * params.softmax_scale;
    largest = std::fmax(largest, scores[token]);
    largest_abs = std::fmax(largest_abs, magnitude * std::fabs(params.softmax_scale));
  }
  double denominator = 0.0;
  for (const double score : scores) {
    denominator += std::exp(score - largest);
  }
  for (int i = 0; i < params.kv_lora_rank; ++i) {
    out[i] = 0.0;
    weighted_abs_v[i] = 0.0;
  }
  for (int token = 0; token < length; ++token) {
    const double weight = std::exp(scores[token] - largest) / denominator;
    const std::vector<double> v = v_row(params, sequence, token);
    for (int i = 0; i < params.kv_lora_rank; ++i) {
      out[i] += weight * v[i];
      weighted_abs_v[i] += weight * std::fabs(v[i]);
    }
  }
  result.largest_abs_score[row] = largest_abs;
}

}  // namespace

void mla_decode_reference(const MlaDecodeParams& params, const MlaDecodeReference& result) {
  for (int sequence = 0; sequence < params.cache.n_sequences; ++sequence) {
    for (int head = 0; head < params.n_heads; ++head) {
      one_head(params, sequence, head, result);
    }
  }
}

}  // namespace kvfathom::kernels
