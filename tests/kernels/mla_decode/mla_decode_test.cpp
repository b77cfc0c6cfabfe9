#include "kernels/mla_decode/mla_decode.h"

#include <string>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/mla_decode.h"
#include "tests/kernels/mla_decode/mla_problem.h"
#include "tests/kernels/support/schedules.h"

namespace kvfathom::kernels {
namespace {

constexpr Roundings kTensorCoreRoundings{.probabilities = kUnitRoundoffBf16};

Roundings roundings_of(const MlaDecodePlan& plan) {
  return plan.kernel == MlaDecodeKernel::tensor_cores ? kTensorCoreRoundings : Roundings{};
}

MlaCase glm_flash(int n_heads, std::vector<std::int32_t> lengths) {
  return MlaCase{.n_heads = n_heads,
                 .kv_lora_rank = 512,
                 .qk_rope_head_dim = 64,
                 .lengths = std::move(lengths)};
}
MlaCase with_fp8(MlaCase shape) {
  shape.format = KvFormat::fp8_e4m3;
  return shape;
}
MlaCase with_separate_v(MlaCase shape) {
  shape.separate_v = true;
  return shape;
}
MlaCase paged(MlaCase shape, int log2_page_tokens) {
  shape.log2_page_tokens = log2_page_tokens;
  return shape;
}

/// Devices with less shared memory than an H200: other tiles.
DeviceInfo device_with(std::int64_t shared_bytes, int compute_capability) {
  return DeviceInfo{.name = "emulated",
                    .emulated = true,
                    .compute_capability = compute_capability,
                    .n_multiprocessors = 4,
                    .shared_bytes_per_block = shared_bytes,
                    .l2_bytes = 1 << 20,
                    .memory_bytes = 1 << 30};
}
constexpr std::int64_t kSharedSm80 = 163 * 1024;
constexpr std::int64_t kSharedSm89 = 99 * 1024;
constexpr std::int64_t kSharedSm75 = 64 * 1024;

// ---- the reference against closed forms ----

TEST(MlaDecodeReference, OneTokenGivesItsLatent) {
  const MlaProblem problem({.n_heads = 3, .lengths = {1}});
  const std::vector<double> row =
      decode_row(KvFormat::bf16, 288, problem.host().cache.k.data, nullptr);
  for (std::size_t i = 0; i < problem.n_outputs(); ++i) {
    EXPECT_EQ(problem.reference()[i], row[i % 256]);
  }
}

TEST(MlaDecodeReference, EqualScoresGiveTheMean) {
  MlaProblem problem({.n_heads = 2, .lengths = {7}});
  problem.set_q(0.0F);
  for (std::size_t i = 0; i < 256; ++i) {
    double mean = 0.0;
    for (int token = 0; token < 7; ++token) {
      mean +=
          decode_row(KvFormat::bf16, 288, problem.host().cache.k.data + token * 576, nullptr)[i] /
          7.0;
    }
    EXPECT_NEAR(problem.reference()[i], mean, 1e-12);
  }
}

TEST(MlaDecodeReference, AnEmptySequenceGivesZeros) {
  const MlaProblem problem({.n_heads = 2, .lengths = {0}});
  for (const double x : problem.reference()) {
    EXPECT_EQ(x, 0.0);
  }
}

TEST(MlaFp8Row, DecodesWithinHalfAStepOfEachBlocksGrid) {
  RandomData random(5);
  std::vector<float> row = random.normals(576);
  row[130] = 300.0F;  // blocks scale on their own
  const std::vector<double> back = decode_mla_fp8_row(encode_mla_fp8_row(row).data());
  for (std::size_t i = 0; i < 512; ++i) {
    const double largest = i / 128 == 1 ? 300.0 : 5.0;
    const double finest = largest / 448.0 * 0x1p-10;  // half the subnormal step
    EXPECT_NEAR(back[i], row[i], std::fabs(row[i]) * kUnitRoundoffFp8E4m3 * 1.001 + finest) << i;
  }
  for (std::size_t i = 512; i < 576; ++i) {
    EXPECT_EQ(back[i], to_f32(to_bf16(row[i])));
  }
}

// ---- CPU ----

void expect_cpu_is_right(const MlaCase& shape, std::uint64_t seed = 1) {
  const MlaProblem problem(shape, seed);
  for (const int n_threads : {1, 3}) {
    EXPECT_TRUE(within(problem.against_reference(problem.on_cpu(n_threads), Roundings{})))
        << n_threads << " threads";
  }
}

TEST(MlaDecodeCpu, MatchesTheReference) {
  expect_cpu_is_right(glm_flash(20, {0, 1, 63, 64, 65}));
  expect_cpu_is_right(paged(with_fp8(glm_flash(5, {200, 17})), 4));
  expect_cpu_is_right(paged(with_separate_v(glm_flash(3, {130, 33})), 5));
  expect_cpu_is_right({.n_heads = 1, .lengths = {300, 2}, .score_deviation = 8.0F});
  expect_cpu_is_right(with_separate_v({.n_heads = 7, .lengths = {100}}));
}

TEST(MlaDecodeCpu, SeesEveryToken) {
  for (const int token : {0, 63, 64, 65, 127, 299}) {
    MlaProblem problem({.n_heads = 2, .lengths = {300}}, 4);
    problem.plant(0, 1, token);
    EXPECT_TRUE(within(problem.against_reference(problem.on_cpu(2), Roundings{}))) << token;
  }
}

TEST(MlaDecodeCpu, RefusesRowsThatNothingIsBuiltFor) {
  EXPECT_THROW(static_cast<void>(MlaProblem({.kv_lora_rank = 128}).on_cpu()), UnsupportedShape);
}

// ---- the launch rule ----

MlaDecodePlan plan_for(const MlaCase& shape, const DeviceInfo& info) {
  MlaCase tiny = shape;
  tiny.lengths = {1};
  return mla_decode_plan(MlaProblem(tiny).host(), shape.longest(), info);
}

TEST(MlaDecodePlan, ReadsTheCacheOnceFor20HeadsOnEveryTensorCoreDevice) {
  for (const auto& shape : {glm_flash(20, {4096}), with_fp8(glm_flash(20, {4096}))}) {
    for (const std::int64_t shared : {std::int64_t{227 * 1024}, kSharedSm80, kSharedSm89}) {
      const MlaDecodePlan plan = plan_for(shape, device_with(shared, 80));
      EXPECT_EQ(plan.n_passes, 1) << shared;
      EXPECT_EQ(plan.heads_per_block, 32);
      EXPECT_LE(plan.shared_bytes, shared);
    }
  }
  EXPECT_EQ(plan_for(glm_flash(20, {4096}), device_with(227 * 1024, 90)).tile_tokens, 64);
  EXPECT_EQ(plan_for(glm_flash(20, {4096}), device_with(kSharedSm80, 80)).tile_tokens, 32);
  EXPECT_EQ(plan_for(glm_flash(20, {4096}), device_with(kSharedSm89, 89)).tile_tokens, 16);
}

TEST(MlaDecodePlan, CountsPasses) {
  EXPECT_EQ(plan_for(glm_flash(16, {99}), device_with(227 * 1024, 90)).heads_per_block, 16);
  EXPECT_EQ(plan_for(glm_flash(128, {99}), device_with(227 * 1024, 90)).n_passes, 4);
  EXPECT_EQ(plan_for(glm_flash(33, {99}), device_with(227 * 1024, 90)).n_passes, 2);
  EXPECT_EQ(plan_for(glm_flash(20, {99}), device_with(kSharedSm75, 75)).n_passes, 5);
  const MlaDecodePlan two =
      plan_for(with_separate_v(glm_flash(20, {99})), device_with(kSharedSm89, 89));
  EXPECT_EQ(two.n_passes, 2);  // K and V of 32 heads need more than 99 KiB
}

TEST(MlaDecodePlan, FillsTheDeviceInWholeWaves) {
  DeviceInfo info = device_with(227 * 1024, 90);
  info.n_multiprocessors = 132;
  EXPECT_EQ(plan_for(glm_flash(20, {32768}), info).n_splits, 128);  // 512 tiles: 4 each
  EXPECT_EQ(plan_for(glm_flash(20, {1}), info).n_splits, 1);
}

TEST(MlaDecodePlan, TensorCoresNeedSm80) {
  const MlaProblem problem({.n_heads = 2});
  EXPECT_THROW(static_cast<void>(mla_decode_plan(
                   problem.host(), 1, device_with(kSharedSm75, 75), MlaDecodeKernel::tensor_cores)),
               UnsupportedShape);
}

// ---- launches ----

void expect_device_is_right(const MlaProblem& problem, const MlaDecodePlan& plan) {
  EXPECT_TRUE(within(problem.against_reference(problem.on_device(plan), roundings_of(plan))))
      << plan.heads_per_block << " heads by " << plan.tile_tokens << " tokens, " << plan.n_splits
      << " splits";
}

TEST(MlaDecode, MatchesTheReferenceAtEdges) {
  SKIP_WITHOUT_DEVICE();
  for (const MlaCase& shape : {glm_flash(20, {0, 1, 63, 64, 65, 129}),
                               paged(with_fp8(glm_flash(20, {15, 16, 17, 66})), 4),
                               paged(glm_flash(3, {70, 32}), 0),
                               with_separate_v(glm_flash(17, {33, 64})),
                               MlaCase{.n_heads = 5, .lengths = {127, 128, 129}},
                               with_separate_v({.n_heads = 33, .lengths = {31, 33}})}) {
    const MlaProblem problem(shape);
    for (const int n_splits : {1, 3}) {
      expect_device_is_right(problem, problem.plan(MlaDecodeKernel::automatic, n_splits));
    }
  }
}

TEST(MlaDecode, CudaCoresMatchTheReference) {
  SKIP_WITHOUT_DEVICE();
  for (const MlaCase& shape : {glm_flash(5, {0, 1, 7, 8, 9, 40}),
                               paged(with_fp8(glm_flash(4, {33, 16})), 3),
                               paged(with_separate_v(glm_flash(2, {19})), 2),
                               MlaCase{.n_heads = 9, .lengths = {65}},
                               with_separate_v({.n_heads = 1, .lengths = {30}})}) {
    const MlaProblem problem(shape);
    for (const int n_splits : {1, 3}) {
      expect_device_is_right(problem, problem.plan(MlaDecodeKernel::cuda_cores, n_splits));
    }
  }
}

TEST(MlaDecode, RandomShapesMatchTheReference) {
  SKIP_WITHOUT_DEVICE();
  RandomData random(11);
  for (int i = 0; i < 10; ++i) {
    MlaCase shape = random.integer(0, 1) == 0 ? glm_flash(random.integer(1, 40), {})
                                              : MlaCase{.n_heads = random.integer(1, 70)};
    shape.lengths.clear();
    for (int n = random.integer(1, 3); n > 0; --n) {
      shape.lengths.push_back(random.integer(0, 150));
    }
    shape.separate_v = random.integer(0, 2) == 0;
    if (shape.kv_lora_rank == 512 && !shape.separate_v && random.integer(0, 1) == 0) {
      shape = with_fp8(shape);
    }
    shape.log2_page_tokens = random.integer(-1, 6);
    const MlaProblem problem(shape, 100 + i);
    for (const auto kernel : {MlaDecodeKernel::tensor_cores, MlaDecodeKernel::cuda_cores}) {
      expect_device_is_right(problem, problem.plan(kernel, random.integer(1, 4)));
    }
  }
}

TEST(MlaDecode, EveryTileMatchesTheReference) {
  SKIP_WITHOUT_DEVICE();
  for (const std::int64_t shared : {kSharedSm80, kSharedSm89}) {
    for (const int n_heads : {16, 20}) {
      for (const MlaCase& shape : {glm_flash(n_heads, {83}),
                                   with_fp8(glm_flash(n_heads, {83})),
                                   with_separate_v(glm_flash(n_heads, {83}))}) {
        const MlaProblem problem(shape);
        MlaDecodePlan plan = mla_decode_plan(problem.host(), 83, device_with(shared, 80));
        plan.n_splits = 2;
        expect_device_is_right(problem, plan);
      }
    }
  }
}

TEST(MlaDecode, OldDevicesTakeCudaCores) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "the emulator's question";
  }
  simt::set_emulated_device(device_with(kSharedSm75, 75));
  const MlaProblem problem(glm_flash(2, {20}));
  const MlaDecodePlan plan = problem.plan();
  EXPECT_EQ(plan.kernel, MlaDecodeKernel::cuda_cores);
  expect_device_is_right(problem, plan);
  simt::set_emulated_device({});
}

