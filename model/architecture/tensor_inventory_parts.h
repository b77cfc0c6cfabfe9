// The collector that the parts of the tensor inventory share; internal to it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/architecture/model_spec.h"
#include "model/architecture/storage_style.h"

namespace kvfathom {

/// Collects tensors; knows the type of matrices and the name prefix of the layer at hand.
class Inventory {
 public:
  Inventory(const ModelSpec& spec, const StorageStyle& stored)
      : model(spec),
        style(stored),
        matrix_dtype_(spec.weight_dtype.value_or(DType::bf16)),
        expert_dtype_(spec.expert_dtype.value_or(matrix_dtype_)),
        // Quantised checkpoints leave the embedding and the head alone.
        embedding_dtype_(info(matrix_dtype_).block_bytes > 1 &&
                                 info(matrix_dtype_).block_elements == 1
                             ? matrix_dtype_
                             : DType::bf16) {
    tensors_.reserve(16 + 20 * spec.layers.size());
  }

  void begin_layer(std::int64_t index) { prefix_ = "blk." + std::to_string(index) + "."; }
  void end_layers() { prefix_.clear(); }

  /// A matrix from n_in to n_out.
  void matrix(std::string_view name, std::int64_t n_in, std::int64_t n_out) {
    add(name, {n_in, n_out, 1, 1}, matrix_dtype_);
  }
  /// n matrices, stacked.
  void stack(std::string_view name, std::int64_t n_in, std::int64_t n_out, std::int64_t n) {
    add(name, {n_in, n_out, n, 1}, matrix_dtype_);
  }
  /// n matrices, one per expert.
  void experts(std::string_view name, std::int64_t n_in, std::int64_t n_out, std::int64_t n) {
    add(name, {n_in, n_out, n, 1}, expert_dtype_);
  }
  /// A table with one row per token of the vocabulary.
  void vocabulary(std::string_view name, std::int64_t width, std::int64_t n_rows) {
    add(name, {width, n_rows, 1, 1}, embedding_dtype_);
  }
  void f32(std::string_view name, std::int64_t n0, std::int64_t n1 = 1, std::int64_t n2 = 1) {
    add(name, {n0, n1, n2, 1}, DType::f32);
  }
  /// A norm of the model's kind; `name` ends in ".weight" where the file says so.
  void norm(std::string_view name, std::int64_t width) {
    f32(name, width);
    if (model.norm == NormKind::layer) {
      f32(std::string(name.substr(0, name.find('.'))) + ".bias", width);
    }
  }

  [[nodiscard]] std::vector<Tensor> take() { return std::move(tensors_); }

  const ModelSpec& model;
  const StorageStyle& style;

 private:
  void add(std::string_view name, std::array<std::int64_t, 4> shape, DType dtype) {
    std::string full;
    full.reserve(prefix_.size() + name.size());
    full += prefix_;
    full += name;
    tensors_.push_back({std::move(full), shape, dtype});
  }

  DType matrix_dtype_;
  DType expert_dtype_;
  DType embedding_dtype_;
  std::string prefix_;
  std::vector<Tensor> tensors_;
};

/// Adds what the mixer of one layer stores, without the norms around it.
void add_mixer_tensors(Inventory& out, const Mixer& mixer);

}  // namespace kvfathom
