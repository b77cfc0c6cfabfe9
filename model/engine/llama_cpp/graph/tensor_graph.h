// The operations of one forward pass as a graph of tensor shapes: no data, only what decides how
// much memory the pass needs. Semantics of shapes, views and traversal follow ggml (2026-08/09).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <map>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "model/architecture/tensor.h"
#include "model/dtype.h"
#include "model/engine/llama_cpp/graph/affine.h"
#include "model/engine/settings.h"

namespace kvfathom::llama_cpp {

/// What a tensor computes, as far as memory or placement depends on it.
enum class Op : std::uint8_t {
  none,  ///< a leaf: input, weight, cache
  view,
  reshape,
  permute,
  transpose,
  get_rows,
  set_rows,
  mul_mat,
  mul_mat_id,
  add,
  add_id,
  sub,
  mul,
  div,
  scale,
  sqr,
  sqrt,
  fill,
  unary,
  glu,
  clamp,
  norm,
  rms_norm,
  l2_norm,
  group_norm,
  rope,
  soft_max,
  flash_attention,
  concat,
  repeat,
  sum_rows,
  mean,
  argsort,
  top_k,
  cont,
  copy,
  pad,
  pool_1d,
  roll,
  cumsum,
  tri,
  diag,
  solve_tri,
  ssm_conv,
  ssm_scan,
  gated_delta_net,
  lightning_indexer,
};

using TensorId = std::int32_t;
inline constexpr TensorId kNoTensor = -1;

/// Where a tensor that exists before the pass lives; `device` is the one of its layer.
enum class Placement : std::uint8_t { none, device, host };

/// The host as the place of a layer; GPUs are 0, 1, ..
inline constexpr std::int8_t kHostPlace = -1;

using Extents = std::array<Affine, 4>;

struct TensorNode {
  static constexpr std::size_t kMaxSources = 8;
  Op op = Op::none;
  DType type = DType::f32;
  bool input = false;                  ///< set by the user before the pass: allocated up front
  bool output = false;                 ///< read by the user after the pass: never reused
  bool weight = false;                 ///< a stored weight: operations run where it is
  bool pinned_to_device = false;       ///< a norm: the engine may assign it by hand
  Placement placed = Placement::none;  ///< exists already (weight, cache): not allocated
  std::int8_t place = 0;               ///< of its layer: a GPU, or kHostPlace
  std::int16_t layer = -1;
  std::int16_t variant = 0;      ///< what tells two operations of one kind apart for the backend
  TensorId view_of = kNoTensor;  ///< the tensor that owns the memory, if this is a view
  Affine view_offset;
  std::array<TensorId, kMaxSources> sources{-1, -1, -1, -1, -1, -1, -1, -1};
  Extents ne{1, 1, 1, 1};  ///< extents, ne[0] contiguous
  Extents nb{0, 0, 0, 0};  ///< strides in bytes

  [[nodiscard]] bool is_view() const { return view_of != kNoTensor; }
};

/// Bytes from the first to the last element (ggml_nbytes).
[[nodiscard]] Affine extent_bytes(const TensorNode& t);
[[nodiscard]] Affine n_elements(const TensorNode& t);
[[nodiscard]] bool is_quantized(DType type);
/// Contiguous in every axis, apart from the first `skip` ones (ggml_is_contiguous_<skip>).
[[nodiscard]] bool is_contiguous(const TensorNode& t, std::size_t skip = 0);
[[nodiscard]] bool same_layout(const TensorNode& a, const TensorNode& b);
[[nodiscard]] bool is_view_op(Op op);

/// Matrices that may stay on the host: by layer, kind (experts or not), inputs and outputs; those
/// that share all of it in the order of the file.
using HostMatrices =
    std::map<std::tuple<std::int64_t, bool, std::int64_t, std::int64_t>, std::deque<const Tensor*>>;

/// What a matrix is to a feed-forward part, as far as MovedMatrices tell apart.
enum class MatrixRole : std::uint8_t { other, up, gate, gate_and_up, down };

/// Tensors in order of creation, and the order in which the pass runs them.
class TensorGraph {
 public:
  [[nodiscard]] const TensorNode& operator[](TensorId id) const {
    return tensors_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] TensorNode& operator[](TensorId id) {
    return tensors_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] std::size_t size() const { return tensors_.size(); }
  [[nodiscard]] const std::vector<TensorId>& nodes() const { return nodes_; }
  [[nodiscard]] const std::vector<TensorId>& leafs() const { return leafs_; }

  /// Every tensor created from here on belongs to this layer (-1: to none).
  void set_layer(std::int64_t layer) { layer_ = static_cast<std::int16_t>(layer); }
  /// The place of every layer and, behind them, of the output head. None: all on the first GPU.
  void set_places(std::span<const int> places) { places_.assign(places.begin(), places.end()); }
  /// Where the current layer lives; what comes before the layers lives with the first.
  [[nodiscard]] std::int8_t place() const {
    return places_.empty() ? std::int8_t{0}
                           : places_.at(static_cast<std::size_t>(std::max<int>(layer_, 0)));
  }
  [[nodiscard]] std::int64_t layer() const { return layer_; }
  /// The matrices that layers on the host, or experts on it, will ask for.
  void set_host_matrices(HostMatrices matrices) { host_matrices_ = std::move(matrices); }
  /// Matrices that are elsewhere than their layers.
  void set_moved(std::vector<MovedLayer> moved) { moved_ = std::move(moved); }
  void reserve(std::size_t n_tensors);
  /// The cells by which a backend chooses kernels where their number decides.
  void set_usual_cells(const CacheCells& cells) { usual_cells_ = cells; }
  [[nodiscard]] const CacheCells& usual_cells() const { return usual_cells_; }