TEST(MlaDecode, SeesDominantTokensWhereverTheyAre) {
  SKIP_WITHOUT_DEVICE();
  for (const auto kernel : {MlaDecodeKernel::tensor_cores, MlaDecodeKernel::cuda_cores}) {
    MlaProblem problem(paged(MlaCase{.n_heads = 9, .lengths = {200}}, 4));
    const int tokens[] = {0, 15, 16, 63, 64, 127, 128, 191, 199};
    for (int head = 0; head < 9; ++head) {
      problem.plant(0, head, tokens[head]);
    }
    const MlaDecodePlan plan = problem.plan(kernel, 2);
    expect_device_is_right(problem, plan);
    EXPECT_FALSE(
        problem.against_reference(problem.on_device(plan, {.lengths_less = 1}), roundings_of(plan))
            .holds());
  }
}

TEST(MlaDecode, ExtremeScoresStayFinite) {
  SKIP_WITHOUT_DEVICE();
  const MlaProblem problem({.n_heads = 4, .lengths = {90}, .score_deviation = 100.0F});
  for (const auto kernel : {MlaDecodeKernel::tensor_cores, MlaDecodeKernel::cuda_cores}) {
    expect_device_is_right(problem, problem.plan(kernel, 2));
  }
}

TEST(MlaDecode, TheComparisonNoticesSmallMistakes) {
  SKIP_WITHOUT_DEVICE();
  for (const auto kernel : {MlaDecodeKernel::tensor_cores, MlaDecodeKernel::cuda_cores}) {
    const MlaProblem problem(
        with_separate_v({.n_heads = 3, .lengths = {70}, .score_deviation = 3.0F}));
    const MlaDecodePlan plan = problem.plan(kernel, 2);
    const auto holds = [&](const MlaProblem::Mutation& mutation) {
      return problem.against_reference(problem.on_device(plan, mutation), roundings_of(plan))
          .holds();
    };
    EXPECT_TRUE(holds({}));
    EXPECT_FALSE(holds({.lengths_less = 1}));
    EXPECT_FALSE(holds({.scale_factor = 1.01F}));
    EXPECT_FALSE(holds({.q_shift = 8}));
    EXPECT_FALSE(holds({.v_from_k = true}));
  }
}

