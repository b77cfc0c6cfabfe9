#include "model/io/spec_check.h"

#include <variant>

#include "model/architecture/tensor_inventory.h"
#include "model/error.h"

namespace kvfathom {
namespace {

/// Where a layer's trouble lies, for messages: `file: layer 3`.
class LayerCheck {
 public:
  LayerCheck(const ModelSpec& model, const std::string& source, std::size_t index)
      : model_(model), where_(source + ": layer " + std::to_string(index)), index_(index) {}

  void require(bool holds, const std::string& found, const std::string& allowed) const {
    if (!holds) {
      throw InputError(where_, found, allowed);
    }
  }

  void operator()(const Attention& a) const {
    require(a.n_heads % a.n_kv_heads == 0,
            std::to_string(a.n_kv_heads) + " KV heads do not divide " + std::to_string(a.n_heads) +
                " query heads",
            "a divisor");
    require(
        a.rope_dim <= a.head_dim, "more rotated dimensions than a head has", "at most head_dim");
  }
  void operator()(const SharedAttention& shared) const {
    (*this)(shared.attention);
    const bool looks_back = shared.with_layer < static_cast<std::int64_t>(index_);
    require(looks_back && std::holds_alternative<Attention>(
                              model_.layers[static_cast<std::size_t>(shared.with_layer)].mixer),
            "shares with layer " + std::to_string(shared.with_layer),
            "an earlier layer with attention of its own");
  }
  void operator()(const Mamba2& m) const {
    require(
        m.n_heads % m.n_groups == 0 && m.d_inner % m.n_heads == 0 && m.d_inner % m.n_groups == 0,
        "heads and groups do not split a width of " + std::to_string(m.d_inner),
        "divisors");
  }
  void operator()(const ParallelMixers& both) const {
    (*this)(both.attention);
    (*this)(both.mamba2);
  }
  void operator()(const MixtureOfExperts& moe) const {
    require(moe.n_experts_per_token <= moe.n_experts,
            std::to_string(moe.n_experts_per_token) + " experts per token of " +
                std::to_string(moe.n_experts),
            "at most all of them");
    require(moe.n_expert_groups <= 1 || (moe.n_experts % moe.n_expert_groups == 0 &&
                                         moe.n_expert_groups_used <= moe.n_expert_groups),
            std::to_string(moe.n_expert_groups_used) + " of " +
                std::to_string(moe.n_expert_groups) + " groups of experts used",
            "groups that divide " + std::to_string(moe.n_experts) + " experts");
  }
  template <typename Other>
  void operator()(const Other& /*nothing to check*/) const {}

 private:
  const ModelSpec& model_;
  std::string where_;
  std::size_t index_;
};

}  // namespace

void check_layers(const ModelSpec& model, const std::string& source) {
  if (model.layers.empty()) {
    throw InputError(source, "no layers", "at least one");
  }
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const LayerCheck check(model, source, i);
    std::visit(check, model.layers[i].mixer);
    std::visit(check, model.layers[i].feed_forward);
  }
}

void check_spec(const ModelSpec& model, const std::string& source) {
  check_layers(model, source);
  constexpr double kMostParameters = 1e15;
  double total = 0.0;
  for (const Tensor& tensor : tensor_inventory(model)) {
    double n = 1.0;
    for (const std::int64_t axis : tensor.shape) {
      n *= static_cast<double>(axis);
    }
    total += n;
  }
  if (!(total < kMostParameters)) {
    throw InputError(source, "describes more than 1e15 parameters", "fewer");
  }
}

}  // namespace kvfathom
