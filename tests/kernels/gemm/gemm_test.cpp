#include "kernels/gemm/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/tolerance.h"
#include "model/ops/gemm.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/old_device.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"
#include "tests/kernels/support/vector_widths.h"

namespace kvfathom::kernels {
namespace {

/// One product: its data, and what it should be.
class GemmCase {
 public:
  GemmCase(WeightFormat format, int m, int n, int k, std::uint64_t seed)
      : weights_(random_weights(format, n, k, 0.05F, seed)) {
    RandomData random(seed + 1);
    for (int i = 0; i < m * k; ++i) {
      x_.push_back(activation_of_f32(format, random.normal()));
    }
    params_ = {.m = m, .weights = {format, n, k, weights_.data()}, .x = x_.data()};
    want_.resize(static_cast<std::size_t>(m * n));
    std::vector<double> magnitude(want_.size());
    gemm_reference(params_, {want_.data(), magnitude.data()});
    for (std::size_t i = 0; i < want_.size(); ++i) {
      Roundings roundings{.output = activation_roundoff(format),
                          .output_step = activation_half_step(format)};
      bound_.push_back(dot_bound(want_[i], magnitude[i], k, roundings));
      // Tiles round decoded weights to f16.
      roundings.operands = is_quantised(format) ? kUnitRoundoffF16 : 0.0;
      tiles_bound_.push_back(dot_bound(want_[i], magnitude[i], k, roundings));
    }
  }

  [[nodiscard]] GemmParams params() const { return params_; }

  [[nodiscard]] Comparison on_cpu(const GemmParams& params, int n_threads) const {
    std::vector<std::uint16_t> out(want_.size(), 0xffffU);
    GemmParams with = params;
    with.out = out.data();
    gemm_cpu(with, n_threads);
    return held_to(out, bound_);
  }

  [[nodiscard]] Comparison on_device(GemmKernel kernel, int k_less = 0, float weight_scale = 1.0F) {
    const WeightFormat format = params_.weights.format;
    std::vector<std::byte> weights = weights_;
    if (weight_scale != 1.0F) {  // 16-bit weights only
      for (std::size_t i = 0; i < weights.size(); i += 2) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, weights.data() + i, 2);
        bits = activation_of_f32(format, activation_to_f32(format, bits) * weight_scale);
        std::memcpy(weights.data() + i, &bits, 2);
      }
    }
    const DeviceArray<std::byte> device_weights(weights);
    std::vector<std::uint16_t> x = x_;
    for (int row = 0; k_less > 0 && row < params_.m; ++row) {  // the last elements do not count
      std::fill_n(x.data() + (row + 1) * params_.weights.k - k_less, k_less, std::uint16_t{0});
    }
    const DeviceArray<std::uint16_t> device_x(x);
    const DeviceArray<std::uint16_t> out(std::vector<std::uint16_t>(want_.size(), 0xffffU));
    GemmParams with = params_;
    with.weights.data = device_weights.data();
    with.x = device_x.data();
    with.out = out.data();
    gemm_launch(with, nullptr, kernel);
    synchronize();
    const bool tiles =
        kernel == GemmKernel::tiles ||
        (kernel == GemmKernel::automatic && gemm_kernel(with, device()) == GemmKernel::tiles);
    return held_to(out.to_host(), tiles ? tiles_bound_ : bound_);
  }

 private:
  [[nodiscard]] Comparison held_to(const std::vector<std::uint16_t>& out,
                                   const std::vector<double>& bound) const {
    std::vector<float> values;
    for (const std::uint16_t bits : out) {
      values.push_back(activation_to_f32(params_.weights.format, bits));
    }
    return compare<float>(values, want_, bound);
  }

  std::vector<std::byte> weights_;
  std::vector<std::uint16_t> x_;
  GemmParams params_;
  std::vector<double> want_, bound_, tiles_bound_;
};

TEST(GemmReference, OneHotActivationsPickAColumn) {
  const WeightFormat format = WeightFormat::q4_0;
  const auto weights = random_weights(format, 5, 64, 1.0F, 3);
  std::vector<std::uint16_t> x(64, activation_of_f32(format, 0.0F));
  x[37] = activation_of_f32(format, 2.0F);
  std::vector<double> out(5), magnitude(5);
  gemm_reference({.m = 1, .weights = {format, 5, 64, weights.data()}, .x = x.data()},
                 {out.data(), magnitude.data()});
  for (int row = 0; row < 5; ++row) {
    const double w =
        decode_weights(format, 64, weights.data() + row * weight_row_bytes(format, 64))[37];
    EXPECT_EQ(out[row], 2.0 * w);
    EXPECT_EQ(magnitude[row], 2.0 * std::fabs(w));
  }
}