// ---- traffic ----

void expect_the_models_bytes(const MlaCase& shape, const MlaDecodePlan& plan) {
  const MlaProblem problem(shape);
  static_cast<void>(simt::take_traffic());
  static_cast<void>(problem.on_device(plan));
  const auto traffic = simt::take_traffic();
  if (!traffic) {
    return;
  }
  std::int64_t n_tokens = 0;
  for (const std::int32_t length : shape.lengths) {
    n_tokens += length;
  }
  const OpCost cost =
      mla_decode_cost({.n_sequences = static_cast<std::int64_t>(shape.lengths.size()),
                       .n_cached_tokens = n_tokens,
                       .n_heads = shape.n_heads,
                       .kv_lora_rank = shape.kv_lora_rank,
                       .qk_rope_head_dim = shape.qk_rope_head_dim,
                       .fp8_latent = shape.format == KvFormat::fp8_e4m3,
                       .separate_v = shape.separate_v,
                       .n_passes = plan.n_passes,
                       .n_splits = plan.n_splits});
  EXPECT_EQ(static_cast<double>(traffic->read_bytes()), cost.read.value());
  EXPECT_EQ(static_cast<double>(traffic->stored_bytes), cost.written.value());
  EXPECT_EQ(traffic->ldmatrix_cycles, traffic->ldmatrix_phases) << "bank conflicts";
}

