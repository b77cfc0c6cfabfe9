#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/common/parallel.h"
#include "kernels/common/weight_product.h"
#include "kernels/moe_ffn/moe_ffn.h"

namespace kvfathom::kernels {
namespace {

/// Which tokens chose an expert, and with what weight.
struct Chosen {
  int token;
  float weight;
};
using ChosenByExpert = std::vector<std::vector<Chosen>>;

void choose(const MoeFfnParams& p, int token, std::vector<float> scores, ChosenByExpert& chosen) {
  if (p.score == RouterScore::softmax) {
    const float largest = *std::max_element(scores.begin(), scores.end());
    float sum = 0.0F;
    for (float& score : scores) {
      score = std::exp(score - largest);
      sum += score;
    }
    for (float& score : scores) {
      score /= sum;
    }
  } else {
    for (float& score : scores) {
      score = 1.0F / (1.0F + std::exp(-score));
    }
  }
  std::vector<int> order(scores.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<int>(i);
  }
  const auto biased = [&](int expert) {
    return scores[expert] + (p.choice_bias != nullptr ? p.choice_bias[expert] : 0.0F);
  };
  std::partial_sort(order.begin(), order.begin() + p.n_chosen, order.end(), [&](int a, int b) {
    return biased(a) != biased(b) ? biased(a) > biased(b) : a < b;
  });
  float sum = 0.0F;
  for (int slot = 0; slot < p.n_chosen; ++slot) {
    sum += scores[order[slot]];
  }
  for (int slot = 0; slot < p.n_chosen; ++slot) {
    const float weight = scores[order[slot]] * p.routed_scaling / (p.normalise ? sum : 1.0F);
    chosen[order[slot]].push_back({token, weight});
  }
}

}  // namespace

void check_moe_ffn(const MoeFfnParams& p) {
  const auto require = [&](bool holds, const char* what) {
    if (!holds) {
      throw UnsupportedShape(std::string("moe_ffn: ") + what);
    }
  };
  require(p.n_tokens > 0 && p.n_tokens <= kMostMoeTokens, "n_tokens is not in 1 .. 1024");
  require(p.n_experts > 0 && p.n_experts <= kMostExperts, "n_experts is not in 1 .. 512");
  require(p.n_chosen > 0 && p.n_chosen <= std::min(kMostChosenExperts, p.n_experts),
          "n_chosen is not in 1 .. 16, or exceeds n_experts");
  require(p.hidden_size > 0 && p.hidden_size % 8 == 0, "hidden_size is no multiple of 8");
  require(p.intermediate_size > 0 && p.intermediate_size % 8 == 0,
          "intermediate_size is no multiple of 8");
  require_whole_blocks({p.format, p.intermediate_size, p.hidden_size, p.gate_up}, "moe_ffn");
  require_whole_blocks({p.format, p.hidden_size, p.intermediate_size, p.down}, "moe_ffn");
}

void moe_ffn_cpu(const MoeFfnParams& params, int n_threads) {
  check_moe_ffn(params);
  const MoeFfnParams& p = params;
  const std::int64_t hidden = p.hidden_size;
  const std::int64_t inner = p.intermediate_size;
  const WeightFormat router_format =
      p.format == WeightFormat::bf16 ? WeightFormat::bf16 : WeightFormat::f16;
  std::vector<float> x(static_cast<std::size_t>(p.n_tokens * hidden));
  widen_activations(p.format, p.x, p.n_tokens * hidden, x.data());
  std::vector<float> logits(static_cast<std::size_t>(p.n_tokens) * p.n_experts);
  times_weights({router_format, p.n_experts, hidden, reinterpret_cast<const std::byte*>(p.router)},
                p.n_tokens,
                x.data(),
                logits.data(),
                n_threads);
  ChosenByExpert chosen(static_cast<std::size_t>(p.n_experts));
  for (int token = 0; token < p.n_tokens; ++token) {
    const auto first = logits.begin() + static_cast<std::ptrdiff_t>(token) * p.n_experts;
    choose(p, token, std::vector<float>(first, first + p.n_experts), chosen);
  }
  std::vector<float> out(x.size());
  std::vector<float> gathered, gate_up, activated, answers;
  for (int expert = 0; expert < p.n_experts; ++expert) {
    const std::vector<Chosen>& by = chosen[static_cast<std::size_t>(expert)];
    const auto m = static_cast<int>(by.size());
    if (m == 0) {
      continue;
    }
    gathered.resize(static_cast<std::size_t>(m * hidden));
    gate_up.resize(static_cast<std::size_t>(m * 2 * inner));
    activated.resize(static_cast<std::size_t>(m * inner));
    answers.resize(gathered.size());
    for (int i = 0; i < m; ++i) {
      std::copy_n(x.begin() + by[i].token * hidden, hidden, gathered.begin() + i * hidden);
    }
    const WeightMatrix of_gate_up{
        p.format,
        2 * inner,
        hidden,
        p.gate_up + expert * 2 * inner * weight_row_bytes(p.format, hidden)};
    times_weights(of_gate_up, m, gathered.data(), gate_up.data(), n_threads);
    parallel_shares(n_threads, m, [&](int, std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const float* gate = gate_up.data() + i * 2 * inner;
        for (std::int64_t j = 0; j < inner; ++j) {
          const auto exp2 = [](float y) { return std::exp2(y); };
          activated[i * inner + j] = activate(p.activation, gate[j], exp2) * gate[inner + j];
        }
      }
    });
    const WeightMatrix of_down{
        p.format, hidden, inner, p.down + expert * hidden * weight_row_bytes(p.format, inner)};
    times_weights(of_down, m, activated.data(), answers.data(), n_threads);
    for (int i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < hidden; ++j) {
        out[by[i].token * hidden + j] += by[i].weight * answers[i * hidden + j];
      }
    }
  }
  narrow_activations(p.format, out.data(), p.n_tokens * hidden, p.out);
}

}  // namespace kvfathom::kernels
