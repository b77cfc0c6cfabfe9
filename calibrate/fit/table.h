// Tables of measured kernel latencies (CSV), as points for a fit.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "calibrate/fit/fit.h"
#include "model/hardware/hardware_spec.h"

namespace kvfathom {

/// A CSV table with a header, without quoting.
class Table {
 public:
  /// Reads the file; InputError where a row has not as many fields as the header.
  explicit Table(const std::string& path);

  [[nodiscard]] std::size_t size() const { return rows_.size(); }
  [[nodiscard]] bool has(const char* column) const { return columns_.contains(column); }
  /// InputError for a column that is not there.
  [[nodiscard]] const std::string& text(std::size_t row, const char* column) const;
  [[nodiscard]] double number(std::size_t row, const char* column) const;
  [[nodiscard]] std::int64_t count(std::size_t row, const char* column) const;

 private:
  std::string path_;
  std::map<std::string, std::size_t, std::less<>> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// The points of one class of kernels, and what its law may hold.
struct ClassPoints {
  KernelClass id;
  std::string kernel;  ///< the engine's own name for it
  std::vector<CalibrationPoint> points;
  FitSettings settings;
  /// The fixed cost in the table is the measuring host's, not the kernel's: fitted, then left out.
  bool host_time = false;
};

/// Classes of one table, by its kind ("gemm", "generation_attention", ...). Of several kernels for
/// one class the one with most rows is taken, but for gemm, whose kernels the engine chooses by
/// shape. Empty for a kind that is not fitted.
[[nodiscard]] std::vector<ClassPoints> classes_of(std::string_view kind,
                                                  const Table& table,
                                                  const HardwareSpec& device);

/// Experts with at least one token where loads follow a power law, as the tables' generator draws
/// them: density x^-alpha on [1, 0.8 tokens] (on [0.01, 2] where choices are no more than experts),
/// scaled to tokens x chosen in all and rounded; choices that rounding loses go one by one to the
/// experts with least (aiconfigurator's collector/helper.py). Here the quantiles stand for the
/// draws.
[[nodiscard]] double power_law_active_experts(std::int64_t n_tokens,
                                              std::int64_t n_experts,
                                              std::int64_t n_chosen,
                                              double alpha);

}  // namespace kvfathom
