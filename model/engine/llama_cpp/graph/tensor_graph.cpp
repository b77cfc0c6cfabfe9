#include "model/engine/llama_cpp/graph/tensor_graph.h"

#include <algorithm>

namespace kvfathom::llama_cpp {

namespace {

Affine row_size(DType type, const Affine& n) {
  const DTypeInfo& t = info(type);
  return divide(n * t.block_bytes, t.block_elements);
}

}  // namespace

bool is_quantized(DType type) {
  return info(type).block_elements > 1;
}

bool is_view_op(Op op) {
  return op == Op::view || op == Op::reshape || op == Op::permute || op == Op::transpose;
}

Affine n_elements(const TensorNode& t) {
  return t.ne[0] * t.ne[1] * t.ne[2] * t.ne[3];
}

Affine extent_bytes(const TensorNode& t) {
  const DTypeInfo& type = info(t.type);
  if (std::find(t.ne.begin(), t.ne.end(), Affine{}) != t.ne.end()) {
    return 0;  // copies of states that no sequence asked for
  }
  Affine bytes = type.block_elements == 1 ? (t.ne[0] - 1) * t.nb[0] + type.block_bytes
                                          : divide(t.ne[0] * t.nb[0], type.block_elements);
  for (std::size_t i = 1; i < 4; ++i) {
    bytes += (t.ne[i] - 1) * t.nb[i];
  }
  return bytes;
}

bool is_contiguous(const TensorNode& t, std::size_t skip) {
  const DTypeInfo& type = info(t.type);
  Affine next = type.block_bytes;
  if (t.ne[0] != type.block_elements && t.nb[0] != next) {
    return false;
  }
  next = next * divide(t.ne[0], type.block_elements);
  for (std::size_t i = 1; i < 4; ++i) {
    if (i > skip) {
      if (t.ne[i] != 1 && t.nb[i] != next) {
        return false;
      }
      next = next * t.ne[i];
    } else {
      next = t.nb[i] * t.ne[i];
    }
  }
  return true;
}

bool same_layout(const TensorNode& a, const TensorNode& b) {
  return a.type == b.type && a.ne == b.ne && a.nb == b.nb;
}

void TensorGraph::reserve(std::size_t n_tensors) {
  tensors_.reserve(n_tensors);
  visited_.reserve(n_tensors);
  nodes_.reserve(n_tensors);
}

TensorId TensorGraph::push(TensorNode node) {
  node.layer = layer_;
  node.place = place();
  tensors_.push_back(node);
  return static_cast<TensorId>(tensors_.size() - 1);
}

void TensorGraph::make_contiguous(TensorNode& node) {
  node.nb[0] = info(node.type).block_bytes;
  node.nb[1] = row_size(node.type, node.ne[0]);
  node.nb[2] = node.nb[1] * node.ne[1];
  node.nb[3] = node.nb[2] * node.ne[2];
}

TensorId TensorGraph::input(DType type, const Extents& ne) {
  const TensorId t = operation(Op::none, type, ne, {});
  (*this)[t].input = true;
  return t;
}

TensorId TensorGraph::placed(DType type, const Extents& ne, Placement where, bool weight) {
  const TensorId t = operation(Op::none, type, ne, {});
  (*this)[t].placed = where == Placement::device && place() == kHostPlace ? Placement::host : where;
  (*this)[t].weight = weight;
  return t;
}

TensorId TensorGraph::layer_weight(DType type, const Extents& ne) {
  if (place() == kHostPlace) {
    return placed(type, ne, Placement::host, true);
  }
  return gpu_weight(place());
}

TensorId TensorGraph::gpu_weight(std::int8_t gpu) {
  const auto index = static_cast<std::size_t>(int{gpu});  // no host here: not negative
  gpu_weights_.resize(std::max(gpu_weights_.size(), index + 1), kNoTensor);
  if (gpu_weights_[index] == kNoTensor) {
    TensorNode& node = (*this)[placed(DType::f16, {1, 1, 1, 1}, Placement::device, true)];
    node.placed = Placement::device;  // though the layer at hand may be on the host
    node.place = gpu;
    gpu_weights_[index] = static_cast<TensorId>(size() - 1);
  }
  return gpu_weights_[index];
}

std::int8_t TensorGraph::place_of(bool experts, MatrixRole role) const {
  const auto moves = [&](MovedMatrices matrices) {
    switch (matrices) {
      case MovedMatrices::experts:
        return experts;
      case MovedMatrices::all:
        return role != MatrixRole::other;
      case MovedMatrices::all_but_up:
        return role != MatrixRole::other && role != MatrixRole::up;
      case MovedMatrices::down:
        return role == MatrixRole::down;
    }
    return false;
  };
  for (const MovedLayer& moved : moved_) {
    if (moved.layer == layer_ && moves(moved.matrices)) {
      return static_cast<std::int8_t>(moved.device);
    }
  }
  return place();
}

TensorId TensorGraph::rope_factors(std::int64_t n) {
  if (place() == kHostPlace && host_rope_factors_ == kNoTensor) {
    host_rope_factors_ = placed(DType::f32, {n, 1, 1, 1}, Placement::host, true);
  }
  return place() == kHostPlace ? host_rope_factors_ : kNoTensor;
}

TensorId TensorGraph::host_matrix(bool experts, const Affine& n_in, std::int64_t n_out) {
  const auto found = host_matrices_.find({layer_, experts, n_in.constant, n_out});
  if (found == host_matrices_.end() || found->second.empty()) {
    return placed(DType::f16, {n_in, n_out, 1, 1}, Placement::host, true);
  }
  const Tensor& t = *found->second.front();
  if (found->second.size() > 1) {
    found->second.pop_front();
  }
  return placed(t.dtype, {t.shape[0], t.shape[1], t.shape[2], t.shape[3]}, Placement::host, true);
}

TensorId TensorGraph::matrix(bool experts,
                             const Affine& n_in,
                             std::int64_t n_out,
                             MatrixRole role) {
  const std::int8_t where = place_of(experts, role);
  return where == kHostPlace ? host_matrix(experts, n_in, n_out) : gpu_weight(where);
}

TensorId TensorGraph::host_weight(DType type) {
  return placed(type, {info(type).block_elements, 1, 1, 1}, Placement::host, true);
}

TensorId TensorGraph::view(TensorId a, const Extents& ne, const Extents& nb, const Affine& offset) {
  const TensorNode& from = (*this)[a];
  TensorNode node;
  node.op = Op::view;
  node.type = from.type;
  node.ne = ne;
  node.nb = nb;
  node.view_of = from.is_view() ? from.view_of : a;
  node.view_offset = from.is_view() ? from.view_offset + offset : offset;
  node.sources[0] = a;
  return push(node);
}

TensorId TensorGraph::reshape(TensorId a, const Extents& ne) {
  const TensorId t = view(a, ne, {});
  TensorNode& node = (*this)[t];
  node.op = Op::reshape;
  make_contiguous(node);
  return t;
}

TensorId TensorGraph::permute(TensorId a, int axis0, int axis1, int axis2, int axis3) {
  const TensorNode from = (*this)[a];
  Extents ne;
  Extents nb;
  const std::array<int, 4> axes{axis0, axis1, axis2, axis3};
  for (std::size_t i = 0; i < 4; ++i) {
    ne.at(static_cast<std::size_t>(axes.at(i))) = from.ne.at(i);
    nb.at(static_cast<std::size_t>(axes.at(i))) = from.nb.at(i);
  }
  const TensorId t = view(a, ne, nb);
  (*this)[t].op = Op::permute;
  return t;
}

TensorId TensorGraph::transpose(TensorId a) {
  const TensorId t = permute(a, 1, 0, 2, 3);
  (*this)[t].op = Op::transpose;
  return t;
}

TensorId TensorGraph::operation(Op op,
                                DType type,
                                const Extents& ne,
                                std::initializer_list<TensorId> sources) {
  TensorNode node;
  node.op = op;
  node.type = type;
  node.ne = ne;
  make_contiguous(node);
  std::copy(sources.begin(), sources.end(), node.sources.begin());
  return push(node);
}

TensorId TensorGraph::like(Op op, TensorId a, std::initializer_list<TensorId> more_sources) {
  TensorNode node;
  node.op = op;
  node.type = (*this)[a].type;
  node.ne = (*this)[a].ne;
  make_contiguous(node);
  node.sources[0] = a;
  std::copy(more_sources.begin(), more_sources.end(), node.sources.begin() + 1);
  return push(node);
}

TensorId TensorGraph::mul_mat(TensorId a, TensorId b) {
  const TensorNode& x = (*this)[a];
  const TensorNode& y = (*this)[b];
  return operation(Op::mul_mat, DType::f32, {x.ne[1], y.ne[1], y.ne[2], y.ne[3]}, {a, b});
}

TensorId TensorGraph::project(TensorId b, std::int64_t n_out, MatrixRole role) {
  const Extents ne = (*this)[b].ne;
  const TensorId weight = matrix(false, ne[0], n_out, role);
  return operation(Op::mul_mat, DType::f32, {n_out, ne[1], ne[2], ne[3]}, {weight, b});
}

TensorId TensorGraph::mul_mat_id(TensorId b, TensorId ids, std::int64_t n_out, MatrixRole role) {
  const Extents ne{n_out, (*this)[ids].ne[0], (*this)[b].ne[2], 1};
  const Affine n_in = (*this)[b].ne[0];
  const TensorId weight = matrix(true, n_in, n_out, role);
  return operation(Op::mul_mat_id, DType::f32, ne, {weight, b, ids});
}

TensorId TensorGraph::add_expert_bias(TensorId a,
                                      TensorId ids,
                                      std::int64_t n_experts,
                                      MatrixRole role) {
  const Extents ne{(*this)[a].ne[0], n_experts, 1, 1};
  const std::int8_t where = place_of(true, role);
  const TensorId weight =
      where == kHostPlace ? placed(DType::f32, ne, Placement::host, true) : gpu_weight(where);
  return like(Op::add_id, a, {weight, ids});
}

TensorId TensorGraph::get_rows(TensorId a, TensorId ids) {
  const TensorNode& x = (*this)[a];
  const TensorNode& i = (*this)[ids];
  const DType type = x.type == DType::i32 ? DType::i32 : DType::f32;
  return operation(Op::get_rows, type, {x.ne[0], i.ne[0], i.ne[1], i.ne[2]}, {a, ids});
}

TensorId TensorGraph::set_rows(TensorId destination, TensorId rows, TensorId ids) {
  const TensorNode to = (*this)[destination];
  const TensorId t = view(destination, to.ne, to.nb);
  TensorNode& node = (*this)[t];
  node.op = Op::set_rows;
  node.sources = {rows, ids, destination, -1, -1, -1, -1, -1};
  return t;
}

TensorId TensorGraph::concat(TensorId a, TensorId b, std::size_t axis) {
  Extents ne = (*this)[a].ne;
  ne.at(axis) += (*this)[b].ne.at(axis);
  return operation(Op::concat, (*this)[a].type, ne, {a, b});
}

TensorId TensorGraph::cont(TensorId a) {
  return like(Op::cont, a);
}

TensorId TensorGraph::cont(TensorId a, const Extents& ne) {
  return operation(Op::cont, (*this)[a].type, ne, {a});
}

TensorId TensorGraph::cast(TensorId a, DType type) {
  const TensorId t = operation(Op::copy, type, (*this)[a].ne, {a});
  (*this)[t].sources[1] = t;  // ggml keeps the destination of a copy as a source
  return t;
}

TensorId TensorGraph::copy_to(TensorId a, TensorId destination) {
  const TensorNode to = (*this)[destination];
  const TensorId t = view(destination, to.ne, to.nb);
  (*this)[t].op = Op::copy;
  (*this)[t].sources = {a, destination, -1, -1, -1, -1, -1, -1};
  return t;
}

TensorId TensorGraph::repeat(TensorId a, const Extents& ne) {
  return operation(Op::repeat, (*this)[a].type, ne, {a});
}

TensorId TensorGraph::pad(TensorId a, const Extents& more) {
  Extents ne = (*this)[a].ne;
  for (std::size_t i = 0; i < 4; ++i) {
    ne.at(i) += more.at(i);
  }
  return operation(Op::pad, (*this)[a].type, ne, {a});
}

TensorId TensorGraph::sum_rows(TensorId a) {
  const TensorNode& x = (*this)[a];
  return operation(Op::sum_rows, x.type, {1, x.ne[1], x.ne[2], x.ne[3]}, {a});
}

TensorId TensorGraph::argsort_top_k(TensorId a, std::int64_t k) {
  const TensorId sorted = operation(Op::argsort, DType::i32, (*this)[a].ne, {a});
  const TensorNode s = (*this)[sorted];
  return view(sorted, {k, s.ne[1], s.ne[2], s.ne[3]}, s.nb);
}

TensorId TensorGraph::glu(TensorId a, TensorId b) {
  Extents ne = (*this)[a].ne;
  if (b == kNoTensor) {
    ne[0] = divide(ne[0], 2);
  }
  return operation(Op::glu, (*this)[a].type, ne, {a, b});
}

TensorId TensorGraph::duplicate_layout(TensorId a) {
  TensorNode node;
  node.type = (*this)[a].type;
  node.ne = (*this)[a].ne;
  node.nb = (*this)[a].nb;
  return push(node);
}

void TensorGraph::expand(TensorId t) {
  visited_.resize(tensors_.size(), false);
  const auto visit = [this](const auto& self, TensorId id) -> void {
    const auto index = static_cast<std::size_t>(id);
    if (visited_[index]) {
      return;
    }
    visited_[index] = true;
    for (const TensorId source : tensors_[index].sources) {
      if (source != kNoTensor) {
        self(self, source);
      }
    }
    (tensors_[index].op == Op::none ? leafs_ : nodes_).push_back(id);
  };
  visit(visit, t);
}

}  // namespace kvfathom::llama_cpp