TEST(GemmCpu, EqualsTheReference) {
  std::uint64_t seed = 10;
  for (const WeightFormat format : kAllWeightFormats) {
    const int step = block_of(format).elements;
    for (const int m : {1, 2, 7, 8, 9, 70}) {
      for (const int k : {step, 3 * std::max(step, 37), 768}) {
        for (const int n : {1, 33, 130}) {
          SCOPED_TRACE(std::string(name(format)) + " m " + std::to_string(m) + " n " +
                       std::to_string(n) + " k " + std::to_string(k));
          const int whole_k = k / step * step;
          const GemmCase c(format, m, n, whole_k, ++seed);
          EXPECT_TRUE(within(c.on_cpu(c.params(), 2)));
        }
      }
    }
  }
}

/// Rows by fours and what is left, tokens by blocks and what is left, 16-bit depths that end within
/// a vector.
TEST(GemmCpu, EveryVectorWidth) {
  std::uint64_t seed = 400;
  at_every_vector_width([&] {
    for (const WeightFormat format : kAllWeightFormats) {
      const int step = block_of(format).elements;
      for (const int k : {step, is_quantised(format) ? 9 * step : 299}) {
        for (const int n : {1, 4, 11}) {
          for (const int m : {1, 2, 3, 4, 7}) {
            SCOPED_TRACE(std::string(name(format)) + " m " + std::to_string(m) + " n " +
                         std::to_string(n) + " k " + std::to_string(k));
            const GemmCase c(format, m, n, k, ++seed);
            EXPECT_TRUE(within(c.on_cpu(c.params(), 1)));
          }
        }
      }
    }
  });
}

TEST(GemmCpu, ADroppedElementAndAWrongRowShow) {
  const GemmCase c(WeightFormat::f16, 4, 40, 256, 5);
  GemmParams shorter = c.params();
  std::vector<std::uint16_t> x(shorter.x, shorter.x + 4 * 256);
  x[255] = 0;
  shorter.x = x.data();
  EXPECT_FALSE(c.on_cpu(shorter, 1).holds());
  GemmParams shifted = c.params();
  const std::byte* const first = shifted.weights.data;
  std::vector<std::byte> weights(first, first + 40 * shifted.weights.row_bytes());
  std::rotate(weights.begin(), weights.begin() + 2, weights.end());  // one element on
  shifted.weights.data = weights.data();
  EXPECT_FALSE(c.on_cpu(shifted, 1).holds());
}

TEST(Gemm, GemvEqualsTheReference) {
  SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 100;
  for (const WeightFormat format : kAllWeightFormats) {
    for (const int m : {1, 3, 8}) {
      for (const int k : {256, 1280}) {
        for (const int n : {1, 16, 50}) {
          SCOPED_TRACE(std::string(name(format)) + " m " + std::to_string(m) + " n " +
                       std::to_string(n) + " k " + std::to_string(k));
          GemmCase c(format, m, n, k, ++seed);
          EXPECT_TRUE(within(c.on_device(GemmKernel::gemv)));
          EXPECT_TRUE(within(c.on_device(GemmKernel::gemv_cuda_cores)));
        }
      }
    }
  }
}

TEST(Gemm, GemvTakesOddDepths) {
  SKIP_WITHOUT_DEVICE();
  for (const int k : {8, 120, 136, 584}) {
    GemmCase c(WeightFormat::bf16, 5, 20, k, 200);
    EXPECT_TRUE(within(c.on_device(GemmKernel::gemv))) << k;
  }
  for (const WeightFormat format : {WeightFormat::q8_0, WeightFormat::q4_0}) {
    GemmCase c(format, 5, 20, 96, 201);
    EXPECT_TRUE(within(c.on_device(GemmKernel::automatic)));
    EXPECT_THROW(static_cast<void>(c.on_device(GemmKernel::gemv)), UnsupportedShape);
  }
}

