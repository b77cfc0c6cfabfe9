#include "model/latency/calibrated_laws.h"

#include <algorithm>
#include <utility>

namespace kvfathom {
namespace {

/// Formats by the names that kernels go by: 16-bit floats cost alike, and matrices of 8-bit floats
/// have a scale for each block in the checkpoints that are served (DeepSeek, Qwen3).
std::string kernel_format(DType dtype, OpKind kind) {
  const bool is_product = kind == OpKind::gemm || kind == OpKind::moe_ffn;
  switch (dtype) {
    case DType::f16:
    case DType::bf16:
      return "bf16";
    case DType::f8_e4m3:
    case DType::f8_e5m2:
      return is_product ? "fp8_block" : "fp8";
    default:
      return std::string(name(dtype));
  }
}

bool is_attention(OpKind kind) {
  return kind == OpKind::decode_attention || kind == OpKind::prefill_attention;
}

}  // namespace

KernelClass kernel_class_of(const OpClass& op_class) {
  KernelClass id;
  id.op = name(op_class.kind);
  id.format = kernel_format(op_class.format, op_class.kind);
  if (is_attention(op_class.kind)) {
    id.head_dim = op_class.head_dim;
    id.variant = op_class.window ? "window" : "";
  }
  if (op_class.kind == OpKind::decode_attention || op_class.kind == OpKind::all_reduce ||
      op_class.kind == OpKind::all_to_all) {
    id.group = op_class.heads_per_kv;
  }
  return id;
}

CalibratedLaws::CalibratedLaws(Calibration calibration,
                               Provenance provenance,
                               std::unique_ptr<LawSource> behind,
                               std::optional<EngineGaps> gaps)
    : calibration_(std::move(calibration)),
      provenance_(provenance),
      behind_(std::move(behind)),
      gaps_(gaps),
      origin_(std::string(kvfathom::name(provenance_)) + " kernels of " + calibration_.engine +
              " " + calibration_.engine_version + " on " + calibration_.device_name),
      similar_(origin_ + ", of similar shape") {}

const FittedClass* CalibratedLaws::fitted(const KernelClass& id) const {
  if (const FittedClass* exact = find_class(calibration_, id)) {
    return exact;
  }
  if (const FittedClass* nearest = nearest_class(calibration_, id)) {
    return nearest;
  }
  KernelClass plain = id;
  plain.variant.clear();
  if (plain.format == "fp8_block") {
    plain.format = "fp8";
  } else if (plain.format == name(DType::q4_0)) {
    plain.format = "int4";  // as the kernels of checkpoints call 4-bit integers in groups
  }
  return nearest_class(calibration_, plain);
}

PricedClass CalibratedLaws::law(const OpClass& op_class, bool on_host) const {
  const KernelClass id = kernel_class_of(op_class);
  const FittedClass* found = on_host ? nullptr : fitted(id);
  if (found == nullptr) {
    return behind_->law(op_class, on_host);
  }
  const bool same_shape = found->id.format == id.format && found->id.variant == id.variant &&
                          (!found->id.head_dim || found->id.head_dim == id.head_dim);
  return {.op_class = op_class,
          .on_host = false,
          .law = found->law,
          .launch = {},  // the law's fixed cost is of a whole call
          .log_error = std::max(-found->residuals.q05, found->residuals.q95),
          .range = found->range,
          .provenance = worst(provenance_, found->provenance),
          .origin = same_shape ? origin_ : similar_};
}

EngineGaps CalibratedLaws::gaps() const {
  return gaps_ ? *gaps_ : behind_->gaps();
}

std::int64_t CalibratedLaws::n_units() const {
  return calibration_.n_compute_units.value_or(behind_->n_units());
}

}  // namespace kvfathom
