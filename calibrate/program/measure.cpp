#include "calibrate/program/measure.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <set>
#include <vector>

#include "calibrate/cases/rotation.h"
#include "calibrate/timing/device_timer.h"
#include "calibrate/timing/host_timer.h"
#include "kernels/common/parallel.h"
#include "kernels/launch/launch.h"
#include "model/error.h"

namespace kvfathom::calibrate {
namespace {

using bench::Case;
using bench::KernelBench;
using bench::Place;
using bench::Request;

/// Once for each kernel, format and place, at the size that a reference can do.
void require_right(const KernelBench& kernel, const Request& request) {
  static std::set<std::string> right;
  const std::string key = kernel.name + "/" + request.format;
  if (right.contains(key)) {
    return;
  }
  Request tiny = request;
  tiny.shape = kernel.tiny;
  if (!(bench::error_of(*kernel.make_case(tiny).prepare(1), request.place) <= 1.0)) {
    throw MachineError(key, "its result is outside the reference's bound", "nothing was timed");
  }
  right.insert(key);
}

/// A case that computes for long waits little for its inputs: two sets are enough, and many would
/// only cost time, all of them being run twice before the first sample.
int n_sets_for(const Case& c, Place place) {
  constexpr double kLongOnCpu = 1e9;
  const int n_sets = bench::sets_for(c, bench::rotation_bytes(place));
  return place == Place::cpu && c.cost.flops.value() > kLongOnCpu ? std::min(n_sets, 2) : n_sets;
}

Request request_of(const KernelBench& kernel,
                   Place place,
                   int n_threads,
                   const char* format,
                   std::initializer_list<std::pair<const char*, std::int64_t>> dims) {
  Request request{place, format, kernel.shapes.front(), n_threads};
  for (const auto& [dim, value] : dims) {
    request.shape.set(dim, value);
  }
  return request;
}

double bandwidth(Place place, int n_threads, const char* format, const TimerOptions& options) {
  constexpr std::int64_t kSize = std::int64_t{256} << 20;
  const KernelBench& kernel = *bench::kernel_named("bandwidth");
  const Request request = request_of(kernel, place, n_threads, format, {{"bytes", kSize}});
  const OpCost cost = kernel.make_case(request).cost;
  return (cost.read + cost.written).value() / measure(kernel, request, options);
}

FlopsPerSecond product_rate(
    const char* name, Place place, int n_threads, const char* format, const TimerOptions& options) {
  const KernelBench& kernel = *bench::kernel_named(name);
  const Request request =
      request_of(kernel, place, n_threads, format, {{"m", 512}, {"n", 4096}, {"k", 4096}});
  return FlopsPerSecond(kernel.make_case(request).cost.flops.value() /
                        measure(kernel, request, options));
}

}  // namespace

TimerOptions timer_options(bool full) {
  TimerOptions options;
  options.min_samples = full ? 15 : 5;
  options.min_total_s = full ? 0.05 : 0.02;
  options.max_total_s = full ? 1.0 : 0.1;
  options.max_interval = full ? 0.005 : 0.02;
  options.max_drift = full ? 0.01 : 0.05;
  return options;
}

double measure(const KernelBench& kernel, const Request& request, const TimerOptions& options) {
  require_right(kernel, request);
  const Case c = kernel.make_case(request);
  const int n_sets = n_sets_for(c, request.place);
  const auto prepared = c.prepare(n_sets);
  const Timing timing =
      request.place == Place::cpu
          ? time_on_host([&](int set) { prepared->run(set, nullptr); }, n_sets, options)
          : time_on_device([&](int set, bench::Stream stream) { prepared->run(set, stream); },
                           n_sets,
                           options,
                           c.enqueue);
  return timing.median_s;
}

double read_bandwidth(Place place, int n_threads, const TimerOptions& options) {
  return bandwidth(place, n_threads, "read", options);
}

Ceilings measure_ceilings(Place place, int n_threads, const TimerOptions& options) {
  Ceilings ceilings;
  ceilings.read = BytesPerSecond(bandwidth(place, n_threads, "read", options));
  ceilings.copy = BytesPerSecond(bandwidth(place, n_threads, "copy", options));
  ceilings.flops["bf16"] = product_rate("gemm", place, n_threads, "bf16", options);
  const bool on_cpu = place == Place::cpu;
  if (on_cpu) {
    ceilings.flops["f32"] = product_rate("sgemm", place, n_threads, "f32", options);
  }
  const KernelBench& launch = *bench::kernel_named(on_cpu ? "parallel_region" : "launch");
  const auto seconds = [&](const char* format) {
    constexpr std::int64_t kLaunches = 100;
    const Request request = request_of(launch, place, n_threads, format, {{"launches", kLaunches}});
    return Seconds(measure(launch, request, options) / static_cast<double>(kLaunches));
  };
  if (on_cpu) {
    ceilings.launch = seconds("empty");
  } else {
    ceilings.launch = seconds("stream");
    ceilings.graph_gap = seconds("graph");
  }
  return ceilings;
}

std::string busy(int n_threads) {
  constexpr double kMostLoad = 0.3;  // of each core
  constexpr double kMostSpread = 10.0;
  constexpr int kRegions = 500;
  const int threads = kernels::n_threads_or_all(n_threads);
  double load = 0.0;
  std::ifstream("/proc/loadavg") >> load;
  if (load > kMostLoad * threads) {
    return "load " + std::to_string(load).substr(0, 4) + " on " + std::to_string(threads) +
           " threads";
  }
  std::vector<double> times_s;
  for (int i = 0; i < kRegions; ++i) {
    const auto started = std::chrono::steady_clock::now();
    kernels::empty_launch_cpu({.n_launches = 1}, n_threads);
    times_s.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  }
  std::sort(times_s.begin(), times_s.end());
  const double spread = times_s[kRegions * 9 / 10] / times_s[kRegions / 2];
  return spread > kMostSpread
             ? "an empty parallel region takes " + std::to_string(static_cast<int>(spread)) +
                   " times its median, one time in ten"
             : "";
}

}  // namespace kvfathom::calibrate
