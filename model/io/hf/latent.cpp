// Multi-head latent attention: DeepSeek-V2 and V3, Kimi-K2, GLM's MLA models.
#include <algorithm>
#include <array>
#include <string>

#include "model/io/hf/towers.h"
#include "model/io/hf/translate.h"

namespace kvfathom::hf {
namespace {

using std::int64_t;

MixtureOfExperts routed_experts(const Reader& c, const Routing& routing, const char* topk_method) {
  MixtureOfExperts moe =
      read_experts(c, {.n_experts = "n_routed_experts", .n_shared_experts = "n_shared_experts"});
  read_routing(c, moe, routing);
  moe.router_bias = c.text_or("topk_method", topk_method) == "noaux_tc";
  return moe;
}

/// Dense layers first, then experts; a multi-token-prediction layer is like the last.
void deepseek_like(const Reader& c, ModelSpec& m, const MixtureOfExperts& moe) {
  read_shape(c, m, false);
  repeat(c, m, layer_of(read_latent_attention(c), moe));
  const int64_t n_dense = c.count_or("first_k_dense_replace", 0, kMaybeNone);
  for (int64_t i = 0; i < std::min(n_dense, n_layers(m)); ++i) {
    m.layers[static_cast<std::size_t>(i)].feed_forward = read_dense(c);
  }
  add_mtp(m, m.layers.back(), c.count_or("num_nextn_predict_layers", 0, {0, 16}), true);
}

void deepseek_v2(const Reader& c, ModelSpec& m) {
  deepseek_like(c, m, routed_experts(c, {}, "greedy"));
}

/// DeepseekV3Config's defaults: half of eight groups.
void deepseek_v3(const Reader& c, ModelSpec& m) {
  Routing routing = kSigmoidNormalised;
  routing.weights_scale = 2.5;
  routing.n_groups = 8;
  routing.n_groups_used = 4;
  deepseek_like(c, m, routed_experts(c, routing, "noaux_tc"));
}

/// Kimi-K2: DeepSeek-V3 without groups, as each of its files says.
void kimi_k2(const Reader& c, ModelSpec& m) {
  deepseek_like(c, m, routed_experts(c, kSigmoidNormalised, "noaux_tc"));
  add_moonvit_tower(c, m);
}

/// GLM-4.7-Flash: DeepSeek-V3's layout; the class has the selection bias in any case.
void glm4_moe_lite(const Reader& c, ModelSpec& m) {
  Routing routing = kSigmoidNormalised;
  routing.weights_scale = 1.8;  // Glm4MoeLiteConfig's default
  MixtureOfExperts moe = routed_experts(c, routing, "noaux_tc");
  moe.router_bias = true;
  deepseek_like(c, m, moe);
}

/// GLM-5: DeepSeek-V3.2's layout. From 5.2 on only the "full" layers of `indexer_types` have an
/// indexer; the "shared" ones take over the tokens that the last full one picked.
void glm_moe_dsa(const Reader& c, ModelSpec& m) {
  Routing routing = kSigmoidNormalised;
  routing.weights_scale = 2.5;  // GlmMoeDsaConfig's default
  deepseek_like(c, m, routed_experts(c, routing, "noaux_tc"));
  if (!c.has("indexer_types")) {
    return;
  }
  const std::vector<std::string> types = names_per_layer(c, "indexer_types", n_layers(m));
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (types[i] == "shared") {
      std::get<LatentAttention>(m.layers[i].mixer).indexer.reset();
    } else if (types[i] != "full") {
      throw c.error("indexer_types",
                    "\"" + types[i].substr(0, 40) + "\" is no kind of indexer",
                    "full or shared");
    }
  }
}

constexpr std::array kTable{
    Family{"deepseek_v2", "deepseek2", deepseek_v2},
    Family{"deepseek_v3", "deepseek2", deepseek_v3},
    Family{"deepseek_v32", "deepseek32", deepseek_v3},
    Family{"kimi_k2", "deepseek2", kimi_k2},
    Family{"kimi_k25", "deepseek2", kimi_k2},
    Family{"glm4_moe_lite", "deepseek2", glm4_moe_lite},
    Family{"glm_moe_dsa", "glm-dsa", glm_moe_dsa},
};

}  // namespace

std::span<const Family> latent_families() {
  return kTable;
}

}  // namespace kvfathom::hf
