// Predicted heads on the CPU: stored heads are widened tile by tile, into the nearest cache.
// Products of all tokens with a map are OpenBLAS's.
#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/common/attention_tile_cpu.h"
#include "kernels/common/blas.h"
#include "kernels/common/kv_rows_cpu.h"
#include "kernels/common/parallel.h"
#include "kernels/head_reconstruction/head_reconstruction.h"

namespace kvfathom::kernels {
namespace {

using Floats = std::vector<float>;

constexpr int kTileTokens = 64;

int n_tiles(int n) {
  return (n + kTileTokens - 1) / kTileTokens;
}
Floats floats(std::int64_t rows, std::int64_t columns) {
  return Floats(static_cast<std::size_t>(rows * columns));
}

void widen(const HeadReconstructionParams& p, const void* row, int n, float* to) {
  decode_row_cpu(p.cache.format, static_cast<const std::byte*>(row), nullptr, 1.0F, n, to);
}

/// The rows of some stored heads side by side, for n tokens: [n, n_slices * head_dim].
void widen_slices(const HeadReconstructionParams& p,
                  const KvPlane& plane,
                  const RowGroup& group,
                  int sequence,
                  int first,
                  int n,
                  float* to) {
  for (int i = 0; i < n; ++i) {
    const KvSlot slot = slot_of(p.cache, sequence, first + i);
    for (int slice = 0; slice < group.n_slices; ++slice) {
      widen(p, row_data(plane, slot, slice_at(group, slice)), p.head_dim, to);
      to += p.head_dim;
    }
  }
}

/// A map as floats, [head_dim, n_columns].
Floats widened_map(const HeadReconstructionParams& p,
                   const HeadSources& side,
                   int map,
                   int n_columns) {
  const std::int64_t stride = static_cast<std::int64_t>(side.max_references) * p.head_dim;
  Floats wide = floats(p.head_dim, n_columns);
  for (std::int64_t d = 0; d < p.head_dim; ++d) {
    widen(p, side.maps + (map * p.head_dim + d) * stride, n_columns, wide.data() + d * n_columns);
  }
  return wide;
}

const std::uint16_t* exact_row(
    const HeadReconstructionParams& p, const HeadSources& side, int sequence, int slot, int map) {
  const std::int64_t row =
      (static_cast<std::int64_t>(sequence) * (p.n_first + p.n_last) + slot) * side.n_maps + map;
  return side.exact + row * p.head_dim;
}
/// Calls use(token, slot) for the exact ones of n tokens.
template <typename Use>
void for_exact(const HeadReconstructionParams& p, int n, const Use& use) {
  for (int token = 0; token < std::min(p.n_first, n); ++token) {
    use(token, token);
  }
  for (int token = std::max(p.n_first, n - p.n_last); token < n; ++token) {
    use(token, p.n_first + token - (n - p.n_last));
  }
}

/// Where query heads stand when those of a group follow each other.
struct HeadOrder {
  HeadOrder(const RowGroups& groups, int n_heads) : place_of_head(n_heads) {
    int place = 0;
    for (int g = 0; g < groups.n_groups; ++g) {
      first_of_group.push_back(place);
      const RowGroup group = group_at(groups, g);
      for (int i = 0; i < group.n_rows; ++i) {
        place_of_head[row_at(group, i)] = place++;
      }
    }
  }
  std::vector<int> first_of_group, place_of_head;
};

/// Decode of one sequence. A KV head's query heads share its maps and exact rows, a group its
/// stored heads.
class Sequence {
 public:
  Sequence(const HeadReconstructionParams& p, int sequence)
      : p_(p),
        sequence_(sequence),
        n_(p.cache.lengths[sequence]),
        group_(p.n_heads / p.n_kv_heads),
        stride_((n_ + kSoftmaxPadding - 1) / kSoftmaxPadding * kSoftmaxPadding),
        k_width_(p.k.groups.slices_per_group * p.head_dim),
        v_width_(p.v.groups.slices_per_group * p.head_dim),
        k_order_(p.k.groups, p.n_heads),
        v_order_(p.v.groups, p.n_heads),
        queries_(floats(p.n_heads, k_width_)),
        scores_(floats(p.n_heads, stride_)),
        weights_(floats(p.n_heads, stride_)),
        sums_(floats(p.n_heads, v_width_)) {}

