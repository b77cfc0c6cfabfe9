#include "kernels/head_reconstruction/head_fit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/common/error.h"

namespace kvfathom::kernels {
namespace {

int n_for_fit(int n_samples) {
  return n_samples * 3 / 4;
}

/// Rows [first, last) of the matrices side by side, and a column of ones.
DenseMatrix side_by_side(const std::vector<const DenseMatrix*>& parts, int first, int last) {
  int columns = 1;
  for (const DenseMatrix* part : parts) {
    columns += part->columns;
  }
  DenseMatrix joined(last - first, columns);
  for (int row = first; row < last; ++row) {
    int column = 0;
    for (const DenseMatrix* part : parts) {
      for (int i = 0; i < part->columns; ++i) {
        joined.at(row - first, column++) = part->at(row, i);
      }
    }
    joined.at(row - first, column) = 1.0;
  }
  return joined;
}

DenseMatrix rows_of(const DenseMatrix& m, int first, int last) {
  DenseMatrix part(last - first, m.columns);
  std::copy(m.values.begin() + static_cast<std::ptrdiff_t>(first) * m.columns,
            m.values.begin() + static_cast<std::ptrdiff_t>(last) * m.columns,
            part.values.begin());
  return part;
}

/// The digraph of pairs at or above a threshold.
class Graph {
 public:
  Graph(const DenseMatrix& r_squared, const std::vector<int>& layers, double threshold)
      : n_(r_squared.rows), edges_(static_cast<std::size_t>(n_) * n_, false) {
    for (int source = 0; source < n_; ++source) {
      for (int target = 0; target < n_; ++target) {
        edges_[source * n_ + target] = source != target && layers[source] <= layers[target] &&
                                       r_squared.at(source, target) >= threshold;
      }
    }
  }
  [[nodiscard]] bool has(int source, int target) const { return edges_[source * n_ + target]; }
  /// Sources of a target that are not predicted.
  [[nodiscard]] std::vector<int> candidates(int target, const std::vector<bool>& predicted) const {
    std::vector<int> sources;
    for (int source = 0; source < n_; ++source) {
      if (has(source, target) && !predicted[source]) {
        sources.push_back(source);
      }
    }
    return sources;
  }
  [[nodiscard]] int successors(int source, const std::vector<bool>* among = nullptr) const {
    int count = 0;
    for (int target = 0; target < n_; ++target) {
      count += has(source, target) && (among == nullptr || (*among)[target]) ? 1 : 0;
    }
    return count;
  }
  [[nodiscard]] int size() const { return n_; }

