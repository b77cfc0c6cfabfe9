#include "calibrate/program/plan.h"

#include <algorithm>
#include <initializer_list>
#include <random>
#include <utility>

#include "kernels/common/weight_product.h"
#include "model/latency/op.h"

namespace kvfathom::calibrate {
namespace {

using bench::KernelBench;
using bench::Shape;
using Dims = std::vector<std::pair<const char*, std::int64_t>>;

constexpr FitTerms kMemory{};
constexpr FitTerms kArithmetic{.bandwidth = false, .flops = true};
constexpr FitTerms kBoth{.flops = true};
/// Products on a GPU overlap their loads with arithmetic; of 10 GPUs the fit says 1.6 to 3. On a
/// CPU what widens or loads a weight and what multiplies it share a core: of 1, 1.5, 2.5 and 4 the
/// points left out are nearest by 1.
double product_overlap(bench::Place place) {
  return place == bench::Place::cuda ? 2.5 : 1.0;
}

class Planner {
 public:
  explicit Planner(PlanSettings settings) : settings_(std::move(settings)) {}

  void open(KernelClass id, FitTerms terms, double p = 1.0) {
    wanted_ = text_of(id).starts_with(settings_.only);
    if (wanted_) {
      plan_.classes.push_back({std::move(id), terms, p});
    }
  }

  /// Points of the class opened last; `few` of them where the plan is not full.
  void add(const char* kernel, const char* format, std::size_t few, const std::vector<Dims>& all) {
    const KernelBench* const found = bench::kernel_named(kernel);
    if (!wanted_ || found == nullptr ||
        std::find(found->places.begin(), found->places.end(), settings_.place) ==
            found->places.end()) {
      return;
    }
    const std::size_t n = settings_.full ? all.size() : std::min(few, all.size());
    for (std::size_t i = 0; i < n; ++i) {
      Shape shape = found->shapes.front();
      for (const auto& [dim, value] : all[i * all.size() / n]) {
        shape.set(dim, value);
      }
      plan_.points.push_back({.kernel = found,
                              .request = {settings_.place, format, shape, settings_.n_threads},
                              .class_index = plan_.classes.size() - 1,
                              .held_out = false});
    }
  }

  [[nodiscard]] Plan shuffled() {
    std::mt19937_64 generator(settings_.seed);
    std::shuffle(plan_.points.begin(), plan_.points.end(), generator);
    constexpr std::size_t kHeldOut = 6;  // one in so many, of every class
    std::vector<std::size_t> seen(plan_.classes.size());
    for (PlannedPoint& point : plan_.points) {
      point.held_out = ++seen[point.class_index] % kHeldOut == 0;
    }
    return std::move(plan_);
  }