  void decode(int n_threads) {
    const auto for_kv_heads = [&](void (Sequence::*step)(int)) {
      parallel_shares(n_threads, p_.n_kv_heads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t kv_head = first; kv_head < last; ++kv_head) {
          (this->*step)(static_cast<int>(kv_head));
        }
      });
    };
    for_kv_heads(&Sequence::map_queries);
    parallel_shares(n_threads, n_tiles(n_), [&](int, std::int64_t first, std::int64_t last) {
      for_slices(p_.k.groups, p_.cache.k, first, last, [&](auto&&... tile) { score(tile...); });
    });
    for_kv_heads(&Sequence::weigh);
    parallel_sums(n_threads,
                  n_tiles(n_),
                  static_cast<std::int64_t>(sums_.size()),
                  sums_.data(),
                  [&](std::int64_t first, std::int64_t last, float* sums) {
                    for_slices(p_.v.groups, p_.cache.v, first, last, [&](auto&&... tile) {
                      add(tile..., sums);
                    });
                  });
    for_kv_heads(&Sequence::map_sums);
  }

 private:
  [[nodiscard]] float* row(Floats& rows, std::int64_t stride, int place) const {
    return rows.data() + place * stride;
  }
  [[nodiscard]] float* out(int head) const {
    return p_.out + (static_cast<std::int64_t>(sequence_) * p_.n_heads + head) * p_.head_dim;
  }

  /// [group_, head_dim], scaled.
  [[nodiscard]] Floats queries_of(int kv_head) const {
    Floats queries = floats(group_, p_.head_dim);
    const std::int64_t head = static_cast<std::int64_t>(sequence_) * p_.n_heads + kv_head * group_;
    widen(p_, p_.q + head * p_.head_dim, group_ * p_.head_dim, queries.data());
    for (float& x : queries) {
      x *= p_.softmax_scale;
    }
    return queries;
  }

  /// Queries as their group's stored keys meet them: M^T q, or q itself.
  void map_queries(int kv_head) {
    Floats queries = queries_of(kv_head);
    int width = p_.head_dim;
    if (const int map = p_.k.map_of_head[kv_head] - 1; map >= 0) {
      width = p_.k.n_stored[kv_head] * p_.head_dim;
      const Floats wide = widened_map(p_, p_.k, map, width);
      Floats mapped = floats(group_, width);
      add_values_cpu({queries.data(), p_.head_dim},
                     group_,
                     {wide.data(), width},
                     p_.head_dim,
                     width,
                     {mapped.data(), width});
      queries = std::move(mapped);
    }
    for (int i = 0; i < group_; ++i) {
      const int place = k_order_.place_of_head[kv_head * group_ + i];
      std::copy_n(queries.data() + i * width, width, row(queries_, k_width_, place));
    }
  }