 private:
  int n_;
  std::vector<bool> edges_;
};

/// Whether every head that `head` would no longer serve, once it is predicted, can spare it.
/// `n_candidates` counts the sources of each head that are not predicted.
bool can_be_predicted(const Graph& graph,
                      int head,
                      const std::vector<bool>& predicted,
                      const std::vector<int>& n_candidates,
                      int fewest) {
  if (n_candidates[head] < fewest) {
    return false;
  }
  for (int target = 0; target < graph.size(); ++target) {
    if (predicted[target] && graph.has(head, target) && n_candidates[target] <= fewest) {
      return false;
    }
  }
  return true;
}

std::vector<bool> greedy_targets(const Graph& graph,
                                 const std::vector<int>& layers,
                                 int most,
                                 int fewest_references) {
  std::vector<bool> predicted(static_cast<std::size_t>(graph.size()), false);
  std::vector<int> n_candidates;
  for (int head = 0; head < graph.size(); ++head) {
    n_candidates.push_back(static_cast<int>(graph.candidates(head, predicted).size()));
  }
  for (int count = 0; count < most; ++count) {
    int best = -1;
    int best_successors = 0;
    for (int head = 0; head < graph.size(); ++head) {
      if (predicted[head] ||
          !can_be_predicted(graph, head, predicted, n_candidates, fewest_references)) {
        continue;
      }
      const int successors = graph.successors(head, &predicted);
      const bool better = best < 0 || layers[head] > layers[best] ||
                          (layers[head] == layers[best] && successors < best_successors);
      if (better) {
        best = head;
        best_successors = successors;
      }
    }
    if (best < 0) {
      break;
    }
    predicted[best] = true;
    for (int target = 0; target < graph.size(); ++target) {
      n_candidates[target] -= graph.has(best, target) ? 1 : 0;
    }
  }
  return predicted;
}

}  // namespace

HeadMap fit_head_map(const std::vector<const DenseMatrix*>& references, const DenseMatrix& target) {
  const int n = n_for_fit(target.rows);
  if (references.empty() || n < 1 || n == target.rows) {
    throw UnsupportedShape("a map needs references, and samples to fit and to check it");
  }
  const DenseMatrix solution =
      solve_ridge(side_by_side(references, 0, n), rows_of(target, 0, n), 0.0);
  HeadMap map;
  map.weights = rows_of(solution, 0, solution.rows - 1);
  const auto last_row = solution.values.end() - static_cast<std::ptrdiff_t>(solution.columns);
  map.bias.assign(last_row, solution.values.end());
  map.r_squared = mean_r_squared(
      side_by_side(references, n, target.rows), solution, {}, rows_of(target, n, target.rows));
  return map;
}

DenseMatrix pairwise_r_squared(const std::vector<DenseMatrix>& heads,
                               const std::vector<int>& layer_of_head) {
  const auto n_heads = static_cast<int>(heads.size());
  DenseMatrix r_squared(n_heads, n_heads);
  for (int source = 0; source < n_heads; ++source) {
    for (int target = 0; target < n_heads; ++target) {
      if (source == target || layer_of_head[source] > layer_of_head[target]) {
        continue;
      }
      r_squared.at(source, target) = fit_head_map({&heads[source]}, heads[target]).r_squared;
    }
  }
  return r_squared;
}

ReferenceChoice choose_references(const DenseMatrix& r_squared,
                                  const std::vector<int>& layer_of_head,
                                  const ReferenceChoiceSettings& settings) {
  const auto wanted =
      static_cast<int>(std::lround(settings.target_share * static_cast<double>(r_squared.rows)));
  const auto targets_at = [&](double threshold) {
    return greedy_targets(Graph(r_squared, layer_of_head, threshold),
                          layer_of_head,
                          r_squared.rows,
                          settings.fewest_references);
  };
  const auto count = [](const std::vector<bool>& targets) {
    return static_cast<int>(std::count(targets.begin(), targets.end(), true));
  };
  // The highest threshold, so the best maps, at which enough heads can still be predicted.
  double low = settings.least_r_squared;
  double high = 1.0;
  ReferenceChoice choice;
  choice.threshold = low;
  choice.predicted = targets_at(low);
  for (int step = 0; step < settings.threshold_steps && count(choice.predicted) > wanted + 1;
       ++step) {
    const double middle = (low + high) / 2.0;
    const std::vector<bool> targets = targets_at(middle);
    if (count(targets) >= wanted - 1) {
      low = middle;
      choice.threshold = middle;
      choice.predicted = targets;
    } else {
      high = middle;
    }
  }
  if (count(choice.predicted) > wanted) {  // no threshold gives the number: stop the greedy there
    choice.predicted = greedy_targets(Graph(r_squared, layer_of_head, choice.threshold),
                                      layer_of_head,
                                      wanted,
                                      settings.fewest_references);
  }

  const Graph graph(r_squared, layer_of_head, choice.threshold);
  choice.references.resize(static_cast<std::size_t>(graph.size()));
  for (int head = 0; head < graph.size(); ++head) {
    if (!choice.predicted[head]) {
      continue;
    }
    std::vector<int> sources = graph.candidates(head, choice.predicted);
    std::stable_sort(sources.begin(), sources.end(), [&](int a, int b) {
      return graph.successors(a) < graph.successors(b);
    });
    sources.resize(
        std::min<std::size_t>(sources.size(), static_cast<std::size_t>(settings.most_references)));
    std::sort(sources.begin(), sources.end());
    choice.references[head] = sources;
  }
  return choice;
}

}  // namespace kvfathom::kernels
