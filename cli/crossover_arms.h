// The arms of `kvfathom crossover`, priced on one machine.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "cli/crossover.h"
#include "cli/speed_plan.h"
#include "model/crossover/prefix.h"

namespace kvfathom::cli {

/// A model's prefix in every way that it can be kept, and what a machine's load does to each.
class CrossoverArms {
 public:
  CrossoverArms(const Query& query, const Load& load);

  /// Seconds until `n_tokens` are there: K and V over the link, or the prompt again.
  [[nodiscard]] Estimate fetch(const TierLink& tier, std::int64_t n_tokens, const Load& load);
  [[nodiscard]] Estimate recompute(std::int64_t n_tokens, const Load& load);

  /// The same for several prefixes at once, without load: fetched one after the other, recomputed
  /// as many at a time as a step of the engine takes.
  [[nodiscard]] double fetch_many_s(const TierLink& tier, std::int64_t n_tokens, std::int64_t n);
  [[nodiscard]] double recompute_many_s(std::int64_t n_tokens, std::int64_t n);

  /// Every arm and mix that applies to the model, at one length and without load.
  [[nodiscard]] std::vector<Arm> arms(const TierLink& tier, std::int64_t n_tokens, Split& split);

  /// K and V of `n_tokens` that cross one GPU's link.
  [[nodiscard]] Bytes moved(std::int64_t n_tokens) const { return moved(kept_.front(), n_tokens); }
  [[nodiscard]] const Load& load() const { return load_; }
  [[nodiscard]] Prefix& prefix() { return *prefix_; }
  [[nodiscard]] const LawSource& laws() const { return *laws_; }

 private:
  struct Kept {
    std::string name;
    std::string id;
    bool exact = true;
    double share = 1.0;  ///< of a stage's bytes that one rank's link carries
    std::unique_ptr<StoredPrefix> stored = nullptr;
  };
  [[nodiscard]] Bytes moved(const Kept& kept, std::int64_t n_tokens) const;
  void add_kept(const Query& query, const Stored& stored, Kept kept);
  [[nodiscard]] ArmCost cost_of(Kept& kept, const Link& link, std::int64_t n_tokens) const;
  [[nodiscard]] Arm arm_of(Kept& kept, const TierLink& tier, std::int64_t n_tokens);
  [[nodiscard]] const Estimate& recomputed(std::int64_t n_tokens);
  void add_mixes(const TierLink& tier, std::int64_t n_tokens, Split& split, std::vector<Arm>& arms);

  std::unique_ptr<LawSource> laws_;
  std::map<std::int64_t, Estimate> recomputed_;  ///< by length: every tier asks for the same ones
  std::unique_ptr<Prefix> prefix_;
  std::vector<Kept> kept_;     ///< K and V first
  std::int64_t n_stages_ = 1;  ///< GPUs that hold different layers: each has a link of its own
  BytesPerSecond device_bandwidth_;
  Load load_;
};

}  // namespace kvfathom::cli
