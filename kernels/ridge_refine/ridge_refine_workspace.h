// How a block finds its problem's part of the arrays. Device code.
#pragma once

#include "kernels/ridge_refine/ridge_refine_layout.h"
#include "kernels/simt/simt.h"

namespace kvfathom::kernels::ridge {

/// This block's problem: the last dimension of every grid.
SIMT_DEVICE int problem() {
  return static_cast<int>(simt::block_idx().z);
}
template <typename T>
SIMT_DEVICE T* of_problem(T* array, std::int64_t per_problem) {
  return array + problem() * per_problem;
}
SIMT_DEVICE int n_kept(const RidgeRefineParams& p) {
  return simt::ld_index(p.n_kept + problem());
}
/// Whether a token may be edited. One byte a token: counted like an index, not as traffic.
SIMT_DEVICE bool movable(const RidgeRefineParams& p, int token) {
  return p.fixed == nullptr || simt::ld_index(of_problem(p.fixed, p.kept_capacity) + token) == 0;
}

}  // namespace kvfathom::kernels::ridge
