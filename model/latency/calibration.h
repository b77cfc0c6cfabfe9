// What was measured of one machine: its ceilings, and a fitted law for each class of kernels with
// the errors that it made. data/calibrations holds files of them (model/io/calibration_json.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/latency/law.h"
#include "model/provenance.h"
#include "model/units.h"

namespace kvfathom {

/// Both ends of a 90 % interval, in base units (seconds, bytes per second, ...).
struct Interval {
  double low = 0.0;
  double high = 0.0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

/// Interval of every parameter that the law has and that was fitted.
struct LawIntervals {
  std::optional<Interval> fixed_s = {};
  std::optional<Interval> wave_s = {};
  std::optional<Interval> bandwidth_bytes_per_s = {};
  std::optional<Interval> flops_per_s = {};
  std::optional<Interval> dequant_ops_per_s = {};
  std::optional<Interval> p = {};
  friend bool operator==(const LawIntervals&, const LawIntervals&) = default;
};

/// |predicted / measured - 1| over points that the fit did not see.
struct FitErrors {
  std::int64_t n_points = 0;
  double median = 0.0;
  double mean = 0.0;
  double p90 = 0.0;
  double max = 0.0;
  friend bool operator==(const FitErrors&, const FitErrors&) = default;
};

/// Quantiles of log(measured / predicted): what the interval of a prediction is made of.
struct ResidualQuantiles {
  double q05 = 0.0;
  double q50 = 0.0;
  double q95 = 0.0;
  friend bool operator==(const ResidualQuantiles&, const ResidualQuantiles&) = default;
};

/// What was measured, smallest and largest.
struct WorkRange {
  Interval bytes;
  Interval flops;
  Interval waves;
  friend bool operator==(const WorkRange&, const WorkRange&) = default;
};

struct CalibrationPoint {
  Work work;
  Seconds time;
  friend bool operator==(const CalibrationPoint&, const CalibrationPoint&) = default;
};

struct FittedClass {
  KernelClass id;
  Provenance provenance = Provenance::measured;
  Law law;
  LawIntervals ci90;
  FitErrors loo;                          ///< each point left out in turn, or each tenth of many
  std::optional<FitErrors> holdout = {};  ///< points that the fit never used
  ResidualQuantiles residuals;            ///< of the points left out
  WorkRange range;
  std::int64_t n_points = 0;
  std::string source;                    ///< which kernel, whose table
  std::vector<std::string> notes;        ///< terms that the data could not tell, and the like
  std::vector<CalibrationPoint> points;  ///< kept where this machine was measured
  friend bool operator==(const FittedClass&, const FittedClass&) = default;
};

/// What the machine reaches at best; absent: not measured.
struct Ceilings {
  std::optional<BytesPerSecond> read = {};
  std::optional<BytesPerSecond> copy = {};
  std::map<std::string, FlopsPerSecond> flops;  ///< by number format
  std::optional<BytesPerSecond> host_to_device = {};
  std::optional<Seconds> host_to_device_call = {};
  std::optional<Seconds> launch = {};     ///< of one kernel from the host
  std::optional<Seconds> graph_gap = {};  ///< between kernels of a graph
  friend bool operator==(const Ceilings&, const Ceilings&) = default;
};

/// How this machine was measured: what a later run is compared with.
struct Session {
  std::string utc;        ///< when it began, "2026-11-29T06:46:26Z"
  std::string os_kernel;  ///< "Linux 6.1.0"
  std::string compiler;   ///< of the kernels
  std::string build;      ///< the commit that they were built from
  std::int64_t n_threads = 0;
  std::int64_t seed = 0;  ///< of the order of points
  double duration_s = 0.0;
  std::vector<double> read_bytes_per_s = {};  ///< at the start, in the middle and at the end
  std::vector<std::string> flags = {};        ///< why its times may be off: "busy", "drift"
  friend bool operator==(const Session&, const Session&) = default;
};

struct Calibration {
  std::string device_name;  ///< as its driver says it, "NVIDIA H200"
  std::string device_id;    ///< of the hardware catalog, "h200-sxm"; empty if it has none
  std::optional<std::int64_t> n_compute_units = {};
  std::string engine;  ///< whose kernels: "vllm", "kvfathom"
  std::string engine_version;
  std::string source;
  std::optional<Session> session = {};  ///< of one's own machine
  Ceilings ceilings;
  std::vector<FittedClass> classes;
  friend bool operator==(const Calibration&, const Calibration&) = default;
};

/// The class itself, or nothing.
[[nodiscard]] const FittedClass* find_class(const Calibration& calibration, const KernelClass& id);

/// The class itself or, with the same operation, format and variant, the one whose head dimension,
/// then whose group, is nearest by ratio; nothing where there is none.
[[nodiscard]] const FittedClass* nearest_class(const Calibration& calibration,
                                               const KernelClass& id);

/// How many times as wide as inside of what was measured the interval of a prediction is: once more
/// for each doubling by which its bytes, FLOPs or waves, whichever is farthest, lie outside.
[[nodiscard]] double widening(const WorkRange& range, const Work& work);

}  // namespace kvfathom
