// Mixture of experts: routing, the experts, and their weighted sum.
#include <vector>

#include "model/engine/llama_cpp/graph/builder.h"

namespace kvfathom::llama_cpp {

TensorId Builder::grouped_probabilities(TensorId probabilities,
                                        const MixtureOfExperts& moe,
                                        const MoeOptions& options) {
  const std::int64_t per_group = moe.n_experts / options.n_groups;
  const Affine rows = graph[probabilities].ne[1];
  const TensorId groups = graph.reshape(probabilities, {per_group, options.n_groups, rows, 1});
  const TensorId best_two = graph.argsort_top_k(groups, 2);
  TensorId scores =
      graph.get_rows(graph.reshape(groups, {1, per_group, options.n_groups, rows}), best_two);
  scores = graph.sum_rows(graph.reshape(scores, {2, options.n_groups, rows, 1}));
  scores = graph.reshape(scores, {options.n_groups, rows, 1, 1});
  const TensorId chosen = graph.argsort_top_k(scores, options.n_groups_used);
  const TensorId kept = graph.get_rows(groups, chosen);
  const TensorId masked = graph.set_rows(graph.like(Op::fill, groups), kept, chosen);
  return graph.reshape(masked, {moe.n_experts, rows, 1, 1});
}

TensorId Builder::choose_experts(TensorId probabilities,
                                 const MixtureOfExperts& moe,
                                 const MoeOptions& options) {
  TensorId t = probabilities;
  if (options.selection_bias) {
    t = bias(t);
  }
  if (options.n_groups > 1) {
    t = grouped_probabilities(t, moe, options);
  }
  return graph.argsort_top_k(t, moe.n_experts_per_token);
}

TensorId Builder::expert_weights(TensorId probabilities,
                                 TensorId chosen,
                                 const MixtureOfExperts& moe,
                                 const MoeOptions& options) {
  const std::int64_t used = moe.n_experts_per_token;
  const Affine rows = graph[probabilities].ne[1];
  TensorId t = graph.reshape(probabilities, {1, moe.n_experts, rows, 1});
  t = graph.get_rows(t, chosen);
  const auto as_rows = [&](TensorId w) { return graph.reshape(w, {used, rows, 1, 1}); };
  const auto as_columns = [&](TensorId w) { return graph.reshape(w, {1, used, rows, 1}); };
  if (options.gating == ExpertGating::softmax_over_chosen) {
    t = as_columns(graph.like(Op::soft_max, as_rows(t)));
  }
  if (options.normalise_weights) {
    t = as_rows(t);
    const TensorId sum = graph.clamp(graph.sum_rows(t));
    t = as_columns(graph.like(Op::div, t, {sum}));
  }
  return options.scale_weights ? graph.scale(t) : t;
}

TensorId Builder::run_experts(TensorId x,
                              TensorId chosen,
                              const MixtureOfExperts& moe,
                              const MoeOptions& options) {
  const auto times = [&](TensorId t, std::int64_t n_out, MatrixRole role) {
    const TensorId product = graph.mul_mat_id(t, chosen, n_out, role);
    return options.expert_bias ? graph.add_expert_bias(product, chosen, moe.n_experts, role)
                               : product;
  };
  const std::int64_t width = moe.intermediate_size;
  TensorId t = kNoTensor;
  if (options.merged_gate_up) {
    const TensorId both = times(x, 2 * width, MatrixRole::gate_and_up);
    const TensorNode b = graph[both];
    const Extents ne{width, b.ne[1], b.ne[2], 1};
    const Extents nb{b.nb[0], b.nb[1], b.nb[2], b.nb[2] * b.ne[2]};
    const TensorId gate = graph.view(both, ne, nb);
    t = graph.glu(gate, graph.view(both, ne, nb, b.nb[0] * width));
  } else {
    const TensorId up = times(x, width, MatrixRole::up);
    t = options.gated ? graph.glu(times(x, width, MatrixRole::gate), up)
                      : activate(up, options.activation);
  }
  return times(t, graph[x].ne[0].constant, MatrixRole::down);
}

TensorId Builder::experts(TensorId x, const MixtureOfExperts& moe, const MoeOptions& options) {
  const std::int64_t width = graph[x].ne[0].constant;
  const std::int64_t used = moe.n_experts_per_token;
  const Affine rows = graph[x].ne[1];  // fewer than n_tokens in the last layer
  TensorId router = options.logits == kNoTensor
                        ? graph.project(x, moe.n_experts, MatrixRole::gate)  // ffn_gate_inp
                        : options.logits;
  router = options.router_bias ? bias(router) : router;
  TensorId probabilities = router;
  if (options.gating == ExpertGating::softmax) {
    probabilities = graph.like(Op::soft_max, router);
  } else if (options.gating == ExpertGating::sigmoid) {
    probabilities = graph.unary(router);
  }
  // Llama-4 chooses by the raw scores
  const TensorId chosen =
      choose_experts(options.weight_before_experts ? router : probabilities, moe, options);
  const TensorId weights = expert_weights(probabilities, chosen, moe, options);
  graph.expand(weights);

  TensorId t = graph.reshape(x, {width, 1, rows, 1});
  if (options.weight_before_experts) {
    t = graph.mul(graph.repeat(t, {width, used, rows, 1}), weights);
  }
  t = run_experts(t, chosen, moe, options);
  if (!options.weight_before_experts) {
    t = graph.mul(t, weights);
  }
  graph.expand(t);

  const TensorNode all = graph[t];
  std::vector<TensorId> parts;
  for (std::int64_t i = 0; i < used; ++i) {
    parts.push_back(graph.view(t,
                               {width, all.ne[2], 1, 1},
                               {all.nb[0], all.nb[2], all.nb[2] * all.ne[2], all.nb[2] * all.ne[2]},
                               all.nb[1] * i));
    graph.expand(parts.back());
  }
  TensorId sum = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) {
    sum = graph.add(sum, parts[i]);
    graph.expand(sum);
  }
  return used == 1 ? graph.cont(sum) : sum;
}

}  // namespace kvfathom::llama_cpp
