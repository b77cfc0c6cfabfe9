#include "kernels/index_scores/index_scores.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "model/ops/index_scores.h"
#include "tests/kernels/index_scores/index_case.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

std::vector<IndexCase> all_cases() {
  return {
      {.lengths = {0, 1, 7, 8, 9}},
      {.lengths = {127, 128, 129, 31, 32, 33}, .page_tokens = 16},
      {.lengths = {300, 5}, .n_heads = 32, .page_tokens = 64},
      {.lengths = {33}, .n_heads = 16},
      {.lengths = {65, 2}, .n_heads = 11, .head_dim = 96},
      {.lengths = {34}, .n_heads = 4, .head_dim = 256},
      {.lengths = {70, 31}, .n_heads = 64, .page_tokens = 8, .kernel = IndexKernel::cuda_cores}};
}

TEST(IndexScoresCpu, IsRight) {
  int index = 0;
  for (const IndexCase& of : all_cases()) {
    EXPECT_TRUE(within(IndexProblem(of).run(Where::cpu))) << index++;
  }
}
TEST(IndexScores, IsRight) {
  SKIP_WITHOUT_DEVICE();
  int index = 0;
  for (const IndexCase& of : all_cases()) {
    EXPECT_TRUE(within(IndexProblem(of).run(Where::device))) << index++;
  }
}

// q = k = ones in one of two heads, minus ones in the other: ReLU keeps the first alone.
TEST(IndexScoresReference, NegativeProductsCountNothing) {
  std::vector<Fp8E4m3> q(64, to_fp8_e4m3(1.0F));
  std::fill(q.begin() + 32, q.end(), to_fp8_e4m3(-1.0F));
  const std::vector<Fp8E4m3> key(32, to_fp8_e4m3(1.0F));
  const float scale = 0.5F;
  const std::vector<float> weights = {3.0F, 5.0F};
  const std::int32_t length = 1;
  IndexScoresParams p;
  p.n_heads = 2;
  p.head_dim = 32;
  p.keys.n_sequences = p.keys.n_kv_heads = 1;
  p.keys.k.data = reinterpret_cast<const std::byte*>(key.data());
  p.keys.k.scales = reinterpret_cast<const std::byte*>(&scale);
  p.keys.lengths = &length;
  p.q = q.data();
  p.weights = weights.data();
  p.max_tokens = 1;
  double score = 0.0;
  double magnitude = 0.0;
  index_scores_reference(p, {&score, &magnitude});
  EXPECT_EQ(score, 3.0 * 32.0 * 0.5);
  EXPECT_EQ(magnitude, 8.0 * 32.0 * 0.5);
}

TEST(IndexScores, WrongArgumentsShow) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<std::int32_t> shorter = {32, 69};
  const DeviceArray<std::int32_t> device_shorter(shorter);
  for (const IndexKernel kernel : {IndexKernel::tensor_cores, IndexKernel::cuda_cores}) {
    for (const auto& mutate : std::vector<IndexProblem::Mutate>{
             [](IndexScoresParams& p) { p.n_heads = 32; },
             [](IndexScoresParams& p) {
               p.weights = reinterpret_cast<const float*>(p.keys.k.scales);
             },
             [](IndexScoresParams& p) { p.keys.k.scale_token_stride_bytes = 0; },
             [](IndexScoresParams& p) { p.keys.k.page_stride_bytes = 0; },
             [&](IndexScoresParams& p) { p.keys.lengths = device_shorter.data(); }}) {
      IndexProblem problem({.lengths = {33, 140}, .kernel = kernel});
      EXPECT_FALSE(problem.run(Where::device, mutate).holds());
    }
  }
}

TEST(IndexScoresSmall, EveryScheduleGivesTheSame) {
  SKIP_WITHOUT_DEVICE();
  under_every_schedule([] {
    EXPECT_TRUE(within(IndexProblem({.lengths = {20}, .n_heads = 16}).run(Where::device)));
    EXPECT_TRUE(
        within(IndexProblem({.lengths = {20}, .n_heads = 9, .head_dim = 32}).run(Where::device)));
  });
}
TEST(IndexScoresSmall, EverySyncMatters) {
  SKIP_WITHOUT_DEVICE();
  expect_every_sync_matters(
      [] { return IndexProblem({.lengths = {20}, .n_heads = 16}).run(Where::device).holds(); });
  expect_every_sync_matters([] {
    return IndexProblem({.lengths = {20}, .n_heads = 17, .head_dim = 32})
        .run(Where::device)
        .holds();
  });
}

// Below sm_75 nothing has f16 operands; the emulated device stands in for such a card.
TEST(IndexScores, FallsBackToCudaCores) {
  SKIP_WITHOUT_DEVICE();
  if (!device().emulated) {
    GTEST_SKIP() << "a real device cannot be another";
  }
  DeviceInfo old = device();
  old.compute_capability = 70;
  simt::set_emulated_device(old);
  EXPECT_TRUE(within(IndexProblem({.lengths = {40}}).run(Where::device)));
  EXPECT_THROW(
      IndexProblem({.lengths = {40}, .kernel = IndexKernel::tensor_cores}).run(Where::device),
      UnsupportedShape);
  simt::set_emulated_device({});
  EXPECT_THROW(
      IndexProblem({.n_heads = 11, .kernel = IndexKernel::tensor_cores}).run(Where::device),
      UnsupportedShape);
}

TEST(IndexScores, BytesAreThoseOfTheModel) {
  SKIP_WITHOUT_DEVICE();
  for (const IndexKernel kernel : {IndexKernel::tensor_cores, IndexKernel::cuda_cores}) {
    static_cast<void>(simt::take_traffic());
    EXPECT_TRUE(within(IndexProblem({.lengths = {200, 200}, .kernel = kernel}).run(Where::device)));
    EXPECT_TRUE(moved_bytes_of(index_scores_cost({.n_sequences = 2, .n_tokens = 200})));
  }
}

TEST(IndexScores, RefusesWhatIsNotBuilt) {
  EXPECT_THROW(IndexProblem({.head_dim = 48}).run(Where::cpu), UnsupportedShape);
  IndexScoresParams two_keys;
  two_keys.keys.n_kv_heads = 2;
  EXPECT_THROW(index_scores_cpu(two_keys), UnsupportedShape);
}

}  // namespace
}  // namespace kvfathom::kernels
