// Attention over a cache: storing K and V, masks, with and without FlashAttention.
#include <algorithm>
#include <variant>

#include "model/engine/llama_cpp/graph/builder.h"

namespace kvfathom::llama_cpp {

namespace {

constexpr std::int64_t kSmallestRotation = 64;

Affine row(DType type, const Affine& n) {
  return divide(n * info(type).block_bytes, info(type).block_elements);
}

const Attention* attention_of(const LayerSpec& layer) {
  if (const auto* a = std::get_if<Attention>(&layer.mixer)) {
    return a;
  }
  if (const auto* p = std::get_if<ParallelMixers>(&layer.mixer)) {
    return &p->attention;
  }
  return nullptr;
}

/// The head width that all layers of a cache share; 0: there is none.
struct HeadDims {
  std::int64_t k = 0;
  std::int64_t v = 0;
};

HeadDims common_head_dims(const ModelSpec& model,
                          CacheKind kind,
                          bool windows_apart,
                          bool expanded_latent) {
  HeadDims dims{-1, -1};
  for (const LayerSpec& layer : model.layers) {
    if (const auto* m = std::get_if<LatentAttention>(&layer.mixer);
        m != nullptr && expanded_latent) {
      dims = {m->qk_nope_head_dim + m->qk_rope_head_dim, m->v_head_dim};
    }
    const Attention* a = attention_of(layer);
    if (a == nullptr ||
        (windows_apart && a->window_tokens.has_value() != (kind == CacheKind::window))) {
      continue;
    }
    dims.k = dims.k == -1 || dims.k == a->head_dim ? a->head_dim : 0;
    dims.v = dims.v == -1 || dims.v == a->v_head_dim ? a->v_head_dim : 0;
  }
  return {std::max<std::int64_t>(dims.k, 0), std::max<std::int64_t>(dims.v, 0)};
}

}  // namespace

std::int64_t Builder::widest_v() const {
  std::int64_t widest = 0;
  for (const LayerSpec& layer : model.layers) {
    if (const Attention* a = attention_of(layer)) {
      widest = std::max(widest, a->v_head_dim * a->n_kv_heads);
    } else if (const auto* m = std::get_if<LatentAttention>(&layer.mixer)) {
      const bool expanded = settings.latent == CacheScheme::mla_expanded;
      widest = std::max(widest, expanded ? m->v_head_dim * m->n_heads : m->kv_lora_rank);
    }
  }
  return widest;
}

TensorId Builder::mask(CacheKind kind, DType type) {
  return graph.input(type, {cells(kind), n_tokens / n_streams, 1, n_streams});
}

CacheInputs Builder::common_inputs(CacheKind kind) {
  CacheInputs in;
  in.cells = cells(kind);
  in.k_rows = graph.input(DType::i64, {n_tokens, 1, 1, 1});
  in.mask = mask(kind, settings.flash_attention ? DType::f16 : DType::f32);
  return in;
}

bool Builder::fused_indexer(const Indexer& indexer) const {
  // the CUDA kernel's shapes and types (lightning-indexer.cu); the host runs any
  return settings.backend == Backend::cpu ||
         (indexer.head_dim == 128 && (indexer.n_heads == 64 || indexer.n_heads == 32) &&
          settings.type_k != DType::iq4_nl);
}

CacheInputs Builder::k_only_inputs(CacheKind kind) {
  return common_inputs(kind);
}

CacheInputs Builder::cache_inputs(CacheKind kind) {
  CacheInputs in = common_inputs(kind);
  const std::int64_t v_elements = settings.v_transposed ? n_tokens * widest_v() : n_tokens;
  in.v_rows = graph.input(DType::i64, {v_elements, 1, 1, 1});
  const bool expanded = settings.latent == CacheScheme::mla_expanded;
  HeadDims dims = common_head_dims(model, kind, true, expanded);
  if (dims.k == 0) {
    dims = common_head_dims(model, kind, false, expanded);
  }
  if (is_quantized(settings.type_k) && dims.k > 0 && dims.k % kSmallestRotation == 0) {
    std::int64_t n = kSmallestRotation;
    while (dims.k % (2 * n) == 0) {
      n *= 2;
    }
    in.k_rotation = graph.input(DType::f32, {n, n, 1, 1});
  }
  if (is_quantized(settings.type_v) && dims.v > 0 && dims.v % kSmallestRotation == 0) {
    in.v_rotation = graph.input(DType::f32, {kSmallestRotation, kSmallestRotation, 1, 1});
  }
  return in;
}

TensorId Builder::hadamard(TensorId x, TensorId rotation) {
  const Extents ne = graph[x].ne;
  const Affine n = graph[rotation].ne[0];
  const Affine rest = divide(n_elements(graph[x]), n.constant);
  const Extents flat{n, rest, 1, 1};
  const TensorId t = is_contiguous(graph[x]) ? graph.reshape(x, flat) : graph.cont(x, flat);
  return graph.reshape(graph.mul_mat(rotation, t), ne);
}

TensorId Builder::store(TensorId cache, TensorId rows, TensorId ids) {
  const TensorNode c = graph[cache];
  const TensorNode r = graph[rows];
  const Affine width = r.ne[0] * r.ne[1];
  const TensorId flat = graph.view(
      rows, {width, r.ne[2], 1, 1}, {r.nb[0], r.nb[2], r.nb[2] * r.ne[2], r.nb[2] * r.ne[2]});
  const TensorId to =
      n_streams > 1 ? graph.reshape(cache, {c.ne[0], c.ne[1] * n_streams, 1, 1}) : cache;
  return graph.set_rows(to, flat, ids);
}

TensorId Builder::store_v(const CacheInputs& cache, const CacheShape& shape, TensorId v) {
  const std::int64_t width = shape.v_head_dim * shape.n_kv_heads;
  const std::int64_t stored = settings.v_transposed ? widest_v() : width;
  const TensorId whole =
      graph.placed(settings.type_v, {stored, cache.cells, n_streams, 1}, Placement::device, false);
  if (!settings.v_transposed) {
    return store(whole, v, cache.v_rows);
  }
  const bool mergeable = graph[v].nb[2] == row(graph[v].type, width);
  TensorId rows = mergeable ? graph.reshape(v, {width, n_tokens, 1, 1})
                            : graph.cont(v, {width, n_tokens, 1, 1});
  if (width < stored) {
    rows = graph.pad(rows, {stored - width, 0, 0, 0});
  }
  const TensorId to = graph.reshape(whole, {1, cache.cells * (stored * n_streams), 1, 1});
  const TensorId column = graph.reshape(rows, {1, stored * n_tokens, 1, 1});
  return graph.set_rows(to, column, cache.v_rows);
}

TensorId Builder::cached_k(const CacheInputs& cache, const CacheShape& shape) {
  const DType type = settings.type_k;
  const std::int64_t width = shape.k_head_dim * shape.n_kv_heads;
  const TensorId whole =
      graph.placed(type, {width, cache.cells, n_streams, 1}, Placement::device, false);
  return graph.view(whole,
                    {shape.k_head_dim, shape.n_kv_heads, cache.cells, n_streams},
                    {info(type).block_bytes,
                     row(type, shape.k_head_dim),
                     row(type, width),
                     cache.cells * row(type, width)});
}

TensorId Builder::cached_v(const CacheInputs& cache, const CacheShape& shape) {
  const DType type = settings.type_v;
  const std::int64_t heads = shape.n_kv_heads;
  if (!settings.v_transposed) {
    const std::int64_t width = shape.v_head_dim * heads;
    const TensorId whole =
        graph.placed(type, {width, cache.cells, n_streams, 1}, Placement::device, false);
    return graph.view(whole,
                      {shape.v_head_dim, heads, cache.cells, n_streams},
                      {info(type).block_bytes,
                       row(type, shape.v_head_dim),
                       row(type, width),
                       cache.cells * row(type, width)});
  }
  const TensorId whole =
      graph.placed(type, {widest_v(), cache.cells, n_streams, 1}, Placement::device, false);
  const Affine column = cache.cells * info(type).block_bytes;
  return graph.view(
      whole,
      {cache.cells, heads, shape.v_head_dim, n_streams},
      {info(type).block_bytes, column * shape.v_head_dim, column, column * widest_v()});
}

TensorId Builder::attend(const CacheInputs& cache,
                         const CacheShape& shape,
                         Qkv x,
                         const AttendOptions& options,
                         bool k_before_v) {
  if (cache.k_rotation != kNoTensor) {
    x.q = hadamard(x.q, cache.k_rotation);
    x.k = x.k == kNoTensor ? x.k : hadamard(x.k, cache.k_rotation);
  }
  if (cache.v_rotation != kNoTensor && x.v != kNoTensor) {
    x.v = hadamard(x.v, cache.v_rotation);
  }
  graph.expand(x.q);
  for (const TensorId t : {k_before_v ? x.k : x.v, k_before_v ? x.v : x.k}) {
    if (t != kNoTensor) {
      graph.expand(t);
    }
  }
  if (x.k != kNoTensor) {
    store_k(cache, shape, x.k);
  }
  if (x.v != kNoTensor) {
    graph.expand(store_v(cache, shape, x.v));
  }
  const std::int64_t here = graph.layer();
  graph.set_layer(options.cache_of_layer >= 0 ? options.cache_of_layer : here);
  const TensorId k = cached_k(cache, shape);
  const TensorId v = cached_v(cache, shape);
  graph.set_layer(here);
  TensorId t = attend_core({x.q, k, v}, cache.mask, options, settings.v_transposed);
  if (cache.v_rotation != kNoTensor) {
    t = hadamard(t, cache.v_rotation);
  }
  return t;
}

TensorId Builder::attend_k_only(const CacheInputs& cache,
                                const CacheShape& shape,
                                Qkv x,
                                const AttendOptions& options) {
  for (const TensorId t : {x.q, x.v, x.k}) {
    graph.expand(t);
  }
  store_k(cache, shape, x.k);
  const TensorId k = cached_k(cache, shape);
  const TensorNode kn = graph[k];
  const TensorId v = graph.view(k, {shape.v_head_dim, kn.ne[1], kn.ne[2], kn.ne[3]}, kn.nb);
  const TensorId seen = options.chosen_cells == kNoTensor
                            ? cache.mask
                            : chosen_mask(cache.mask, options.chosen_cells);
  return attend_core({x.q, k, v}, seen, options, false);
}

/// The mask with all but the chosen cells masked out.
TensorId Builder::chosen_mask(TensorId mask, TensorId chosen) {
  const TensorId nothing = graph.like(Op::fill, mask);
  const TensorNode n = graph[nothing];
  const TensorId cells_as_rows =
      graph.view(nothing, {1, n.ne[0], n.ne[1], n.ne[3]}, {n.nb[0], n.nb[0], n.nb[1], n.nb[2]});
  const TensorNode c = graph[chosen];
  const TensorId ids = graph.view(
      chosen, {c.ne[0], c.ne[1], c.ne[3], 1}, {c.nb[0], c.nb[1], c.nb[2], c.ne[3] * c.nb[3]});
  // a leaf of every layer, so all of them are allocated before the pass begins
  const TensorId blank = graph.operation(Op::none, DType::f32, {1, c.ne[0], c.ne[1], c.ne[3]}, {});
  const TensorId zeros = graph.like(Op::fill, blank);
  const TensorId opened =
      graph.set_rows(cells_as_rows, zeros, ids);  // NOLINT(readability-suspicious-call-argument)
  const TensorNode o = graph[opened];
  const TensorId as_mask =
      graph.view(opened, {o.ne[1], o.ne[2], 1, o.ne[3]}, {o.nb[0], o.nb[2], o.nb[3], o.nb[3]});
  return graph.add(as_mask, mask);
}

void Builder::store_k(const CacheInputs& cache, const CacheShape& shape, TensorId k) {
  const TensorId whole =
      graph.placed(settings.type_k,
                   {shape.k_head_dim * shape.n_kv_heads, cache.cells, n_streams, 1},
                   Placement::device,
                   false);
  graph.expand(store(whole, k, cache.k_rows));
}

TensorId Builder::by_stream(TensorId x) {
  const TensorNode n = graph[x];
  return graph.view(x,
                    {n.ne[0], n.ne[1], divide(n.ne[2], n_streams), n_streams},
                    {n.nb[0], n.nb[1], n.nb[2], divide(n.nb[3], n_streams)});
}

TensorId Builder::attend_core(Qkv x,
                              TensorId mask,
                              const AttendOptions& options,
                              bool v_transposed) {
  x.q = graph.permute(by_stream(x.q), 0, 2, 1, 3);
  x.k = graph.permute(x.k, 0, 2, 1, 3);
  x.v = graph.permute(x.v, 0, 2, 1, 3);
  const TensorId sinks = options.sinks ? sink_weight(x.q) : kNoTensor;
  TensorId t = kNoTensor;
  if (settings.flash_attention && options.score_bias == kNoTensor) {
    x.v = v_transposed ? graph.transpose(x.v) : x.v;
    x.k = graph[x.k].type == DType::f32 ? graph.cast(x.k, DType::f16) : x.k;
    x.v = graph[x.v].type == DType::f32 ? graph.cast(x.v, DType::f16) : x.v;
    const TensorNode qn = graph[x.q];
    const Extents ne{graph[x.v].ne[0], qn.ne[2], qn.ne[1], qn.ne[3]};
    t = graph.operation(Op::flash_attention, DType::f32, ne, {x.q, x.k, x.v, mask, sinks});
    if (options.decompressed_v_dim > 0) {
      t = graph.permute(t, 0, 2, 1, 3);
      t = graph.project(t, options.decompressed_v_dim);
      t = graph.cont(graph.permute(t, 0, 2, 1, 3));
    }
    const Extents e = graph[t].ne;
    t = graph.reshape(t, {e[0] * e[1], e[2] * e[3], 1, 1});
  } else {
    const TensorId weights = masked_scores(x, mask, options);
    const TensorId v = v_transposed ? x.v : graph.cont(graph.transpose(x.v));
    t = graph.mul_mat(v, weights);
    if (options.decompressed_v_dim > 0) {
      t = graph.project(t, options.decompressed_v_dim);
    }
    t = graph.permute(t, 0, 2, 1, 3);
    const Extents e = graph[t].ne;
    t = graph.cont(t, {e[0] * e[1], e[2] * e[3], 1, 1});
  }
  graph.expand(t);
  return t;
}

/// One score per query head.
TensorId Builder::sink_weight(TensorId q) {
  return graph.layer_weight(DType::f32, {graph[q].ne[2], 1, 1, 1});
}

TensorId Builder::masked_scores(Qkv x, TensorId mask, const AttendOptions& options) {
  TensorId t = graph.mul_mat(x.k, x.q);
  if (options.softcap) {
    t = graph.scale(graph.unary(graph.scale(t)));
  }
  if (options.score_bias != kNoTensor) {
    t = graph.add(t, options.score_bias);
  }
  const TensorId sinks = options.sinks ? sink_weight(x.q) : kNoTensor;
  return graph.like(Op::soft_max, t, {mask, sinks});
}

}  // namespace kvfathom::llama_cpp
