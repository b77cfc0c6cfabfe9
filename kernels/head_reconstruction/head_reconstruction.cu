// Predicted heads on the device: rows of maps, and absorbed decode in passes.
#include <algorithm>
#include <string>
#include <type_traits>

#include "kernels/common/error.h"
#include "kernels/common/grouped_passes.h"
#include "kernels/head_reconstruction/head_decode_scratch.h"
#include "kernels/head_reconstruction/head_reconstruction.h"

namespace kvfathom::kernels {
namespace {

using namespace grouped;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / simt::kWarpSize;
constexpr float kLog2E = 1.4426950408889634F;

unsigned parts(int n, int part) {
  return static_cast<unsigned>((std::max(n, 1) + part - 1) / part);
}

template <typename Element>
SIMT_DEVICE float ld_element(const std::uint16_t* p) {
  return to_f32(Element{simt::ld(p)});
}
template <typename Element>
SIMT_DEVICE std::uint16_t element_of(float value) {
  if constexpr (std::is_same_v<Element, Bf16>) {
    return to_bf16(value).bits;
  } else {
    return to_f16(value).bits;
  }
}

/// What a side holds for one KV head, as every kernel here needs it.
struct SideOfHead {
  int map;      // or -1: the head is stored
  int columns;  // of the stored rows side by side
  int stride;   // of a row of a map
};
SIMT_DEVICE SideOfHead side_of_head(const HeadSources& side, int kv_head, int head_dim) {
  return SideOfHead{simt::ld_index(side.map_of_head + kv_head) - 1,
                    simt::ld_index(side.n_stored + kv_head) * head_dim,
                    side.max_references * head_dim};
}

/// What prepares the queries for scores against stored heads.
struct QueryPass {
  HeadReconstructionParams p;
  std::uint16_t* queries;  // [n_sequences, n_heads, k.max_references * head_dim]
  float* bias;             // [n_sequences, n_heads]
};

/// queries = M^T q and bias = q.beta where the keys are predicted, q and 0 where they are stored;
/// grid: head, sequence. Shared memory: the query.
template <typename Element, int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) map_queries(QueryPass a) {
  const HeadReconstructionParams& p = a.p;
  const auto head = static_cast<int>(simt::block_idx().x);
  const auto thread = static_cast<int>(simt::thread_idx().x);
  const std::int64_t row = static_cast<std::int64_t>(simt::block_idx().y) * p.n_heads + head;
  const SideOfHead side = side_of_head(p.k, head / (p.n_heads / p.n_kv_heads), p.head_dim);
  std::uint16_t* to = a.queries + row * side.stride;
  auto* query = simt::shared_memory<float>();
  float bias = 0.0F;
  for (int d = thread; d < p.head_dim; d += Threads) {
    const std::uint16_t bits = simt::ld(p.q + row * p.head_dim + d);
    query[d] = to_f32(Element{bits});
    if (side.map < 0) {
      simt::st(to + d, bits);
    } else {
      bias += query[d] * simt::ld(p.k.bias + side.map * p.head_dim + d);
    }
  }
  auto* shared = query + p.head_dim;
  bias = block_reduce<Threads>(bias, shared, [](float x, float y) { return x + y; });
  if (thread == 0) {
    simt::st(a.bias + row, bias);
  }
  if (side.map < 0) {
    return;
  }
  const std::uint16_t* map =
      p.k.maps + static_cast<std::int64_t>(side.map) * p.head_dim * side.stride;
  for (int column = thread * 2; column < side.columns; column += Threads * 2) {
    float sums[2] = {};
    for (int d = 0; d < p.head_dim; ++d) {
      const std::uint32_t pair = simt::ld(reinterpret_cast<const std::uint32_t*>(
          map + static_cast<std::int64_t>(d) * side.stride + column));
      sums[0] += query[d] * to_f32(Element{static_cast<std::uint16_t>(pair)});
      sums[1] += query[d] * to_f32(Element{static_cast<std::uint16_t>(pair >> 16)});
    }
    const std::uint32_t low = element_of<Element>(sums[0]);
    const std::uint32_t high = element_of<Element>(sums[1]);
    simt::st(reinterpret_cast<std::uint32_t*>(to + column), low | high << 16);
  }
}

/// The row of an exact token of a map, among those of a side.
SIMT_DEVICE std::int64_t exact_row(
    const HeadReconstructionParams& p, const HeadSources& side, int sequence, int slot, int map) {
  return ((static_cast<std::int64_t>(sequence) * (p.n_first + p.n_last) + slot) * side.n_maps +
          map) *
         p.head_dim;
}
/// The token of an exact slot, or -1: the sequence is too short to have it.
SIMT_DEVICE int token_of_slot(int slot, int n_tokens, int n_first, int n_last) {
  const int token = slot < n_first ? slot : slot - n_first + n_tokens - n_last;
  return token < n_tokens && token >= 0 && (slot < n_first || token >= n_first) ? token : -1;
}

/// Scores of exact tokens take the place of predicted ones; a warp owns a token, grid: head,
/// sequence.
template <typename Element, int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads)
    exact_scores(HeadReconstructionParams p, float* scores, int token_stride) {
  const auto head = static_cast<int>(simt::block_idx().x);
  const auto sequence = static_cast<int>(simt::block_idx().y);
  const int kv_head = head / (p.n_heads / p.n_kv_heads);
  const int map = simt::ld_index(p.k.map_of_head + kv_head) - 1;
  if (map < 0) {
    return;
  }
  const int n = simt::ld_index(p.cache.lengths + sequence);
  const std::int64_t row = static_cast<std::int64_t>(sequence) * p.n_heads + head;
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  for (int slot = warp; slot < p.n_first + p.n_last; slot += Threads / simt::kWarpSize) {
    const int token = token_of_slot(slot, n, p.n_first, p.n_last);
    if (token < 0) {
      continue;
    }
    const std::uint16_t* key = p.k.exact + exact_row(p, p.k, sequence, slot, map);
    float sum = 0.0F;
    for (int d = simt::lane_id(); d < p.head_dim; d += simt::kWarpSize) {
      sum += ld_element<Element>(p.q + row * p.head_dim + d) * ld_element<Element>(key + d);
    }
    sum = simt::warp_sum(sum);
    if (simt::lane_id() == 0) {
      simt::st(scores + row * token_stride + token, sum * p.softmax_scale * kLog2E);
    }
  }
}