  // Leafs.
  TensorId input(DType type, const Extents& ne);
  TensorId placed(DType type, const Extents& ne, Placement where, bool weight);
  /// A weight of the current layer. Its shape matters only on the host: operations that move to a
  /// GPU take a copy along. One tensor stands for all weights of a GPU.
  [[nodiscard]] TensorId layer_weight(DType type, const Extents& ne);
  /// Frequency factors [n], of which the host's layers share one tensor; none for those of a GPU,
  /// where they decide nothing.
  [[nodiscard]] TensorId rope_factors(std::int64_t n);
  [[nodiscard]] TensorId host_weight(DType type);

  // Views: no memory of their own.
  TensorId view(TensorId a, const Extents& ne, const Extents& nb, const Affine& offset = 0);
  TensorId reshape(TensorId a, const Extents& ne);
  TensorId permute(TensorId a, int axis0, int axis1, int axis2, int axis3);
  TensorId transpose(TensorId a);

  // Operations with memory of their own (contiguous) unless said otherwise.
  TensorId operation(Op op, DType type, const Extents& ne, std::initializer_list<TensorId> sources);
  /// Same type and shape as `a`.
  TensorId like(Op op, TensorId a, std::initializer_list<TensorId> more_sources = {});
  TensorId mul_mat(TensorId a, TensorId b);
  /// weight [n_in, n_out] times b; b of any rank.
  TensorId project(TensorId b, std::int64_t n_out, MatrixRole role = MatrixRole::other);
  TensorId mul_mat_id(TensorId b, TensorId ids, std::int64_t n_out, MatrixRole role);
  /// a plus the row of a bias [n, n_experts] that `ids` names; it lies with the matrix of `role`.
  TensorId add_expert_bias(TensorId a, TensorId ids, std::int64_t n_experts, MatrixRole role);
  TensorId get_rows(TensorId a, TensorId ids);
  TensorId set_rows(TensorId destination, TensorId rows, TensorId ids);  ///< a view of destination
  TensorId concat(TensorId a, TensorId b, std::size_t axis);
  TensorId cont(TensorId a);
  TensorId cont(TensorId a, const Extents& ne);
  TensorId cast(TensorId a, DType type);
  TensorId copy_to(TensorId a, TensorId destination);  ///< a view of destination
  TensorId repeat(TensorId a, const Extents& ne);
  TensorId pad(TensorId a, const Extents& more);
  TensorId sum_rows(TensorId a);
  TensorId argsort_top_k(TensorId a, std::int64_t k);
  /// a[0] / 2 wide if b is none, else gate a and up b of one width.
  TensorId glu(TensorId a, TensorId b);
  TensorId scale(TensorId a) { return like(Op::scale, a); }
  TensorId unary(TensorId a) { return like(Op::unary, a); }
  TensorId clamp(TensorId a) { return like(Op::clamp, a); }
  TensorId rms_norm(TensorId a) { return like(Op::rms_norm, a); }
  TensorId add(TensorId a, TensorId b) { return like(Op::add, a, {b}); }
  TensorId mul(TensorId a, TensorId b) { return like(Op::mul, a, {b}); }

  /// A copy of `a` with its very strides (what the scheduler makes on another backend).
  TensorId duplicate_layout(TensorId a);

  /// Appends everything `t` needs, and `t`, depth first, sources left to right.
  void expand(TensorId t);
  void set_output(TensorId t) { (*this)[t].output = true; }

 private:
  TensorId push(TensorNode node);
  /// A weight of which only the ends are known: on the host the file's tensor of that shape.
  [[nodiscard]] TensorId matrix(bool experts,
                                const Affine& n_in,
                                std::int64_t n_out,
                                MatrixRole role);
  [[nodiscard]] TensorId host_matrix(bool experts, const Affine& n_in, std::int64_t n_out);
  [[nodiscard]] TensorId gpu_weight(std::int8_t gpu);
  /// Where a matrix of the current layer lies.
  [[nodiscard]] std::int8_t place_of(bool experts, MatrixRole role) const;
  static void make_contiguous(TensorNode& node);

  std::vector<TensorNode> tensors_;
  std::vector<bool> visited_;
  std::vector<TensorId> nodes_;
  std::vector<TensorId> leafs_;
  std::int16_t layer_ = -1;
  CacheCells usual_cells_;
  std::vector<std::int8_t> places_;
  std::vector<TensorId> gpu_weights_;  ///< by GPU
  HostMatrices host_matrices_;
  std::vector<MovedLayer> moved_;
  TensorId host_rope_factors_ = kNoTensor;
};

}  // namespace kvfathom::llama_cpp
