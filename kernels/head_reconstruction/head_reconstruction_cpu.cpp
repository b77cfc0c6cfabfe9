// Predicted heads on the CPU: stored heads are widened tile by tile, products by OpenBLAS.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/blas.h"
#include "kernels/common/parallel.h"
#include "kernels/head_reconstruction/head_reconstruction.h"

namespace kvfathom::kernels {
namespace {

constexpr int kTileTokens = 64;

using Floats = std::vector<float>;

float widened(const HeadReconstructionParams& p, std::uint16_t bits) {
  return p.cache.format == KvFormat::bf16 ? to_f32(Bf16{bits}) : to_f32(F16{bits});
}

/// The rows of some stored heads side by side, for n tokens: [n, n_slices * head_dim].
void widen_slices(const HeadReconstructionParams& p,
                  const KvPlane& plane,
                  const RowGroup& group,
                  int sequence,
                  int first,
                  int n,
                  Floats& to) {
  const int width = group.n_slices * p.head_dim;
  to.resize(static_cast<std::size_t>(n) * width);
  for (int i = 0; i < n; ++i) {
    const KvSlot slot = slot_of(p.cache, sequence, first + i);
    for (int slice = 0; slice < group.n_slices; ++slice) {
      const auto* row =
          reinterpret_cast<const std::uint16_t*>(row_data(plane, slot, slice_at(group, slice)));
      for (int d = 0; d < p.head_dim; ++d) {
        to[static_cast<std::size_t>(i) * width + slice * p.head_dim + d] = widened(p, row[d]);
      }
    }
  }
}

/// A map as floats, [head_dim, n_columns].
Floats widened_map(const HeadReconstructionParams& p,
                   const HeadSources& side,
                   int map,
                   int n_columns) {
  const std::int64_t stride = static_cast<std::int64_t>(side.max_references) * p.head_dim;
  Floats wide;
  for (int d = 0; d < p.head_dim; ++d) {
    for (int column = 0; column < n_columns; ++column) {
      wide.push_back(widened(p, side.maps[(map * p.head_dim + d) * stride + column]));
    }
  }
  return wide;
}

const std::uint16_t* exact_row(
    const HeadReconstructionParams& p, const HeadSources& side, int sequence, int slot, int map) {
  const std::int64_t row =
      (static_cast<std::int64_t>(sequence) * (p.n_first + p.n_last) + slot) * side.n_maps + map;
  return side.exact + row * p.head_dim;
}
/// The place of a token among the exact ones, or -1.
int slot_of_exact(const HeadReconstructionParams& p, int token, int n) {
  if (token < p.n_first) {
    return token;
  }
  return token >= n - p.n_last ? p.n_first + token - (n - p.n_last) : -1;
}

/// Decode of one sequence, group by group.
class Sequence {
 public:
  Sequence(const HeadReconstructionParams& p, int sequence)
      : p_(p),
        sequence_(sequence),
        n_(p.cache.lengths[sequence]),
        group_(p.n_heads / p.n_kv_heads),
        weights_(static_cast<std::size_t>(p.n_heads) * n_) {}

  /// weights_ of the rows of a group.
  void attend(int g) {
    const RowGroup group = group_at(p_.k.groups, g);
    const int width = group.n_slices * p_.head_dim;
    Floats queries;
    Floats bias;
    for (int i = 0; i < group.n_rows; ++i) {
      map_query(row_at(group, i), width, queries, bias);
    }
    Floats keys;
    Floats scores(static_cast<std::size_t>(group.n_rows) * n_);
    for (int first = 0; first < n_; first += kTileTokens) {
      const int tokens = std::min(kTileTokens, n_ - first);
      widen_slices(p_, p_.cache.k, group, sequence_, first, tokens, keys);
      sgemm(SgemmShape{group.n_rows, tokens, width, 1.0F, 0.0F, Transposed::yes},
            {queries.data(), width},
            {keys.data(), width},
            {scores.data() + first, n_},
            1);
    }
    for (int i = 0; i < group.n_rows; ++i) {
      float* row = scores.data() + static_cast<std::size_t>(i) * n_;
      for (int token = 0; token < n_; ++token) {
        row[token] += bias[i];
      }
      finish_weights(row_at(group, i), row);
    }
  }

