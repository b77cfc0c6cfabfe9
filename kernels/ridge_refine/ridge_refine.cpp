// What every version of the ridge refinement agrees on: shapes, and the scratch memory.
#include "kernels/ridge_refine/ridge_refine.h"

#include <algorithm>
#include <string>

#include "kernels/common/error.h"
#include "kernels/ridge_refine/ridge_refine_layout.h"

namespace kvfathom::kernels {

void ridge_refine_check(const RidgeRefineParams& params) {
  if (params.head_dim < 8 || params.head_dim > 256 || params.head_dim % 8 != 0) {
    throw UnsupportedShape("head_dim = " + std::to_string(params.head_dim) +
                           " has no ridge refinement: multiples of 8 up to 256");
  }
  if (params.n_rows < 1 || params.n_tokens < 1 || params.kept_capacity < 1) {
    throw UnsupportedShape("a ridge refinement needs a query, a token and room for one");
  }
  if (!(params.settings.lambda_v > 0.0F) || !(params.settings.lambda_k > 0.0F)) {
    throw UnsupportedShape("the penalties of a ridge refinement are positive");
  }
}

int ridge_refine_splits(const RidgeRefineParams& params, const DeviceInfo& device) {
  constexpr int kRowsPerBlock = 64;
  constexpr int kTokensWorthABlock = 512;
  const int blocks =
      std::max(1, params.n_problems) * ((params.n_rows + kRowsPerBlock - 1) / kRowsPerBlock);
  const int wanted = (2 * device.n_multiprocessors + blocks - 1) / blocks;
  return std::clamp(wanted, 1, std::max(1, params.n_tokens / kTokensWorthABlock));
}

std::int64_t ridge_refine_scratch_bytes(const RidgeRefineParams& params, int n_splits) {
  ridge::Workspace workspace;
  return ridge::lay_out(workspace, params, n_splits, nullptr);
}

}  // namespace kvfathom::kernels