/// What the outputs are made of.
struct OutputPass {
  HeadReconstructionParams p;
  const float* sums;   // [n_splits, n_sequences, n_heads, v.max_references * head_dim]
  const float* exact;  // [n_sequences, n_heads, n_first + n_last]
  const float* mass;   // [n_sequences, n_heads]
  int n_splits;
};

/// out = sums where the values are stored; M sums + beta mass + exact rows where they are
/// predicted. Grid: head, sequence. Shared memory: the sums of one row.
template <typename Element, int Threads>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(Threads) map_outputs(OutputPass a) {
  const HeadReconstructionParams& p = a.p;
  const auto head = static_cast<int>(simt::block_idx().x);
  const auto sequence = static_cast<int>(simt::block_idx().y);
  const auto thread = static_cast<int>(simt::thread_idx().x);
  const std::int64_t row = static_cast<std::int64_t>(sequence) * p.n_heads + head;
  const SideOfHead side = side_of_head(p.v, head / (p.n_heads / p.n_kv_heads), p.head_dim);
  const std::int64_t split_stride =
      static_cast<std::int64_t>(p.cache.n_sequences) * p.n_heads * side.stride;
  auto* sums = simt::shared_memory<float>();
  for (int column = thread; column < side.columns; column += Threads) {
    sums[column] = summed(a.sums + row * side.stride + column, split_stride, a.n_splits);
  }
  simt::syncblock();
  float* out = p.out + row * p.head_dim;
  if (side.map < 0) {
    for (int d = thread; d < p.head_dim; d += Threads) {
      simt::st(out + d, sums[d]);
    }
    return;
  }
  const int n = simt::ld_index(p.cache.lengths + sequence);
  const float mass = simt::ld(a.mass + row);
  const int lane = simt::lane_id();
  for (int d = thread / simt::kWarpSize; d < p.head_dim; d += Threads / simt::kWarpSize) {
    const std::uint16_t* map =
        p.v.maps + (static_cast<std::int64_t>(side.map) * p.head_dim + d) * side.stride;
    float value = lane == 0 ? simt::ld(p.v.bias + side.map * p.head_dim + d) * mass : 0.0F;
    for (int column = lane; column < side.columns; column += simt::kWarpSize) {
      value += sums[column] * ld_element<Element>(map + column);
    }
    const int n_exact = p.n_first + p.n_last;
    for (int slot = lane; slot < n_exact; slot += simt::kWarpSize) {
      if (token_of_slot(slot, n, p.n_first, p.n_last) >= 0) {
        value += simt::ld(a.exact + row * n_exact + slot) *
                 ld_element<Element>(p.v.exact + exact_row(p, p.v, sequence, slot, side.map) + d);
      }
    }
    value = simt::warp_sum(value);
    if (lane == 0) {
      simt::st(out + d, value);
    }
  }
}

