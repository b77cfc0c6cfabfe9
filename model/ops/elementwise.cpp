#include "model/ops/elementwise.h"

namespace kvfathom {

OpCost rms_norm_cost(const RmsNormShape& shape) {
  const auto columns = static_cast<double>(shape.n_columns);
  const double n = static_cast<double>(shape.n_rows) * columns;
  const double passes = shape.adds_residual ? 2.0 : 1.0;
  return OpCost{.read = (passes * n + columns) * shape.element,
                .written = passes * n * shape.element,
                .flops = Flops((shape.adds_residual ? 5.0 : 4.0) * n)};
}

OpCost add_cost(std::int64_t n, Bytes element) {
  const auto count = static_cast<double>(n);
  return OpCost{.read = 2.0 * count * element, .written = count * element, .flops = Flops(count)};
}

OpCost gated_activation_cost(const GatedActivationShape& shape) {
  const double n = static_cast<double>(shape.n_rows) * static_cast<double>(shape.n_columns);
  const double inputs = shape.gated ? 2.0 : 1.0;
  return OpCost{.read = inputs * n * shape.element,
                .written = n * shape.element,
                .flops = Flops((3.0 + inputs) * n)};
}

OpCost sample_cost(std::int64_t n_rows, std::int64_t vocab_size, bool draws, Bytes element) {
  const auto rows = static_cast<double>(n_rows);
  const double n = rows * static_cast<double>(vocab_size);
  constexpr double kTokenBytes = 4.0;
  return OpCost{.read = n * element + Bytes(draws ? kTokenBytes * rows : 0.0),
                .written = Bytes(kTokenBytes * rows),
                .flops = Flops((draws ? 3.0 : 1.0) * n)};
}

}  // namespace kvfathom
