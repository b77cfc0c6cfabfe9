// The arms of `kvfathom crossover`, priced on one machine.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/crossover.h"
#include "cli/speed_plan.h"
#include "model/crossover/prefix.h"

namespace kvfathom::cli {

/// A model's prefix in every way that it can be kept, and what a machine's load does to each.
class CrossoverArms {
 public:
  /// The scheme of `cache_case` is what is fetched, and what the prompt leaves when it is run
  /// again.
  CrossoverArms(const Query& query, const CacheCase& cache_case);

  /// Seconds until `n_tokens` are there: as the scheme stores them over the link, or the prompt
  /// again.
  [[nodiscard]] Estimate fetch(const TierLink& tier, std::int64_t n_tokens, const Busy& busy);
  [[nodiscard]] Estimate recompute(std::int64_t n_tokens, const Busy& busy);
  /// The link's rate at which both take as long; 0: none does.
  [[nodiscard]] BytesPerSecond even_bandwidth(const TierLink& tier,
                                              std::int64_t n_tokens,
                                              const Busy& busy);

  /// The first two for several prefixes at once: fetched one after the other, recomputed as many
  /// at a time as a step of the engine takes.
  [[nodiscard]] double fetch_many_s(const TierLink& tier,
                                    std::int64_t n_tokens,
                                    std::int64_t n,
                                    const Busy& busy);
  [[nodiscard]] double recompute_many_s(std::int64_t n_tokens, std::int64_t n, const Busy& busy);

  /// X of every layer over the link and projected, on an idle machine: of a model with attention.
  [[nodiscard]] Estimate fetch_inputs(const TierLink& tier, std::int64_t n_tokens);

  /// Every arm and mix that applies to the model, at one length.
  [[nodiscard]] std::vector<Arm> arms(const TierLink& tier,
                                      std::int64_t n_tokens,
                                      const Busy& busy,
                                      Split& split);

  [[nodiscard]] Prefix& prefix() { return *prefix_; }
  [[nodiscard]] const LawSource& laws() const { return *laws_; }

 private:
  /// What bringing a prefix back asks, besides the link.
  struct Work {
    Bytes bytes;  ///< that cross one GPU's link
    Estimate rebuild;
    Seconds memory;
  };
  /// One way to store it.
  struct Kept {
    std::string name;
    std::string id;
    bool exact = true;
    std::string how = {};
    double share = 1.0;  ///< of a stage's bytes that one rank's link carries
    std::unique_ptr<StoredPrefix> stored = nullptr;
    std::map<std::int64_t, Work> work = {};  ///< by length
  };
  /// A prompt that is run again, and evicted from.
  struct Compressed {
    std::string name;
    std::string id;
    std::unique_ptr<Prefix> prefix;
  };
  [[nodiscard]] Kept kept_as(const Query& query,
                             const CacheCase& cache_case,
                             bool unpacks,
                             std::string name) const;
  void add_alternative(const Query& query,
                       const CacheCase& other,
                       std::string name,
                       std::vector<Kept>& to,
                       std::string how = {});
  void add_alternatives(const Query& query, const CacheCase& asked);
  void add_evictions(const Query& query, const CacheCase& native);
  [[nodiscard]] const Work& work_of(Kept& kept, std::int64_t n_tokens) const;
  [[nodiscard]] ArmCost cost_of(Kept& kept,
                                const TierLink& tier,
                                std::int64_t n_tokens,
                                const Busy& busy);
  [[nodiscard]] Estimate time_of(Kept& kept,
                                 const TierLink& tier,
                                 std::int64_t n_tokens,
                                 const Busy& busy);
  [[nodiscard]] Arm arm_of(Kept& kept,
                           const TierLink& tier,
                           std::int64_t n_tokens,
                           const Busy& busy);
  [[nodiscard]] Seconds wait_beside(std::int64_t n_tokens, const Running& running);
  [[nodiscard]] const Estimate& recomputed(std::int64_t n_tokens, const Running& running);
  void add_kept(const TierLink& tier,
                std::int64_t n_tokens,
                const Busy& busy,
                std::vector<Arm>& arms);
  void add_mixes(const TierLink& tier,
                 std::int64_t n_tokens,
                 const Busy& busy,
                 Split& split,
                 std::vector<Arm>& arms);
  void add_layer_split(const TierLink& tier,
                       std::int64_t n_tokens,
                       const Busy& busy,
                       Kept& x,
                       std::vector<Arm>& arms);
  void add_partial_recompute(const TierLink& tier,
                             std::int64_t n_tokens,
                             const Busy& busy,
                             Kept& x,
                             std::vector<Arm>& arms);

  std::unique_ptr<LawSource> laws_;
  std::unique_ptr<Prefix> prefix_;
  /// By length and by sequences that run beside it: every tier asks for the same ones.
  std::map<std::pair<std::int64_t, std::int64_t>, Estimate> recomputed_;
  std::vector<Kept> kept_;         ///< what is asked about first
  std::vector<Kept> checkpoints_;  ///< X of some layers only: the quickest is an arm
  std::vector<Compressed> compressed_;
  std::int64_t n_stages_ = 1;  ///< GPUs that hold different layers: each has a link of its own
  std::int64_t chunk_tokens_ = 1;
  BytesPerSecond device_bandwidth_;
  bool is_plain_ = true;      ///< K and V are asked about
  bool is_evicted_ = false;   ///< what is kept depends on the whole prompt
  bool is_divisible_ = true;  ///< some tokens may be fetched and the others recomputed
};

}  // namespace kvfathom::cli