constexpr int kRowTokens = 64;
constexpr int kRowColumns = 64;
template <typename Element, TileMath kMath>
using RowTile = TileGemm<Element, BLayout::n_by_k, kMath, kRowTokens, kRowColumns, 2, 2>;

struct RowPass {
  HeadReconstructionParams p;
  HeadSources side;
  KvPlane plane;
};

/// Rows of one predicted head; grid: column tile, token tile, sequence x KV head.
template <typename Element, TileMath kMath>
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(RowTile<Element, kMath>::kThreads) predicted_rows(RowPass a) {
  const HeadReconstructionParams& p = a.p;
  const int first_column = static_cast<int>(simt::block_idx().x) * kRowColumns;
  const int first_token = static_cast<int>(simt::block_idx().y) * kRowTokens;
  const auto sequence = static_cast<int>(simt::block_idx().z) / p.n_kv_heads;
  const auto kv_head = static_cast<int>(simt::block_idx().z) % p.n_kv_heads;
  const SideOfHead side = side_of_head(a.side, kv_head, p.head_dim);
  const int n_tokens = simt::ld_index(p.cache.lengths + sequence);
  if (side.map < 0 || first_token >= n_tokens) {
    return;
  }
  const RowGroup references{
      nullptr, a.side.stored + kv_head * a.side.max_references, 0, 0, 0, side.columns / p.head_dim};
  const std::int64_t map_row = static_cast<std::int64_t>(side.map) * p.head_dim + first_column;
  const MatrixRows<Element> map{
      reinterpret_cast<const Element*>(a.side.maps) + map_row * side.stride,
      side.stride,
      p.head_dim - first_column,
      side.columns};
  RowTile<Element, kMath> tile;
  tile.accumulate(
      simt::shared_memory<Element>(),
      SliceRows{{p.cache, a.plane, p.head_dim}, references, sequence, first_token, n_tokens, 0},
      map,
      side.columns);
  tile.for_each_pair([&](int row, int column, float value, float next) {
    const int token = first_token + row;
    const int d = first_column + column;
    if (token >= n_tokens || d >= p.head_dim) {
      return;
    }
    const int slot = exact_slot(token, n_tokens, p.n_first, p.n_last);
    const float* bias = a.side.bias + side.map * p.head_dim + d;
    std::uint32_t pair = 0;
    if (slot >= 0) {
      pair = simt::ld(reinterpret_cast<const std::uint32_t*>(
          a.side.exact + exact_row(p, a.side, sequence, slot, side.map) + d));
    } else {
      const std::uint32_t low = element_of<Element>(value + simt::ld(bias));
      pair = low | static_cast<std::uint32_t>(element_of<Element>(next + simt::ld(bias + 1))) << 16;
    }
    const std::int64_t at =
        ((static_cast<std::int64_t>(sequence) * p.token_capacity + token) * a.side.n_maps +
         side.map) *
            p.head_dim +
        d;
    simt::st(reinterpret_cast<std::uint32_t*>(p.rows + at), pair);
  });
}

