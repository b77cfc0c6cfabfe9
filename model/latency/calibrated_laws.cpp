#include "model/latency/calibrated_laws.h"

#include <algorithm>
#include <array>
#include <utility>

namespace kvfathom {
namespace {

constexpr const char* kFewRowsVariant = "few";

/// Formats by the names that kernels go by; 16-bit floats cost alike.
std::string kernel_format(const OpClass& op_class) {
  const bool is_product = op_class.kind == OpKind::gemm || op_class.kind == OpKind::moe_ffn;
  switch (op_class.format) {
    case DType::f16:
    case DType::bf16:
      return "bf16";
    case DType::f8_e4m3:
    case DType::f8_e5m2:
      return is_product && op_class.block_scales ? "fp8_block" : "fp8";
    default:
      return std::string(name(op_class.format));
  }
}

/// Whether a decode step reads cached tokens in it, in whatever form.
bool reads_cache(OpKind kind) {
  constexpr std::array kKinds{OpKind::decode_attention,
                              OpKind::value_reconstruction,
                              OpKind::head_reconstruction,
                              OpKind::residual_recompute};
  return std::ranges::find(kKinds, kind) != kKinds.end();
}

}  // namespace

KernelClass kernel_class_of(const OpClass& op_class) {
  KernelClass id;
  id.op = name(op_class.kind);
  id.format = kernel_format(op_class);
  if (is_attention(op_class.kind) && op_class.kind != OpKind::mla_decode) {
    id.head_dim = op_class.head_dim;
    id.variant = op_class.latent ? "mla" : op_class.window ? "window" : "";
  } else if (op_class.few_rows) {
    id.variant = kFewRowsVariant;
  } else if (op_class.pageable) {
    id.variant = "pageable";
  }
  if (op_class.kind == OpKind::decode_attention || op_class.kind == OpKind::all_reduce ||
      op_class.kind == OpKind::all_to_all) {
    id.group = op_class.heads_per_kv;
  }
  return id;
}

CalibratedLaws::CalibratedLaws(std::vector<Calibration> calibrations,
                               Provenance provenance,
                               std::unique_ptr<LawSource> behind,
                               std::optional<EngineGaps> gaps)
    : provenance_(provenance), behind_(std::move(behind)), gaps_(gaps) {
  for (Calibration& one : calibrations) {
    const std::string origin = std::string(kvfathom::name(provenance)) + " kernels of " +
                               one.engine + " " + one.engine_version + " on " + one.device_name;
    sources_.push_back({std::move(one), origin, origin + ", of similar shape"});
  }
}

CalibratedLaws::Found CalibratedLaws::find(const KernelClass& id) const {
  for (const Source& source : sources_) {
    if (const FittedClass* exact = find_class(source.calibration, id)) {
      return {&source, exact};
    }
  }
  KernelClass plain = id;
  plain.variant.clear();
  if (id.variant == kFewRowsVariant) {  // where few rows and many have one law
    return find(plain);
  }
  if (plain.format == "fp8_block") {
    plain.format = "fp8";
  } else if (plain.format == name(DType::q4_0)) {
    plain.format = "int4";  // as the kernels of checkpoints call 4-bit integers in groups
  }
  for (const KernelClass& like : {id, plain}) {
    for (const Source& source : sources_) {
      if (const FittedClass* nearest = nearest_class(source.calibration, like)) {
        return {&source, nearest};
      }
    }
  }
  return {};
}

PricedClass CalibratedLaws::law(const OpClass& op_class, bool on_host) const {
  const KernelClass id = kernel_class_of(op_class);
  const auto [source, found] = on_host ? Found{} : find(id);
  if (found == nullptr) {
    return on_host ? behind_->law(op_class, true) : unmeasured(op_class);
  }
  const bool same_shape = found->id.format == id.format &&
                          (found->id.variant == id.variant || op_class.few_rows) &&
                          (!found->id.head_dim || found->id.head_dim == id.head_dim);
  // The law's fixed cost is of a whole call; where the points could not tell it, none was fitted.
  Seconds launch;
  if (!(found->law.fixed > Seconds{})) {
    launch = source->calibration.ceilings.launch.value_or(behind_->law(op_class, false).launch);
  }
  return {.op_class = op_class,
          .on_host = false,
          .law = found->law,
          .launch = launch,
          .log_error = std::max(-found->residuals.q05, found->residuals.q95),
          .range = found->range,
          .provenance = worst(provenance_, found->provenance),
          .origin = same_shape ? source->origin : source->similar};
}

PricedClass CalibratedLaws::unmeasured(const OpClass& op_class) const {
  PricedClass priced = behind_->law(op_class, false);
  if (!reads_cache(op_class.kind)) {
    return priced;
  }
  const KernelClass plain = kernel_class_of({.kind = OpKind::decode_attention,
                                             .format = DType::bf16,
                                             .head_dim = op_class.head_dim,
                                             .heads_per_kv = op_class.heads_per_kv});
  for (const Source& source : sources_) {
    if (const FittedClass* like = nearest_class(source.calibration, plain)) {
      // A law's fixed cost holds the first launch of a call.
      priced.law.fixed =
          std::max(priced.law.fixed, like->law.fixed - std::min(like->law.fixed, priced.launch));
      if (op_class.kind == OpKind::decode_attention) {
        priced.law.wave = like->law.wave;
      }
      break;
    }
  }
  return priced;
}

EngineGaps CalibratedLaws::gaps() const {
  return gaps_ ? *gaps_ : behind_->gaps();
}

std::int64_t CalibratedLaws::n_units() const {
  return sources_.front().calibration.n_compute_units.value_or(behind_->n_units());
}

}  // namespace kvfathom
