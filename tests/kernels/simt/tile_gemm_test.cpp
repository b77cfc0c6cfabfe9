// The tile product that other kernels are built on, in every layout, format and kind of unit.
#include "kernels/common/tile_gemm.h"

#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/tolerance.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

struct Shape {
  int m, n, k;
};

template <typename Tile, typename Element, BLayout kLayout>
SIMT_KERNEL void tile_product(
    const Element* a, const Element* b, float* c, Shape shape, bool stage) {
  Element* shared = simt::shared_memory<Element>();
  const int row0 = static_cast<int>(simt::block_idx().y) * Tile::kM;
  const int column0 = static_cast<int>(simt::block_idx().x) * Tile::kN;
  const MatrixRows<Element> rows_a{
      a + static_cast<std::int64_t>(row0) * shape.k, shape.k, shape.m - row0, shape.k};
  const MatrixRows<Element> rows_b =
      kLayout == BLayout::n_by_k
          ? MatrixRows<Element>{b + static_cast<std::int64_t>(column0) * shape.k,
                                shape.k,
                                shape.n - column0,
                                shape.k}
          : MatrixRows<Element>{b + column0, shape.n, shape.k, shape.n - column0};
  Tile tile;
  tile.accumulate(shared, rows_a, rows_b, shape.k);
  const auto store = [&](int row, int column, float v0, float v1) {
    if (row0 + row < shape.m && column0 + column < shape.n) {
      float* to = c + static_cast<std::int64_t>(row0 + row) * shape.n + column0 + column;
      simt::st(to, v0);
      simt::st(to + 1, v1);
    }
  };
  if (!stage) {
    tile.for_each_pair(store);
    return;
  }
  float* result = simt::shared_memory<float>();
  tile.stage_result(result);
  for (int i = static_cast<int>(simt::thread_idx().x); i < Tile::kM * Tile::kN / 2;
       i += Tile::kThreads) {
    const int row = i / (Tile::kN / 2);
    const int column = i % (Tile::kN / 2) * 2;
    const float* from = result + row * Tile::kResultPitch + column;
    store(row, column, from[0], from[1]);
  }
}

/// One product, and what it should be.
template <typename Element, BLayout kLayout>
struct Product {
  Product(Shape of, std::uint64_t seed) : shape(of) {
    RandomData random(seed);
    const auto fill = [&](std::vector<Element>& values, int n) {
      for (int i = 0; i < n; ++i) {
        values.push_back([&] {
          if constexpr (std::is_same_v<Element, Bf16>) {
            return to_bf16(random.normal());
          } else {
            return to_f16(random.normal());
          }
        }());
      }
    };
    fill(a, shape.m * shape.k);
    fill(b, shape.n * shape.k);
    for (int row = 0; row < shape.m; ++row) {
      for (int column = 0; column < shape.n; ++column) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (int i = 0; i < shape.k; ++i) {
          const std::size_t at_b =
              kLayout == BLayout::n_by_k ? column * shape.k + i : i * shape.n + column;
          const double product =
              static_cast<double>(to_f32(a[row * shape.k + i])) * to_f32(b[at_b]);
          sum += product;
          magnitude += std::fabs(product);
        }
        want.push_back(sum);
        bound.push_back(dot_bound(sum, magnitude, shape.k));
      }
    }
  }

  template <TileMath kMath, int kM, int kN, int kWarpsM, int kWarpsN, int kStages = 2>
  [[nodiscard]] Comparison run(bool stage = false, int k_used = 0) const {
    using Tile = TileGemm<Element, kLayout, kMath, kM, kN, kWarpsM, kWarpsN, kStages>;
    std::vector<float> got(want.size(), NAN);
    Shape used = shape;
    used.k = k_used > 0 ? k_used : shape.k;
    simt::launch(tile_product<Tile, Element, kLayout>,
                 simt::Dim3((shape.n + kN - 1) / kN, (shape.m + kM - 1) / kM),
                 Tile::kThreads,
                 stage ? Tile::kStagedBytes : Tile::kRingBytes,
                 nullptr,
                 a.data(),
                 b.data(),
                 got.data(),
                 used,
                 stage);
    return compare<float>(got, want, bound);
  }

  Shape shape;
  std::vector<Element> a, b;
  std::vector<double> want, bound;
};