/// The launches of one absorbed decode.
template <typename Element, TileMath kMath>
class Decode {
 public:
  Decode(const HeadReconstructionParams& p,
         int longest_tokens,
         int n_splits,
         const HeadDecodeScratch& scratch,
         Stream stream)
      : p_(p),
        longest_(longest_tokens),
        n_splits_(n_splits),
        scratch_(scratch),
        stream_(stream),
        sequences_(static_cast<unsigned>(p.cache.n_sequences)) {}

  void scores() const {
    simt::launch(map_queries<Element, kThreads>,
                 by_head(),
                 kThreads,
                 static_cast<std::size_t>(p_.head_dim + kWarps) * sizeof(float),
                 stream_,
                 QueryPass{p_, scratch_.queries, scratch_.bias});
    ScorePass pass;
    pass.keys = StoredHeads{p_.cache, p_.cache.k, p_.head_dim};
    pass.groups = p_.k.groups;
    pass.q = scratch_.queries;
    pass.q_stride = p_.k.max_references * p_.head_dim;
    pass.n_heads = p_.n_heads;
    pass.scale_log2 = p_.softmax_scale * kLog2E;
    pass.bias = scratch_.bias;
    pass.scores = scratch_.scores;
    pass.token_stride = round_to_eight(longest_);
    simt::launch(group_scores<Element, kMath>,
                 simt::Dim3(parts(longest_, kScoreTokens),
                            static_cast<unsigned>(pass.groups.n_groups) *
                                parts(pass.groups.rows_per_group, kScoreRows),
                            sequences_),
                 ScoreTile<Element, kMath>::kThreads,
                 ScoreTile<Element, kMath>::kRingBytes,
                 stream_,
                 pass);
    simt::launch(exact_scores<Element, kThreads>,
                 by_head(),
                 kThreads,
                 0,
                 stream_,
                 p_,
                 scratch_.scores,
                 round_to_eight(longest_));
  }

  void weights() const {
    WeightPass pass;
    pass.keys = StoredHeads{p_.cache, p_.cache.k, p_.head_dim};
    pass.n_heads = p_.n_heads;
    pass.scores = scratch_.scores;
    pass.token_stride = round_to_eight(longest_);
    pass.weights = scratch_.weights;
    pass.predicted = p_.v.map_of_head;
    pass.rows_per_flag = p_.n_heads / p_.n_kv_heads;
    pass.n_first = p_.n_first;
    pass.n_last = p_.n_last;
    pass.exact = scratch_.exact;
    pass.predicted_mass = scratch_.mass;
    simt::launch(group_weights<Element, kWeightThreads>,
                 by_head(),
                 kWeightThreads,
                 kWeightThreads / simt::kWarpSize * sizeof(float),
                 stream_,
                 pass);
  }

