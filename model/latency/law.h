// The law that prices one call of a kernel: what it asks, and what the machine takes for it.
//
//     t = t0 + wave waves + ((bytes / bandwidth)^p + (flops / rate)^p + (ops / ops rate)^p)^(1/p)
//
// Pure arithmetic: what a law's parameters are, a calibration says.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "model/ops/op_cost.h"
#include "model/units.h"

namespace kvfathom {

/// What one call asks of the machine. An operation of several launches is one call.
struct Work {
  Bytes bytes = {};          ///< read and written
  Flops flops = {};          ///< 2 per multiply-add
  double dequant_ops = 0.0;  ///< elements turned into the type that is multiplied
  double waves = 0.0;        ///< blocks of work, one after another, on each compute unit
  int launches = 1;          ///< kernels in the call: a law's fixed cost holds all of them
  friend bool operator==(const Work&, const Work&) = default;
};

/// `waves` as waves() counts them.
[[nodiscard]] Work work_of(const OpCost& cost, double waves = 0.0, double dequant_ops = 0.0);

/// Rounds of `n_blocks` independent pieces of work over `n_units` compute units: at least 1.
[[nodiscard]] double waves(std::int64_t n_blocks, std::int64_t n_units);

/// A term that is absent costs nothing: the kernel is not held up by it, or the data could not
/// tell.
struct Law {
  Seconds fixed = {};                            ///< t0 of a call
  std::optional<Seconds> wave = {};              ///< of each wave
  std::optional<BytesPerSecond> bandwidth = {};  ///< achieved, not the peak
  std::optional<FlopsPerSecond> flops = {};      ///< achieved rate
  std::optional<double> dequant_ops_per_s = {};  ///< elements per second
  /// 1: the terms add up; 2.5 to 3: memory and arithmetic overlap, as in a product of matrices;
  /// large: the slowest alone counts.
  double p = 1.0;
  friend bool operator==(const Law&, const Law&) = default;
};

/// Never falls when any part of the work grows.
[[nodiscard]] Seconds time(const Law& law, const Work& work);

/// What holds a call up most: "fixed", "waves", "memory", "arithmetic" or "dequantise".
[[nodiscard]] std::string_view bound_by(const Law& law, const Work& work);

/// Kernels that share a law. As text "decode_attention/bf16/d128/g8": absent parts are left out.
struct KernelClass {
  std::string op;      ///< a folder of kernels/, or a collective ("all_reduce")
  std::string format;  ///< of weights or cache: "bf16", "fp8", "fp8_block", "q4_k"
  std::optional<std::int64_t> head_dim = {};  ///< of a query: d
  /// Query heads that share a KV head (all heads of MLA); ranks of a collective: g.
  std::optional<std::int64_t> group = {};
  std::string variant = {};  ///< "window", "eager", ...; empty: the plain one
  friend bool operator==(const KernelClass&, const KernelClass&) = default;
};

[[nodiscard]] std::string text_of(const KernelClass& id);
/// The inverse; nothing for a text that is no class.
[[nodiscard]] std::optional<KernelClass> kernel_class_named(std::string_view text);

}  // namespace kvfathom
