// Ridge refinement on the device: which kernels run, in which order, on which grids.
#include <algorithm>
#include <string>

#include "kernels/common/dispatch.h"
#include "kernels/common/error.h"
#include "kernels/common/split_combine.h"
#include "kernels/ridge_refine/ridge_refine.h"
#include "kernels/ridge_refine/ridge_refine_steps.h"

namespace kvfathom::kernels {
namespace {

using namespace ridge;

constexpr std::size_t kProductBytes = 2 * kStageFloats * sizeof(float);
constexpr std::size_t kSumBytes = kThreads / simt::kWarpSize * sizeof(float);
constexpr int kWarpsPerBlock = kThreads / simt::kWarpSize;

unsigned tiles(int n, int tile = kTile) {
  return static_cast<unsigned>((std::max(n, 1) + tile - 1) / tile);
}

/// One refinement's launches on one stream.
class Launches {
 public:
  Launches(const RidgeRefineParams& p, const Workspace& w, Stream stream)
      : p_(p), w_(w), stream_(stream), problems_(static_cast<unsigned>(p.n_problems)) {}

  void target() const {
    dispatch(std::integer_sequence<int, 1, 2, 4>{}, chunks(), "64-column chunks", [&](auto n) {
      run(window_attention<n.value>,
          simt::Dim3(tiles(p_.n_rows), static_cast<unsigned>(w_.n_splits), problems_),
          kAttentionSharedBytes,
          p_,
          w_);
    });
    combine_splits_launch(SplitStates{w_.split_out, w_.split_max_sum, w_.n_splits},
                          static_cast<std::int64_t>(p_.n_problems) * p_.n_rows,
                          1,
                          p_.head_dim,
                          nullptr,
                          w_.target,
                          stream_);
  }
  void weights(const Bf16* keys) const {
    run(kept_scores<kThreads>, by_token(), kProductBytes, p_, w_, keys);
    run(softmax_rows<kThreads>,
        simt::Dim3(tiles(p_.n_rows, kWarpsPerBlock), 1, problems_),
        0,
        p_,
        w_);
  }
  void outputs(const Bf16* values, int which_loss) const {
    run(kept_outputs<kThreads>, by_column(p_.n_rows), kProductBytes, p_, w_, values);
    run(loss_of_rows<kThreads>, one(), kSumBytes, p_, w_, which_loss);
  }
  void value_step(bool in_shared, int solve_columns) const {
    run(gram_matrix<kThreads>,
        simt::Dim3(tiles(p_.n_rows), tiles(p_.n_rows), problems_),
        kProductBytes,
        p_,
        w_);
    if (in_shared) {
      run(factor_in_shared<kThreads>, one(), packed_factor_bytes(p_.n_rows), p_, w_);
    } else {
      run(factor_in_global<kThreads>, one(), panel_bytes(p_.n_rows), p_, w_);
    }
    run(solve_factored<kThreads>,
        simt::Dim3(tiles(p_.head_dim, solve_columns), 1, problems_),
        solve_bytes(p_.n_rows, solve_columns),
        p_,
        w_,
        solve_columns);
    run(sum_over_rows<false>, by_column(p_.kept_capacity), kProductBytes, p_, w_);
    apply(p_.v_kept, p_.settings.value_clip, p_.v_stepped);
  }
  void key_step() const {
    run(cg_start<kThreads>, one(), kSumBytes, p_, w_);
    for (int iteration = 0; iteration < p_.settings.cg_max_iterations; ++iteration) {
      back_to_keys(w_.cg_direction);
      run(weigh_products<Bf16, float>,
          by_token(),
          kProductBytes,
          p_,
          w_,
          p_.queries,
          static_cast<const float*>(w_.step),
          nullptr);
      run(centred_outputs<kThreads>, by_column(p_.n_rows), kProductBytes, p_, w_);
      run(cg_update<kThreads>, one(), kSumBytes, p_, w_);
    }
    run(cg_finish<kThreads>, one(), 0, p_, w_);
    back_to_keys(w_.dual);
    apply(p_.k_kept, p_.settings.key_clip, p_.k_stepped);
  }
  void choose() const { run(keep_best<kThreads>, parts(), 0, p_); }

 private:
  template <typename... Parameters, typename... Arguments>
  void run(void (*kernel)(Parameters...),
           simt::Dim3 grid,
           std::size_t shared_bytes,
           const Arguments&... arguments) const {
    simt::launch(kernel, grid, kThreads, shared_bytes, stream_, arguments...);
  }
  /// step = J^T vector.
  void back_to_keys(const float* vector) const {
    run(weigh_products<float, Bf16>,
        by_token(),
        kProductBytes,
        p_,
        w_,
        vector,
        static_cast<const Bf16*>(p_.v_stepped),
        static_cast<const float*>(w_.row_dots));
    run(sum_over_rows<true>, by_column(p_.kept_capacity), kProductBytes, p_, w_);
  }
  void apply(const Bf16* base, float clip, Bf16* to) const {
    run(norms_of_step<kThreads>, parts(), kSumBytes, p_, w_, base);
    run(apply_step<kThreads>, parts(), 0, p_, w_, base, clip, to);
  }
  [[nodiscard]] int chunks() const {
    const int n = static_cast<int>(tiles(p_.head_dim));
    return n == 3 ? 4 : n;
  }
  [[nodiscard]] simt::Dim3 one() const { return simt::Dim3(1, 1, problems_); }
  [[nodiscard]] simt::Dim3 parts() const { return simt::Dim3(kNormParts, 1, problems_); }
  [[nodiscard]] simt::Dim3 by_token() const {
    return simt::Dim3(tiles(p_.kept_capacity), tiles(p_.n_rows), problems_);
  }
  [[nodiscard]] simt::Dim3 by_column(int n_rows) const {
    return simt::Dim3(tiles(p_.head_dim), tiles(n_rows), problems_);
  }

  const RidgeRefineParams& p_;
  const Workspace& w_;
  Stream stream_;
  unsigned problems_;
};

}  // namespace

void ridge_refine_launch(const RidgeRefineParams& params,
                         int n_splits,
                         void* scratch,
                         Stream stream) {
  ridge_refine_check(params);
  if (n_splits < 1) {
    throw UnsupportedShape("n_splits = " + std::to_string(n_splits) + " is not positive");
  }
  if (params.n_problems == 0) {
    return;
  }
  Workspace workspace;
  lay_out(workspace, params, n_splits, static_cast<std::byte*>(scratch));

  const std::int64_t shared = device().shared_bytes_per_block;
  const auto fits = [&](std::size_t bytes) { return static_cast<std::int64_t>(bytes) <= shared; };
  const int solve_columns = fits(solve_bytes(params.n_rows, 32)) ? 32 : 8;
  const bool in_shared = fits(packed_factor_bytes(params.n_rows));
  if (!fits(solve_bytes(params.n_rows, solve_columns)) ||
      (!in_shared && !fits(panel_bytes(params.n_rows)))) {
    throw UnsupportedShape("n_rows = " + std::to_string(params.n_rows) +
                           " needs more shared memory than this device has");
  }

  const Launches launches(params, workspace, stream);
  launches.target();
  launches.weights(params.k_kept);
  launches.outputs(params.v_kept, 0);
  launches.value_step(in_shared, solve_columns);
  launches.outputs(params.v_stepped, 1);
  launches.key_step();
  launches.weights(params.k_stepped);
  launches.outputs(params.v_stepped, 2);
  launches.choose();
}

}  // namespace kvfathom::kernels
