// Scheme `head-linear`: reference heads are kept; the rest are affine maps of them.
#pragma once

#include <array>

#include "model/cache/kv_rows.h"
#include "model/cache/parameter.h"

namespace kvfathom::cache {

struct HeadLinearParameters {
  static constexpr std::int64_t kBoth = 0;
  static constexpr std::int64_t kK = 1;
  static constexpr std::int64_t kV = 2;
  static constexpr std::int64_t kAbsorbed = 0;
  static constexpr std::int64_t kMaterialised = 1;
  static constexpr std::array<Word, 3> kTensors{{{"kv", kBoth}, {"k", kK}, {"v", kV}}};
  static constexpr std::array<Word, 2> kRebuilds{
      {{"absorbed", kAbsorbed}, {"materialised", kMaterialised}}};

  std::int64_t references = 5;          ///< heads that one predicted head is a map of
  std::int64_t predicted = kWhole / 2;  ///< share of the model's heads, in thousandths
  std::int64_t tensors = kBoth;
  std::int64_t exact = 35;  ///< tokens kept whole: the first 30 and the last 5
  std::int64_t rebuild = kAbsorbed;
  friend bool operator==(const HeadLinearParameters&, const HeadLinearParameters&) = default;

  static constexpr std::array<Key<HeadLinearParameters>, 5> keys() {
    using P = HeadLinearParameters;
    return {{{"references", &P::references, 1, 64},
             {"predicted", &P::predicted, 1, 950, {}, true},
             {"tensors", &P::tensors, 0, -1, kTensors},
             {"exact", &P::exact, 0, 1 << 20},
             {"rebuild", &P::rebuild, 0, -1, kRebuilds}}};
  }
};

/// Linear predictability of attention heads (arXiv 2603.13314): y = W [x_1 .. x_R] + b with dense
/// W, fitted offline on keys after rotation. Rows are the average over the layers, since predicted
/// heads are chosen over the whole model and references may live in earlier layers. The released
/// code keeps the whole cache; what is priced here is the half that it counts.
struct HeadLinear {
  static constexpr const char* name = "head-linear";
  static constexpr const char* formula =
      "(1 - predicted) * n_kv_heads * (head_dim * b_k + v_head_dim * b_v)";
  static constexpr const char* summary = "Reference heads; the rest are linear maps of them.";
  static constexpr const char* source = "arXiv 2603.13314";
  KvRows kv;
  HeadLinearParameters parameters;
  friend bool operator==(const HeadLinear&, const HeadLinear&) = default;
};

[[nodiscard]] constexpr CacheLayout layout(const HeadLinear& s) {
  const HeadLinearParameters& p = s.parameters;
  const CacheLayout kv = layout(s.kv);
  const auto predicted = [&](std::int64_t elements) { return elements * p.predicted / kWhole; };
  const auto maps = [&](std::int64_t head_dim) {
    return predicted(s.kv.n_kv_heads * (p.references * head_dim * head_dim + head_dim));
  };
  CacheLayout result{.k_row_elements = kv.k_row_elements,
                     .v_row_elements = kv.v_row_elements,
                     .token_cap = kv.token_cap,
                     .exact_tokens = p.exact,
                     .exact_k_elements = kv.k_row_elements,
                     .exact_v_elements = kv.v_row_elements};
  const bool materialised = p.rebuild == HeadLinearParameters::kMaterialised;
  if (p.tensors != HeadLinearParameters::kV) {
    result.k_row_elements -= predicted(kv.k_row_elements);
    result.extra_weight_elements += maps(s.kv.head_dim);
    result.rebuilt_elements += materialised ? predicted(kv.k_row_elements) : 0;
  }
  if (p.tensors != HeadLinearParameters::kK) {
    result.v_row_elements -= predicted(kv.v_row_elements);
    result.extra_weight_elements += maps(s.kv.v_head_dim);
    result.rebuilt_elements += materialised ? predicted(kv.v_row_elements) : 0;
  }
  return result;
}

}  // namespace kvfathom::cache
