#include "model/engine/llama_cpp/graph/recurrent.h"

namespace kvfathom::llama_cpp {

namespace {

constexpr std::int64_t kF32 = 4;

/// A view with the strides of the third axis carried on to the fourth (ggml_view_3d).
TensorId view3(TensorGraph& g,
               TensorId a,
               const Extents& ne,
               const Affine& nb1,
               const Affine& nb2,
               const Affine& offset = 0) {
  return g.view(a, ne, {g[a].nb[0], nb1, nb2, nb2 * ne[2]}, offset);
}

/// Part of every row of [width, tokens, sequences] as [dim, heads, tokens, sequences].
TensorId heads_of(
    TensorGraph& g, TensorId rows, std::int64_t dim, std::int64_t heads, std::int64_t first) {
  const TensorNode r = g[rows];
  return g.view(rows,
                {dim, heads, r.ne[1], r.ne[2]},
                {r.nb[0], r.nb[0] * dim, r.nb[1], r.nb[2]},
                r.nb[0] * first);
}

}  // namespace

StateInputs state_inputs(Builder& b) {
  TensorGraph& g = b.graph;
  const std::int64_t n = b.n_sequences;
  const TensorId ids = g.input(DType::i32, {n, 1, 1, 1});
  const Affine element = g[ids].nb[0];
  const Extents one_row{element, element * n, element * n, element * n};
  const Extents no_row{element, 0, 0, 0};
  StateInputs in;
  in.running = g.view(ids, {n, 1, 1, 1}, one_row);
  in.moving = g.view(ids, {0, 1, 1, 1}, no_row, element * n);
  return in;
}

std::int64_t tokens_per_sequence(const Builder& b) {
  return b.n_tokens / b.n_sequences;
}

TensorId state_tensor(Builder& b, std::int64_t width) {
  return b.graph.placed(DType::f32, {width, b.n_sequences, 1, 1}, Placement::device, false);
}

TensorId read_state(Builder& b, const StateInputs& in, TensorId all, const ReadState& read) {
  TensorGraph& g = b.graph;
  const Affine width = g[all].ne[0];
  const Affine row = g[all].nb[1];
  const TensorId states = g.reshape(all, {width, b.n_sequences, 1, 1});
  // a fresh sequence starts from one state that is set to zero in place
  const TensorId fresh = g.view(states, {width, 1, 1, 1}, {g[all].nb[0], row, row, row});
  const TensorId cleared = g.view(fresh, g[fresh].ne, g[fresh].nb);
  g[cleared].op = Op::scale;
  g.expand(cleared);
  const TensorId result = read ? read(states, in.running) : g.get_rows(states, in.running);
  g.expand(result);
  const TensorId moved = g.get_rows(states, in.moving);
  const TensorId to = g.view(all, {width, 0, 1, 1}, {g[all].nb[0], row, 0, 0}, row * b.n_sequences);
  g.expand(g.copy_to(moved, to));
  return result;
}

void write_state(Builder& b, TensorId source, TensorId all) {
  TensorGraph& g = b.graph;
  const TensorNode a = g[all];
  const TensorId to = g.view(all, a.ne, a.nb);
  g.expand(g.copy_to(source, to));
}

TensorId convolution_input(
    Builder& b, const StateInputs& in, TensorId x, std::int64_t channels, std::int64_t d_conv) {
  TensorGraph& g = b.graph;
  const std::int64_t n_seq = b.n_sequences;
  const TensorId all = state_tensor(b, (d_conv - 1) * channels);
  const TensorId past = g.reshape(read_state(b, in, all), {d_conv - 1, channels, n_seq, 1});
  const TensorId input = g.concat(past, g.transpose(x), 0);
  const TensorNode n = g[input];
  const TensorId last = view3(g,
                              input,
                              {d_conv - 1, channels, n_seq, 1},
                              n.nb[1],
                              n.nb[2],
                              n.nb[0] * tokens_per_sequence(b));
  write_state(b, last, all);
  return input;
}

TensorId convolve(Builder& b, TensorId input, std::int64_t d_conv) {
  TensorGraph& g = b.graph;
  const TensorNode n = g[input];
  const TensorId kernel = g.layer_weight(DType::f32, {d_conv, n.ne[1], 1, 1});
  return g.operation(
      Op::ssm_conv, DType::f32, {n.ne[1], n.ne[0] - (d_conv - 1), n.ne[2], 1}, {input, kernel});
}

TensorId mamba2_layer(Builder& b, const StateInputs& in, const Mamba2& m, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t n_seq = b.n_sequences;
  const std::int64_t tokens = tokens_per_sequence(b);
  const std::int64_t head_dim = m.d_inner / m.n_heads;
  const std::int64_t channels = m.d_inner + 2 * m.n_groups * m.d_state;
  // the gate z, what passes the convolution (x, B, C), and the time steps
  const TensorId all = g.reshape(g.project(x, m.d_inner + channels + m.n_heads),
                                 {m.d_inner + channels + m.n_heads, tokens, n_seq, 1});
  const TensorNode a = g[all];
  const TensorId z = heads_of(g, all, head_dim, m.n_heads, 0);
  const TensorId mixed =
      view3(g, all, {channels, tokens, n_seq, 1}, a.nb[1], a.nb[2], a.nb[0] * m.d_inner);
  const TensorId steps = view3(
      g, all, {m.n_heads, tokens, n_seq, 1}, a.nb[1], a.nb[2], a.nb[0] * (m.d_inner + channels));

  TensorId t = convolve(b, convolution_input(b, in, mixed, channels, m.d_conv), m.d_conv);
  t = g.unary(m.conv_bias ? b.bias(t) : t);
  const TensorId values = heads_of(g, t, head_dim, m.n_heads, 0);
  const TensorId keys = heads_of(g, t, m.d_state, m.n_groups, m.d_inner);
  const TensorId queries =
      heads_of(g, t, m.d_state, m.n_groups, m.d_inner + m.n_groups * m.d_state);
  const TensorId dt = b.bias(g.cont(steps));

  const TensorId states = state_tensor(b, m.d_state * m.d_inner);
  const std::int64_t y_elements = m.d_inner * tokens * n_seq;
  const std::int64_t state_elements = m.d_state * m.d_inner * n_seq;
  const TensorId scan = read_state(b, in, states, [&](TensorId rows, TensorId ids) {
    const TensorId s = g.reshape(rows, {m.d_state, head_dim, m.n_heads, n_seq});
    const TensorId decay = g.layer_weight(DType::f32, {1, m.n_heads, 1, 1});
    return g.operation(Op::ssm_scan,
                       DType::f32,
                       {y_elements + state_elements, 1, 1, 1},
                       {s, values, dt, decay, keys, queries, ids});
  });
  write_state(
      b,
      g.view(scan,
             {m.d_state * m.d_inner, n_seq, 1, 1},
             {kF32, kF32 * m.d_state * m.d_inner, kF32 * state_elements, kF32 * state_elements},
             kF32 * y_elements),
      states);
  const Affine row = g[values].nb[1];
  const TensorId y = g.view(scan,
                            {head_dim, m.n_heads, tokens, n_seq},
                            {kF32, row, row * m.n_heads, row * (m.n_heads * tokens)});
  const TensorId skip = g.layer_weight(DType::f32, {1, m.n_heads, 1, 1});
  const TensorId skipped = g.add(y, g.mul(values, skip));
  TensorId out = g.glu(g.cont(z), skipped);
  if (m.norm) {
    out = b.norm(g.reshape(out, {m.d_inner / m.n_groups, m.n_groups, tokens, n_seq}));
  }
  return g.project(g.reshape(out, {m.d_inner, b.n_tokens, 1, 1}), b.model.hidden_size);
}

TensorId mamba_layer(Builder& b, const StateInputs& in, const Mamba& m, TensorId x) {
  TensorGraph& g = b.graph;
  const std::int64_t n_seq = b.n_sequences;
  const std::int64_t tokens = tokens_per_sequence(b);
  const TensorId x3 = g.reshape(x, {b.model.hidden_size, tokens, n_seq, 1});
  const TensorId both = g.project(x3, 2 * m.d_inner);
  const TensorNode n = g[both];
  const TensorId mixed = view3(g, both, {m.d_inner, tokens, n_seq, 1}, n.nb[1], n.nb[2]);
  const TensorId z =
      view3(g, both, {m.d_inner, tokens, n_seq, 1}, n.nb[1], n.nb[2], n.nb[0] * m.d_inner);
  TensorId t = convolve(b, convolution_input(b, in, mixed, m.d_inner, m.d_conv), m.d_conv);
  t = g.unary(b.bias(t));

  const TensorId low = g.project(t, m.dt_rank + 2 * m.d_state);
  const TensorNode l = g[low];
  TensorId dt = view3(g, low, {m.dt_rank, tokens, n_seq, 1}, l.nb[1], l.nb[2]);
  const auto group = [&](std::int64_t first) {
    return g.view(low,
                  {m.d_state, 1, tokens, n_seq},
                  {l.nb[0], l.nb[0] * m.d_state, l.nb[1], l.nb[2]},
                  l.nb[0] * first);
  };
  TensorId keys = group(m.dt_rank);
  TensorId queries = group(m.dt_rank + m.d_state);
  if (m.dt_b_c_norm) {
    // Falcon-Mamba's norms have no weights, Jamba's have
    const bool weighted = b.model.architecture != "mamba";
    const auto normed = [&](TensorId v) {
      if (weighted) {
        return b.norm(v, NormKind::rms);
      }
      const TensorId r = g.rms_norm(v);
      g[r].pinned_to_device = true;
      return r;
    };
    dt = normed(dt);
    keys = normed(keys);
    queries = normed(queries);
  }
  dt = b.bias(g.project(dt, m.d_inner));
  const TensorId values = g.reshape(t, {1, m.d_inner, tokens, n_seq});

  const TensorId states = state_tensor(b, m.d_state * m.d_inner);
  const std::int64_t y_elements = m.d_inner * tokens * n_seq;
  const std::int64_t state_elements = m.d_state * m.d_inner * n_seq;
  const TensorId decay =
      g.placed(DType::f32, {m.d_state, m.d_inner, 1, 1}, Placement::device, true);
  const TensorId scan = read_state(b, in, states, [&](TensorId rows, TensorId ids) {
    const TensorId s = g.reshape(rows, {m.d_state, 1, m.d_inner, n_seq});
    return g.operation(Op::ssm_scan,
                       DType::f32,
                       {y_elements + state_elements, 1, 1, 1},
                       {s, values, dt, decay, keys, queries, ids});
  });
  const Extents flat{kF32, kF32 * state_elements, kF32 * state_elements, kF32 * state_elements};
  write_state(b, g.view(scan, {state_elements, 1, 1, 1}, flat, kF32 * y_elements), states);
  const TensorNode v = g[values];
  const TensorId y = view3(g, scan, {m.d_inner, tokens, n_seq, 1}, v.nb[2], v.nb[3]);
  const TensorId skip = g.layer_weight(DType::f32, {m.d_inner, 1, 1, 1});
  const TensorId skipped = g.add(y, g.mul(t, skip));
  const TensorId out = g.project(g.glu(g.cont(z), skipped), b.model.hidden_size);
  return g.reshape(out, {b.model.hidden_size, b.n_tokens, 1, 1});
}

TensorId delta_rule(Builder& b, const DeltaNetOperands& x, TensorId all) {
  TensorGraph& g = b.graph;
  const TensorNode v = g[x.v];
  const std::int64_t dim = v.ne[0].constant;
  const std::int64_t heads = v.ne[1].constant;
  const std::int64_t tokens = v.ne[2].constant;
  const std::int64_t n_seq = v.ne[3].constant;
  const std::int64_t row = kF32 * dim;
  const TensorId out = g.operation(Op::gated_delta_net,
                                   DType::f32,
                                   {dim * heads, tokens * n_seq + dim * n_seq, 1, 1},
                                   {x.q, x.k, x.v, x.gate, x.beta, x.state});
  const TensorId result =
      g.view(out, {dim, heads, tokens, n_seq}, {kF32, row, row * heads, row * (heads * tokens)});
  const TensorId state = g.view(out,
                                {dim, dim, heads, n_seq},
                                {kF32, row, row * dim, row * (dim * heads)},
                                row * (heads * tokens * n_seq));
  write_state(b, state, all);
  return result;
}

}  // namespace kvfathom::llama_cpp