TEST(MlaDecode, MovesTheBytesThatTheModelCounts) {
  SKIP_WITHOUT_DEVICE();
  for (const MlaCase& shape : {glm_flash(20, {100, 37}),
                               with_fp8(glm_flash(16, {70})),
                               with_separate_v(glm_flash(20, {70})),
                               paged(MlaCase{.n_heads = 40, .lengths = {90, 17, 1}}, 5)}) {
    const MlaProblem problem(shape);
    expect_the_models_bytes(shape, problem.plan(MlaDecodeKernel::tensor_cores, 2));
    expect_the_models_bytes(shape, problem.plan(MlaDecodeKernel::cuda_cores, 2));
  }
}

TEST(MlaDecodeCost, ATokenOfGlmFlashIs1152BytesAnd656InFp8) {
  MlaDecodeShape shape{.n_heads = 20, .kv_lora_rank = 512, .qk_rope_head_dim = 64};
  EXPECT_EQ(mla_token_bytes(shape).value(), 1152.0);
  shape.separate_v = true;
  EXPECT_EQ(mla_token_bytes(shape).value(), 2176.0);
  shape.separate_v = false;
  shape.fp8_latent = true;
  EXPECT_EQ(mla_token_bytes(shape).value(), kMlaFp8RowBytes);
  shape.n_cached_tokens = 10;
  EXPECT_EQ(mla_decode_cost(shape).flops.value(), 10.0 * 2 * 20 * (2 * 512 + 64));
}

