// The fit of llama.cpp (common/fit.cpp) on toy models whose memory can be added up by hand: every
// expectation is worked out from the rule in the comment beside it.
#include "model/engine/llama_cpp/fit.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace kvfathom::llama_cpp {
namespace {

constexpr int kHost = -1;

/// Bytes of a toy: every layer alike, no compute buffers.
struct Toy {
  std::int64_t n_layers = 4;
  std::int64_t attention = 10;
  std::int64_t up = 0;
  std::int64_t gate = 0;
  std::int64_t down = 0;
  std::int64_t head = 5;
  std::int64_t cache_per_token = 0;  ///< of a layer and a stream
  std::int64_t streams = 1;
};

std::int64_t part_bytes(const Toy& toy, MovedMatrices matrices) {
  switch (matrices) {
    case MovedMatrices::experts:
    case MovedMatrices::all:
      return toy.up + toy.gate + toy.down;
    case MovedMatrices::all_but_up:
      return toy.gate + toy.down;
    case MovedMatrices::down:
      return toy.down;
  }
  return 0;
}

/// The GPU of the n-th of all layers on GPUs.
std::size_t gpu_of(const EngineSettings& s, std::int64_t n, std::int64_t all, std::size_t n_gpus) {
  if (s.layers_per_gpu.empty()) {
    return static_cast<std::size_t>(n) * n_gpus / static_cast<std::size_t>(all);
  }
  std::size_t gpu = 0;
  for (std::int64_t end = s.layers_per_gpu[0]; n >= end; end += s.layers_per_gpu[gpu]) {
    ++gpu;
  }
  return gpu;
}

std::vector<GpuUse> use_of(const Toy& toy,
                           const EngineSettings& s,
                           std::int64_t context,
                           std::size_t n_gpus) {
  std::vector<GpuUse> use(n_gpus);
  const std::int64_t on_gpus = std::min(s.gpu_layers.value_or(999), toy.n_layers + 1);
  for (std::int64_t n = 0; n < on_gpus; ++n) {
    const std::int64_t layer = toy.n_layers + 1 - on_gpus + n;
    GpuUse& gpu = use[gpu_of(s, n, on_gpus, n_gpus)];
    if (layer == toy.n_layers) {
      gpu.weights_bytes += toy.head;
      gpu.bytes += toy.head;
      continue;
    }
    std::int64_t weights = toy.attention + toy.up + toy.gate + toy.down;
    if (layer < s.cpu_moe_layers) {
      weights -= part_bytes(toy, MovedMatrices::experts);
    }
    for (const MovedLayer& moved : s.moved_layers) {
      if (moved.layer == layer) {
        const std::int64_t part = part_bytes(toy, moved.matrices);
        weights -= part;
        if (moved.device != kHost) {
          use[static_cast<std::size_t>(moved.device)].bytes += part;
        }
      }
    }
    gpu.weights_bytes += weights;
    gpu.bytes += weights + toy.cache_per_token * toy.streams * context;
  }
  return use;
}

FitTask task_of(const Toy& toy, std::vector<std::int64_t> targets) {
  FitTask task;
  task.n_layers = toy.n_layers;
  task.has_experts = toy.up > 0;
  task.streams = toy.streams;
  task.trained_context_tokens = 32'768;
  task.target_bytes = std::move(targets);
  const std::size_t n_gpus = task.target_bytes.size();
  task.use = [toy, n_gpus](const EngineSettings& s, std::int64_t context) {
    return use_of(toy, s, context, n_gpus);
  };
  return task;
}

/// At a context that was asked for, so that layers have to move.
Fitted fitted_layers(const Toy& toy, std::vector<std::int64_t> targets) {
  FitTask task = task_of(toy, std::move(targets));
  task.asked_context_tokens = 4096;
  return fit_to_gpus(task, {});
}

std::int64_t context_for(const Toy& toy, std::vector<std::int64_t> targets) {
  return fit_to_gpus(task_of(toy, std::move(targets)), {}).context_tokens;
}

constexpr Toy kMixture{.up = 30, .gate = 30, .down = 40};  // 110 a layer, 445 in all

using Moved = std::vector<MovedLayer>;
using Counts = std::vector<std::int64_t>;

// 4 layers of 10 and a head of 5: 45, which may be all that there is.
TEST(LlamaCppFit, LeavesAloneWhatFits) {
  const Fitted fits = fit_to_gpus(task_of(Toy{}, {45}), {});
  EXPECT_EQ(fits.context_tokens, 32'768);
  EXPECT_FALSE(fits.settings.gpu_layers);
  EXPECT_TRUE(fits.settings.moved_layers.empty());
  EXPECT_TRUE(fit_to_gpus(task_of(Toy{}, {44}), {}).settings.gpu_layers);
}

// One byte per layer and token: 45 + 4 n. For 10,000 tokens of room the whole blocks of 256 are
// 39: 9,984.
TEST(LlamaCppFit, ShrinksTheContextFirst) {
  const Toy toy{.cache_per_token = 1};
  const Fitted fits = fit_to_gpus(task_of(toy, {45 + 4 * 10'000}), {});
  EXPECT_EQ(fits.context_tokens, 9'984);
  EXPECT_FALSE(fits.settings.gpu_layers);
  EXPECT_EQ(context_for(toy, {45 + 4 * 9'984}), 9'984);
  EXPECT_EQ(context_for(toy, {45 + 4 * 9'984 - 4}), 9'728);
  EXPECT_EQ(context_for(toy, {45 + 4 * 4'200}), 4'096);
}

// Of 4 streams all cells are rounded together, down to 1,024: 41,500 cells are 40 such blocks.
TEST(LlamaCppFit, RoundsTheCellsOfAllStreams) {
  const Toy toy{.cache_per_token = 1, .streams = 4};
  EXPECT_EQ(context_for(toy, {45 + 4 * 41'500}), 10'240);
  EXPECT_EQ(context_for(toy, {45 + 4 * 40'959}), 9'984);
}

// The least context must leave something: with just its 45 + 4 * 4,096 bytes the layers are placed
// one by one, though all of them fit.
TEST(LlamaCppFit, ShrinkingMustLeaveSomething) {
  const Toy toy{.cache_per_token = 1};
  EXPECT_FALSE(fit_to_gpus(task_of(toy, {45 + 4 * 4'096 + 1}), {}).settings.gpu_layers);
  const Fitted exactly = fit_to_gpus(task_of(toy, {45 + 4 * 4'096}), {});
  EXPECT_EQ(exactly.context_tokens, 4'096);
  EXPECT_EQ(exactly.settings.gpu_layers, 5);
}

TEST(LlamaCppFit, KeepsTheContextThatWasAskedFor) {
  FitTask task = task_of({.cache_per_token = 1}, {45 + 4 * 10'000});
  task.asked_context_tokens = 20'000;  // a layer is 20,010: two, and the head
  const Fitted fits = fit_to_gpus(task, {});
  EXPECT_EQ(fits.context_tokens, 20'000);
  EXPECT_EQ(fits.settings.gpu_layers, 3);
}

// A trained context of no more than the least one is not shrunk either.
TEST(LlamaCppFit, KeepsAShortTrainedContext) {
  FitTask task = task_of({.cache_per_token = 1}, {5 + 2 * 2'058});
  task.trained_context_tokens = 2'048;
  const Fitted fits = fit_to_gpus(task, {});
  EXPECT_EQ(fits.context_tokens, 2'048);
  EXPECT_EQ(fits.settings.gpu_layers, 3);
}

// Two GPUs with 60,080 of 65 + 6 n: 3 halves of a layer's 65 / 6 bytes are set aside first, so that
// 60,065 remain, which is 10,000 tokens, or 9,984; then 3 layers of 9,994 are half of all, twice.
TEST(LlamaCppFit, ShrinksForTwoGpusWithWasteAllowedFor) {
  const Toy toy{.n_layers = 6, .cache_per_token = 1};
  const Fitted fits = fit_to_gpus(task_of(toy, {30'040, 30'040}), {});
  EXPECT_EQ(fits.context_tokens, 9'984);
  EXPECT_EQ(fits.settings.gpu_layers, 7);
  EXPECT_EQ(fits.settings.layers_per_gpu, (Counts{3, 4}));
  EXPECT_EQ(context_for(toy, {29'992, 29'992}), 9'984);  // 59,969: just these
  EXPECT_EQ(context_for(toy, {29'992, 29'991}), 9'728);
}

// The same room, but all of it on one of them: in sum it is enough, so no context is given up.
TEST(LlamaCppFit, KeepsTheContextWhereOnlyTheSplitIsWrong) {
  const Toy toy{.n_layers = 6, .cache_per_token = 1};
  const Fitted fits = fit_to_gpus(task_of(toy, {5'000, 200'000}), {});
  EXPECT_EQ(fits.context_tokens, 32'768);
  EXPECT_EQ(fits.settings.layers_per_gpu, (Counts{0, 7}));
}

// The head and 2 layers are 25, 3 layers 35; whole layers may fill a GPU to the byte.
TEST(LlamaCppFit, PutsTheLastLayersOnOneGpu) {
  EXPECT_EQ(fitted_layers({}, {34}).settings.gpu_layers, 3);
  EXPECT_EQ(fitted_layers({}, {25}).settings.gpu_layers, 3);
  EXPECT_EQ(fitted_layers({}, {24}).settings.gpu_layers, 2);
  EXPECT_EQ(fitted_layers({}, {4}).settings.gpu_layers, 0);
}

// From the last GPU on: the head and 2 layers are 25; the first GPU takes what is left, 2 layers
// of 20. Turned round, the last takes the head and one, and the first 2 of the others.
TEST(LlamaCppFit, FillsTheLastGpuFirst) {
  const EngineSettings two = fitted_layers({.n_layers = 6}, {20, 25}).settings;
  EXPECT_EQ(two.gpu_layers, 5);
  EXPECT_EQ(two.layers_per_gpu, (Counts{2, 3}));
  EXPECT_TRUE(two.moved_layers.empty());
  EXPECT_EQ(fitted_layers({.n_layers = 6}, {25, 20}).settings.layers_per_gpu, (Counts{2, 2}));
}

// 20 layers without experts are 205, more than 150. Then no experts come back, but of the layers
// on the GPU the first keeps its own, since the head is counted in its place:
// 5 + 4 * 10 + 100 = 145, and a fifth layer is too much.
TEST(LlamaCppFit, LeavesExpertsOnTheHostWhereNotAllLayersFitWithoutThem) {
  Toy toy = kMixture;
  toy.n_layers = 20;
  const EngineSettings s = fitted_layers(toy, {150}).settings;
  EXPECT_EQ(s.gpu_layers, 5);
  EXPECT_EQ(s.moved_layers,
            (Moved{{17, MovedMatrices::experts, kHost},
                   {18, MovedMatrices::experts, kHost},
                   {19, MovedMatrices::experts, kHost}}));
}

// Without experts 45; layers 0 and 1 with theirs make 245, a third 345. Of layer 2 up (30) stays
// where 275 is less than the target, up and gate where 305 is; else its attention alone.
TEST(LlamaCppFit, KeepsTheExpertsOfTheFirstLayersAndAPartOfTheNext) {
  const auto moved = [](std::int64_t target) {
    const EngineSettings s = fitted_layers(kMixture, {target}).settings;
    EXPECT_EQ(s.gpu_layers, 5);
    return s.moved_layers;
  };
  const MovedLayer last{3, MovedMatrices::experts, kHost};
  EXPECT_EQ(moved(300), (Moved{{2, MovedMatrices::all_but_up, kHost}, last}));
  EXPECT_EQ(moved(306), (Moved{{2, MovedMatrices::down, kHost}, last}));
  EXPECT_EQ(moved(305), (Moved{{2, MovedMatrices::all_but_up, kHost}, last}));
  EXPECT_EQ(moved(275), (Moved{{2, MovedMatrices::all, kHost}, last}));
  EXPECT_EQ(moved(245), (Moved{{2, MovedMatrices::experts, kHost}, last}));
}

// GPU 0 takes layer 0 (110) and attention and up of layer 1 (40), whose gate and down (70) go to
// GPU 1, beside layer 2 (110), layer 3 without experts (10) and the head: 195 of 200.
TEST(LlamaCppFit, OverflowsToTheNextGpuAndFromTheLastToTheHost) {
  const EngineSettings s = fitted_layers(kMixture, {160, 200}).settings;
  EXPECT_EQ(s.gpu_layers, 5);
  EXPECT_EQ(s.layers_per_gpu, (Counts{2, 3}));
  EXPECT_EQ(s.moved_layers,
            (Moved{{1, MovedMatrices::all_but_up, 1}, {3, MovedMatrices::all, kHost}}));
  // GPU 1 has to have room for it too: 195 is not less than 195, but gate and down need not go
  // there if all three stay away, which is more still, so layer 1 stays whole on GPU 1
  const EngineSettings tight = fitted_layers(kMixture, {160, 195}).settings;
  EXPECT_EQ(tight.layers_per_gpu, (Counts{1, 4}));
}

TEST(LlamaCppFit, ShrinksOnlyWhereLayersCannotMove) {
  FitTask task = task_of({.cache_per_token = 1}, {45 + 4 * 1'000});
  task.moves_layers = false;
  const Fitted fits = fit_to_gpus(task, {});
  EXPECT_EQ(fits.context_tokens, 4'096);
  EXPECT_FALSE(fits.settings.gpu_layers);
}

}  // namespace
}  // namespace kvfathom::llama_cpp
