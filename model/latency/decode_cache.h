// One decode step of a layer over its cache, by scheme; internal to model/latency.
#pragma once

#include "model/latency/emit.h"

namespace kvfathom::latency {

/// What the layer's scheme does to read, rebuild or dequantise K and V of every attended token.
void emit_decode_attention(const Emit& emit, const Attention& a, const LayerWork& layer);

/// The same of a latent layer: absorbed, beside its indexer where it has one, or expanded.
void emit_decode_latent(const Emit& emit, const LatentAttention& a, const LayerWork& layer);

/// Scores of `pairs` of a query and a cached token (of one sequence), for all the indexer's heads:
/// keys are read once, 2 heads head_dim FLOPs a pair.
void emit_index_scores(const Emit& emit, const Indexer& indexer, double pairs);

}  // namespace kvfathom::latency
