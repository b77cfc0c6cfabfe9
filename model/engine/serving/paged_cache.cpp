#include "model/engine/serving/paged_cache.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <variant>

#include "model/cache/groups.h"
#include "model/error.h"
#include "model/rounding.h"

namespace kvfathom::serving {
namespace {

constexpr std::int64_t kStateElementBytes = 4;  // f32, as every logged hybrid had it
constexpr std::int64_t kConvElementBytes = 2;   // the model's 16-bit type
constexpr std::int64_t kIndexScaleBytes = 4;    // one f32 per fp8 indexer key
/// fp8 beside a sparse indexer: 512 fp8 values, four f32 scales, 64 rope values in bf16
/// (FlashMLA's sparse layout).
constexpr std::int64_t kSparseFp8RowBytes = 656;

/// One layer's cache per token, or per sequence for a state.
struct LayerBytes {
  std::string_view scheme;
  std::int64_t n_layers = 0;
  std::int64_t k = 0;
  std::int64_t v = 0;
  std::int64_t state = 0;
  std::int64_t convolution = 0;  ///< of the state
  std::int64_t window_tokens = 0;
};

bool has_chunks(const ModelSpec& model) {
  return std::ranges::any_of(model.layers, [](const LayerSpec& layer) {
    const auto* a = std::get_if<Attention>(&layer.mixer);
    return a != nullptr && a->window_tokens && a->window_kind == WindowKind::chunked;
  });
}

bool is_fp8(DType dtype) {
  return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2;
}

std::vector<LayerBytes> layer_bytes(const ModelSpec& rank,
                                    const EngineSettings& settings,
                                    const PagingRules& rules) {
  const CacheScheme scheme = rules.groups ? settings.scheme : CacheScheme::full;
  const auto layouts = cache::layer_groups(rank, scheme);
  const bool sparse = std::ranges::any_of(layouts, [](const cache::LayerGroup& group) {
    return cache::name(group.scheme) == "sparse-index";
  });
  std::vector<LayerBytes> all;
  for (const cache::LayerGroup& group : layouts) {
    const cache::CacheLayout& layout = group.layout;
    LayerBytes bytes{.scheme = cache::name(group.scheme),
                     .n_layers = group.n_layers,
                     .k = k_row_bytes(group, settings.cache_type_k, sparse),
                     .v = padded_row_bytes(settings.cache_type_v, layout.v_row_elements),
                     .state = layout.state_elements * kStateElementBytes +
                              layout.conv_elements * kConvElementBytes,
                     .convolution = layout.conv_elements * kConvElementBytes,
                     .window_tokens = layout.token_cap.value_or(0)};
    all.push_back(bytes);
  }
  return all;
}

/// Every layer grows with every token: one table, whose block spans all layers.
PagedCache one_group(const std::vector<LayerBytes>& layers, const PagingRules& rules) {
  const bool latent =
      std::ranges::any_of(layers, [](const LayerBytes& l) { return l.scheme == "mla-latent"; });
  PagedCache cache;
  cache.step_tokens = latent ? rules.latent_block_tokens : rules.block_tokens;
  for (const LayerBytes& layer : layers) {
    PagedGroup group{.scheme = layer.scheme,
                     .n_layers = layer.n_layers,
                     .n_tables = cache.groups.empty() ? 1 : 0,
                     .block_tokens = cache.step_tokens,
                     .ahead_tokens = rules.ahead_tokens,
                     .k_bytes = layer.k * cache.step_tokens,
                     .v_bytes = layer.v * cache.step_tokens};
    group.page_bytes = group.k_bytes + group.v_bytes;
    cache.block_bytes += group.page_bytes * group.n_layers;
    cache.groups.push_back(group);
  }
  return cache;
}

/// Tokens per block of attention, so that one page holds the largest state.
std::int64_t hybrid_block_tokens(const std::vector<LayerBytes>& layers, const PagingRules& rules) {
  std::int64_t state = 0;
  std::int64_t per_token = 0;
  for (const LayerBytes& layer : layers) {
    state = std::max(state, layer.state);
    per_token = std::max(per_token, layer.k + layer.v);
  }
  if (per_token == 0) {
    return rules.block_tokens;
  }
  const std::int64_t tokens = divide_up(state, per_token * rules.block_tokens) * rules.block_tokens;
  return std::max(tokens, rules.block_tokens);
}

[[noreturn]] void refuse_pages(const ModelSpec& rank, const PagingRules& rules) {
  throw Unsupported(
      rank.name,
      std::string(rules.engine) + ": its layers' pages are no multiples of each other",
      "no rule makes them equal");
}

std::int64_t layers_per_table(const std::vector<LayerBytes>& layers, double near_equal) {
  std::int64_t fewest = layers.front().n_layers;
  std::int64_t most = fewest;
  for (const LayerBytes& layer : layers) {
    fewest = std::min(fewest, layer.n_layers);
    most = std::max(most, layer.n_layers);
  }
  // vLLM: 12 and 17 layers make two tables of 17, not three of 12.
  const bool near = static_cast<double>(most) < static_cast<double>(fewest) * near_equal;
  return near ? most : fewest;
}

PagedCache several_groups(const ModelSpec& rank,
                          const std::vector<LayerBytes>& layers,
                          const PagingRules& rules) {
  const std::int64_t base_tokens = hybrid_block_tokens(layers, rules);
  std::int64_t page = 0;
  for (const LayerBytes& layer : layers) {
    page = std::max({page, (layer.k + layer.v) * base_tokens, layer.state});
  }
  const std::int64_t per_table = layers_per_table(layers, rules.near_equal);
  const bool chunks = has_chunks(rank);
  PagedCache cache;
  cache.block_bytes = page * per_table;
  cache.step_tokens = 0;
  for (const LayerBytes& layer : layers) {
    PagedGroup group{.scheme = layer.scheme,
                     .n_layers = layer.n_layers,
                     .n_tables = divide_up(layer.n_layers, per_table),
                     .block_tokens = 0,
                     .extra_blocks = layer.state > 0 ? rules.states - 1 + rules.draft_tokens : 0,
                     .page_bytes = page};
    const std::int64_t own = (layer.k + layer.v) * base_tokens;
    if (own > 0) {
      if (page % own != 0) {
        refuse_pages(rank, rules);
      }
      group.block_tokens = base_tokens * (page / own);
      group.k_bytes = layer.k * group.block_tokens;
      group.v_bytes = layer.v * group.block_tokens;
      cache.step_tokens = std::gcd(cache.step_tokens, group.block_tokens);
    }
    if (layer.window_tokens > 0) {
      group.most_tokens = layer.window_tokens - (chunks ? 0 : 1) + rules.max_batched_tokens;
      group.extra_blocks = chunks ? 0 : 1;
      cache.step_tokens = 1;  // its cap may fall anywhere
    }
    cache.groups.push_back(group);
  }
  cache.step_tokens = std::max<std::int64_t>(1, cache.step_tokens);
  return cache;
}

/// One table for what grows, and a pool of its own for what slides.
PagedCache two_pools(const std::vector<LayerBytes>& layers, const PagingRules& rules) {
  PagedCache cache;
  cache.window_pool = rules.window_pool;
  const WindowPool& pool = *rules.window_pool;
  std::vector<PagedGroup> windows;
  for (const LayerBytes& layer : layers) {
    const bool slides = layer.window_tokens > 0;
    PagedGroup group{.scheme = layer.scheme,
                     .n_layers = layer.n_layers,
                     .n_tables = slides || !cache.groups.empty() ? 0 : 1,
                     .block_tokens = rules.block_tokens,
                     .most_tokens = slides ? layer.window_tokens + pool.beyond_window : 0,
                     .k_bytes = layer.k * rules.block_tokens,
                     .v_bytes = layer.v * rules.block_tokens};
    group.page_bytes = group.k_bytes + group.v_bytes;
    (slides ? cache.window_block_bytes : cache.block_bytes) += group.page_bytes * group.n_layers;
    (slides ? windows : cache.groups).push_back(group);
  }
  cache.groups.insert(cache.groups.end(), windows.begin(), windows.end());
  return cache;
}

/// A state for each of the tokens verified at once, and one history of the convolution that holds
/// the windows of all of them.
std::int64_t verify_bytes(const LayerBytes& layer, const StatePool& pool) {
  const std::int64_t n = pool.verified_tokens;
  return n == 0 ? 0
                : n * (layer.state - layer.convolution) +
                      layer.convolution / pool.conv_window * (pool.conv_window + n - 1);
}

/// A pool for what grows, and slots for the states.
PagedCache with_state_pool(const ModelSpec& rank,
                           const std::vector<LayerBytes>& layers,
                           const PagingRules& rules) {
  std::vector<LayerBytes> growing;
  std::ranges::copy_if(
      layers, std::back_inserter(growing), [](const LayerBytes& l) { return l.state == 0; });
  if (growing.empty()) {
    throw Unsupported(
        rank.name, std::string(rules.engine) + ": no rule for states without attention beside", "");
  }
  PagedCache cache = one_group(growing, rules);
  cache.state_pool = rules.state_pool;
  for (const LayerBytes& layer : layers) {
    if (layer.state == 0) {
      continue;
    }
    const PagedGroup group{.scheme = layer.scheme,
                           .n_layers = layer.n_layers,
                           .n_tables = 0,
                           .block_tokens = 0,
                           .page_bytes = layer.state,
                           .verify_bytes = verify_bytes(layer, *rules.state_pool)};
    cache.state_slot_bytes += group.page_bytes * group.n_layers;
    cache.state_verify_bytes += group.verify_bytes * group.n_layers;
    cache.groups.push_back(group);
  }
  return cache;
}

}  // namespace

std::int64_t k_row_bytes(const cache::LayerGroup& group, DType cache_type_k, bool beside_indexer) {
  const std::int64_t n = group.layout.k_row_elements;
  if (std::holds_alternative<cache::SparseIndex>(group.scheme)) {
    return n + kIndexScaleBytes;
  }
  const bool is_latent = std::holds_alternative<cache::MlaLatent>(group.scheme);
  return is_latent && beside_indexer && is_fp8(cache_type_k) ? kSparseFp8RowBytes
                                                             : padded_row_bytes(cache_type_k, n);
}

PagedCache paged_cache(const ModelSpec& rank,
                       const EngineSettings& settings,
                       const PagingRules& rules) {
  if (settings.scheme != CacheScheme::native && settings.scheme != CacheScheme::full) {
    throw Unsupported(
        "--scheme",
        std::string(rules.engine) + " lays no cache out as " + std::string(name(settings.scheme)),
        "use native");
  }
  const std::vector<LayerBytes> layers = layer_bytes(rank, settings, rules);
  if (layers.empty()) {
    const bool is_staged = settings.pipeline_parallel > 1;
    throw Unsupported(rank.name,
                      is_staged ? "a pipeline stage holds no cache" : "no layer holds a cache",
                      is_staged ? "use fewer stages" : "");
  }
  const bool uniform = std::ranges::all_of(
      layers, [](const LayerBytes& l) { return l.state == 0 && l.window_tokens == 0; });
  PagedCache cache = uniform             ? one_group(layers, rules)
                     : rules.state_pool  ? with_state_pool(rank, layers, rules)
                     : rules.window_pool ? two_pools(layers, rules)
                                         : several_groups(rank, layers, rules);
  cache.spare_blocks = rules.spare_blocks;
  return cache;
}

void require_schemes(const ModelSpec& model,
                     std::string_view engine,
                     std::initializer_list<std::string_view> schemes) {
  for (const LayerSpec& layer : model.layers) {
    for (const cache::Scheme& scheme : cache::schemes_of(layer.mixer, CacheScheme::native)) {
      const std::string_view name = cache::name(scheme);
      if (std::ranges::find(schemes, name) == schemes.end()) {
        throw Unsupported(
            model.name,
            std::string(engine) + ": no rule for the pool of its " + std::string(name) + " layers",
            "");
      }
    }
  }
}

void require_serving_cache_type(const EngineSettings& settings, bool nvfp4) {
  const DType type = settings.cache_type_k;
  const bool known =
      type == DType::f16 || type == DType::bf16 || is_fp8(type) || (nvfp4 && type == DType::nvfp4);
  if (!known) {
    throw InputError(
        "--cache-type-k",
        std::string(name(type)) + " is no cache type of this engine and version",
        nvfp4 ? "use f16, bf16, f8_e4m3, f8_e5m2 or nvfp4" : "use f16, bf16, f8_e4m3 or f8_e5m2");
  }
  if (settings.cache_type_v != type) {
    throw InputError(
        "--cache-type-v",
        std::string(name(settings.cache_type_v)) + " beside K in " + std::string(name(type)),
        "this engine keeps both in one type");
  }
}

}  // namespace kvfathom::serving
