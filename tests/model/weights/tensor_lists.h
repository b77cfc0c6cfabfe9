// Tensor lists of real models for tests, from tests/data/quant/tensors.tsv.
#pragma once

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom::testing {

inline std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, at);) {
    parts.push_back(part);
  }
  return parts;
}

/// Lines of a tab-separated file under tests/data, comments left out.
inline std::vector<std::vector<std::string>> rows_of(const std::string& file) {
  std::ifstream in(std::string(KVFATHOM_SOURCE_DIR) + "/tests/data/" + file);
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.front() != '#') {
      rows.push_back(split(line, '\t'));
    }
  }
  return rows;
}

inline Mamba2 mamba2_of(const std::vector<std::string>& row) {
  Mamba2 mamba2;
  mamba2.d_inner = std::stoll(row.at(8));
  mamba2.d_state = std::stoll(row.at(9));
  mamba2.n_heads = std::stoll(row.at(10));
  return mamba2;
}

/// A spec with the facts that placement and quantisation depend on, and its tensors.
inline ModelSpec model_of(const std::vector<std::string>& row) {
  ModelSpec model;
  model.name = row[1].ends_with('*') ? row[1].substr(0, row[1].size() - 1) : row[1];
  model.architecture = row[2];
  LayerSpec layer;
  const std::int64_t n_heads = std::stoll(row[5]);
  const std::int64_t n_kv_heads = std::stoll(row[6]);
  if (row[4] == "attention") {
    Attention attention;
    attention.n_heads = n_heads;
    attention.n_kv_heads = n_kv_heads;
    layer.mixer = attention;
  } else if (row[4] == "mla") {
    LatentAttention latent;
    latent.n_heads = n_heads;
    layer.mixer = latent;
  } else if (row[4] == "mamba2") {
    layer.mixer = mamba2_of(row);
  } else if (row[4] == "parallel") {
    ParallelMixers both;
    both.attention.n_heads = n_heads;
    both.attention.n_kv_heads = n_kv_heads;
    both.mamba2 = mamba2_of(row);
    layer.mixer = both;
  } else {
    layer.mixer = GatedDeltaNet{};
  }
  if (std::stoll(row[7]) > 0) {
    MixtureOfExperts experts;
    experts.n_experts = std::stoll(row[7]);
    layer.feed_forward = experts;
  }
  model.layers.assign(std::stoull(row[3]), layer);
  if (row[4] == "gated-delta-net") {  // full attention comes later: its heads are the file's
    Attention attention;
    attention.n_heads = n_heads;
    attention.n_kv_heads = n_kv_heads;
    model.layers[3].mixer = attention;
  }
  return model;
}

inline Tensor tensor_of(const std::string& prefix, const std::vector<std::string>& row) {
  Tensor tensor;
  tensor.name = prefix + row[1];
  const std::vector<std::string> axes = split(row[2], 'x');
  for (std::size_t axis = 0; axis < axes.size(); ++axis) {
    tensor.shape.at(axis) = std::stoll(axes[axis]);
  }
  tensor.dtype = dtype_named(row[3]).value();
  return tensor;
}

/// Every model of tests/data/quant/tensors.tsv by name.
inline std::map<std::string, ModelSpec> models() {
  std::map<std::string, ModelSpec> all;
  ModelSpec* model = nullptr;
  for (const std::vector<std::string>& row : rows_of("quant/tensors.tsv")) {
    if (row[0] == "model") {
      ModelSpec next = model_of(row);
      model = &all[next.name];
      *model = next;
    } else if (row[0] == "-") {
      model->tensors.push_back(tensor_of("", row));
    } else {
      for (const std::string& range : split(row[0], ',')) {
        const std::vector<std::string> ends = split(range, '-');
        for (int block = std::stoi(ends[0]); block <= std::stoi(ends[1]); ++block) {
          model->tensors.push_back(tensor_of("blk." + std::to_string(block) + ".", row));
        }
      }
    }
  }
  return all;
}

}  // namespace kvfathom::testing
