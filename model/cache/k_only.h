// Scheme `k-only`: K alone; V is rebuilt from it by a projector.
#pragma once

#include <array>

#include "model/cache/kv_rows.h"
#include "model/cache/parameter.h"

namespace kvfathom::cache {

struct KOnlyParameters {
  static constexpr std::int64_t kExact = 0;
  static constexpr std::int64_t kLearned = 1;
  static constexpr std::int64_t kAbsorbed = 0;
  static constexpr std::int64_t kMaterialised = 1;
  static constexpr std::array<Word, 2> kProjectors{{{"exact", kExact}, {"learned", kLearned}}};
  static constexpr std::array<Word, 2> kRebuilds{
      {{"absorbed", kAbsorbed}, {"materialised", kMaterialised}}};
  static constexpr std::array<Word, 1> kFullRank{{{"full", 0}}};

  std::int64_t projector = kExact;
  std::int64_t rank = 0;  ///< of a learned projector; 0: full
  std::int64_t rebuild = kAbsorbed;
  friend bool operator==(const KOnlyParameters&, const KOnlyParameters&) = default;

  static constexpr std::array<Key<KOnlyParameters>, 3> keys() {
    return {{{"projector", &KOnlyParameters::projector, 0, -1, kProjectors},
             {"rank", &KOnlyParameters::rank, 1, 65536, kFullRank},
             {"rebuild", &KOnlyParameters::rebuild, 0, -1, kRebuilds}}};
  }
};

/// Slim attention (arXiv 2503.05840): V = K (W_K^-1 W_V), stored in the place of W_V, is exact for
/// MHA with a square W_K and no norm on K. Else a projector is learned (ridge of V on K before
/// rotation): lossy, n_kv_heads * head_dim squared weights a layer, or two thin matrices of `rank`.
struct KOnly {
  static constexpr const char* name = "k-only";
  static constexpr const char* formula = "n_kv_heads * head_dim * b_k";
  static constexpr const char* summary = "K alone; V is K times a projector, exact only for MHA.";
  static constexpr const char* source = "arXiv 2503.05840";
  KvRows kv;
  KOnlyParameters parameters;
  friend bool operator==(const KOnly&, const KOnly&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const KOnly& s) {
  const CacheLayout kv = layout(s.kv);
  CacheLayout result{.k_row_elements = kv.k_row_elements, .token_cap = kv.token_cap};
  if (s.parameters.projector == KOnlyParameters::kLearned) {
    const std::int64_t rank = s.parameters.rank;
    result.extra_weight_elements = rank == 0 ? kv.k_row_elements * kv.v_row_elements
                                             : rank * (kv.k_row_elements + kv.v_row_elements);
  }
  if (s.parameters.rebuild == KOnlyParameters::kMaterialised) {
    result.rebuilt_elements = kv.v_row_elements;
  }
  return result;
}

}  // namespace kvfathom::cache