  /// Calls use(g, first token, n tokens, rows) for the tiles [begin, end) of every group.
  template <typename Use>
  void for_slices(const RowGroups& groups,
                  const KvPlane& plane,
                  std::int64_t begin,
                  std::int64_t end,
                  const Use& use) const {
    Floats rows = floats(kTileTokens, groups.slices_per_group * p_.head_dim);
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const auto first = static_cast<int>(tile * kTileTokens);
      const int tokens = std::min(kTileTokens, n_ - first);
      for (int g = 0; g < groups.n_groups; ++g) {
        widen_slices(p_, plane, group_at(groups, g), sequence_, first, tokens, rows.data());
        use(g, first, tokens, rows.data());
      }
    }
  }
  void score(int g, int first, int tokens, const float* keys) {
    const RowGroup group = group_at(p_.k.groups, g);
    const int width = group.n_slices * p_.head_dim;
    const int place = k_order_.first_of_group[g];
    score_tile_cpu({row(queries_, k_width_, place), k_width_},
                   group.n_rows,
                   {keys, width},
                   tokens,
                   width,
                   {row(scores_, stride_, place) + first, stride_});
  }
  void add(int g, int first, int tokens, const float* values, float* sums) {
    const RowGroup group = group_at(p_.v.groups, g);
    const int width = group.n_slices * p_.head_dim;
    const std::int64_t place = v_order_.first_of_group[g];
    add_values_cpu({weights_.data() + place * stride_ + first, stride_},
                   group.n_rows,
                   {values, width},
                   tokens,
                   width,
                   {sums + place * v_width_, v_width_});
  }

  /// Scores to weights: q.beta and exact keys where keys are predicted; where values are, what the
  /// exact ones and beta add to the output, and no weight for the exact ones' stored heads.
  void weigh(int kv_head) {
    if (p_.k.map_of_head[kv_head] != 0) {
      correct_scores(kv_head, p_.k.map_of_head[kv_head] - 1);
    }
    for (int head = kv_head * group_; head < (kv_head + 1) * group_; ++head) {
      float* scores = row(scores_, stride_, k_order_.place_of_head[head]);
      float* weights = row(weights_, stride_, v_order_.place_of_head[head]);
      const float total = softmax_row_cpu(scores, n_, 1.0F);
      std::transform(scores, scores + n_, weights, [&](float x) { return x / total; });
      std::fill_n(out(head), p_.head_dim, 0.0F);
      if (const int map = p_.v.map_of_head[kv_head] - 1; map >= 0) {
        start_output(map, weights, out(head));
      }
    }
  }
  void correct_scores(int kv_head, int map) {
    const Floats queries = queries_of(kv_head);
    Floats key = floats(1, p_.head_dim);
    Floats scores = floats(group_, 1);
    const auto score_one = [&](const float* with) {
      score_tile_cpu({queries.data(), p_.head_dim},
                     group_,
                     {with, p_.head_dim},
                     1,
                     p_.head_dim,
                     {scores.data(), 1});
    };
    const auto row_of = [&](int i) {
      return row(scores_, stride_, k_order_.place_of_head[kv_head * group_ + i]);
    };
    score_one(p_.k.bias + static_cast<std::int64_t>(map) * p_.head_dim);
    for (int i = 0; i < group_; ++i) {
      for (int token = 0; token < n_; ++token) {
        row_of(i)[token] += scores[i];
      }
    }
    for_exact(p_, n_, [&](int token, int slot) {
      widen(p_, exact_row(p_, p_.k, sequence_, slot, map), p_.head_dim, key.data());
      score_one(key.data());
      for (int i = 0; i < group_; ++i) {
        row_of(i)[token] = scores[i];
      }
    });
  }
  void start_output(int map, float* weights, float* out) const {
    Floats value = floats(1, p_.head_dim);
    const auto add_one = [&](float weight, const float* v) {
      add_values_cpu({&weight, 1}, 1, {v, p_.head_dim}, 1, p_.head_dim, {out, p_.head_dim});
    };
    for_exact(p_, n_, [&](int token, int slot) {
      widen(p_, exact_row(p_, p_.v, sequence_, slot, map), p_.head_dim, value.data());
      add_one(weights[token], value.data());
      weights[token] = 0.0F;
    });
    const float mass = std::accumulate(weights, weights + n_, 0.0F);
    add_one(mass, p_.v.bias + static_cast<std::int64_t>(map) * p_.head_dim);
  }

  /// out += M sums, or the sums themselves.
  void map_sums(int kv_head) {
    const int map = p_.v.map_of_head[kv_head] - 1;
    const int width = map < 0 ? p_.head_dim : p_.v.n_stored[kv_head] * p_.head_dim;
    const Floats wide = map < 0 ? Floats() : widened_map(p_, p_.v, map, width);
    Floats mapped = floats(1, p_.head_dim);
    for (int head = kv_head * group_; head < (kv_head + 1) * group_; ++head) {
      const float* sums = row(sums_, v_width_, v_order_.place_of_head[head]);
      if (map >= 0) {
        score_tile_cpu(
            {sums, width}, 1, {wide.data(), width}, p_.head_dim, width, {mapped.data(), 0});
        sums = mapped.data();
      }
      std::transform(sums, sums + p_.head_dim, out(head), out(head), std::plus<>());
    }
  }

  const HeadReconstructionParams& p_;
  int sequence_, n_, group_;
  std::int64_t stride_;
  int k_width_, v_width_;
  HeadOrder k_order_, v_order_;
  Floats queries_;  // [n_heads, k_width], in the order of the keys' groups
  Floats scores_;   // [n_heads, stride], in the same order
  Floats weights_;  // [n_heads, stride], in the order of the values' groups
  Floats sums_;     // [n_heads, v_width], in the same order
};

