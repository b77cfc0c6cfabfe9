// Offline: which heads to predict from which, and by what maps (arXiv 2603.13314, its code).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/dense_solve.h"

namespace kvfathom::kernels {

/// An affine map of the reference heads side by side to a target head.
struct HeadMap {
  DenseMatrix weights;       ///< [n_references * head_dim, head_dim]
  std::vector<double> bias;  ///< [head_dim]
  double r_squared = 0.0;    ///< on the quarter of the samples that the fit did not see
};
/// Least squares over the first three quarters of the samples, [n_samples, head_dim] each.
[[nodiscard]] HeadMap fit_head_map(const std::vector<const DenseMatrix*>& references,
                                   const DenseMatrix& target);

/// r_squared of the one-head map from each head to each other, row: source. Heads are ordered by
/// layer; a source in a later layer than its target is no candidate and counts 0.
[[nodiscard]] DenseMatrix pairwise_r_squared(const std::vector<DenseMatrix>& heads,
                                             const std::vector<int>& layer_of_head);

struct ReferenceChoiceSettings {
  double target_share = 0.5;  ///< of all heads, to be predicted
  double least_r_squared = 0.5;
  int fewest_references = 4;
  int most_references = 6;
  int threshold_steps = 30;
};
struct ReferenceChoice {
  double threshold = 0.0;                    ///< pairs of at least this r_squared were edges
  std::vector<bool> predicted;               ///< by head
  std::vector<std::vector<int>> references;  ///< of each predicted head, none of them predicted
};
/// The published rule: edges are pairs above a threshold, which a bisection sets so that the greedy
/// choice predicts `target_share` of the heads; a head can be predicted while it and every head
/// predicted before keep enough references; later layers first, then those with the fewest
/// successors that are predicted. Of its candidates a head takes those with the fewest successors.
[[nodiscard]] ReferenceChoice choose_references(const DenseMatrix& r_squared,
                                                const std::vector<int>& layer_of_head,
                                                const ReferenceChoiceSettings& settings = {});

}  // namespace kvfathom::kernels
