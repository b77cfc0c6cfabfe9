#include "model/latency/kernel_work.h"

#include "model/rounding.h"

namespace kvfathom {

Work decode_attention_work(const DecodeAttentionShape& shape, std::int64_t n_units) {
  return work_of(decode_attention_cost(shape),
                 waves(shape.n_sequences * shape.n_kv_heads, n_units));
}

Work prefill_attention_work(const PrefillAttentionShape& shape,
                            std::int64_t n_sequences,
                            std::int64_t n_units) {
  constexpr std::int64_t kQueryTile = 128;
  const std::int64_t tiles = divide_up(shape.n_query_tokens, kQueryTile);
  const std::int64_t blocks = n_sequences * shape.n_heads * tiles;
  const double rounds = waves(blocks, n_units);
  const double padding = rounds * static_cast<double>(n_units) / static_cast<double>(blocks) *
                         static_cast<double>(tiles * kQueryTile) /
                         static_cast<double>(shape.n_query_tokens);
  Work work = work_of(prefill_attention_cost(shape), rounds);
  work.bytes = work.bytes * static_cast<double>(n_sequences);
  work.flops = work.flops * (static_cast<double>(n_sequences) * padding);
  return work;
}

Work mla_decode_work(const MlaDecodeShape& shape, std::int64_t n_units) {
  return work_of(mla_decode_cost(shape), waves(shape.n_sequences, n_units));
}

}  // namespace kvfathom