  void outputs() const {
    SumPass pass;
    pass.stored = StoredHeads{p_.cache, p_.cache.v, p_.head_dim};
    pass.groups = p_.v.groups;
    pass.weights = scratch_.weights;
    pass.token_stride = round_to_eight(longest_);
    pass.n_heads = p_.n_heads;
    pass.n_splits = n_splits_;
    pass.sums = scratch_.sums;
    pass.sum_stride = p_.v.max_references * p_.head_dim;
    if (sum_rows(pass.groups.rows_per_group) == 16) {
      run_sums<16>(pass);
    } else {
      run_sums<64>(pass);
    }
    simt::launch(map_outputs<Element, kThreads>,
                 by_head(),
                 kThreads,
                 static_cast<std::size_t>(p_.v.max_references) * p_.head_dim * sizeof(float),
                 stream_,
                 OutputPass{p_, scratch_.sums, scratch_.exact, scratch_.mass, n_splits_});
  }

 private:
  template <int kRows>
  void run_sums(const SumPass& pass) const {
    using Tile = SumTile<Element, kMath, kRows>;
    simt::launch(group_sums<Element, kMath, kRows>,
                 simt::Dim3(parts(pass.groups.slices_per_group * p_.head_dim, kSumColumns),
                            static_cast<unsigned>(pass.groups.n_groups) *
                                parts(pass.groups.rows_per_group, kRows),
                            sequences_ * static_cast<unsigned>(n_splits_)),
                 Tile::kThreads,
                 Tile::kRingBytes,
                 stream_,
                 pass);
  }
  [[nodiscard]] simt::Dim3 by_head() const {
    return simt::Dim3(static_cast<unsigned>(p_.n_heads), sequences_);
  }

  const HeadReconstructionParams& p_;
  int longest_, n_splits_;
  const HeadDecodeScratch& scratch_;
  Stream stream_;
  unsigned sequences_;
};

/// Calls f<Element, math>() for the format of the cache, and for what the device can multiply.
template <typename F>
void for_element(const HeadReconstructionParams& p, const F& f) {
  constexpr int kFirstWithBf16Mma = 80;
  if (p.cache.format == KvFormat::f16) {
    f.template operator()<F16, TileMath::tensor_cores>();
  } else if (device().compute_capability >= kFirstWithBf16Mma) {
    f.template operator()<Bf16, TileMath::tensor_cores>();
  } else {
    f.template operator()<Bf16, TileMath::cuda_cores>();
  }
}

}  // namespace

void head_rows_launch(const HeadReconstructionParams& params,
                      HeadSide side,
                      int longest_tokens,
                      Stream stream) {
  head_reconstruction_check(params);
  if (params.token_capacity < longest_tokens) {
    throw UnsupportedShape("token_capacity is less than the longest length");
  }
  const bool keys = side == HeadSide::keys;
  const HeadSources& sources = keys ? params.k : params.v;
  if (params.cache.n_sequences == 0 || longest_tokens == 0 || sources.n_maps == 0) {
    return;
  }
  for_element(params, [&]<typename Element, TileMath kMath>() {
    using Tile = RowTile<Element, kMath>;
    simt::launch(predicted_rows<Element, kMath>,
                 simt::Dim3(parts(params.head_dim, kRowColumns),
                            parts(longest_tokens, kRowTokens),
                            static_cast<unsigned>(params.cache.n_sequences * params.n_kv_heads)),
                 Tile::kThreads,
                 Tile::kRingBytes,
                 stream,
                 RowPass{params, sources, keys ? params.cache.k : params.cache.v});
  });
}

void head_decode_launch(const HeadReconstructionParams& params,
                        int longest_tokens,
                        int n_splits,
                        void* scratch,
                        Stream stream) {
  head_reconstruction_check(params);
  if (n_splits < 1) {
    throw UnsupportedShape("n_splits = " + std::to_string(n_splits) + " is not positive");
  }
  if (params.cache.n_sequences == 0) {
    return;
  }
  const HeadDecodeScratch at(params, longest_tokens, n_splits, scratch);
  for_element(params, [&]<typename Element, TileMath kMath>() {
    const Decode<Element, kMath> decode(params, longest_tokens, n_splits, at, stream);
    decode.scores();
    decode.weights();
    decode.outputs();
  });
}

}  // namespace kvfathom::kernels