constexpr int kRowTokens = 256;

/// Some rows of one predicted head of a sequence.
void write_rows(const HeadReconstructionParams& p,
                const HeadSources& side,
                const KvPlane& plane,
                int sequence,
                int kv_head,
                int first) {
  const int map = side.map_of_head[kv_head] - 1;
  const int n = p.cache.lengths[sequence];
  const int tokens = std::min(kRowTokens, n - first);
  const RowGroup references{
      nullptr, side.stored + kv_head * side.max_references, 0, 0, 0, side.n_stored[kv_head]};
  const int width = references.n_slices * p.head_dim;
  const Floats wide = widened_map(p, side, map, width);
  Floats stored = floats(tokens, width);
  Floats rows = floats(tokens, p.head_dim);
  for (int i = 0; i < tokens; ++i) {
    std::copy_n(side.bias + static_cast<std::int64_t>(map) * p.head_dim,
                p.head_dim,
                rows.data() + static_cast<std::int64_t>(i) * p.head_dim);
  }
  widen_slices(p, plane, references, sequence, first, tokens, stored.data());
  sgemm(SgemmShape{tokens, p.head_dim, width, 1.0F, 1.0F, Transposed::yes},
        {stored.data(), width},
        {wide.data(), width},
        {rows.data(), p.head_dim},
        1);
  const auto row_at = [&](int token) {
    const std::int64_t row =
        (static_cast<std::int64_t>(sequence) * p.token_capacity + token) * side.n_maps + map;
    return p.rows + row * p.head_dim;
  };
  for (int i = 0; i < tokens; ++i) {
    encode_row_cpu(p.cache.format,
                   rows.data() + static_cast<std::int64_t>(i) * p.head_dim,
                   p.head_dim,
                   1.0F,
                   reinterpret_cast<std::byte*>(row_at(first + i)),
                   nullptr);
  }
  for_exact(p, n, [&](int token, int slot) {
    if (token >= first && token < first + tokens) {
      std::copy_n(exact_row(p, side, sequence, slot, map), p.head_dim, row_at(token));
    }
  });
}

}  // namespace

void head_rows_cpu(const HeadReconstructionParams& p, HeadSide which, int n_threads) {
  head_reconstruction_check(p);
  const bool keys = which == HeadSide::keys;
  const HeadSources& side = keys ? p.k : p.v;
  struct Part {
    int sequence, kv_head, first;
  };
  std::vector<Part> parts;
  for (int sequence = 0; sequence < p.cache.n_sequences; ++sequence) {
    for (int kv_head = 0; kv_head < p.n_kv_heads; ++kv_head) {
      const int n = side.map_of_head[kv_head] != 0 ? p.cache.lengths[sequence] : 0;
      for (int first = 0; first < n; first += kRowTokens) {
        parts.push_back({sequence, kv_head, first});
      }
    }
  }
  const auto n_parts = static_cast<std::int64_t>(parts.size());
  parallel_shares(n_threads, n_parts, [&](int, std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const auto& [sequence, kv_head, token] = parts[i];
      write_rows(p, side, keys ? p.cache.k : p.cache.v, sequence, kv_head, token);
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
    Sequence(p, sequence).decode(n_threads);
  }
}

}  // namespace kvfathom::kernels