TEST(Gemm, TilesEqualTheReference) {
  SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 300;
  for (const WeightFormat format : kAllWeightFormats) {
    for (const int m : {9, 70}) {
      SCOPED_TRACE(std::string(name(format)) + " m " + std::to_string(m));
      GemmCase c(format, m, 75, 256, ++seed);
      EXPECT_TRUE(within(c.on_device(GemmKernel::tiles)));
      EXPECT_TRUE(within(c.on_device(GemmKernel::automatic)));
    }
  }
}

TEST(Gemm, TheLibraryEqualsTheReferenceOrSaysWhyNot) {
  SKIP_WITHOUT_DEVICE();
  GemmCase c(WeightFormat::bf16, 40, 64, 128, 310);
  if (gemm_library_missing().empty()) {
    EXPECT_TRUE(within(c.on_device(GemmKernel::library)));
    GemmCase f16(WeightFormat::f16, 1, 136, 1024, 311);
    EXPECT_TRUE(within(f16.on_device(GemmKernel::library)));
  } else {
    EXPECT_THROW(static_cast<void>(c.on_device(GemmKernel::library)), NoDevice);
  }
  GemmCase quantised(WeightFormat::q8_0, 40, 64, 128, 312);
  EXPECT_THROW(static_cast<void>(quantised.on_device(GemmKernel::library)), UnsupportedShape);
}

TEST(Gemm, MistakesShow) {
  SKIP_WITHOUT_DEVICE();
  GemmCase c(WeightFormat::f16, 2, 50, 512, 320);
  for (const GemmKernel kernel :
       {GemmKernel::gemv, GemmKernel::gemv_cuda_cores, GemmKernel::tiles}) {
    EXPECT_TRUE(c.on_device(kernel).holds());
    EXPECT_FALSE(c.on_device(kernel, 1).holds());
    EXPECT_FALSE(c.on_device(kernel, 0, 1.01F).holds());
  }
}

TEST(Gemm, BeforeAmpereBf16RunsOnCudaCores) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "only the emulator can be an sm_75";
  }
  const PretendedSm75 turing;
  GemmCase few(WeightFormat::bf16, 3, 40, 256, 330);
  EXPECT_EQ(gemm_kernel(few.params(), device()), GemmKernel::gemv_cuda_cores);
  EXPECT_TRUE(within(few.on_device(GemmKernel::automatic)));
  EXPECT_THROW(static_cast<void>(few.on_device(GemmKernel::gemv)), UnsupportedShape);
  GemmCase many(WeightFormat::bf16, 20, 40, 72, 331);
  EXPECT_TRUE(within(many.on_device(GemmKernel::automatic)));
  GemmCase quantised(WeightFormat::q4_k, 3, 40, 256, 332);
  EXPECT_EQ(gemm_kernel(quantised.params(), device()), GemmKernel::gemv);
  EXPECT_TRUE(within(quantised.on_device(GemmKernel::automatic)));
}

TEST(Gemm, MovesTheBytesOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  const std::pair<WeightFormat, DType> formats[] = {{WeightFormat::f16, DType::f16},
                                                    {WeightFormat::bf16, DType::bf16},
                                                    {WeightFormat::q8_0, DType::q8_0},
                                                    {WeightFormat::q4_0, DType::q4_0},
                                                    {WeightFormat::q4_k, DType::q4_k}};
  for (const auto& [format, dtype] : formats) {
    for (const GemmKernel kernel : {GemmKernel::gemv, GemmKernel::gemv_cuda_cores}) {
      SCOPED_TRACE(name(format));
      GemmCase c(format, 3, 50, 768, 340);
      static_cast<void>(simt::take_traffic());
      EXPECT_TRUE(within(c.on_device(kernel)));
      EXPECT_TRUE(moved_bytes_of(gemm_cost({.m = 3, .n = 50, .k = 768, .weights = dtype})));
    }
  }
}

TEST(GemmSmall, EqualsTheReferenceUnderEverySchedule) {
  SKIP_WITHOUT_DEVICE();
  for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::q4_k}) {
    GemmCase c(format, 3, 20, 512, 350);
    under_every_schedule([&] {
      EXPECT_TRUE(within(c.on_device(GemmKernel::gemv)));
      EXPECT_TRUE(within(c.on_device(GemmKernel::tiles)));
    });
  }
}

TEST(GemmSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  GemmCase c(WeightFormat::bf16, 8, 16, 128 * 4 * 4, 360);
  expect_every_sync_matters([&] { return c.on_device(GemmKernel::gemv).holds(); });
}

}  // namespace
}  // namespace kvfathom::kernels
