#include "model/engine/llama_cpp/graph/fusion.h"

#include <algorithm>

namespace kvfathom::llama_cpp {

namespace {

constexpr std::int64_t kMaxReducedExperts = 15;  // MOE_WEIGHTED_REDUCTION_MAX_EXPERTS

class Matcher {
 public:
  Matcher(const TensorGraph& graph,
          const std::vector<int>& uses,
          std::size_t first,
          std::size_t end)
      : graph_(graph), end_(end), uses_(uses) {
    for (std::size_t i = first; i < end; ++i) {
      if (const std::size_t n = weighted_reduction(i); n > 0) {
        i += n - 1;
      } else if (const std::size_t m = routing(i); m > 0) {
        i += m - 1;
      }
    }
  }

  std::vector<AllocationDependency> dependencies;

 private:
  [[nodiscard]] TensorId id(std::size_t i) const { return graph_.nodes()[i]; }
  [[nodiscard]] const TensorNode& node(std::size_t i) const { return graph_[id(i)]; }
  [[nodiscard]] bool is(std::size_t i, Op op) const { return i < end_ && node(i).op == op; }
  /// Node i is `op` on the result of node `source`.
  [[nodiscard]] bool follows(std::size_t i, Op op, std::size_t source) const {
    return is(i, op) && node(i).sources[0] == id(source);
  }

  /// No node of the chain but its results is used outside it.
  [[nodiscard]] bool confined(std::size_t first,
                              std::size_t count,
                              std::initializer_list<std::size_t> results) const {
    for (std::size_t i = first; i < first + count; ++i) {
      if (std::find(results.begin(), results.end(), i) != results.end()) {
        continue;
      }
      int inside = 0;
      for (std::size_t j = i + 1; j < first + count; ++j) {
        inside +=
            static_cast<int>(std::count(node(j).sources.begin(), node(j).sources.end(), id(i)));
      }
      if (node(i).output || inside != uses_[static_cast<std::size_t>(id(i))]) {
        return false;
      }
    }
    return true;
  }

  /// experts * weights, a view for each expert, and their sum: the length of the chain, or 0.
  std::size_t weighted_reduction(std::size_t first) {
    if (!is(first, Op::mul)) {
      return 0;
    }
    const TensorNode& product = node(first);
    const TensorNode& experts = graph_[product.sources[0]];
    const TensorNode& weights = graph_[product.sources[1]];
    const std::int64_t used = product.ne[1].constant;
    if (experts.ne != product.ne || weights.ne[0] != 1 || weights.ne[1] != product.ne[1] ||
        weights.ne[2] != product.ne[2] || weights.ne[3] != product.ne[3] ||
        !is_contiguous(experts) || !is_contiguous(weights) || used < 2 ||
        used > kMaxReducedExperts) {
      return 0;
    }
    const std::size_t count = 2 * static_cast<std::size_t>(used);
    if (first + count > end_) {
      return 0;
    }
    for (std::size_t i = 1; i < count; ++i) {
      const bool view = i <= static_cast<std::size_t>(used);
      if (view ? !follows(first + i, Op::view, first) : !is(first + i, Op::add)) {
        return 0;
      }
    }
    const std::size_t last = first + count - 1;
    if (!confined(first, count, {last})) {
      return 0;
    }
    dependencies.push_back({product.sources[0], id(last)});
    dependencies.push_back({product.sources[1], id(last)});
    return count;
  }

  /// Scores to chosen experts and their weights: the length of the chain, or 0.
  std::size_t routing(std::size_t first) {
    if (!is(first, Op::unary) && !is(first, Op::soft_max)) {
      return 0;
    }
    if (node(first).op == Op::soft_max &&
        (node(first).sources[1] != kNoTensor || node(first).sources[2] != kNoTensor)) {
      return 0;  // masks and sinks
    }
    std::size_t i = first + 1;
    if (!follows(i, Op::reshape, first)) {
      return 0;
    }
    const std::size_t reshaped = i++;
    std::size_t scores = first;
    if (follows(i, Op::add, first)) {
      scores = i++;
    }
    if (!follows(i, Op::argsort, scores) || !follows(i + 1, Op::view, i) ||
        !follows(i + 2, Op::get_rows, reshaped) || node(i + 2).sources[1] != id(i + 1)) {
      return 0;
    }
    const std::size_t chosen = i + 1;
    i += 3;
    if (follows(i, Op::reshape, i - 1) && follows(i + 1, Op::sum_rows, i) &&
        follows(i + 2, Op::clamp, i + 1) && follows(i + 3, Op::div, i) &&
        follows(i + 4, Op::reshape, i + 3)) {
      i += 5;
    }
    if (follows(i, Op::scale, i - 1)) {
      ++i;
    }
    const std::size_t weights = i - 1;
    if (i >= end_ || !supported_experts(node(chosen)) ||
        !confined(first, i - first, {chosen, weights})) {
      return 0;
    }
    keep_chain(first, i);
    return i - first;
  }

  /// Expert counts that the routing kernel is built for.
  [[nodiscard]] static bool supported_experts(const TensorNode& chosen) {
    const std::int64_t n = divide(chosen.nb[1], chosen.nb[0].constant).constant;
    return ((n & (n - 1)) == 0 && n <= 512) || n == 288 || n == 576;
  }

  /// All that [first, last) makes and reads, until node `last`, which follows the chain.
  void keep_chain(std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      dependencies.push_back({id(i), id(last)});
      for (const TensorId s : node(i).sources) {
        if (s != kNoTensor) {
          dependencies.push_back({s, id(last)});
        }
      }
    }
  }

  const TensorGraph& graph_;
  std::size_t end_;
  const std::vector<int>& uses_;
};

}  // namespace

std::vector<int> uses_of(const TensorGraph& graph) {
  std::vector<int> uses(graph.size(), 0);
  for (const TensorId t : graph.nodes()) {
    for (const TensorId s : graph[t].sources) {
      if (s != kNoTensor) {
        ++uses[static_cast<std::size_t>(s)];
      }
    }
  }
  return uses;
}

std::vector<AllocationDependency> fusion_dependencies(const TensorGraph& graph,
                                                      const std::vector<int>& uses,
                                                      std::size_t first,
                                                      std::size_t end) {
  return Matcher(graph, uses, first, end).dependencies;
}

}  // namespace kvfathom::llama_cpp