template <typename Element, BLayout kLayout>
void check_every_tile(Shape shape, std::uint64_t seed) {
  SCOPED_TRACE(std::to_string(shape.m) + " x " + std::to_string(shape.n) + " x " +
               std::to_string(shape.k));
  const Product<Element, kLayout> product(shape, seed);
  EXPECT_TRUE(within(product.template run<TileMath::tensor_cores, 64, 64, 2, 2>()));
  EXPECT_TRUE(within(product.template run<TileMath::tensor_cores, 64, 64, 2, 2>(true)));
  EXPECT_TRUE(within(product.template run<TileMath::tensor_cores, 16, 64, 1, 4, 3>()));
  EXPECT_TRUE(within(product.template run<TileMath::cuda_cores, 32, 32, 2, 2>()));
}

TEST(TileGemm, EqualsTheReferenceInEveryFormatAndLayout) {
  const std::vector<Shape> shapes = {
      {1, 8, 8}, {16, 16, 32}, {17, 40, 40}, {64, 64, 64}, {65, 72, 96}, {3, 136, 264}};
  for (const Shape& shape : shapes) {
    check_every_tile<Bf16, BLayout::n_by_k>(shape, 1);
    check_every_tile<F16, BLayout::n_by_k>(shape, 2);
    check_every_tile<Bf16, BLayout::k_by_n>(shape, 3);
    check_every_tile<F16, BLayout::k_by_n>(shape, 4);
  }
}

TEST(TileGemm, TheLargeTileEqualsTheReference) {
  const Product<Bf16, BLayout::n_by_k> product({130, 136, 72}, 5);
  EXPECT_TRUE(within(product.run<TileMath::tensor_cores, 128, 128, 2, 4>()));
}

TEST(TileGemm, ADroppedTermShows) {
  const Product<Bf16, BLayout::n_by_k> product({33, 40, 264}, 6);
  EXPECT_FALSE((product.run<TileMath::tensor_cores, 64, 64, 2, 2>(false, 256).holds()));
}

TEST(TileGemmSmall, EqualsTheReferenceUnderEverySchedule) {
  const Product<F16, BLayout::n_by_k> by_n({17, 24, 72}, 7);
  const Product<Bf16, BLayout::k_by_n> by_k({17, 24, 72}, 8);
  under_every_schedule([&] {
    EXPECT_TRUE(within(by_n.run<TileMath::tensor_cores, 32, 32, 2, 1>()));
    EXPECT_TRUE(within(by_k.run<TileMath::tensor_cores, 32, 32, 1, 2>(true)));
    EXPECT_TRUE(within(by_k.run<TileMath::cuda_cores, 32, 32, 1, 2, 3>()));
  });
}

TEST(TileGemmSmall, EverySynchronisationMatters) {
  const Product<F16, BLayout::n_by_k> product({32, 32, 136}, 9);
  expect_every_sync_matters(
      [&] { return product.run<TileMath::tensor_cores, 32, 32, 2, 1>(true).holds(); });
}

TEST(TileGemm, RequestsTheBytesOfItsFormulaAndMeetsNoBankTwice) {
  const Product<Bf16, BLayout::n_by_k> product({100, 136, 96}, 10);
  static_cast<void>(simt::take_traffic());
  EXPECT_TRUE(within(product.run<TileMath::tensor_cores, 64, 64, 2, 2>()));
  const simt::Traffic traffic = simt::take_traffic().value();
  EXPECT_EQ(traffic.read_bytes(), tile_gemm_requested_bytes(100, 136, 96, 64, 64));
  EXPECT_EQ(traffic.stored_bytes, 4U * 100 * 136);
  EXPECT_EQ(traffic.ldmatrix_cycles, traffic.ldmatrix_phases);
}

}  // namespace
}  // namespace kvfathom::kernels
