// Work of one call from an operation's shape: the one place where a fit and a prediction agree on
// what is counted.
#pragma once

#include <cstdint>

#include "model/latency/law.h"
#include "model/ops/decode_attention.h"
#include "model/ops/mla_decode.h"
#include "model/ops/prefill_attention.h"

namespace kvfathom {

/// A wave is a round of one block for each KV head of each sequence.
[[nodiscard]] Work decode_attention_work(const DecodeAttentionShape& shape, std::int64_t n_units);

/// `n_sequences` equal chunks. The FLOPs are those of whole rounds of tiles of 128 queries: a round
/// that fills a part of the compute units lasts as long as a full one.
[[nodiscard]] Work prefill_attention_work(const PrefillAttentionShape& shape,
                                          std::int64_t n_sequences,
                                          std::int64_t n_units);

/// A wave is a round of one block for each sequence.
[[nodiscard]] Work mla_decode_work(const MlaDecodeShape& shape, std::int64_t n_units);

}  // namespace kvfathom