 private:
  PlanSettings settings_;
  bool wanted_ = true;  ///< the class opened last
  Plan plan_;
};

/// From the widths of models of 135 million parameters to those of 8 billion; a GPU's, where such
/// narrow ones only show the launch, to those of 70 billion.
std::vector<Dims> products(bench::Place place, std::initializer_list<int> rows) {
  std::vector<std::pair<int, int>> widths{{4096, 4096}, {8192, 1024}, {2048, 2048}, {1024, 4096}};
  if (place == bench::Place::cuda) {
    widths.emplace_back(8192, 8192);
  } else {
    widths.insert(widths.end(), {{1536, 576}, {576, 1536}});
  }
  std::vector<Dims> shapes;
  for (const auto& [n, k] : widths) {
    for (const int m : rows) {
      shapes.push_back({{"m", m}, {"n", n}, {"k", k}});
    }
  }
  return shapes;
}

std::vector<Dims> experts(std::initializer_list<int> tokens) {
  std::vector<Dims> shapes;
  for (const int n_tokens : tokens) {
    for (const auto& [n, chosen] : {std::pair{8, 2}, {16, 4}, {16, 8}}) {
      shapes.push_back({{"tokens", n_tokens},
                        {"hidden_size", 768},
                        {"intermediate_size", 512},
                        {"n_experts", n},
                        {"n_chosen", chosen}});
    }
  }
  return shapes;
}

void plan_products(Planner& planner, bench::Place place) {
  static_assert(kernels::kLargestGemvRows == kFewRows);
  const double overlap = product_overlap(place);
  const int most_rows = place == bench::Place::cuda ? 4096 : 2048;
  for (const char* format : {"bf16", "q8_0", "q4_0"}) {
    planner.open({.op = "gemm", .format = format, .variant = "few"}, kBoth, overlap);
    planner.add("gemm", format, 18, products(place, {1, 2, 4, 8}));
    planner.open({.op = "gemm", .format = format}, kBoth, overlap);
    planner.add("gemm", format, 18, products(place, {16, 32, 64, most_rows}));
  }
  for (const char* format : {"bf16", "q4_0"}) {
    planner.open({.op = "moe_ffn", .format = format, .variant = "few"}, kBoth, overlap);
    planner.add("moe_ffn", format, 18, experts({1, 2, 3, 4, 6, 8}));
    planner.open({.op = "moe_ffn", .format = format}, kBoth, overlap);
    planner.add("moe_ffn", format, 18, experts({48, 64, 96, 128, 192, 256}));
  }
}

/// Few and many KV heads, short and long, so that the fixed cost and the bandwidth come apart.
void plan_decode(Planner& planner) {
  constexpr int kSizes[][3] = {{1, 256, 8},
                               {1, 4096, 1},
                               {1, 1024, 8},
                               {8, 128, 1},
                               {1, 4096, 8},
                               {4, 512, 8},
                               {1, 16384, 8},
                               {1, 512, 8},
                               {1, 32768, 1},
                               {1, 1024, 2},
                               {16, 256, 8},
                               {2, 8192, 4},
                               {1, 2048, 8},
                               {4, 1024, 2},
                               {1, 8192, 8},
                               {8, 2048, 8},
                               {32, 128, 8},
                               {1, 24576, 4}};
  for (const char* format : {"bf16", "q8_0", "q4_0"}) {
    for (const int group : {1, 4, 8}) {
      std::vector<Dims> shapes;
      for (const auto& [sequences, tokens, heads] : kSizes) {
        shapes.push_back({{"n_sequences", sequences},
                          {"tokens", tokens},
                          {"n_kv_heads", heads},
                          {"n_heads", heads * group},
                          {"head_dim", 128}});
      }
      planner.open({.op = "decode_attention", .format = format, .head_dim = 128, .group = group},
                   kMemory);
      planner.add("decode_attention", format, 7, shapes);
    }
  }
  std::vector<Dims> latent;
  for (const int tokens : {128, 512, 1024, 2048, 8192}) {
    for (const int heads : {8, 20}) {
      for (const int sequences : {1, 4}) {
        latent.push_back({{"n_sequences", sequences}, {"tokens", tokens}, {"n_heads", heads}});
      }
    }
  }
  planner.open({.op = "mla_decode", .format = "bf16", .head_dim = 576}, kBoth);
  planner.add("mla_decode", "bf16", 18, latent);
}

/// Few queries read the cache, many compute. The longest takes two cores of a CPU a second. Short
/// heads reach another share of the arithmetic: their scores, of which there are as many, cost the
/// same.
void plan_prompts(Planner& planner, bench::Place place) {
  const int most_queries = place == bench::Place::cuda ? 4096 : 1024;
  for (const int head_dim : {128, 64}) {
    std::vector<Dims> shapes;
    for (const int queries : {4, 32, 128, 512, most_queries}) {
      for (const int cached : {0, 512, 3584, 7680, 31744}) {
        shapes.push_back({{"n_queries", queries},
                          {"tokens", queries + cached},
                          {"n_heads", 8},
                          {"n_kv_heads", 2},
                          {"head_dim", head_dim}});
      }
    }
    planner.open({.op = "prefill_attention", .format = "bf16", .head_dim = head_dim, .group = 4},
                 kBoth);
    planner.add("prefill_attention", "bf16", shapes.size(), shapes);
  }
}

/// One dimension over powers of two.
std::vector<Dims> ladder(const char* dim, std::int64_t first, int n, const Dims& others) {
  std::vector<Dims> shapes;
  for (int i = 0; i < n; ++i) {
    shapes.push_back(others);
    shapes.back().emplace_back(dim, first << i);
  }
  return shapes;
}

void plan_between(Planner& planner) {
  planner.open({.op = "elementwise", .format = "bf16"}, kMemory);
  planner.add("rms_norm", "bf16", 5, ladder("rows", 1, 10, {}));
  planner.add("gated_activation", "bf16", 5, ladder("rows", 1, 10, {}));
  for (const char* format : {"bf16", "q8_0", "q4_0"}) {
    planner.open({.op = "cache_write", .format = format}, kMemory);
    planner.add("cache_write", format, 6, ladder("tokens", 1, 12, {}));
  }
  planner.open({.op = "state_update", .format = "f32"}, kMemory);
  planner.add("delta_net", "gated", 5, ladder("sequences", 1, 7, {}));
  planner.add("mamba2", "bf16", 5, ladder("sequences", 1, 7, {}));
  planner.open({.op = "host_transfer", .format = "bf16"}, kMemory);
  planner.add("host_copy", "threads", 7, ladder("bytes_per_piece", 4096, 12, {{"pieces", 16}}));
}

void plan_schemes(Planner& planner) {
  planner.open({.op = "index_scores", .format = "fp8", .head_dim = 128}, kMemory);
  planner.add("index_scores", "fp8_e4m3", 6, ladder("tokens", 32, 9, {{"sequences", 1}}));
  // Up to kFewRows tokens its product is of another kind, but no step recomputes so few.
  static_assert(kFewRows < 16);
  std::vector<Dims> inputs;
  for (const auto& [hidden, heads] : {std::pair{1024, 4}, {2048, 16}, {2048, 4}}) {
    for (Dims& of_widths :
         ladder("tokens",
                16,
                8,
                {{"hidden_size", hidden}, {"n_kv_heads", heads}, {"head_dim", 128}})) {
      inputs.push_back(std::move(of_widths));
    }
  }
  planner.open({.op = "residual_recompute", .format = "bf16", .head_dim = 128}, kBoth);
  planner.add("residual_recompute", "bf16", 18, inputs);
  std::vector<Dims> keys;
  for (const int heads : {8, 16}) {
    for (Dims& of_heads :
         ladder("tokens", 64, 9, {{"n_heads", heads}, {"n_kv_heads", heads}, {"head_dim", 128}})) {
      keys.push_back(std::move(of_heads));
    }
  }
  planner.open({.op = "value_reconstruction", .format = "bf16", .head_dim = 128}, kBoth);
  planner.add("value_decode", "bf16", 18, keys);
  planner.open({.op = "head_reconstruction", .format = "bf16", .head_dim = 128}, kArithmetic);
  planner.add("head_decode", "bf16", 12, ladder("tokens", 16, 12, {}));
  planner.open({.op = "eviction_scores", .format = "bf16", .head_dim = 128}, kArithmetic);
  planner.add("eviction_snapkv", "bf16", 12, ladder("tokens", 16, 12, {}));
}

}  // namespace

std::string PlannedPoint::name() const {
  return kernel->name + "/" + request.format + "/" + request.shape.text();
}

Plan make_plan(const PlanSettings& settings) {
  Planner planner(settings);
  plan_products(planner, settings.place);
  plan_decode(planner);
  plan_prompts(planner, settings.place);
  plan_between(planner);
  plan_schemes(planner);
  return planner.shuffled();
}

}  // namespace kvfathom::calibrate