  /// Outputs of the rows of a group.
  void sum(int g) const {
    const RowGroup group = group_at(p_.v.groups, g);
    const int width = group.n_slices * p_.head_dim;
    Floats weights;
    for (int i = 0; i < group.n_rows; ++i) {
      const float* of_row = weights_.data() + static_cast<std::size_t>(row_at(group, i)) * n_;
      const bool predicted = p_.v.map_of_head[row_at(group, i) / group_] != 0;
      for (int token = 0; token < n_; ++token) {
        const bool exact = predicted && slot_of_exact(p_, token, n_) >= 0;
        weights.push_back(exact ? 0.0F : of_row[token]);
      }
    }
    Floats values;
    Floats sums(static_cast<std::size_t>(group.n_rows) * width, 0.0F);
    for (int first = 0; first < n_; first += kTileTokens) {
      const int tokens = std::min(kTileTokens, n_ - first);
      widen_slices(p_, p_.cache.v, group, sequence_, first, tokens, values);
      sgemm(SgemmShape{group.n_rows, width, tokens, 1.0F, 1.0F},
            {weights.data() + first, n_},
            {values.data(), width},
            {sums.data(), width},
            1);
    }
    for (int i = 0; i < group.n_rows; ++i) {
      write_output(row_at(group, i), sums.data() + static_cast<std::size_t>(i) * width, width);
    }
  }

 private:
  [[nodiscard]] std::int64_t query_at(int head) const {
    return (static_cast<std::int64_t>(sequence_) * p_.n_heads + head) * p_.head_dim;
  }

  /// Appends M^T q scaled and q.beta scaled, or q scaled and 0.
  void map_query(int head, int width, Floats& queries, Floats& bias) const {
    Floats query;
    for (int d = 0; d < p_.head_dim; ++d) {
      query.push_back(widened(p_, p_.q[query_at(head) + d]) * p_.softmax_scale);
    }
    const int map = p_.k.map_of_head[head / group_] - 1;
    if (map < 0) {
      queries.insert(queries.end(), query.begin(), query.end());
      bias.push_back(0.0F);
      return;
    }
    const Floats wide = widened_map(p_, p_.k, map, width);
    queries.resize(queries.size() + static_cast<std::size_t>(width), 0.0F);
    float* mapped = queries.data() + queries.size() - width;
    float offset = 0.0F;
    for (int d = 0; d < p_.head_dim; ++d) {
      for (int column = 0; column < width; ++column) {
        mapped[column] += query[d] * wide[static_cast<std::size_t>(d) * width + column];
      }
      offset += query[d] * p_.k.bias[map * p_.head_dim + d];
    }
    bias.push_back(offset);
  }

  void finish_weights(int head, float* scores) {
    const int map = p_.k.map_of_head[head / group_] - 1;
    for (int token = 0; token < n_ && map >= 0; ++token) {
      if (const int slot = slot_of_exact(p_, token, n_); slot >= 0) {
        const std::uint16_t* key = exact_row(p_, p_.k, sequence_, slot, map);
        scores[token] = 0.0F;
        for (int d = 0; d < p_.head_dim; ++d) {
          scores[token] +=
              widened(p_, p_.q[query_at(head) + d]) * p_.softmax_scale * widened(p_, key[d]);
        }
      }
    }
    const float largest = *std::max_element(scores, scores + n_);
    float total = 0.0F;
    for (int token = 0; token < n_; ++token) {
      scores[token] = std::exp(scores[token] - largest);
      total += scores[token];
    }
    float* weights = weights_.data() + static_cast<std::size_t>(head) * n_;
    for (int token = 0; token < n_; ++token) {
      weights[token] = scores[token] / total;
    }
  }

