// Searches over machines and precisions against every pair of candidates.
#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "model/memory/finest_pair.h"
#include "model/memory/smallest_machine.h"

namespace kvfathom {
namespace {

TEST(SmallestMachine, IsTheLeastOfAllThatFitThoughFittingIsNotMonotone) {
  std::mt19937 random(11);
  std::uniform_int_distribution<int> bytes(1, 12);
  std::uniform_int_distribution<int> count(1, 3);
  std::bernoulli_distribution fits(0.3);
  for (int round = 0; round < 300; ++round) {
    std::vector<MachineOffer> offers;
    for (int i = 0; i < 15; ++i) {
      offers.push_back({.bytes = bytes(random),
                        .n_devices = count(random),
                        .bandwidth = BytesPerSecond(bytes(random)),
                        .name = "gpu" + std::to_string(i),
                        .fits = fits(random)});
    }
    const SmallestMachine found = smallest_machine(offers, 3);
    std::size_t n_fit = 0;
    for (const MachineOffer& offer : offers) {
      if (!offer.fits) {
        continue;
      }
      ++n_fit;
      ASSERT_TRUE(found.smallest);
      EXPECT_FALSE(is_smaller(offer, offers[*found.smallest]));
    }
    ASSERT_EQ(found.smallest.has_value(), n_fit > 0);
    EXPECT_EQ(found.next.size(), std::min<std::size_t>(3, n_fit == 0 ? 0 : n_fit - 1));
    for (const std::size_t i : found.by_count) {
      for (const MachineOffer& offer : offers) {
        const bool same = offer.fits && offer.n_devices == offers[i].n_devices;
        EXPECT_FALSE(same && is_smaller(offer, offers[i]));
      }
    }
    if (found.below) {
      EXPECT_FALSE(offers[*found.below].fits);
      for (const MachineOffer& offer : offers) {
        const bool between = is_smaller(offers[*found.below], offer) &&
                             (!found.smallest || is_smaller(offer, offers[*found.smallest]));
        EXPECT_FALSE(between);
      }
    }
  }
}

TEST(SmallestMachine, OfEqualMemoryFewerDevicesThenFasterMemoryThenName) {
  const MachineOffer two{.bytes = 48, .n_devices = 2, .bandwidth = BytesPerSecond(9), .name = "a"};
  const MachineOffer slow{.bytes = 48, .n_devices = 1, .bandwidth = BytesPerSecond(1), .name = "a"};
  const MachineOffer fast{.bytes = 48, .n_devices = 1, .bandwidth = BytesPerSecond(2), .name = "c"};
  const MachineOffer same{.bytes = 48, .n_devices = 1, .bandwidth = BytesPerSecond(2), .name = "b"};
  EXPECT_TRUE(is_smaller(slow, two));
  EXPECT_TRUE(is_smaller(fast, slow));
  EXPECT_TRUE(is_smaller(same, fast));
  EXPECT_FALSE(is_smaller(fast, fast));
}

std::vector<PrecisionPair> random_pairs(std::mt19937& random) {
  std::uniform_int_distribution<int> few(1, 4);
  std::bernoulli_distribution fits(0.6);
  std::vector<PrecisionPair> pairs;
  for (int i = 0; i < 12; ++i) {
    pairs.push_back({.weight_bits = static_cast<double>(few(random)),
                     .cache_bits = static_cast<double>(few(random)),
                     .longest_context_tokens = few(random),
                     .fits = fits(random)});
  }
  return pairs;
}

TEST(FinestPair, NoPairThatFitsIsFinerAndNoneBeatsAnUnbeatenOne) {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    const std::vector<PrecisionPair> pairs = random_pairs(random);
    const auto finest = finest_pair(pairs);
    const std::vector<std::size_t> unbeaten = unbeaten_pairs(pairs);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const PrecisionPair& a = pairs[i];
      if (!a.fits) {
        EXPECT_EQ(std::count(unbeaten.begin(), unbeaten.end(), i), 0);
        continue;
      }
      ASSERT_TRUE(finest);
      EXPECT_FALSE(is_finer(a, pairs[*finest]));
      bool beaten = false;
      for (const PrecisionPair& b : pairs) {
        const bool no_worse = b.weight_bits >= a.weight_bits && b.cache_bits >= a.cache_bits &&
                              b.longest_context_tokens >= a.longest_context_tokens;
        const bool equal = b.weight_bits == a.weight_bits && b.cache_bits == a.cache_bits &&
                           b.longest_context_tokens == a.longest_context_tokens;
        beaten = beaten || (b.fits && no_worse && !equal);
      }
      EXPECT_EQ(std::count(unbeaten.begin(), unbeaten.end(), i), beaten ? 0 : 1);
    }
  }
}

TEST(FinestPair, TheCoarserPartDecidesThenTheWeights) {
  const PrecisionPair balanced{.weight_bits = 4.8, .cache_bits = 8.5, .fits = true};
  const PrecisionPair lopsided{.weight_bits = 5.7, .cache_bits = 4.5, .fits = true};
  const PrecisionPair wider{.weight_bits = 4.8, .cache_bits = 16, .fits = true};
  EXPECT_TRUE(is_finer(balanced, lopsided));
  EXPECT_TRUE(is_finer(wider, balanced));
  EXPECT_FALSE(is_finer(wider, wider));
  EXPECT_EQ(finest_pair(std::vector{lopsided, balanced}), 1U);
  EXPECT_EQ(finest_pair(std::vector<PrecisionPair>{{.weight_bits = 16, .cache_bits = 16}}),
            std::nullopt);
}

}  // namespace
}  // namespace kvfathom
