// Predicted heads on the device: rows of maps, and absorbed decode in passes.
#include <string>

#include "kernels/common/error.h"
#include "kernels/common/grouped_passes.h"
#include "kernels/head_reconstruction/head_decode_scratch.h"
#include "kernels/head_reconstruction/head_maps.h"
#include "kernels/head_reconstruction/head_reconstruction.h"

namespace kvfathom::kernels {
namespace {

using namespace grouped;
using namespace head_maps;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / simt::kWarpSize;

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
  for_element(params.cache.format, [&]<typename Element, TileMath kMath>() {
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
  for_element(params.cache.format, [&]<typename Element, TileMath kMath>() {
    const Decode<Element, kMath> decode(params, longest_tokens, n_splits, at, stream);
    decode.scores();
    decode.weights();
    decode.outputs();
  });
}

}  // namespace kvfathom::kernels
