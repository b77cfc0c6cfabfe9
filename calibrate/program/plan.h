// What a calibration measures: for each class of kernels, points that tell its law's terms apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "calibrate/cases/case.h"
#include "calibrate/fit/fit.h"
#include "model/latency/law.h"

namespace kvfathom::calibrate {

/// One measurement: a case, and the class whose law it is for.
struct PlannedPoint {
  const bench::KernelBench* kernel = nullptr;
  bench::Request request;
  std::size_t class_index = 0;
  bool held_out = false;                   ///< never fitted: what the law is tested on
  [[nodiscard]] std::string name() const;  ///< "gemm/bf16/m:1/n:4096/k:4096"
};

struct PlannedClass {
  KernelClass id;
  FitTerms terms;
  double p = 1.0;  ///< how far memory and arithmetic overlap
};

struct Plan {
  std::vector<PlannedClass> classes;
  std::vector<PlannedPoint> points;  ///< shuffled, so that drift does not correlate with size
};

struct PlanSettings {
  bench::Place place = bench::Place::cpu;
  int n_threads = 0;
  bool full = false;  ///< all points of a class; else as few as its terms need
  std::uint64_t seed = 1;
  std::string only = {};  ///< classes whose name begins so; empty: all
};

[[nodiscard]] Plan make_plan(const PlanSettings& settings);

}  // namespace kvfathom::calibrate