  void write_output(int head, const float* sums, int width) const {
    float* out = p_.out + query_at(head);
    const int map = p_.v.map_of_head[head / group_] - 1;
    if (map < 0) {
      std::copy_n(sums, p_.head_dim, out);
      return;
    }
    const Floats wide = widened_map(p_, p_.v, map, width);
    const float* weights = weights_.data() + static_cast<std::size_t>(head) * n_;
    float mass = 0.0F;
    std::fill_n(out, p_.head_dim, 0.0F);
    for (int token = 0; token < n_; ++token) {
      const int slot = slot_of_exact(p_, token, n_);
      if (slot < 0) {
        mass += weights[token];
        continue;
      }
      const std::uint16_t* value = exact_row(p_, p_.v, sequence_, slot, map);
      for (int d = 0; d < p_.head_dim; ++d) {
        out[d] += weights[token] * widened(p_, value[d]);
      }
    }
    for (int d = 0; d < p_.head_dim; ++d) {
      out[d] += mass * p_.v.bias[map * p_.head_dim + d];
      for (int column = 0; column < width; ++column) {
        out[d] += sums[column] * wide[static_cast<std::size_t>(d) * width + column];
      }
    }
  }

  const HeadReconstructionParams& p_;
  int sequence_, n_, group_;
  Floats weights_;  // [n_heads, n]
};

/// Rows of one predicted head of a sequence.
void write_rows(const HeadReconstructionParams& p,
                const HeadSources& side,
                const KvPlane& plane,
                int sequence,
                int kv_head) {
  const int map = side.map_of_head[kv_head] - 1;
  const int n = p.cache.lengths[sequence];
  const RowGroup references{
      nullptr, side.stored + kv_head * side.max_references, 0, 0, 0, side.n_stored[kv_head]};
  const int width = references.n_slices * p.head_dim;
  const Floats wide = widened_map(p, side, map, width);
  Floats stored;
  Floats rows(static_cast<std::size_t>(kTileTokens) * p.head_dim);
  for (int first = 0; first < n; first += kTileTokens) {
    const int tokens = std::min(kTileTokens, n - first);
    widen_slices(p, plane, references, sequence, first, tokens, stored);
    sgemm(SgemmShape{tokens, p.head_dim, width, 1.0F, 0.0F, Transposed::yes},
          {stored.data(), width},
          {wide.data(), width},
          {rows.data(), p.head_dim},
          1);
    for (int i = 0; i < tokens; ++i) {
      const int slot = slot_of_exact(p, first + i, n);
      const std::int64_t row =
          (static_cast<std::int64_t>(sequence) * p.token_capacity + first + i) * side.n_maps + map;
      std::uint16_t* to = p.rows + row * p.head_dim;
      if (slot >= 0) {
        std::copy_n(exact_row(p, side, sequence, slot, map), p.head_dim, to);
        continue;
      }
      for (int d = 0; d < p.head_dim; ++d) {
        const float value =
            rows[static_cast<std::size_t>(i) * p.head_dim + d] + side.bias[map * p.head_dim + d];
        to[d] = p.cache.format == KvFormat::bf16 ? to_bf16(value).bits : to_f16(value).bits;
      }
    }
  }
}

}  // namespace

void head_rows_cpu(const HeadReconstructionParams& p, HeadSide which, int n_threads) {
  head_reconstruction_check(p);
  const bool keys = which == HeadSide::keys;
  const HeadSources& side = keys ? p.k : p.v;
  const std::int64_t n_rows = static_cast<std::int64_t>(p.cache.n_sequences) * p.n_kv_heads;
  parallel_shares(n_threads, n_rows, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t at = first; at < last; ++at) {
      const auto head = static_cast<int>(at % p.n_kv_heads);
      if (side.map_of_head[head] != 0) {
        write_rows(
            p, side, keys ? p.cache.k : p.cache.v, static_cast<int>(at / p.n_kv_heads), head);
      }
    }
  });
}

void head_decode_cpu(const HeadReconstructionParams& p, int n_threads) {
  head_reconstruction_check(p);
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    if (p.cache.lengths[sequence] == 0) {
      const std::int64_t n = static_cast<std::int64_t>(p.n_heads) * p.head_dim;
      std::fill_n(p.out + sequence * n, n, 0.0F);
      continue;
    }
    Sequence decode(p, sequence);
    parallel_shares(n_threads, p.k.groups.n_groups, [&](int, auto first, auto last) {
      for (auto g = first; g < last; ++g) {
        decode.attend(static_cast<int>(g));
      }
    });
    parallel_shares(n_threads, p.v.groups.n_groups, [&](int, auto first, auto last) {
      for (auto g = first; g < last; ++g) {
        decode.sum(static_cast<int>(g));
      }
    });
  }
}

}  // namespace kvfathom::kernels