// ---- schedules ----

TEST(MlaDecodeSmall, NoScheduleChangesTheResult) {
  SKIP_WITHOUT_DEVICE();
  const MlaProblem narrow({.n_heads = 2, .lengths = {70}});
  const MlaProblem fp8(with_fp8(glm_flash(17, {40})));
  under_every_schedule([&] {
    expect_device_is_right(narrow, narrow.plan(MlaDecodeKernel::tensor_cores, 1));
    expect_device_is_right(narrow, narrow.plan(MlaDecodeKernel::cuda_cores, 2));
    expect_device_is_right(fp8, mla_decode_plan(fp8.host(), 40, device_with(kSharedSm89, 89)));
  });
}

TEST(MlaDecodeSmall, EverySynchronisationMatters) {
  SKIP_WITHOUT_DEVICE();
  const auto expect_for = [](const MlaCase& shape, MlaDecodeKernel kernel) {
    const MlaProblem problem(shape);
    const MlaDecodePlan plan = problem.plan(kernel, 1);
    expect_every_sync_matters([&] {
      return problem.against_reference(problem.on_device(plan), roundings_of(plan)).holds();
    });
  };
  expect_for({.n_heads = 2, .lengths = {200}}, MlaDecodeKernel::tensor_cores);
  expect_for(with_fp8(glm_flash(2, {200})), MlaDecodeKernel::tensor_cores);
  expect_for({.n_heads = 2, .lengths = {20}}, MlaDecodeKernel::cuda_cores);
}

}  // namespace
}  // namespace kvfathom::kernels
